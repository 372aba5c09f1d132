"""Children end with the process that started them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mesh.adapters import launcher
from mesh.errors import Refused

ROOT = Path(launcher.__file__).parents[2]
PARENT = """
import sys, time
from mesh.adapters import launcher
child = launcher.spawn(["sleep", "300"], death_signal=int(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(300)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_dead(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


@pytest.mark.parametrize("death_signal", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_dies_when_its_parent_is_killed(death_signal: int) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(int(death_signal))], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert wait_dead(child)


def test_a_child_whose_parent_died_before_it_could_ask_never_starts(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    read, write = os.pipe()
    line = launcher.command(["touch", str(mark)], env=None, report=write)
    line[4] = "1"  # a parent that is not ours: as if it had died and init had adopted the child
    assert subprocess.run(line, pass_fds=(write,), check=False).returncode == 1
    os.close(write)
    assert os.read(read, launcher.REPORT_BYTES) == b""
    os.close(read)
    assert not mark.exists()


def test_the_program_runs_with_the_arguments_environment_and_folder_it_was_given(tmp_path: Path) -> None:
    script = 'printf "%s|%s|%s|" "$1" "$HERE" "$(pwd)"; exit 7'
    process = launcher.spawn(
        ["sh", "-c", script, "sh", "a b"],
        env={"HERE": "x", "PATH": os.environ["PATH"]},
        cwd=str(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    out, _ = process.communicate()
    assert process.returncode == 7
    assert out.decode() == f"a b|x|{tmp_path}|"


@pytest.mark.parametrize("env", [{}, {"LC_CTYPE": "C"}, {"LC_ALL": "C", "ODD": "\udcff=\n"}])
def test_the_program_gets_exactly_the_environment_that_was_given(env: dict[str, str]) -> None:
    process = launcher.spawn(["/usr/bin/env", "-0"], env=env, stdout=subprocess.PIPE)
    given = {os.fsencode(f"{name}={value}") for name, value in env.items()}
    assert set(process.communicate()[0].split(b"\0")[:-1]) == given


def test_the_child_can_lead_a_process_group_of_its_own() -> None:
    process = launcher.spawn(["sleep", "300"], process_group=0)
    assert os.getpgid(process.pid) == process.pid
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_exit_with_127_is_an_exit_and_not_a_failed_start() -> None:
    assert launcher.spawn(["sh", "-c", "exit 127"]).wait() == 127


def test_the_program_inherits_no_ignored_signals_and_no_descriptors_of_ours() -> None:
    process = launcher.spawn(["sh", "-c", "grep SigIgn /proc/self/status; ls /proc/self/fd"], stdout=subprocess.PIPE)
    out = process.communicate()[0].decode().split()
    ignored = int(out[1], 16)
    assert ignored & (1 << (signal.SIGPIPE - 1)) == 0
    assert ignored & (1 << (signal.SIGXFSZ - 1)) == 0
    assert len(out[2:]) <= 4  # 0, 1, 2 and the folder that ls itself has open


@pytest.mark.parametrize("argv", [["no-such-program-anywhere"], ["/etc/passwd"], ["/"]])
def test_what_cannot_be_started_is_refused_with_a_code(argv: list[str]) -> None:
    with pytest.raises(Refused) as no:
        launcher.spawn(argv)
    assert no.value.code == "exec_failed"
    assert argv[0] in no.value.detail


def test_a_missing_folder_or_a_nul_byte_is_refused_with_a_code(tmp_path: Path) -> None:
    for argv, cwd in ((["true"], str(tmp_path / "none")), (["tr\0ue"], str(tmp_path))):
        with pytest.raises(Refused) as no:
            launcher.spawn(argv, cwd=cwd)
        assert no.value.code == "exec_failed"


def test_spawning_from_another_thread_is_refused() -> None:
    seen: list[str] = []

    def elsewhere() -> None:
        try:
            launcher.spawn(["true"])
        except Refused as no:
            seen.append(no.code)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == ["exec_failed"]


def test_no_descriptor_leaks_over_many_starts() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        launcher.spawn(["true"]).wait()
        with pytest.raises(Refused):
            launcher.spawn(["no-such-program-anywhere"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
