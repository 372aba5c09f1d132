"""The command line starts light, says no in one way, and ends with the status that it promises."""

import json
import subprocess
import sys

import click
import pytest

from mesh import cli as package
from mesh.cli import COMMANDS, Entry, LazyGroup, run
from mesh.cli.output import Cli, plain
from mesh.codes import CODES, again
from mesh.errors import Refused
from tests.house.tree import files

USAGE = "usage"
HEAVY = ("asyncio", "nats", "sqlite3", "aiosqlite", "anyio", "cedarpy", "rich", "uvloop")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


def test_help_loads_nothing_heavy() -> None:
    done = _python(f"import sys; from mesh.cli import run; run(['--help']); print([name for name in {HEAVY!r} if name in sys.modules])")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "What happened to an intent" in done.stdout


def test_verifying_loads_no_bus_and_no_database() -> None:
    done = _python(
        "import sys; from mesh.cli import run; status = run(['verify', '--no-replay', 'tests/fixtures/proofs/permit/proof.json', '--trust',"
        f" 'tests/fixtures/proofs/permit/roster.json']); print(status, [name for name in {HEAVY[1:]!r} if name in sys.modules])"
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_every_command_that_is_listed_and_there_is_a_command() -> None:
    for entry in COMMANDS.values():
        module, _, attribute = entry.target.partition(":")
        if f"{module.replace('.', '/')}.py" in files():
            assert isinstance(getattr(__import__(module, fromlist=[attribute]), attribute), click.Command), entry


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], f"error[{USAGE}]: No such command 'nonsense'."),
        (["explain", "stale", "more"], f"error[{USAGE}]: Got unexpected extra argument (more)"),
        (["-o", "yaml", "version"], f"error[{USAGE}]: Invalid value for '-o'"),
        (["verify"], f"error[{USAGE}]: Missing argument 'FILE|DIR...'."),
        (["lineage"], "Usage: mesh lineage"),
        ([], "Usage: mesh"),
    ],
)
def test_wrong_use_ends_with_64(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 64
    shown = capsys.readouterr()
    assert shown.err.startswith(said)
    assert shown.out == ""


def _planted(monkeypatch: pytest.MonkeyPatch, work: object) -> None:
    @click.command()
    def planted() -> object:
        if isinstance(work, BaseException):
            raise work
        return work

    monkeypatch.setattr(package, "planted", planted, raising=False)
    monkeypatch.setattr(LazyGroup, "entries", {"planted": Entry("mesh.cli:planted", "")})


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        (Refused("stale", "1 of 3"), 4, ("stale", "1 of 3")),
        (Refused("replay_mismatch"), 5, ("replay_mismatch", "repeating the decision gives another answer")),
        (ModuleNotFoundError("no", name="nats"), 1, ("not_installed", "nats")),
        (ValueError("oops"), 1, ("internal", "ValueError: oops")),
        (KeyboardInterrupt(), 130, None),
        (7, 7, None),
        (None, 0, None),
    ],
)
def test_every_end_has_its_status(
    work: object, status: int, said: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _planted(monkeypatch, work)
    assert run(["planted"]) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[:1] == ([] if said is None else [f"error[{said[0]}]: {said[1]}"])
    assert [line.split()[0] for line in lines[1:]] == ([] if said is None else ["fix:"])


def test_verbose_shows_where_it_happened(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ValueError("oops"), Refused("stale")):
        _planted(monkeypatch, error)
        run(["-v", "planted"])
        assert "Traceback" in capsys.readouterr().err


def test_errors_are_json_where_data_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-o", "json", "explain", "nonsense"]) == 3
    shown = capsys.readouterr()
    assert json.loads(shown.err)["error"]["code"] == "not_found"
    assert shown.out == ""


def test_the_reader_of_our_output_may_leave() -> None:
    command = [sys.executable, "-c", "from mesh.cli import run; import sys; sys.stdin.read(); sys.exit(run(['explain']))"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdin is not None
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == b""
        assert child.wait() == 1


# -------------------------------------------------------------------------------------------------------------------- output


def test_explain_knows_every_code(capsys: pytest.CaptureFixture[str]) -> None:
    for code, entry in CODES.items():
        assert run(["explain", code, "-o", "json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["fix"] == entry.fix
        assert ("does not help" in said["trying again"]) == (again(code) == "no")
    assert run(["explain", "-o", "jsonl"]) == 0
    assert [json.loads(line)["code"] for line in capsys.readouterr().out.splitlines()] == list(CODES)


@pytest.mark.parametrize("before", [True, False])
def test_the_format_may_stand_before_or_after_the_command(*, before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-o", "json", "explain", "stale"] if before else ["explain", "stale", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["code"] == "stale"


def test_a_table_is_plain_text_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Cli().rows(("name", "value"), [{"name": "a", "value": True}, {"name": "long name", "value": None}, {"name": "c", "value": ["x", "y"]}])
    assert capsys.readouterr().out == "name       value\na          yes\nlong name  -\nc          x, y\n"


def test_a_table_for_people_shows_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    cli = Cli()
    cli.color = True
    cli.rows(("name", "value"), [{"name": "[red]a", "value": "x"}])
    assert "[red]a" in capsys.readouterr().out, "what a record says is not markup"


def test_what_a_record_says_cannot_paint_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain("a\x1b[31mb\u202ec\x00") == "a\\x1b[31mb\\u202ec\\x00"
    cli = Cli()
    cli.value({"say": "\x1b]0;title\x07"})
    cli.error("stale", "\x1b[2J", fix="x")
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err


def test_quiet_keeps_data_and_errors_only(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert run(["-q", "key", "gen", f"{tmp_path}/a.key"]) == 0
    assert capsys.readouterr().err == ""
    assert run(["-q", "key", "gen", f"{tmp_path}/a.key"]) == 3
    assert capsys.readouterr().err.startswith("error[key_exists]")


# ---------------------------------------------------------------------------------------------------------------------- meta


def test_a_key_is_made_once_and_shown_without_its_secret(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert run(["key", "gen", f"{tmp_path}/a.key", "--use", "holder", "-o", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert run(["key", "show", f"{tmp_path}/a.key", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == made
    assert made["use"] == "holder"


def test_every_kind_has_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "-o", "jsonl"]) == 0
    kinds = [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
    assert {"statement/intent", "record/decision", "proof-bundle"} <= set(kinds)
    for kind in kinds:
        assert run(["schema", kind]) == 0
        assert json.loads(capsys.readouterr().out)["$schema"]
    for kind, title in (("intent", "intent"), ("outcome", "outcome"), ("LineageBatch", "LineageBatch")):
        assert run(["schema", kind]) == 0
        assert json.loads(capsys.readouterr().out)["title"] == title
    assert run(["schema", "nonsense"]) == 3


def test_the_version_is_that_of_the_distribution(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name} 9")
    assert run(["version", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"govmesh": "govmesh 9"}
