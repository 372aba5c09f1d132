"""What was measured is what runs."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import blake3
import psutil  # type: ignore[import-untyped]
import pytest

from mesh.adapters import exec as module
from mesh.adapters.exec import Exit, Measured, measure, run
from mesh.errors import Refused

ROOT = Path(module.__file__).parents[2]
PATH = "/usr/local/bin:/usr/bin:/bin"
PARENT = """
import asyncio, sys
from mesh.adapters.exec import measure, run
def out(_stream, chunk):
    print(chunk.decode(), end="", flush=True)
async def main():
    with measure("sh", "/usr/bin:/bin") as program:
        await run(program, ["sh", "-c", "echo $$; exec sleep 300"], "/", {"PATH": "/usr/bin:/bin"}, on_output=out)
asyncio.run(main())
"""


class Collected:
    """What a program wrote."""

    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""

    def __call__(self, stream: str, chunk: bytes) -> None:
        setattr(self, stream, getattr(self, stream) + chunk)


def digest(data: bytes) -> str:
    return f"blake3:{blake3.blake3(data).hexdigest()}"


def program(tmp_path: Path, text: str | bytes, name: str = "prog", mode: int = 0o755) -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def why_not(name: str, search_path: str = PATH) -> str:
    before = handles()
    with pytest.raises(Refused) as no:
        measure(name, search_path)
    assert no.value.code == "exec_failed"
    assert handles() == before
    return no.value.detail


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def start(measured: Measured, argv: Sequence[str], cwd: str = "/", out: Collected | None = None, grace_ms: int = 2_000) -> Exit:
    return await run(measured, argv, cwd, {"PATH": PATH}, on_output=out or Collected(), grace_ms=grace_ms)


async def sh(script: str, out: Collected | None = None, grace_ms: int = 2_000) -> Exit:
    with measure("sh", PATH) as shell:
        return await start(shell, ["sh", "-c", script], out=out, grace_ms=grace_ms)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for happens in another process
            await asyncio.sleep(0.01)


# --------------------------------------------------------------------------------------------------------------- measuring


def test_a_program_is_measured_by_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with measure(program(tmp_path, data), "") as measured:
        assert [(m.name, m.digest) for m in measured.measurements] == [("executable", digest(data))]
        assert measured.path == str(tmp_path / "prog")


def test_a_script_is_two_measurements(tmp_path: Path) -> None:
    text = "#!/bin/sh -e\nexit 3\n"
    with measure(program(tmp_path, text), "") as measured:
        assert [(m.name, m.digest) for m in measured.measurements] == [
            ("interpreter", digest(Path("/bin/sh").read_bytes())),
            ("script", digest(text.encode())),
        ]
        assert measured.argv(["name", "a", "b"]) == ["/bin/sh", "-e", f"/dev/fd/{measured.script}", "a", "b"]


def test_with_env_the_interpreter_is_what_env_would_find(tmp_path: Path) -> None:
    own = tmp_path / "bin"
    own.mkdir()
    interpreter = Path("/bin/sh").read_bytes()
    program(own, interpreter, "mysh")
    script = program(tmp_path, "#!/usr/bin/env mysh\nexit 3\n")
    with measure(script, f"{own}:{PATH}") as measured:
        assert measured.measurements[0].digest == digest(interpreter)
        assert measured.argv(["x", "a"])[0] == str(own / "mysh")
    assert "mysh" in why_not(script, PATH)


def test_a_name_is_looked_up_in_the_search_path_and_never_in_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("first", "second", "here"):
        (tmp_path / folder).mkdir()
    program(tmp_path / "first", "not executable", "tool", mode=0o644)
    (tmp_path / "second" / "tool").mkdir()
    program(tmp_path / "here", b"\x7fELF", "tool")
    monkeypatch.chdir(tmp_path / "here")
    assert "not an executable" in why_not("tool", f":{tmp_path / 'first'}:{tmp_path / 'second'}:")
    with measure("tool", f"{tmp_path / 'first'}:{tmp_path / 'here'}") as measured:
        assert measured.path == str(tmp_path / "here" / "tool")
    with measure("./tool", "") as measured:
        assert measured.measurements[0].digest == digest(b"\x7fELF")


def test_what_cannot_be_run_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o700)
    for name in ("/", "/etc/passwd", str(tmp_path / "missing"), str(tmp_path / "pipe"), "no-such-tool", "nul\0/x", "/dev/null"):
        why_not(name)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("#!/usr/bin/env -S sh -e\n", "env NAME"),
        ("#!/usr/bin/env\n", "env NAME"),
        ("#!/usr/bin/env A=b sh\n", "env NAME"),
        ("#!/usr/bin/env ./sh\n", "env NAME"),
        ("#!sh\n", "absolute"),
        ("#!\n", "absolute"),
        ("#!/no/such/sh\n", "No such file"),
        ("#!/bin/" + "x" * 300 + "\n", "too long"),
    ],
)
def test_an_interpreter_that_cannot_be_measured_is_refused(tmp_path: Path, line: str, reason: str) -> None:
    assert reason in why_not(program(tmp_path, line))


def test_an_interpreter_that_is_a_script_is_refused(tmp_path: Path) -> None:
    inner = program(tmp_path, "#!/bin/sh\n", "inner")
    assert "is a script" in why_not(program(tmp_path, f"#!{inner}\n"))


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_a_set_uid_program_is_refused(tmp_path: Path, mode: int) -> None:
    assert "set-uid" in why_not(program(tmp_path, b"\x7fELF", mode=mode))


def test_a_file_that_changes_while_it_is_measured_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(program(tmp_path, bytes(3_000_000)))
    real = os.pread

    def writing(handle: int, size: int, offset: int) -> bytes:
        if offset == 1 << 20:
            with path.open("r+b") as file:
                file.write(b"x")
        return real(handle, size, offset)

    monkeypatch.setattr(os, "pread", writing)
    assert "changed" in why_not(str(path))


def test_a_disk_that_fails_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, b"\x7fELF")

    def failing(_handle: int, _size: int, _offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", failing)
    assert "Input/output error" in why_not(path)


# ----------------------------------------------------------------------------------------------------------------- running


async def test_output_passes_through_and_its_digests_and_the_status_come_back() -> None:
    out = Collected()
    ended = await sh("printf out; printf err >&2; exit 3", out)
    assert (out.stdout, out.stderr) == (b"out", b"err")
    assert (ended.status, ended.signal) == (3, 0)
    assert [(m.name, m.digest) for m in ended.outputs] == [("stdout", digest(b"out")), ("stderr", digest(b"err"))]


async def test_much_output_is_complete() -> None:
    out = Collected()
    ended = await sh("head -c 5000000 /dev/zero; head -c 300000 /dev/zero >&2", out)
    assert (len(out.stdout), len(out.stderr)) == (5_000_000, 300_000)
    assert ended.outputs[0].digest == digest(bytes(5_000_000))


async def test_a_program_that_a_signal_ended_says_which() -> None:
    ended = await sh("kill -USR1 $$")
    assert (ended.status, ended.signal) == (128 + signal.SIGUSR1, signal.SIGUSR1)


async def test_arguments_folder_and_environment_are_exactly_those_given(tmp_path: Path) -> None:
    out = Collected()
    with measure("sh", PATH) as shell:
        argv = ["other-name", "-c", 'printf "%s|" "$0" "$@"; pwd; env -0', "zero", "a b", "$HOME;`id`", ""]
        await run(shell, argv, str(tmp_path), {"PATH": PATH, "ONE": "x\ny"}, on_output=out)
    text, _, environment = out.stdout.partition(b"\n")
    assert text == b"zero|a b|$HOME;`id`||" + str(tmp_path).encode()
    assert {line for line in environment.split(b"\0") if not line.startswith((b"PWD=", b"_=", b"SHLVL=", b"OLDPWD="))} == {
        b"",
        b"ONE=x\ny",
        b"PATH=" + PATH.encode(),
    }


async def test_a_script_runs_with_its_interpreter_argument_and_arguments(tmp_path: Path) -> None:
    out = Collected()
    with measure(program(tmp_path, "#!/bin/sh -u\nprintf '%s|' \"$@\"\necho $unset_variable\n"), PATH) as script:
        ended = await start(script, ["prog", "a", "b"], out=out)
    assert out.stdout == b"a|b|"
    assert ended.status != 0
    out = Collected()
    with measure(program(tmp_path, "#!/usr/bin/env python3\nimport sys; print(sys.argv[1:])\n", "py"), PATH) as script:
        assert (await start(script, ["py", "a"], out=out)).status == 0
    assert out.stdout == b"['a']\n"


async def test_what_was_measured_runs_although_the_name_was_given_to_something_else(tmp_path: Path) -> None:
    for text, other in (("#!/bin/sh\necho measured\n", "#!/bin/sh\necho exchanged\n"), (Path("/bin/sh").read_bytes(), b"\x7fELF")):
        path = program(tmp_path, text)
        with measure(path, PATH) as measured:
            Path(path).unlink()
            program(tmp_path, other)
            out = Collected()
            await start(measured, ["sh", "-c", "echo measured"], out=out)
            assert out.stdout == b"measured\n"


async def test_the_program_inherits_nothing_of_ours_but_its_script(tmp_path: Path) -> None:
    own = os.open("/etc/passwd", os.O_RDONLY)
    out = Collected()
    with measure("ls", PATH) as ls:
        await start(ls, ["ls", "/proc/self/fd"], out=out)
    os.close(own)
    assert out.stdout.split() == [b"0", b"1", b"2", b"3"], "the last is the folder that ls reads"


async def test_a_program_can_be_given_input() -> None:
    read, write = os.pipe()
    os.write(write, b"hello")
    os.close(write)
    out = Collected()
    with measure("cat", PATH) as cat:
        await run(cat, ["cat"], "/", {}, on_output=out, stdin=read)
        os.close(read)
        assert out.stdout == b"hello"
        out = Collected()
        await run(cat, ["cat"], "/", {}, on_output=out)
        assert out.stdout == b""


async def test_what_cannot_be_started_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    before = handles()
    with measure(program(tmp_path, "no program at all\n"), PATH) as garbage:
        with pytest.raises(Refused) as no:
            await start(garbage, ["x"])
        assert no.value.code == "exec_failed"
        assert "format" in no.value.detail
    with measure("sh", PATH) as shell:
        for argv, cwd in ((["sh"], str(tmp_path / "missing")), (["s\0h"], "/")):
            with pytest.raises(Refused) as no:
                await start(shell, argv, cwd)
            assert no.value.code == "exec_failed"
    assert handles() == before


async def test_no_descriptor_and_no_child_is_left_behind() -> None:
    before, children = handles(), len(psutil.Process().children())
    for _ in range(5):
        await sh("exit 0")
    assert handles() == before
    assert len(psutil.Process().children()) == children, "zombies count"


async def test_cancelling_ends_the_whole_group() -> None:
    for native in (False, True):
        out = Collected()
        task = asyncio.create_task(sh("sleep 300 & echo $!; sleep 300 & echo $!; wait", out))
        await until(lambda: out.stdout.count(b"\n") == 2)  # noqa: B023 -- waited for here
        pids = [int(word) for word in out.stdout.split()]
        started = time.monotonic()
        if native:
            task.cancel()
        else:
            with anyio.move_on_after(0.01):
                await task
        await asyncio.wait({task})
        assert task.cancelled()
        await until(lambda: not any(alive(pid) for pid in pids))  # noqa: B023 -- as above
        assert time.monotonic() - started < 1.5


async def test_who_ignores_being_asked_is_killed_after_the_grace() -> None:
    out = Collected()
    task = asyncio.create_task(sh("trap '' TERM; echo $$; while :; do sleep 300; done", out, grace_ms=200))
    await until(lambda: b"\n" in out.stdout)
    task.cancel()
    started = time.monotonic()
    await asyncio.wait({task})
    assert 0.15 < time.monotonic() - started < 3
    assert not alive(int(out.stdout))


async def test_who_is_asked_to_end_has_the_grace_for_its_last_words() -> None:
    """Also in a scope of anyio, which cancels every wait inside it."""
    out = Collected()
    with anyio.CancelScope() as scope:

        def receive(stream: str, chunk: bytes) -> None:
            out(stream, chunk)
            scope.cancel()

        with measure("sh", PATH) as shell:
            script = "trap 'sleep 0.2; echo bye; exit' TERM; echo up; while :; do sleep 0.01; done"
            await run(shell, ["sh", "-c", script], "/", {"PATH": PATH}, on_output=receive)
    assert scope.cancelled_caught
    assert out.stdout == b"up\nbye\n"


async def test_a_second_cancellation_ends_the_grace() -> None:
    out = Collected()
    task = asyncio.create_task(sh("trap '' TERM; echo $$; while :; do sleep 300; done", out, grace_ms=60_000))
    await until(lambda: b"\n" in out.stdout)
    task.cancel()
    await asyncio.sleep(0.05)
    task.cancel()
    with anyio.fail_after(3):
        await asyncio.wait({task})
    assert not alive(int(out.stdout))


async def test_what_a_program_leaves_running_ends_with_it() -> None:
    out = Collected()
    with anyio.fail_after(3):
        await sh("sleep 300 & echo $!", out, grace_ms=60_000)
    await until(lambda: not alive(int(out.stdout)))


async def test_a_child_that_left_the_group_keeps_nobody_waiting_for_ever() -> None:
    out = Collected()
    with anyio.fail_after(5):
        ended = await sh("setsid sh -c 'echo $$; exec sleep 300' & sleep 0.2; echo done", out, grace_ms=200)
    left, word = out.stdout.split()
    os.kill(int(left), signal.SIGKILL)
    assert (word, ended.status) == (b"done", 0)


async def test_a_program_that_closes_its_output_is_still_waited_for() -> None:
    started = time.monotonic()
    ended = await sh("exec >&- 2>&-; sleep 0.3; exit 4")
    assert ended.status == 4
    assert time.monotonic() - started >= 0.3


async def test_a_receiver_that_raises_ends_the_program() -> None:
    def receiver(_stream: str, chunk: bytes) -> None:
        raise BrokenPipeError(chunk.decode())

    with measure("sh", PATH) as shell, anyio.fail_after(3), pytest.raises(BrokenPipeError) as error:
        await run(shell, ["sh", "-c", "echo $$; exec sleep 300"], "/", {"PATH": PATH}, on_output=receiver)
    assert not alive(int(str(error.value)))


async def test_without_a_pidfd_the_end_is_still_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_pid: int) -> int:
        raise PermissionError(1, "seccomp")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    with anyio.fail_after(5):
        assert (await sh("sleep 0.1; exit 6")).status == 6


def test_the_program_dies_with_us_even_when_we_are_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    end = time.monotonic() + 5
    while alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(child)


def test_a_run_in_another_thread_is_refused() -> None:
    seen: list[str] = []

    def elsewhere() -> None:
        try:
            asyncio.run(sh("exit 0"))
        except Refused as no:
            seen.append(no.code)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == ["exec_failed"]
