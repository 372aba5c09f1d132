"""A page is handed out only of what verifies, and `mesh verify` judges what a page carries, never what it shows."""

import json
from pathlib import Path

import pytest

from mesh.limits import PROOF_PAGE_BYTES_MAX
from mesh.page.render import inside, render
from tests.cli.shell import Shell


@pytest.fixture
def roster(shell: Shell, tmp_path: Path) -> str:
    path = tmp_path / "roster.json"
    path.write_bytes(shell.story.lab.roster_envelope)
    return str(path)


def test_a_page_is_written_and_read_back(shell: Shell, tmp_path: Path, roster: str) -> None:
    page = tmp_path / "proof.html"
    status, out, err = shell.run("prove", shell.story.permitted, "--format", "html", "-o", str(page))
    assert (status, out) == (0, "")
    assert f"#pin={shell.story.lab.pin}" in err
    assert inside(page.read_bytes()) == (shell.run("prove", shell.story.permitted)[1].encode(), True)
    status, out, err = shell.run("verify", str(page), "--trust", roster, "--pin", shell.story.lab.pin)
    assert (status, out.split()[0], err) == (0, "VERIFIED", "")


def test_of_a_page_with_another_program_the_bundle_is_judged_and_the_rest_is_called_what_it_is(
    shell: Shell, tmp_path: Path, roster: str
) -> None:
    page, proof = tmp_path / "proof.html", shell.story.proof(shell.story.permitted)
    page.write_bytes(render(proof, shell.story.lab.roster_envelope).replace(b'"FAILED"', b'"VERIFIED"'))
    status, out, err = shell.run("verify", str(page), "--trust", roster)
    assert (status, out.split()[0]) == (0, "VERIFIED")
    assert "not as this version writes pages" in err
    page.write_bytes(render(proof.replace(b'"effect":"permit"', b'"effect":"deny"'), shell.story.lab.roster_envelope))
    assert shell.run("verify", str(page), "--trust", roster)[0] == 5


def test_a_page_without_a_bundle_or_with_too_large_a_one_is_unreadable(shell: Shell, tmp_path: Path, roster: str) -> None:
    page = tmp_path / "proof.html"
    large = render(b"b" * 8_000_001, b"")
    for data, code in (
        (b"<!doctype html>\n<p>VERIFIED", "malformed"),
        (large, "too_large"),
        (b"x" * (PROOF_PAGE_BYTES_MAX + 1), "too_large"),
    ):
        page.write_bytes(data)
        status, out, _ = shell.run("verify", "-o", "json", str(page), "--trust", roster)
        assert (status, json.loads(out)[0]["code"]) == (3, code)
