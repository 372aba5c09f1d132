"""A child never outlives the process that started it, not even after ``kill -9``.

Rules
-----
1. Between fork and exec run a few lines of this very file, as a plain script under ``python -I -S`` (some 10 ms): they ask
   the kernel for a signal when the parent dies (``PR_SET_PDEATHSIG``), look whether it died already, and exec. No code of
   ours ever runs in the forked copy of a process that has threads.
2. A failed exec is told through a pipe that a successful one closes: "could not be started" is never taken for a program
   that exited with 127.
3. Linux ties the request to the *thread* that forked, so spawning anywhere but on the main thread is refused.
4. The promise covers the child, not what the child starts: put it in a process group of its own and end that. The kernel
   forgets the request when a set-uid program, or one with file capabilities, is executed.
5. Outside Linux there is no such request: the child starts in the same way and survives a killed parent.

The script half imports next to nothing, so the parent's half imports what it needs where it needs it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing for its constant would cost each start of a child some ms
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from mesh.errors import Refused

__all__ = ["REPORT_BYTES", "command", "failure", "require_main_thread", "spawn"]

REPORT_BYTES = 16
"""What to read from the report pipe: empty when the program runs, else an errno."""
_PR_SET_PDEATHSIG = 1
_SIGTERM = 15


def command(
    argv: Sequence[str], *, env: Mapping[str, str] | None, report: int, death_signal: int = _SIGTERM, program: int = -1
) -> list[str]:
    """The command line that becomes ``argv`` and dies with this process.

    Args:
        argv: what the program gets; ``argv[0]`` is looked up in the child's PATH unless ``program`` is given.
        env: what the command line will be run in, None for our own; the program gets exactly that.
        report: the write end of a pipe that the child inherits (rule 2).
        death_signal: what the kernel sends when this process is gone.
        program: an inherited descriptor to execute instead of a path; the program itself does not keep it.
    """
    own = [sys.executable, "-I", "-S", os.path.abspath(__file__)]  # noqa: PTH100 -- pathlib is too slow for the script half
    ctype = (os.environ if env is None else env).get("LC_CTYPE")
    return [*own, str(os.getpid()), str(death_signal), str(report), str(program), "" if ctype is None else f"={ctype}", *argv]


def failure(report: bytes, argv: Sequence[str]) -> Refused:
    """What to raise for a non-empty ``report``: ``exec_failed`` with the reason of the operating system."""
    from mesh.errors import Refused

    reason = os.strerror(int(report)) if int(report) else "it could not be prepared for"
    return Refused("exec_failed", f"{argv[0]}: {reason}")


def require_main_thread() -> None:
    """Refuse to fork where the child would die with a mere thread (rule 3).

    Raises:
        Refused: ``exec_failed``.
    """
    import threading

    from mesh.errors import Refused

    if threading.current_thread() is not threading.main_thread():
        raise Refused("exec_failed", "programs are started from the main thread only: they die with the thread that started them")


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    process_group: int | None = None,
    death_signal: int = _SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` and return once it runs.

    ``env`` None inherits ours; the streams are as in :class:`subprocess.Popen`.

    Raises:
        Refused: ``exec_failed``.
    """
    import subprocess

    from mesh.errors import Refused

    require_main_thread()
    read, write = os.pipe()
    try:
        try:
            process = subprocess.Popen(
                command(argv, env=env, report=write, death_signal=death_signal),
                env=env,
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                process_group=process_group,
                pass_fds=(write,),
            )
        except (OSError, ValueError) as error:
            raise Refused("exec_failed", f"{argv[0]}: {error}") from None
        finally:
            os.close(write)
        report = os.read(read, REPORT_BYTES)
    finally:
        os.close(read)
    if report:
        process.wait()
        raise failure(report, argv)
    return process


def _become(arguments: list[str]) -> None:
    """The script half: see rule 1."""
    parent, death_signal, report, program = (int(text) for text in arguments[:4])
    ctype, argv = arguments[4], arguments[5:]
    try:
        if sys.platform == "linux":
            import ctypes

            if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != parent:  # it died before we asked: nobody would ever signal us
            os._exit(1)
        os.set_inheritable(report, False)
        _default_signals()
        _exact_environment(ctype)
        if program < 0:
            os.execvp(argv[0], argv)  # noqa: S606 -- no shell is the point
        os.set_inheritable(program, False)
        os.execve(program, argv, os.environ)  # noqa: S606 -- as above
    except OSError as error:
        os.write(report, str(error.errno or 0).encode())
    except BaseException:  # noqa: BLE001 -- whatever ended this, the program was not started, and must not be taken for one that was
        os.write(report, b"0")
    os._exit(127)


def _default_signals() -> None:
    # Python ignores these, and what is ignored stays ignored across exec: `mesh run -- yes | head` would never end.
    import signal

    for name in ("SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def _exact_environment(ctype: str) -> None:
    # Starting in the C locale, Python puts an LC_CTYPE of its own into the environment (PEP 538), even with -I.
    os.environ.pop("LC_CTYPE", None)
    if ctype:
        os.environ["LC_CTYPE"] = ctype[1:]


if __name__ == "__main__":
    _become(sys.argv[1:])
