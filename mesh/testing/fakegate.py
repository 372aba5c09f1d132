"""A gate that asks nobody, for unit tests of programs that use one: it does as it is told and remembers what it was asked.

::

    gate = FakeGate()
    gate.deny("policy_denied", action="payments/send")
    with pytest.raises(mesh.Denied):
        pay(gate, to="acct:mallory", amount_cents=1)
    assert gate.asked[0].params["amount_cents"] == 1

Rules
-----
1. All that programs see is the real gate's: binding of arguments, what cannot be signed, denials, cancelling. Only what stands behind
   it is not there: no mesh, no key, no thread, no file.
2. Nothing that comes out of it is signed: whoever verifies its papers or an authorization of it refuses them.
3. It is made in tests only, takes no context and reads none; made anywhere else it warns, every time.

Not here: whether a framework's adapter fails closed, which only a real gate can show (:mod:`mesh.testing.contract`).
"""

import asyncio
import inspect
import os
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, Literal, TypeVar, cast

import msgspec

from mesh.codes import CODES
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.messages import Authorized
from mesh.core.run.approval import Approval, Backing
from mesh.core.run.authorization import Authorization
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Assurance, Audience, Intent
from mesh.core.run.kin import Parent
from mesh.core.run.outcome import CHECKS, Aborted, Check, Event, Failed, Outcome, Started
from mesh.core.run.params import Value, params_digest
from mesh.errors import Refused, Unavailable
from mesh.gate.core import Asked as Answered
from mesh.gate.core import Core, Wish, Work, check_hidden
from mesh.gate.errors import Denied
from mesh.gate.front import Gate
from mesh.gate.hall import Hall
from mesh.protocol.enforcer import Grant, Running
from mesh.protocol.outcomechain import Subject

__all__ = ["FakeAsked", "FakeGate", "FakeGateWarning"]

_MESH: Final = "fake"
_NOBODY: Final = "00" * 32
_SUBJECT: Final = "spiffe://fake/nobody"
_APPROVAL: Final = "approval_needed"
_TESTERS: Final = ("_pytest", "unittest", "mesh.testing.contract")
T = TypeVar("T")
End = Literal["", "finished", "failed", "aborted"]


class FakeGateWarning(RuntimeWarning):
    """A :class:`FakeGate` was made outside of a test."""


class FakeAsked(msgspec.Struct):
    """One thing that was asked for."""

    kind: Literal["execution", "request"]
    action: str
    resource: tuple[str, str]
    params: Mapping[str, Value]
    """All of them, the committed and the sealed ones too."""
    committed: tuple[str, ...]
    """Which of them are."""
    sealed: tuple[str, ...]
    """Which of them are."""
    purpose: str
    assurance: Assurance
    approvals: tuple[bytes, ...]
    within: str
    """Id of the authorization of the execution within which it would run; empty if it stands alone."""
    after: tuple[str, ...]
    """Ids of the authorizations of those that it comes after."""
    intent: str
    """Its id, as the execution and the denial name it."""
    code: str = ""
    """Why it did not begin; empty if it did."""
    ended: End = ""
    """How it ended; empty while it runs, and if it did not begin."""
    error: str = ""
    """The exception's type if it failed, the code if it was aborted."""


class FakeGate(Gate):
    """What :func:`mesh.connect` gives, with nothing behind it (rule 1). It permits everything until it is told otherwise."""

    def __init__(self, *, obligations: Iterable[str] = ()) -> None:
        """Begin, with these obligations on every permit."""
        if not _tested():
            _warn()
        self._fake = _Behind(sorted(obligations))
        super().__init__(cast("Hall", _Here()), cast("Core", self._fake))

    @property
    def asked(self) -> list[FakeAsked]:
        """All that was asked for and could be written down, in order."""
        return list(self._fake.asked)

    @property
    def approval(self) -> bytes:
        """An approval that nobody signed, to be handed in where one is needed."""
        said = Approval(mesh=_MESH, group="security", effect=_NOBODY, uses=1, reason="", not_before_ms=0, expires_ms=0)
        return _unsigned(said)

    def permit(self) -> None:
        """Permit everything again."""
        self._fake.told.clear()

    def deny(self, code: str = "policy_denied", detail: str = "", *, action: str | None = None) -> None:
        """From now on deny with ``code``; only ``action`` (``<domain>/<verb>``), if one is given. What was told last counts.

        Raises:
            ValueError: for a code that is none.
        """
        self._fake.tell(action, code, detail)

    def need_approvals(self, *, action: str | None = None) -> None:
        """From now on deny with ``approval_needed`` whatever comes without approvals, whatever they say."""
        self._fake.tell(action, _APPROVAL, "")

    def revoke(self, code: str = "revoked", *, action: str | None = None) -> None:
        """End what runs, as a revocation does, and deny it from now on.

        Raises:
            ValueError: for a code that is none.
        """
        self._fake.tell(action, code, "")
        self._fake.stop(action, code)


def _warn() -> None:
    """Say so where it is made, also the second time there: `warnings.warn` would say it once."""
    made = inspect.stack(0)[2]
    said = "a FakeGate enforces nothing, and this is no test"
    warnings.warn_explicit(said, FakeGateWarning, made.filename, made.lineno, registry={})


def _tested() -> bool:
    """Whether a test makes it: its runner is further up, or in the environment of this thread's process."""
    if "PYTEST_CURRENT_TEST" in os.environ:
        return True
    above = inspect.currentframe()
    while above is not None:
        name = str(above.f_globals.get("__name__", ""))
        if any(name == tester or name.startswith(f"{tester}.") for tester in _TESTERS):
            return True
        above = above.f_back
    return False


class _Here:
    """In place of the gate's thread: nothing waits for anything."""

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return _finish(work)

    async def wait_async(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            await asyncio.sleep(0)  # as the real one, it can be cancelled here
        except BaseException:
            work.close()
            raise
        return _finish(work)

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        future = Future[T]()
        future.set_result(_finish(work))
        return future

    def call(self, function: Callable[[], None]) -> None:
        function()

    def close(self, farewell: Coroutine[Any, Any, None]) -> None:
        _finish(farewell)


def _finish(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("it waits for something")


class _Behind:
    """In place of the core."""

    def __init__(self, obligations: list[str]) -> None:
        self.asked = list[FakeAsked]()
        self.told: dict[str, tuple[str, str]] = {}
        self._obligations = obligations
        self._works: dict[str, tuple[FakeAsked, Work]] = {}
        self._changing = threading.RLock()
        self._closed = False

    def tell(self, action: str | None, code: str, detail: str) -> None:
        if code not in CODES:
            raise ValueError(f"{code!r} is no code; `mesh explain` lists them")
        with self._changing:
            if action is None:
                self.told.clear()
            self.told[action or ""] = code, detail

    def stop(self, action: str | None, code: str) -> None:
        with self._changing:
            works = [work for asked, work in self._works.values() if action in {None, asked.action}]
        for work in works:
            if work.refusal is None:
                work.refusal = Refused(code)
                work.stop()

    # What the front calls of a core; the names are its own.

    async def begin(self, wish: Wish, stop: Callable[[], None]) -> Work:
        asked = self._ask(wish, "execution")
        papers = self._papers(wish, asked)
        params = {name: msgspec.json.decode(msgspec.json.encode(value), type=Value) for name, value in asked.params.items()}
        authorization = envelope.read(Authorization, bytes(papers.authorization))
        grant = Grant(
            authorization=authorization,
            intent=cast("Statement[Intent]", None),
            identity=cast("Statement[Identity]", None),
            signers=(),
            expires_ms=0,
            lease_ms=0,
            heartbeats=(),
            backing=Backing((), {}, breakglass=False),
        )
        work = Work(Subject(wish.domain, asked.intent, authorization.id), Running(grant), params, papers, 0, stop)
        with self._changing:
            self._works[asked.intent] = asked, work
        return work

    async def request(self, wish: Wish) -> Answered:
        asked = self._ask(wish, "request")
        answer = Authorized(authorization=self._papers(wish, asked).authorization, frontier=[])
        return Answered(cast("envelope.Draft", None), b"", (), answer)

    async def end(self, work: Work, event: Event) -> None:
        with self._changing:
            if work.ended:
                return
            work.ended = True
            asked, _ = self._works.pop(work.about.intent)
        asked.ended = cast("End", event.__struct_config__.tag)
        asked.error = event.error if isinstance(event, Failed) else event.code if isinstance(event, Aborted) else ""
        papers = msgspec.Raw(_unsigned(self._outcome(work.about, event)))
        work.papers = msgspec.structs.replace(work.papers, outcome=papers)

    async def close(self, *, wait_ms: int) -> None:
        del wait_ms
        self._closed = True

    def countersign(self, message: bytes) -> bytes:
        del message
        return bytes(64)

    def duration_ms(self, work: Work) -> int:
        del work
        return 0

    def look(self) -> None:
        """Nothing happens unseen here."""

    def _ask(self, wish: Wish, kind: Literal["execution", "request"]) -> FakeAsked:
        if self._closed:
            raise Unavailable("draining", "the gate is closed")
        check_hidden(wish)
        wish.measure()
        with self._changing:
            asked = FakeAsked(
                kind=kind,
                action=f"{wish.domain}/{wish.action}",
                resource=(wish.resource.type, wish.resource.id),
                params={**wish.params, **wish.committed, **wish.sealed},
                committed=tuple(sorted(wish.committed)),
                sealed=tuple(sorted(wish.sealed)),
                purpose=wish.purpose,
                assurance=wish.assurance,
                approvals=wish.approvals,
                within=wish.within.named[0] if wish.within is not None else "",
                after=tuple(item.named[0] for item in wish.after),
                intent=canonical.sha256_hex(b"fake intent %d" % len(self.asked)),
            )
            self.asked.append(asked)
            code, detail = self.told.get(asked.action) or self.told.get("") or ("", "")
        if code == _APPROVAL and asked.approvals:
            code = ""
        if code:
            asked.code = code
            raise Denied(code, detail, intent=asked.intent)
        return asked

    def _papers(self, wish: Wish, asked: FakeAsked) -> Parent:
        authorization = Authorization(
            mesh=_MESH,
            intent=asked.intent,
            domain=wish.domain,
            action=wish.action,
            resource=wish.resource,
            params=params_digest(wish.params, {}),
            measurements=[],
            subject=_SUBJECT,
            holder=_NOBODY,
            identity=_NOBODY,
            person="",
            audience=Audience(enforcer=_NOBODY, boot=_NOBODY),
            enforcer_class="in-process",
            region=_MESH,
            policy_epoch=0,
            bundle=f"blake3:{_NOBODY}",
            frontier=_NOBODY,
            roster_epoch=0,
            not_before_ms=0,
            expires_ms=0,
            lease_ms=0,
            uses=1,
            obligations=self._obligations,
            assurance=wish.assurance,
            approvals=[],
            ancestors=[],
            decision=_NOBODY,
            issuer=_MESH,
            origin="fake/fake/e1",
            index=0,
        )
        said = _unsigned(authorization)
        started = Started(checks=[Check(name=name, passed=True) for name in CHECKS], heartbeats=[], spend=0)
        about = Subject(wish.domain, asked.intent, envelope.identify(said)[1])
        return Parent(authorization=msgspec.Raw(said), outcome=msgspec.Raw(_unsigned(self._outcome(about, started))), countersignature="")

    @staticmethod
    def _outcome(about: Subject, event: Event) -> Outcome:
        return Outcome(
            mesh=_MESH,
            enforcer=_NOBODY,
            identity=_NOBODY,
            boot=_NOBODY,
            sequence=0,
            previous="",
            domain=about.domain,
            intent=about.intent,
            authorization=about.authorization,
            at_ms=0,
            event=event,
        )


def _unsigned(value: canonical.Payload) -> bytes:
    """Its envelope, signed by nobody (rule 2)."""
    draft = envelope.draft(value)
    return envelope.assemble(draft.payload_type, draft.payload, {})
