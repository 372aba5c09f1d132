"""Make ``.venv`` hold the pinned files and this checkout: once in a minute or less, afterwards in a moment.

    python3 requirements/install.py runtime|dev

Rules
-----
1. Needs Python 3.11 with its ``venv`` module and nothing else. Where ``uv`` is on the PATH it does the work, as it is
   quicker; where it is not, or fails, pip does.
2. Only wheels whose hash is in ``requirements/`` are installed: no code of a dependency runs while it is being installed.
3. The checkout is installed editable by the build back end that is pinned among them, so nothing else is fetched.
4. A stamp says what was installed. It is written last, so an interrupted run is begun anew, and it covers the pins, the
   project's metadata, the interpreter and this file: when any of them changed, the old environment is thrown away.
"""

from __future__ import annotations  # so that an older Python lives long enough to be told

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["build", "main"]

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "govmesh-stamp.json"
LEVELS = ("runtime", "dev")  # each holds the ones before it
WHEELS_ONLY = ("--require-hashes", "--only-binary", ":all:")
CHECKOUT = ("--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT))


def main(argv: list[str]) -> int:
    """Bring the environment to the level named, or say what is in the way."""
    if argv not in [[level] for level in LEVELS]:
        print(f"usage: install.py {'|'.join(LEVELS)}", file=sys.stderr)
        return 64
    if sys.version_info < (3, 11):  # noqa: UP036 -- said here, because it is the first thing that an old machine runs
        print("govmesh needs Python 3.11 or later; name one with `make PYTHON=…`", file=sys.stderr)
        return 1
    level, wanted = argv[0], _fingerprint()
    if _installed(wanted) >= LEVELS.index(level):
        return 0
    if not build(VENV, level, CHECKOUT, fresh=_installed(wanted) < 0):
        print("setting up .venv failed; see above", file=sys.stderr)
        return 1
    STAMP.write_text(json.dumps({"level": level, "of": wanted}))
    return 0


def build(venv: Path, pins: str, project: tuple[str, ...], *, fresh: bool) -> bool:
    """Install ``requirements/<pins>.txt`` and then ``project`` (arguments for pip) into ``venv``; say whether that went well."""
    uv = shutil.which("uv")
    print(f"setting up {venv.name} ({pins}) with {'uv' if uv else 'pip'} …", file=sys.stderr, flush=True)
    if uv and _run(venv, _with_uv(uv, venv, pins, project, fresh=fresh)):
        return True
    if uv:
        print("uv could not; trying pip …", file=sys.stderr, flush=True)
    return _run(venv, _with_pip(venv, pins, project, fresh=fresh or uv is not None))


def _fingerprint() -> str:
    import tomllib  # not on the Pythons that are told to go away above

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    digest = hashlib.sha256(json.dumps([project["project"], project["build-system"], sys.version, sys.base_prefix]).encode())
    for path in (*(ROOT / "requirements" / f"{level}.txt" for level in LEVELS), Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _installed(wanted: str) -> int:
    """The index of the level that stands, or -1."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return -1
    return LEVELS.index(stamp["level"]) if stamp["of"] == wanted and (VENV / "bin" / "python").exists() else -1


def _with_uv(uv: str, venv: Path, pins: str, project: tuple[str, ...], *, fresh: bool) -> list[list[str]]:
    create = [[uv, "venv", "--quiet", "--clear", "--no-project", "--no-python-downloads", "--python", sys.executable, str(venv)]]
    install = [uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
    return [*(create if fresh else []), [*install, *WHEELS_ONLY, "-r", _file(pins)], [*install, *project]]


def _with_pip(venv: Path, pins: str, project: tuple[str, ...], *, fresh: bool) -> list[list[str]]:
    # Where Debian and Ubuntu left ensurepip out, the first of these says which package brings it.
    create = [[sys.executable, "-m", "venv", "--clear", str(venv)]]
    install = [str(venv / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--no-compile"]
    return [*(create if fresh else []), [*install, *WHEELS_ONLY, "-r", _file(pins)], [*install, *project]]


def _file(pins: str) -> str:
    return str(ROOT / "requirements" / f"{pins}.txt")


def _run(venv: Path, commands: list[list[str]]) -> bool:
    # A uv or pip set up for another environment must not send the packages there.
    environ = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PIP_USER"}}
    environ.setdefault("UV_SYSTEM_CERTS", "true")  # trust whom this machine trusts, as pip does
    environ["PATH"] = os.pathsep.join([str(venv / "bin"), environ.get("PATH", os.defpath)])  # the build back end seeks its other half
    return all(subprocess.run(command, env=environ, check=False).returncode == 0 for command in commands)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
