"""The wheel is what we say: only ``mesh/``, the same bytes each time, light to import, and enough to verify a proof.

It is built, installed with the pinned base dependencies into a fresh environment outside the checkout, and used there with
every socket closed. Prints what it checked; exits 1 at the first thing that is not so.

A fixture proof is a folder ``tests/fixtures/proofs/NAME`` with the files ``proof.*`` and ``roster.*``; ``mesh verify`` must
answer 0 for it.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Final, NoReturn

import uv_build

from requirements.install import build

__all__ = ["main"]

ROOT: Final = Path(__file__).resolve().parents[2]
FIXTURES: Final = ROOT / "tests" / "fixtures" / "proofs"
HEAVY: Final = ("asyncio", "nats", "sqlite3", "aiosqlite", "anyio", "cedarpy", "logging", "socket", "ssl", "subprocess")
OUTSIDE: Final = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MESH_"))}

OFFLINE: Final = """
import sys
def closed(event, args):
    if event.startswith("socket."):
        raise RuntimeError("verification reached for the network: " + event)
sys.addaudithook(closed)
from mesh.cli import main
sys.argv = ["mesh", *sys.argv[1:]]
main()
"""

PAGE: Final = """
import sys
from pathlib import Path
from mesh.page.render import render
proof, roster, page = map(Path, sys.argv[1:])
page.write_bytes(render(proof.read_bytes(), roster.read_bytes()))
"""


def main() -> int:
    """Check everything in turn."""
    with tempfile.TemporaryDirectory(prefix="govmesh-wheel-") as folder:
        outside = Path(folder)
        wheel = _build(outside / "first")
        if wheel.read_bytes() != _build(outside / "second").read_bytes():
            _fail("building twice gives two different wheels")
        print(f"wheel: {wheel.name}, {wheel.stat().st_size:,} bytes, the same when built again")
        _check_contents(wheel)
        python = _install(wheel, outside)
        _check_import(python, outside)
        _check_verify(python, outside)
    return 0


def _build(folder: Path) -> Path:
    folder.mkdir()
    # The back end looks for its other half on the PATH.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with chdir(ROOT):
        return folder / str(uv_build.build_wheel(str(folder)))


def _check_contents(wheel: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    code = {name for name in names if name.startswith("mesh/")}
    if stray := names - code - {name for name in names if name.startswith(f"govmesh-{version}.dist-info/")}:
        _fail(f"it also holds {sorted(stray)}")
    if odd := {name for name in code if "__pycache__" in name or "/." in name}:
        _fail(f"caches slipped in: {sorted(odd)}")
    if missing := set(_sources()) - code:
        _fail(f"it lacks {sorted(missing)}")
    print(f"wheel: {len(code)} files below mesh/, its metadata, nothing else")


def _sources() -> Iterator[str]:
    for path in (ROOT / "mesh").rglob("*"):
        if path.is_file() and (path.suffix in {".py", ".js", ".css", ".html"} or path.name == "py.typed"):
            yield path.relative_to(ROOT).as_posix()


def _install(wheel: Path, outside: Path) -> Path:
    if not build(outside / "venv", "base", ("--no-deps", "--no-index", str(wheel)), fresh=True):
        _fail("it does not install with the base dependencies")
    return outside / "venv" / "bin" / "python"


def _check_import(python: Path, outside: Path) -> None:
    code = f"import mesh, sys; print(mesh.__file__); print(*[name for name in {HEAVY!r} if name in sys.modules])"
    where, heavy = _run(python, outside, "-c", code).stdout.split("\n")[:2]
    if Path(where).is_relative_to(ROOT) or "site-packages" not in where:
        _fail(f"the checkout was imported, not the wheel: {where}")
    if heavy:
        _fail(f"`import mesh` pulls {heavy}")
    print(f"import mesh: on Python {sysconfig.get_python_version()} with base dependencies only; none of {', '.join(HEAVY)}")


def _check_verify(python: Path, outside: Path) -> None:
    proofs = sorted(folder for folder in FIXTURES.glob("*") if folder.is_dir())
    if not proofs:
        print("mesh verify: LEFT OUT, no fixture proof in tests/fixtures/proofs yet")
        if (ROOT / "mesh" / "verify.py").exists() and os.environ.get("MESH_STRICT") == "1":
            _fail("MESH_STRICT forbids leaving it out")
    for folder in proofs:
        proof, roster = (str(next(folder.glob(pattern))) for pattern in ("proof.*", "roster.*"))
        done = _run(python, outside, "-c", OFFLINE, "verify", proof, "--trust", roster, check=False)
        if done.returncode:
            _fail(f"mesh verify {folder.name} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        print(f"mesh verify: {folder.name} in {outside.name}, sockets closed: {done.stdout.strip().splitlines()[0]}")
        page = outside / f"{folder.name}.html"
        _run(python, outside, "-c", PAGE, proof, roster, str(page))
        done = _run(python, outside, "-c", OFFLINE, "verify", str(page), "--trust", roster, check=False)
        if done.returncode or "not as this version writes" in done.stderr:
            _fail(f"mesh verify of {folder.name} as a page exited {done.returncode}:\n{done.stdout}{done.stderr}")
        print(f"mesh verify: {folder.name} as a page of {page.stat().st_size:,} bytes, made by the wheel and read by it")


def _run(python: Path, outside: Path, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", *args], cwd=outside, env=OUTSIDE, check=check, capture_output=True, text=True)


def _fail(what: str) -> NoReturn:
    print(f"FAILED: {what}")
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
