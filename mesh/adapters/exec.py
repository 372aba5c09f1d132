"""What was measured is what runs: a program is opened once, hashed through that descriptor, and executed through it (PROTOCOL 5).

Rules
-----
1. Measuring opens the file, hashes it with BLAKE3, and asks for its state before and after; a file that changed meanwhile is
   refused. Exchanging the *name* afterwards changes nothing, for nobody looks at the name again.
2. A script is two measurements, ``interpreter`` and ``script``. The interpreter is executed through its own descriptor and
   reads the script through the script's. ``#!/usr/bin/env NAME`` means the NAME of the search path, which is measured, not env.
3. Arguments, folder and environment are exactly those given; there is no shell. A set-uid program is refused: it would run
   as somebody else, and the kernel would let it outlive us.
4. The program leads a process group of its own. When it ends, or the caller is cancelled, the group ends: first asked, after
   a grace killed. It dies with us even after ``kill -9`` (:mod:`mesh.adapters.launcher`); what it
   started itself does not: nobody is left to end that.
5. Output passes through while it is hashed; the digests cover exactly what was passed on.

What remains: a write into the very file between measuring and executing (a sealed memfd is the remedy where policy asks for
it), shared libraries and whatever else the program opens by itself, and children that leave the process group.

A script sees itself as ``/dev/fd/N``; one that looks for files beside itself does not find them.
"""

import asyncio
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self

import anyio
import blake3
import msgspec

from mesh.adapters import launcher
from mesh.core.run.intent import Measurement
from mesh.errors import Refused

__all__ = ["Exit", "Measured", "Output", "measure", "run"]

_CHUNK_BYTES: Final = 1 << 20
_PIPE_BYTES: Final = 1 << 16
_LINE_BYTES: Final = 256
"""What the kernel reads of a ``#!`` line."""
_POLL_S: Final = 0.02

Output = Callable[[Literal["stdout", "stderr"], bytes], None]
"""Gets what the program writes, as it comes; must not wait."""


class Exit(msgspec.Struct, frozen=True):
    """How a program ended."""

    status: int
    """0 to 255; 128 + the signal for one that was killed, as shells say it."""
    signal: int
    """What killed it; 0 for one that ended by itself."""
    outputs: tuple[Measurement, Measurement]
    """BLAKE3 of all that it wrote to stdout and stderr."""


class Measured:
    """A program that was opened and hashed, until it is closed; also a context manager that closes it."""

    def __init__(self, path: str, program: int, measurements: tuple[Measurement, ...], script: int, before: tuple[str, ...]) -> None:
        self.path = path
        """Where it was found; for people."""
        self.measurements = measurements
        """``executable``, or ``interpreter`` and ``script``."""
        self.program = program
        """The descriptor that is executed."""
        self.script = script
        """The descriptor that the interpreter reads; -1 when there is none."""
        self._before = before

    def argv(self, argv: Sequence[str]) -> list[str]:
        """What the kernel is given for ``argv``, whose first element is the program's own name."""
        return list(argv) if self.script < 0 else [*self._before, f"/dev/fd/{self.script}", *argv[1:]]

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        for handle in (self.program, self.script):
            if handle >= 0:
                os.close(handle)
        self.program = self.script = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def measure(program: str, search_path: str) -> Measured:
    """Open and hash ``program``. Reads the whole file: run it in a thread where that may matter.

    Args:
        program: a path when it has a slash in it, else a name to look up.
        search_path: folders as in PATH; empty ones, which would mean the present folder, are passed over.

    Raises:
        Refused: ``exec_failed``.
    """
    path, opened = _open(program, search_path)
    handles = [opened]
    try:
        line = _hash_bang(path, opened)
        if line is None:
            return Measured(path, opened, (_measurement("executable", path, opened),), -1, ())
        name, argument = _interpreter(path, line)
        found, interpreter = _open(name, search_path)
        handles.append(interpreter)
        if _hash_bang(found, interpreter) is not None:
            raise Refused("exec_failed", f"{path}: its interpreter is a script")
        both = (_measurement("interpreter", found, interpreter), _measurement("script", path, opened))
        return Measured(path, interpreter, both, opened, (found, *argument))
    except BaseException as error:
        for handle in handles:
            os.close(handle)
        if isinstance(error, OSError):
            raise Refused("exec_failed", f"{path}: {error.strerror}") from None
        raise


async def run(
    measured: Measured,
    argv: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    *,
    on_output: Output,
    stdin: int = subprocess.DEVNULL,
    grace_ms: int = 5_000,
) -> Exit:
    """Run it to its end. On the main thread only.

    Args:
        measured: what to run; stays open.
        argv: the arguments, the program's own name first.
        cwd: the folder it starts in.
        env: its whole environment.
        on_output: gets its output; what it raises ends the program and comes out here.
        stdin: a descriptor, or one of subprocess's constants.
        grace_ms: between asking a group to end and killing it, and how long output may come after the program's end.

    Raises:
        Refused: ``exec_failed`` when it could not be started.
    """
    launcher.require_main_thread()
    program = _Program(grace_ms / 1000, on_output)
    try:
        await program.start(measured, argv, cwd, env, stdin)
        await program.watch()
    finally:
        status = await program.end()
    killed = -status if status < 0 else 0
    return Exit(128 + killed if killed else status, killed, (program.pumps[0].measurement(), program.pumps[1].measurement()))


# --------------------------------------------------------------------------------------------------------------- measuring


def _open(program: str, search_path: str) -> tuple[str, int]:
    places = [program] if "/" in program else [f"{folder}/{program}" for folder in search_path.split(":") if folder]
    reason = "not found"
    for path in places:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not keep us waiting
        except (OSError, ValueError) as error:
            reason = error.strerror or reason if isinstance(error, OSError) else "not a path"
            continue
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or not os.access(f"/dev/fd/{handle}", os.X_OK):
            reason = "not an executable file"
        elif status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            reason = "a set-uid program"
        else:
            return path, handle
        os.close(handle)
    raise Refused("exec_failed", f"{program}: {reason}")


def _hash_bang(path: str, handle: int) -> bytes | None:
    head = os.pread(handle, _LINE_BYTES, 0)
    if not head.startswith(b"#!"):
        return None
    line, newline, _ = head[2:].partition(b"\n")
    if not newline and len(head) == _LINE_BYTES:
        raise Refused("exec_failed", f"{path}: its first line is too long")
    return line.strip(b" \t")


def _interpreter(path: str, line: bytes) -> tuple[str, tuple[str, ...]]:
    """The interpreter, a path or a name to look up, and its one argument if it has one, as the kernel would split the line."""
    word, _, argument = os.fsdecode(line).replace("\t", " ").partition(" ")
    argument = argument.strip()
    if word.rsplit("/", 1)[-1] == "env":
        if not argument or " " in argument or "=" in argument or "/" in argument or argument.startswith("-"):
            raise Refused("exec_failed", f"{path}: only #!/usr/bin/env NAME can be measured")
        return argument, ()
    if not word.startswith("/"):
        raise Refused("exec_failed", f"{path}: its interpreter has no absolute path")
    return word, (argument,) if argument else ()


def _measurement(name: str, path: str, handle: int) -> Measurement:
    before, hasher, offset = _state(handle), blake3.blake3(), 0
    while chunk := os.pread(handle, _CHUNK_BYTES, offset):
        hasher.update(chunk)
        offset += len(chunk)
    if _state(handle) != before or offset != before[2]:
        raise Refused("exec_failed", f"{path}: it changed while it was measured")
    return Measurement(name=name, digest=f"blake3:{hasher.hexdigest()}")


def _state(handle: int) -> tuple[int, int, int, int, int]:
    status = os.fstat(handle)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


# ----------------------------------------------------------------------------------------------------------------- running


class _Pump:
    """Passes on what comes through one pipe, and hashes it."""

    def __init__(self, name: Literal["stdout", "stderr"], on_output: Output) -> None:
        self._name: Literal["stdout", "stderr"] = name
        self._on_output = on_output
        self._hasher = blake3.blake3()
        self._loop = asyncio.get_running_loop()
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)
        self.done: asyncio.Future[None] = self._loop.create_future()
        """At the end of the output, or with what ``on_output`` raised."""
        self._loop.add_reader(self._read, self._ready)

    def measurement(self) -> Measurement:
        """All that was passed on."""
        return Measurement(name=self._name, digest=f"blake3:{self._hasher.hexdigest()}")

    def close_write(self) -> None:
        """The program has its own copy."""
        if self.write >= 0:
            os.close(self.write)
            self.write = -1

    def close(self) -> None:
        """Take no more."""
        self.close_write()
        if self._read >= 0:
            self._loop.remove_reader(self._read)
            os.close(self._read)
            self._read = -1
        if not self.done.done():
            self.done.set_result(None)
        elif not self.done.cancelled():
            self.done.exception()  # it was raised once already, or something else was

    def _ready(self) -> None:
        try:
            chunk = os.read(self._read, _PIPE_BYTES)
        except BlockingIOError:
            return
        try:
            if chunk:
                self._on_output(self._name, chunk)
                self._hasher.update(chunk)
                return
            self.done.set_result(None)
        except Exception as error:  # noqa: BLE001 -- whatever it was, it comes out of run()
            self.done.set_exception(error)
        self._loop.remove_reader(self._read)


class _Program:
    """One run, from the first pipe to the last."""

    def __init__(self, grace_s: float, on_output: Output) -> None:
        self._grace_s = grace_s
        self._on_output = on_output
        self._process: subprocess.Popen[bytes] | None = None
        self._exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pidfd = -1
        self.pumps: list[_Pump] = []

    async def start(self, measured: Measured, argv: Sequence[str], cwd: str, env: Mapping[str, str], stdin: int) -> None:
        """Start it and wait until it runs, or is known not to."""
        try:
            self.pumps += [_Pump("stdout", self._on_output)]
            self.pumps += [_Pump("stderr", self._on_output)]
            read, report = os.pipe()
        except OSError as error:
            raise Refused("exec_failed", f"{measured.path}: {error.strerror}") from None
        try:
            try:
                self._process = self._popen(measured, argv, cwd, env, stdin, report)
            except (OSError, ValueError) as error:
                raise Refused("exec_failed", f"{measured.path}: {error}") from None
            finally:
                os.close(report)
            self._watch_exit(self._process)
            await _readable(read)
            failed = os.read(read, launcher.REPORT_BYTES)
        finally:
            os.close(read)
            for pump in self.pumps:
                pump.close_write()
        if failed:
            raise launcher.failure(failed, [measured.path])

    def _popen(
        self, measured: Measured, argv: Sequence[str], cwd: str, env: Mapping[str, str], stdin: int, report: int
    ) -> "subprocess.Popen[bytes]":
        # Not asyncio's own: it blocks for the same fork, and when its wait() returns differs between versions of Python.
        return subprocess.Popen(
            launcher.command(measured.argv(argv), env=env, report=report, death_signal=signal.SIGKILL, program=measured.program),
            stdin=stdin,
            stdout=self.pumps[0].write,
            stderr=self.pumps[1].write,
            cwd=cwd,
            env=env,
            pass_fds=[report, measured.program, *([measured.script] if measured.script >= 0 else [])],
            process_group=0,
        )

    async def watch(self) -> None:
        """Until the program has ended and its output with it."""
        pending: set[asyncio.Future[None]] = {self._exited, *(pump.done for pump in self.pumps)}
        while self._exited in pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()  # what on_output raised
        self._signal(signal.SIGKILL)  # what it left in its group would keep the pipes open, and outlive its authorization
        if pending:
            for future in (await asyncio.wait(pending, timeout=self._grace_s))[0]:
                future.result()

    async def end(self) -> int:
        """End it, whatever state it is in; its return code."""
        try:
            if self._process is not None and not self._exited.done():
                self._signal(signal.SIGTERM)
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({self._exited}, timeout=self._grace_s)
        finally:  # a second cancellation ends the grace
            status = self._reap()
            for pump in self.pumps:
                pump.close()
        return status

    def _reap(self) -> int:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._process is None:
            return 0
        self._signal(signal.SIGKILL)
        return self._process.wait()

    def _signal(self, number: int) -> None:
        # Never after the wait: until then the pid, and so the group, cannot be anybody else's.
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, number)

    def _watch_exit(self, process: "subprocess.Popen[bytes]") -> None:
        loop = asyncio.get_running_loop()
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except (AttributeError, OSError):  # not Linux, or forbidden
            loop.call_later(_POLL_S, self._poll_exit, process)
        else:
            loop.add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._exited.set_result(None)

    def _poll_exit(self, process: "subprocess.Popen[bytes]") -> None:
        if process.returncode is not None:
            return
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._exited.set_result(None)
        else:
            asyncio.get_running_loop().call_later(_POLL_S, self._poll_exit, process)


async def _readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Event = asyncio.Event()
    loop.add_reader(handle, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(handle)
