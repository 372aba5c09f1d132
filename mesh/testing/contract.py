"""What every adapter must keep to, shown on a real gate: decorator, middleware, job runner, whatever stands between caller and body.

::

    def through_my_adapter(gate, body):
        '''One call through it: run ``body`` if it may run.'''
        return my_framework.call(guarded_by(gate)(body))

    test_contract = adapter_contract(through_my_adapter)     # one test for each clause of CLAUSES

Rules
-----
1. An adapter is handed in as one function of a gate and a body, plain or ``async``. It raises what its callers get. Where they get no
   exception but a status or an exit code, it returns the code that they are shown, and None when the body ran well.
2. What ran is read from a file that only the body writes, not from what anybody says. Who cannot call the body runs ``body.argv``.
3. Each clause is shown on a gate, a governor and keys of its own, all real (:mod:`mesh.testing.bench`). A clause that is not about
   something does not speak of it: an adapter that breaks one promise fails one clause.
4. Nothing has to be declared. What an adapter asks for is learnt from a first call on a :class:`~mesh.testing.FakeGate`, and the mesh
   beneath is made for exactly that.

Not here: that the gate itself keeps its promises, for which it has its own tests.
"""

import asyncio
import inspect
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias, cast

from mesh.errors import MeshError
from mesh.gate.front import Gate
from mesh.testing.bench import Bench
from mesh.testing.benchlaw import BenchLaw, bench_law
from mesh.testing.fakegate import FakeAsked, FakeGate

__all__ = ["CLAUSES", "Adapter", "Body", "BodyFailed", "ContractBroken", "adapter_contract", "broken_clauses", "check"]

_SLOW_S: Final = 1.0
"""How long an answer is waited for that never comes: longer than anybody's patience, shorter than a test's."""
_AFTERWARDS_S: Final = 0.03
"""In which a body would run that was put off."""
_MEMORY: Final = "/dev/shm"  # noqa: S108 -- a fresh folder in it, of mode 700; waiting for a disk would show nothing more
_SCRIPT: Final = (
    "import sys, time\nwith open(sys.argv[1], 'a') as file: file.write(f'{time.monotonic_ns()}\\n')\nsys.exit(int(sys.argv[2]))"
)


class ContractBroken(AssertionError):
    """An adapter does not keep to a clause."""

    def __init__(self, clause: str, what: str) -> None:
        super().__init__(f"{clause}: {what}")
        self.clause = clause


class BodyFailed(Exception):
    """The body's own failure: it is passed on, or told in the adapter's way."""


class Body:
    """What is to run: it leaves a line in a file, each time."""

    def __init__(self, path: Path, *, fails: bool = False) -> None:
        """Write to ``path``; with ``fails``, fail after that."""
        self.path = path
        self.fails = fails

    @property
    def argv(self) -> list[str]:
        """The same as a program."""
        return [sys.executable, "-I", "-c", _SCRIPT, str(self.path), "1" if self.fails else "0"]

    def __call__(self) -> None:
        """Run.

        Raises:
            BodyFailed: if it is to fail, after it has left its line.
        """
        with self.path.open("a", encoding="ascii") as file:
            file.write(f"{time.monotonic_ns()}\n")
        if self.fails:
            raise BodyFailed

    @property
    def moments(self) -> list[int]:
        """When it ran, by the host's monotonic clock, in ns."""
        return [int(line) for line in self.path.read_text(encoding="ascii").split()] if self.path.exists() else []

    @property
    def ran(self) -> int:
        """How often it ran."""
        return len(self.moments)


Adapter: TypeAlias = Callable[[Gate, Body], str | Awaitable[str | None] | None]


class _Desk:
    """One clause's bench, adapter and body."""

    def __init__(self, clause: str, adapter: Adapter, bench: Bench, body: Body) -> None:
        self.clause = clause
        self.adapter = adapter
        self.bench = bench
        self.body = body

    def call(self) -> str:
        """One call; what its caller was told, nothing if it went well."""
        told = _told(self.adapter, self.bench.gate, self.body)
        time.sleep(_AFTERWARDS_S)
        return told

    def never(self, why: str) -> None:
        """One call, of which nothing may run."""
        before = self.body.ran
        told = self.call()
        self.require(self.body.ran == before, f"the body ran although {why} (the caller was told {told or 'that it went well'!r})")

    def require(self, holds: bool, what: str) -> None:
        """Raises :class:`ContractBroken` unless it holds."""
        if not holds:
            raise ContractBroken(self.clause, what)


def _told(adapter: Adapter, gate: Gate, body: Body) -> str:
    try:
        said = adapter(gate, body)
        if inspect.isawaitable(said):
            said = asyncio.run(_awaited(said))
    except MeshError as error:
        return error.code
    except SystemExit as end:
        return f"exit {end.code}" if end.code else ""
    except Exception as error:  # noqa: BLE001 -- whatever it is, the caller was told
        return type(error).__name__
    return said or ""


async def _awaited(said: Awaitable[str | None]) -> str | None:
    return await said


# ------------------------------------------------------------------------------------------------------------------- clauses


def _permitted(desk: _Desk) -> None:
    """What is permitted runs once, and its caller is told so."""
    told = desk.call()
    desk.require(desk.body.ran == 1, f"the body ran {desk.body.ran} times although it is permitted (the caller was told {told!r})")
    desk.require(not told, f"it ran, and the caller was told {told!r}")


def _inside(desk: _Desk) -> None:
    """The body runs between the recorded start and the recorded end, so that it can be ended, and is counted as what it was."""
    desk.call()
    lived = [outcome.at_ms for outcome in desk.bench.outcomes()]
    for moment in map(desk.bench.at_ms, desk.body.moments):
        desk.require(len(lived) > 1 and lived[0] <= moment <= lived[-1], "the body ran outside of the execution")


def _denied(desk: _Desk) -> None:
    """What policy denies does not run."""
    desk.bench.deny()
    desk.never("policy denied it")


def _timed_out(desk: _Desk) -> None:
    """What nobody answers in time does not run, however long it takes."""
    desk.bench.swallow(_SLOW_S)
    desk.never("no answer came")


def _governor_down(desk: _Desk) -> None:
    """What nobody can be asked for does not run."""
    desk.bench.crash()
    desk.never("there is no governor")


def _stale(desk: _Desk) -> None:
    """A governor's yes is not enough for a gate that has heard nothing for too long."""
    desk.bench.silence()
    desk.never("the gate's view is stale")


def _revoked(desk: _Desk) -> None:
    """What is revoked between the yes and the start does not run."""
    desk.bench.revoke_late()
    desk.never("its key was revoked before it began")


def _forged(desk: _Desk) -> None:
    """An authorization that somebody else signed is none."""
    desk.bench.forge()
    desk.never("the authorization is forged")


def _gate_broken(desk: _Desk) -> None:
    """An exception inside the gate is no permit."""
    desk.bench.break_store()
    desk.never("the gate itself failed")


def _asked_each_time(desk: _Desk) -> None:
    """A yes is for one call: the next one is asked for anew."""
    desk.call()
    desk.bench.halt()
    desk.never("everything was halted after the first call")


def _retried(desk: _Desk) -> None:
    """Whoever tries again after a transient no gets one effect for each start, and none for the call that was refused."""
    desk.bench.shed()
    desk.call()
    desk.call()
    starts = sum(outcome.event.__struct_config__.tag == "started" for outcome in desk.bench.outcomes())
    desk.require(desk.body.ran <= starts, f"the body ran {desk.body.ran} times on {starts} starts after a call was refused and made again")


def _failed_once(desk: _Desk) -> None:
    """A body that fails is not run again by itself, and its failure is not called success."""
    desk.body.fails = True
    told = desk.call()
    desk.require(desk.body.ran <= 1, f"the body failed and ran {desk.body.ran} times")
    desk.require(desk.body.ran == 0 or bool(told), "the body failed, and the caller was told that it went well")


def _told_why(desk: _Desk) -> None:
    """The reason reaches the caller with its code."""
    for happens, code in (
        (desk.bench.deny, "policy_denied"),
        (desk.bench.need_people, "approval_needed"),
        (desk.bench.crash, "unreachable"),
    ):
        happens()
        told = desk.call()
        desk.require(told == code, f"the reason was {code!r}, and the caller was told {told or 'that it went well'!r}")


CLAUSES: Final[Mapping[str, Callable[[_Desk], None]]] = {
    "permitted": _permitted,
    "inside": _inside,
    "denied": _denied,
    "timed_out": _timed_out,
    "governor_down": _governor_down,
    "stale": _stale,
    "revoked": _revoked,
    "forged": _forged,
    "gate_broken": _gate_broken,
    "asked_each_time": _asked_each_time,
    "retried": _retried,
    "failed_once": _failed_once,
    "told_why": _told_why,
}
"""Name to what is shown; each says in one sentence what it demands."""


# --------------------------------------------------------------------------------------------------------------------- suite


def check(adapter: Adapter, clause: str) -> None:
    """Show one clause of :data:`CLAUSES`.

    Raises:
        ContractBroken: the adapter does not keep to it.
    """
    with tempfile.TemporaryDirectory(prefix="mesh-contract-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as name:
        folder = Path(name)
        law = _learnt(clause, adapter, folder)
        with Bench(law, folder) as bench:
            CLAUSES[clause](_Desk(clause, adapter, bench, Body(folder / "effect")))


def broken_clauses(adapter: Adapter) -> dict[str, str]:
    """All clauses that the adapter does not keep to, and how; for whoever does not use pytest."""
    found = dict[str, str]()
    for clause in CLAUSES:
        try:
            check(adapter, clause)
        except ContractBroken as broken:
            found[clause] = str(broken)
    return found


def adapter_contract(adapter: Adapter) -> Callable[[str], None]:
    """A test function for pytest, with one case for each clause; give it a name that begins with ``test``."""
    import pytest

    @pytest.mark.parametrize("clause", list(CLAUSES))
    def test_adapter_contract(clause: str) -> None:
        check(adapter, clause)

    return cast("Callable[[str], None]", test_adapter_contract)


def _learnt(clause: str, adapter: Adapter, folder: Path) -> BenchLaw:
    """The law for what the adapter asks for (rule 4)."""
    asked = _first_asked(clause, adapter, Body(folder / "rehearsal"))
    return bench_law(asked.action, asked.resource[0], asked.params, asked.committed, asked.sealed)


def _first_asked(clause: str, adapter: Adapter, body: Body) -> FakeAsked:
    with FakeGate() as gate:
        told = _told(adapter, gate, body)
        if not gate.asked:
            raise ContractBroken(clause, f"it asked for nothing, and told its caller {told or 'that it went well'!r}")
        return gate.asked[0]
