"""The tree is what ARCHITECTURE draws, and no file says more than it should."""

import re

import pytest

from tests.house.tree import ROOT, files, text

TOP = {
    ".ci", ".editorconfig", ".gitattributes", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
    "SECURITY.md", "compose", "docs", "mesh", "nodes", "pyproject.toml", "requirements", "schemas", "tests",
}  # fmt: skip
SHELVES = ("nodes", "schemas", "compose")

# Spelled so that this file does not match itself.
FORBIDDEN = {
    "a path of somebody's machine": r"/wor[k]/(?:main|shared)|/op[t]/(?:venv|pypi|wheels)|/hom[e]/\w+|/roo[t]/|/tm[p]/",
    "the address of a package registry": r"py[p]i\.org|python[h]osted|registry\.np[m]js|--(?:extra-)?inde[x]-url[ =]|--find-link[s][ =]",
    "unfinished work": r"\bTOD[O]\b|\bFIXM[E]\b|\bXX[X]\b",
    "the number of an issue": r"\b[Ii]ssue #?\d",
}
LINK = re.compile(r"\[[^\]\n]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def test_the_top_level_holds_nothing_else() -> None:
    assert {path.split("/")[0] for path in files()} <= TOP


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_shelf_holds_no_python(shelf: str) -> None:
    # A top-level package called `schemas` or `nodes` would shadow the modules of whoever works in a checkout.
    assert not [path for path in files(f"{shelf}/**") if path.endswith((".py", ".pyi"))]


@pytest.mark.parametrize("what", sorted(FORBIDDEN))
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in files()
        if path != "LICENSE"
        for number, line in enumerate(text(path).splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_every_relative_link_leads_somewhere() -> None:
    dead = [
        f"{path}: {target}"
        for path in files()
        if path.endswith(".md")
        for target in LINK.findall(FENCE.sub("", text(path)))
        if not re.match(r"[a-z]+:|#", target) and not ((ROOT / path).parent / target.split("#")[0]).exists()
    ]
    assert not dead, "\n".join(dead)


def test_every_decision_has_its_four_parts() -> None:
    pages = [path for path in files("docs/decisions/**") if re.search(r"/\d{4}-[a-z0-9-]+\.md$", path)]
    assert pages
    for number, path in enumerate(pages, 1):
        assert path.split("/")[-1].startswith(f"{number:04}-"), f"{path}: numbers are dense"
        headings = re.findall(r"^## (.+)$", text(path), re.MULTILINE)
        assert headings == ["Context", "Decision", "What we gave up", "How we would know it was wrong"], path


def test_every_claim_names_code_and_a_test_that_exist() -> None:
    page = "docs/CLAIMS.md"
    if page not in files():
        return  # written with the first promise; from then on every row counts
    rows = [line.strip().strip("|").split("|") for line in text(page).splitlines() if line.lstrip().startswith("|")]
    rows = [row for row in rows[1:] if not set("".join(row)) <= set(":- ")]
    assert rows, "the table is empty"
    for row in rows:
        claim, code, proof = (cell.strip() for cell in row[:3])
        for cell, folder in ((code, "mesh/"), (proof, "tests/")):
            named = re.findall(rf"`({folder}[\w./-]+)(?:::(\w+))?`", cell)
            assert named, f"{claim!r} names nothing below {folder}"
            for path, name in named:
                assert (ROOT / path).exists(), f"{claim!r}: no {path}"
                assert not name or re.search(rf"\b(?:def|class) {name}\b", text(path)), f"{claim!r}: no {name} in {path}"
