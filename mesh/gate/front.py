"""The gate of a program: its functions and blocks run only when they are authorized, from threads and event loops alike.

Rules
-----
1. The mesh is talked to on a thread of its own, so neither a busy event loop nor a blocking body can make its view stale.
2. A body is entered only with a :class:`~mesh.gate.core.Work` in hand: spent, and its start durable. Whatever fails before
   is :class:`~mesh.gate.errors.Denied`, also an error that nobody foresaw: whoever catches denials misses none.
3. A body in an ``async`` block or function is cancelled when it must end. A synchronous body cannot be: it may ask
   (:meth:`Execution.check`), and is recorded as it ended.
4. An exception of the body is recorded by its type only, for its message may hold secrets, and is passed on unchanged.
5. A program that forgets :meth:`Gate.close` still ends: when its main thread is over, so is the gate.

This is an *in-process* enforcer: it guards against mistakes and stale code, not against a hostile program.

Not here: what is asked and checked (:mod:`mesh.gate.core`), threads (:mod:`mesh.gate.hall`).
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar, Union, cast

import anyio
import msgspec

from mesh.adapters.trustfiles import read_bounded
from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Name, Params, Text, Token
from mesh.core.messages import Authorized
from mesh.core.run.intent import Assurance, EntityRef, Measurement
from mesh.core.run.kin import Parent, read_parent
from mesh.core.run.outcome import Aborted as AbortedEvent
from mesh.core.run.outcome import Event, Failed, Finished
from mesh.core.run.paper import statement_in
from mesh.errors import MeshError, Refused
from mesh.gate.arguments import Call, measure_code, measure_output, values
from mesh.gate.core import Core, Wish, Work
from mesh.gate.errors import Aborted, Denied
from mesh.gate.hall import Hall
from mesh.limits import ENVELOPE_BYTES_MAX, MEASUREMENTS_MAX, PARENTS_BYTES_MAX

__all__ = ["Execution", "Gate"]

P = ParamSpec("P")
R = TypeVar("R")
Resource = tuple[str, str]
Approvals = Sequence[bytes | Path]
Papers: TypeAlias = Union["Execution", bytes, Path]
"""Another execution, or its papers: a file as ``mesh run --papers`` writes it, or its bytes (:attr:`Execution.papers`)."""

_CANCELLED: Final = AbortedEvent(code="cancelled", duration_ms=0)
_CLOSE_MS: Final = 2_000
"""How long closing waits for outcomes to be taken in; what is not stands in the spent store for the next start."""


class Gate:
    """What :func:`mesh.connect` gives. Use it as a context manager, or close it."""

    def __init__(self, hall: Hall, core: Core) -> None:
        self._hall = hall
        self._core = core

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with anyio.CancelScope(shield=True):
            await self.aclose()

    def close(self) -> None:
        """Hand over what waits, for two seconds at most, and let go. Idempotent."""
        self._hall.close(self._core.close(wait_ms=_CLOSE_MS))

    async def aclose(self) -> None:
        """The same, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def execution(  # noqa: PLR0913 -- one for each thing that an intent may say
        self,
        action: str,
        resource: Resource,
        params: Mapping[str, Any] | None = None,
        *,
        committed: Mapping[str, Any] | None = None,
        sealed: Mapping[str, Any] | None = None,
        purpose: str = "",
        assurance: Assurance = "local",
        approvals: Approvals = (),
        within: Papers | None = None,
        after: Sequence[Papers] = (),
        measure: Callable[[], tuple[Measurement, ...]] | None = None,
    ) -> "Execution":
        """A block that runs only if it is authorized; ``async with`` it, or ``with``.

        Args:
            action: ``<domain>/<verb>``.
            resource: type and id.
            params: booleans, integers, strings, or lists of those.
            committed: parameters of which only a salted commitment is signed and recorded.
            sealed: the same, of which only the auditors whom policy names can ever see more; governors cannot.
            purpose: why, in one's own words.
            assurance: at least how many must agree; policy may demand more.
            approvals: approvals and break-glass grants: files as ``mesh approve`` and ``mesh grant`` write them, or their bytes.
            within: the running execution that this is a part of. It ends with that one's ancestors; it inherits no right of theirs.
                An execution of another identity countersigns, if it runs in this process.
            after: executions that have finished, and whose results this one uses.
            measure: measures what will run.

        Raises:
            Denied: ``params_mismatch`` or ``malformed``: it cannot even be asked.
        """
        wish = _wish(action, resource, params, (committed, sealed), purpose, assurance, approvals, measure)
        return Execution(self._hall, self._core, _related(wish, within, after))

    def guard(
        self,
        action: str,
        *,
        resource: Resource | Callable[..., Resource],
        committed: tuple[str, ...] = (),
        sealed: tuple[str, ...] = (),
        purpose: str = "",
        assurance: Assurance = "local",
        approvals: Approvals | Callable[..., Approvals] = (),
        within: Papers | Callable[[], Papers | None] | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function, plain or ``async``: it runs only if the call is authorized, with the arguments that were signed.

        Not for methods: a ``self`` cannot be signed. A plain function blocks its thread while it is asked for.

        Args:
            action: ``<domain>/<verb>``.
            resource: type and id, or a function that makes them of the call's arguments, given by name.
            committed: names of parameters of which only a salted commitment is signed and recorded.
            sealed: the same, of which only the auditors whom policy names can ever see more.
            purpose: why, in one's own words.
            assurance: at least how many must agree; policy may demand more.
            approvals: approvals and break-glass grants, as for :meth:`execution`, or a function that finds those of the call's
                arguments, given by name.
            within: the running execution that each call is a part of, as for :meth:`execution`, or a function that finds it.

        The decorated function raises :class:`Denied` when it did not run, and what the body raises when it did; an ``async``
        one that was ended while it ran raises :class:`Aborted`.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if not inspect.isfunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError("only plain and async functions can be guarded")
            call = Call(function)
            if strangers := sorted({*committed, *sealed} - call.signature.parameters.keys()):
                raise TypeError(f"{function.__qualname__}: there is no parameter {strangers[0]!r} to hide")

            def execution(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Execution:
                with _denying():
                    params = call.bind(args, kwargs)
                place = resource(**params) if callable(resource) else resource
                return self.execution(
                    action,
                    place,
                    {name: value for name, value in params.items() if name not in (*committed, *sealed)},
                    committed={name: value for name, value in params.items() if name in committed},
                    sealed={name: value for name, value in params.items() if name in sealed},
                    purpose=purpose,
                    assurance=assurance,
                    approvals=approvals(**params) if callable(approvals) else approvals,
                    within=within() if callable(within) else within,
                    measure=lambda: (measure_code(function),),
                )

            return _wrapped(function, call, execution)

        return decorate

    def request(  # noqa: PLR0913 -- one for each thing that an intent may say
        self,
        action: str,
        resource: Resource,
        params: Mapping[str, Any] | None = None,
        *,
        committed: Mapping[str, Any] | None = None,
        sealed: Mapping[str, Any] | None = None,
        measurements: tuple[Measurement, ...] = (),
        purpose: str = "",
        assurance: Assurance = "local",
        approvals: Approvals = (),
        within: Papers | None = None,
        after: Sequence[Papers] = (),
    ) -> Authorized:
        """Ask only: the authorization as the governor gave it, with receipt and frontier. Nothing is spent, nothing runs.

        Raises:
            Denied: the answer is no, or there is none.
        """
        with _denying():
            wish = _wish(action, resource, params, (committed, sealed), purpose, assurance, approvals, lambda: measurements)
            return self._hall.wait(self._core.request(_related(wish, within, after))).answer


class Execution:
    """One use of the gate: enter it once."""

    def __init__(self, hall: Hall, core: Core, wish: Wish) -> None:
        self._hall = hall
        self._core = core
        self._wish = wish
        self._work: Work | None = None
        self._scope: anyio.CancelScope | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outputs: list[Measurement] = []
        self._end: Event | None = None
        self._on_stop: Callable[[], None] | None = None
        self._passing = threading.Lock()
        self._offered: Work | None = None
        self._gone = False

    @property
    def params(self) -> Params:
        """All parameters, decoded from what was signed: use these."""
        return self._running().params

    @property
    def intent(self) -> str:
        """Statement id of the intent, for ``mesh why``."""
        return self._running().about.intent

    @property
    def papers(self) -> bytes:
        """What a part of it shows, and once it has finished what comes after it: its authorization and what was last recorded of it.

        They are no secret, and say nothing that a record does not. A program that is started may be given them in a file.
        """
        return canonical.encode(self._running().papers)

    def countersign(self, message: bytes) -> bytes:
        """The holder's consent to an intent of another holder's, which names this one as the execution that it is a part of."""
        return self._core.countersign(message)

    @property
    def obligations(self) -> tuple[str, ...]:
        """What the program must also do; each is one of those that it said it fulfils."""
        return tuple(self._running().running.grant.authorization.claims.obligations)

    def output(self, value: object, name: str = "output") -> None:
        """Record the digest (never the content) of something that came out: bytes, or what has a canonical form.

        Raises:
            Refused: ``malformed``; ``too_large`` past :data:`~mesh.limits.MEASUREMENTS_MAX`.
        """
        if len(self._outputs) >= MEASUREMENTS_MAX:
            raise Refused("too_large", f"more than {MEASUREMENTS_MAX} outputs")
        self._outputs.append(measure_output(name, value))

    def measured(self, output: Measurement) -> None:
        """Record an output that was measured elsewhere."""
        self._outputs.append(output)

    def check(self) -> None:
        """For bodies that cannot be cancelled: go on only if the work may.

        Raises:
            Aborted: it must end.
        """
        refusal = self._running().refusal
        if refusal is not None:
            raise Aborted(refusal.code, refusal.detail, intent=self.intent)

    def exited(self, status: int, error: str) -> None:
        """Record this end instead of a plain return: a program's exit status (minus the signal) and ``exit`` or ``signal``."""
        duration_ms = self._core.duration_ms(self._running())
        outputs = list(self._outputs)
        if status == 0:
            self._end = Finished(status=0, outputs=outputs, duration_ms=duration_ms)
        else:
            self._end = Failed(status=status, error=error, outputs=outputs, duration_ms=duration_ms)

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Call ``stop``, from another thread, when the work must end; at once, and perhaps twice, if it must already."""
        self._on_stop = stop
        if self._work is not None and self._work.refusal is not None:
            stop()

    # ----------------------------------------------------------------------------------------------------------- async

    async def __aenter__(self) -> Self:
        self._check_unused()
        self._loop = asyncio.get_running_loop()
        self._scope = anyio.CancelScope()
        try:
            with _denying_all():
                self._work = await self._hall.wait_async(self._begin())
        except BaseException:
            self._give_back()
            raise
        self._scope.__enter__()
        self._hall.call(self._core.look)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        work, scope = self._running(), cast("anyio.CancelScope", self._scope)
        ours = bool(scope.__exit__(kind, error, trace)) and error is not None
        event = self._event(work, None if ours else error, aborted=ours)
        with anyio.CancelScope(shield=True):
            await self._hall.wait_async(self._core.end(work, event))
        if ours and work.refusal is not None:
            raise Aborted(work.refusal.code, work.refusal.detail, intent=work.about.intent) from None

    def _stop(self) -> None:  # called on the gate's own thread
        if self._on_stop is not None:
            self._on_stop()
        if self._scope is not None and self._loop is not None:
            with suppress(RuntimeError):  # that loop is closed: nothing of it runs any more
                self._loop.call_soon_threadsafe(self._scope.cancel)

    # ------------------------------------------------------------------------------------------------------------ sync

    def __enter__(self) -> Self:
        self._check_unused()
        try:
            with _denying_all():
                self._work = self._hall.wait(self._begin())
        except BaseException:
            self._give_back()
            raise
        self._hall.call(self._core.look)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        work = self._running()
        self._hall.wait(self._core.end(work, self._event(work, error, aborted=False)))

    # ----------------------------------------------------------------------------------------------------------- parts

    async def _begin(self) -> Work:  # on the gate's own thread
        work = await self._core.begin(self._wish, self._stop)
        with self._passing:
            self._offered = work
            gone = self._gone
        if gone:
            await self._core.end(work, _CANCELLED)
        return work

    def _give_back(self) -> None:
        # Whoever was cancelled or interrupted here may have missed an answer that had come already.
        with self._passing:
            self._gone = True
            work = self._offered
        if work is not None:
            with suppress(MeshError):
                self._hall.submit(self._core.end(work, _CANCELLED))

    def _event(self, work: Work, error: BaseException | None, *, aborted: bool) -> Event:
        duration_ms = self._core.duration_ms(work)
        if work.refusal is not None and (aborted or isinstance(error, Aborted)):
            return AbortedEvent(code=work.refusal.code, duration_ms=duration_ms)
        if error is not None:
            return Failed(status=1, error=type(error).__name__[:200], outputs=self._outputs, duration_ms=duration_ms)
        return self._end or Finished(status=0, outputs=self._outputs, duration_ms=duration_ms)

    def _check_unused(self) -> None:
        if self._loop is not None or self._work is not None:
            raise RuntimeError("an execution is entered once; make a new one")

    def _running(self) -> Work:
        if self._work is None:
            raise RuntimeError("this execution has not begun")
        return self._work


@contextmanager
def _denying() -> Generator[None]:
    """Inside, every refusal is a denial (rule 2)."""
    try:
        yield
    except Denied:
        raise
    except MeshError as error:
        raise Denied(error.code, error.detail) from error


@contextmanager
def _denying_all() -> Generator[None]:
    """Inside, any error is a denial."""
    with _denying():
        try:
            yield
        except MeshError:
            raise
        except Exception as error:
            raise Denied("internal_error", type(error).__name__) from error


def _wish(
    action: str,
    resource: Resource,
    params: Mapping[str, Any] | None,
    hidden: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
    purpose: str,
    assurance: Assurance,
    approvals: Approvals,
    measure: Callable[[], tuple[Measurement, ...]] | None,
) -> Wish:
    domain, _, verb = action.partition("/")
    with _denying():
        try:
            return Wish(
                domain=msgspec.convert(domain, Token),
                action=msgspec.convert(verb, Name),
                resource=msgspec.convert({"type": resource[0], "id": resource[1]}, EntityRef),
                params=values(params or {}),
                committed=values(hidden[0] or {}),
                sealed=values(hidden[1] or {}),
                purpose=msgspec.convert(purpose, Text),
                assurance=msgspec.convert(assurance, Assurance),
                approvals=tuple(
                    statement_in(said if isinstance(said, bytes) else read_bounded(said, ENVELOPE_BYTES_MAX)) for said in approvals
                ),
                measure=measure or tuple,
            )
        except (msgspec.ValidationError, IndexError, TypeError) as error:
            raise Refused("malformed", f"{action[:80]} on {resource!r:.80}: {str(error)[:120]}") from None


def _related(wish: Wish, within: Papers | None, after: Sequence[Papers]) -> Wish:
    if within is None and not after:
        return wish
    with _denying():
        parent = _papers(within) if within is not None else None
        countersign = within.countersign if isinstance(within, Execution) else None
        return msgspec.structs.replace(wish, within=parent, countersign=countersign, after=tuple(_papers(item) for item in after))


def _papers(item: Papers) -> Parent:
    if isinstance(item, Execution):
        return read_parent(item.papers)
    return read_parent(item if isinstance(item, bytes) else read_bounded(item, PARENTS_BYTES_MAX))


def _done(result: R) -> R:
    """``result``, if it is one: what has yet to be awaited or iterated would run after the authorization's end.

    Raises:
        TypeError: the body fails, and is recorded so.
    """
    if not _runs_later(result):
        return result
    if inspect.iscoroutine(result):
        result.close()  # it never began
    raise TypeError("a guarded function must not return something that runs later; guard what runs")


def _runs_later(result: object) -> bool:
    lazy = isinstance(result, map | filter)
    return lazy or inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result)


def _wrapped(function: Callable[P, R], call: Call, execution: Callable[..., Execution]) -> Callable[P, R]:
    if inspect.iscoroutinefunction(function):

        async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> object:
            async with execution(args, kwargs) as run:
                positional, named = call.unbind(run.params)
                return _done(await cast("Awaitable[object]", function(*positional, **named)))

        guarded: Callable[..., object] = guarded_async
    else:

        def guarded_plain(*args: P.args, **kwargs: P.kwargs) -> object:
            with execution(args, kwargs) as run:
                positional, named = call.unbind(run.params)
                return _done(function(*positional, **named))

        guarded = guarded_plain
    functools.update_wrapper(guarded, function)
    guarded.__signature__ = call.signature  # type: ignore[attr-defined]  # what inspect reads
    del guarded.__wrapped__  # type: ignore[attr-defined]  # or the body could be reached around the gate
    return cast("Callable[P, R]", guarded)
