"""Files that people write: everything wrong is said at once, with what was probably meant; nothing waits, nothing is too large."""

import os
from pathlib import Path

import msgspec
import pytest

from mesh.adapters.configfile import Located, load_located, load_toml, parse_toml
from mesh.adapters.trustfiles import read_bounded
from mesh.cli import run
from mesh.errors import Refused


class _Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    quorum: int
    names: list[str] = []


class _Outer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    title: str
    inner: _Inner
    many: dict[str, _Inner] = {}


def test_a_good_file_is_read() -> None:
    text = 'title = "x"\n[inner]\nquorum = 3\n[many.a]\nquorum = 1\n'
    assert parse_toml(_Outer, text, name="n") == _Outer(title="x", inner=_Inner(quorum=3), many={"a": _Inner(quorum=1)})


def test_all_that_is_wrong_is_said_at_once_with_what_was_meant() -> None:
    text = 'titel = "x"\n[inner]\nquorm = 3\nnames = [1]\n[many.a]\nquorum = "one"\n[many.b]\nquorum = 1\nmore = 2\n'
    with pytest.raises(Refused) as refused:
        parse_toml(_Outer, text, name="node.toml")
    assert refused.value.code == "config_invalid"
    said = refused.value.detail
    for wanted in (
        "node.toml", "titel (did you mean title?)", "missing key title", "inner.quorm (did you mean quorum?)", "missing key inner.quorum",
        "inner.names", "many.a.quorum", "unknown key many.b.more",
    ):  # fmt: skip
        assert wanted in said, said


@pytest.mark.parametrize("text", ["= broken", "inner = 3", 'title = "x"\ninner = []'])
def test_what_is_no_toml_or_no_table_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_toml(_Outer, text, name="n")
    assert refused.value.code == "config_invalid"


def test_a_missing_or_unreadable_file_is_refused_in_words_that_people_know(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"title = '\xe9'")
    for name, why in (("none.toml", "No such file or directory"), ("latin.toml", "not UTF-8 at byte 9"), ("", "Is a directory")):
        with pytest.raises(Refused) as refused:
            load_toml(_Outer, tmp_path / name)
        assert (refused.value.code, refused.value.detail) == ("config_invalid", f"{tmp_path / name}: {why}")


def test_a_file_at_its_limit_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 10)
    assert read_bounded(path, 10) == b"x" * 10
    with pytest.raises(Refused) as refused:
        read_bounded(path, 9)
    assert refused.value.code == "too_large"


def test_a_pipe_in_the_place_of_a_file_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none"):
        with pytest.raises(Refused) as refused:
            read_bounded(path, 10)
        assert refused.value.code == "config_invalid"


@pytest.mark.parametrize("wrong", ["=x", "", "NOT_SET_ANYWHERE_HERE"])
def test_a_variable_that_cannot_be_given_is_refused_before_anything_is_asked(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--as", "x", "--action", "ops/run", "--env", wrong, "--", "/bin/true"]) == 3
    assert "error[usage]" in capsys.readouterr().err


def test_a_file_knows_where_it_stands_and_cannot_say_otherwise(tmp_path: Path) -> None:
    class Small(Located, frozen=True, kw_only=True, forbid_unknown_fields=True):
        keys: str

    file = tmp_path / "small.toml"
    file.write_text('keys = "there"\n')
    assert (found := load_located(Small, file)).path(found.keys) == tmp_path / "there"
    file.write_text('keys = "there"\nbase = "/elsewhere"\n')
    with pytest.raises(Refused) as refused:
        load_located(Small, file)
    assert (refused.value.code, refused.value.detail) == ("config_invalid", f"{file}: unknown key base")
