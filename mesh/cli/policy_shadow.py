"""`mesh policy shadow`: what a policy that nobody signed yet would have said to what was really asked."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from mesh.cli import client, recorded, telling
from mesh.cli.gathering import gather, heartbeats
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.spans import span
from mesh.codes import CODES
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Bundle, Terms, policy_stream
from mesh.core.log.record import DecisionMade, Denied
from mesh.core.messages import NodeStatus
from mesh.errors import MeshError, Refused, Unavailable

if TYPE_CHECKING:
    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.decision_thread import DecisionThread
    from mesh.policy.shadow import Candidate, Found, Judged, Table, Turn

__all__ = ["shadow"]

_INCOMPLETE: Final = 4
_EXAMPLES: Final = 3
_AUTHORIZATION_MS: Final = 30_000
_LEASE_MS: Final = 10_000


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at the path; the terms are ``None`` where a bundle alone does not say them."""

    data: bytes
    digest: str
    bundle: Bundle
    actions: dict[str, Terms] | None
    enforcers: list[str] | None


class _LogRead(msgspec.Struct, frozen=True, kw_only=True):
    """How the reading of one log ended."""

    node: str
    origin: str
    read_from: str
    """The member; empty if the log is empty, or nobody served it."""
    final: int
    """Records of it that are final."""
    beyond: int
    """Records that are not, as members say."""
    error: str
    """Why it could not be read; empty if it was."""


class _Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found out."""

    table: "Table"
    logs: list[_LogRead]
    silent: dict[str, str]
    """Member to why it did not answer."""


@click.command()
@click.argument("candidate", metavar="FOLDER|BUNDLE", type=click.Path(path_type=Path))
@click.option("--replay", "span_ms", default="24h", show_default=True, metavar="SPAN", callback=span, help="How far back: 30m, 24h, 7d.")
@click.option(
    "--max-flips", type=click.IntRange(0), metavar="N", help="End with 2 if more than N decisions flip or cannot be asked any more."
)
@format_option
@pass_cli
def shadow(cli: Cli, candidate: Path, span_ms: int, max_flips: int | None) -> int:
    """Ask a policy folder, or a built bundle, what was really asked lately, and show where it differs.

    Reads what is final in every member's log. A bundle alone has no terms: those of the domain's newest manifest count.
    Ends with 4 if a log could not be read.
    """
    read = _read(cli, candidate)
    if isinstance(read, int):
        return read
    until_ms = time.time_ns() // 1_000_000
    since_ms = max(until_ms - span_ms, 0)

    async def work(mesh: client.MeshClient, library: client.Library) -> _Shadow:
        with _engine() as (thread, engine):
            asked = _admitted(read, await _known(cli, mesh, library.governance), engine)
            return await _Reading(cli, mesh, asked, thread, engine).all(since_ms)

    found = client.run(cli, work)
    if cli.format == "table":
        cli.lines(_lines(read.bundle.domain, found, since_ms))
    else:
        cli.value(_value(read, found, since_ms, until_ms))
    return _ended(cli, found, max_flips)


def _ended(cli: Cli, found: _Shadow, max_flips: int | None) -> int:
    for member, why in found.silent.items():
        cli.say(f"{member} does not answer: {why}")
    unread = [log for log in found.logs if log.error]
    for log in unread:
        cli.say(f"the log of {log.node} could not be read, from no member: {log.error}")
    differ = found.table.flips.count + found.table.unanswerable.count
    if max_flips is not None and differ > max_flips:
        cli.error("policy_flips", f"{differ} decisions, at most {max_flips} are allowed", fix=CODES["policy_flips"].fix)
        return CODES["policy_flips"].exit
    return _INCOMPLETE if unread else 0


# ---------------------------------------------------------------------------------------------------------------- candidate


def _read(cli: Cli, path: Path) -> _Candidate | int:
    """The candidate at ``path``, or the exit status after saying all that is wrong with it."""
    from mesh.adapters.trustfiles import read_bounded
    from mesh.core.bytes import canonical
    from mesh.core.law.policy import bundle_digest
    from mesh.limits import BUNDLE_BYTES_MAX
    from mesh.policy.build import check
    from mesh.policy.folder import PolicyRefused

    if path.is_file():
        data = read_bounded(path, BUNDLE_BYTES_MAX)
        bundle = canonical.decode(Bundle, data, bytes_max=BUNDLE_BYTES_MAX)
        return _Candidate(data=data, digest=bundle_digest(data), bundle=bundle, actions=None, enforcers=None)
    try:
        built = check(path)
    except PolicyRefused as refused:
        for finding in refused.findings:
            cli.error(finding.code, f"{finding.where}: {finding.what}", fix=f"mend {finding.where} in {path}")
        return CODES[refused.code].exit
    return _Candidate(data=built.data, digest=built.digest, bundle=built.bundle, actions=built.actions, enforcers=built.enforcers)


@contextmanager
def _engine() -> "Iterator[tuple[DecisionThread, CedarEngine]]":
    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.decision_thread import DecisionThread

    thread = DecisionThread()
    try:
        yield thread, CedarEngine(thread)
    finally:
        thread.close()


async def _known(cli: Cli, mesh: client.MeshClient, governance: Governance) -> Governance:
    """What the context says, and every manifest that members show: its signers are checked, who showed it does not matter."""
    try:
        beats, _ = await heartbeats(mesh)
    except Unavailable as error:
        cli.say(f"of signed policies only those in the context are known: {error}")
        return governance
    claimed = {member: beat.frontier for member, beat in beats.items()}
    gathered = await gather(mesh, claimed, governance, streams=lambda name: name.startswith(policy_stream("")))
    return extend(governance, gathered.statements).governance


def _admitted(read: _Candidate, governance: Governance, engine: "CedarEngine") -> "Candidate":
    """The candidate, having passed every check that a node makes before it decides by a bundle."""
    from mesh.policy.admission import examine, install
    from mesh.policy.shadow import candidate

    actions, enforcers = read.actions, read.enforcers
    if actions is None or enforcers is None:
        actions, enforcers = _terms(read.bundle, governance)
    made = candidate(governance, read.bundle, read.digest, actions=actions, enforcers=enforcers)
    examine([read.data])
    install(made.law.manifest, read.bundle, engine)
    return made


def _terms(bundle: Bundle, governance: Governance) -> tuple[dict[str, Terms], list[str]]:
    """Terms and enforcers of the domain's newest manifest, with the bundle's own actions and floors."""
    from mesh.core.law.scope import approval_floors, floors
    from mesh.core.run.intent import strongest

    epochs = governance.laws.get(bundle.domain, ())
    if not epochs:
        raise Refused("domain_unknown", f"no manifest of {bundle.domain} is known to take terms from: name the folder instead")
    newest = epochs[-1].manifest
    actions, approvals = dict[str, Terms](), approval_floors(bundle)
    for name, floor in floors(bundle).items():
        known = newest.actions.get(name) or Terms(assurance=floor, authorization_ms=_AUTHORIZATION_MS, lease_ms=_LEASE_MS, approvals={})
        actions[name] = msgspec.structs.replace(known, assurance=strongest(known.assurance, floor), approvals=approvals[name])
    return actions, newest.enforcers


# ------------------------------------------------------------------------------------------------------------------ reading


class _Reading:
    """Reads every log, and asks the candidate page by page."""

    def __init__(self, cli: Cli, mesh: client.MeshClient, candidate: "Candidate", thread: "DecisionThread", engine: "CedarEngine") -> None:
        from mesh.protocol.documents import Documents

        self._cli, self._mesh, self._candidate, self._thread, self._engine = cli, mesh, candidate, thread, engine
        self._documents = Documents()

    async def all(self, since_ms: int) -> _Shadow:
        """Every log since then.

        Raises:
            Unavailable: ``unreachable`` when no member answers.
        """
        from mesh.policy.shadow import Table

        said = await self._mesh.status()
        answers = client.answers_in(said)
        total, logs = Table(), list[_LogRead]()
        for member in self._mesh.roster.members:
            table, log = await self._log(answers, self._mesh.roster.origin(member), since_ms)
            total = total.merge(table)
            logs.append(log)
        silent = {name: str(answer) for name, answer in said.items() if isinstance(answer, MeshError)}
        return _Shadow(table=total, logs=logs, silent=silent)

    async def _log(self, answers: Mapping[str, NodeStatus], origin: str, since_ms: int) -> "tuple[Table, _LogRead]":
        """One log, from the first member that serves it as it was certified."""
        from mesh.policy.shadow import Table

        log = _LogRead(node=telling.node_of(origin), origin=origin, read_from="", final=0, beyond=0, error="")
        try:
            head = await recorded.head_of(self._mesh, answers, origin)
        except MeshError as error:
            return Table(), msgspec.structs.replace(log, error=str(error))
        if head is None:
            beyond = max(recorded.held(answer, origin) for answer in answers.values())
            return Table(), msgspec.structs.replace(log, beyond=beyond)
        log = msgspec.structs.replace(log, final=head.size, beyond=head.beyond)
        members = recorded.readers(self._mesh, answers, head)
        for member in members:
            table = Table()
            try:
                async for page in recorded.pages(self._mesh, member, head, since_ms):
                    table = table.merge(await self._page(origin, page, [other for other in members if other != member]))
            except MeshError as error:
                self._cli.say(f"{member}: {error}; asking another member for the log of {log.node}")
                log = msgspec.structs.replace(log, error=str(error))
                continue
            return table, msgspec.structs.replace(log, read_from=member, error="")
        return Table(), log

    async def _page(self, origin: str, page: recorded.Page, others: Sequence[str]) -> "Table":
        """What the candidate makes of a page. What is missing or spoilt beside it is asked of the other members."""
        from mesh.policy.shadow import denials, table

        decisions = [record for record in page.records if isinstance(record, DecisionMade)]
        judged = await self._ask(decisions, page.bodies, page.openings)
        for other in others:
            skipped = [at for at, row in enumerate(judged) if row.kind == "skipped"]
            if not skipped:
                break
            try:
                batch = await self._mesh.records(other, origin, page.first, len(page.records))
            except MeshError:
                continue
            again = await self._ask([decisions[at] for at in skipped], *recorded.material(batch))
            for at, row in zip(skipped, again, strict=True):
                judged[at] = row if row.kind != "skipped" else judged[at]
        denied = denials(((record, page.bodies) for record in page.records if isinstance(record, Denied)), self._candidate)
        return table(judged, denied)

    async def _ask(
        self, decisions: Sequence[DecisionMade], bodies: Mapping[str, bytes], openings: Mapping[str, Sequence[Any]]
    ) -> "list[Judged]":
        from mesh.policy.shadow import Recorded, replay

        asked = [Recorded(record, bodies, openings.get(record.intent, ())) for record in decisions]
        return await self._thread.run(replay, asked, self._candidate, documents=self._documents, engine=self._engine)


# ------------------------------------------------------------------------------------------------------------------ telling


def _lines(domain: str, found: _Shadow, since_ms: int) -> Iterator[str]:
    """For people."""
    table = found.table
    skipped = sum(table.skipped.values())
    yield (
        f"{domain}: {table.replayed} decisions replayed of {table.decisions} since {telling.when(since_ms)}: {table.flips.count} flips, "
        f"{table.changes.count} changes, {table.unanswerable.count} unanswerable, {skipped} skipped"
    )
    for name, kind in (("flip", table.flips), ("unanswerable", table.unanswerable), ("change", table.changes)):
        yield from _groups(name, kind)
    for title, counts in (("skipped", table.skipped), ("denied without a decision, not replayed", table.denied)):
        if counts:
            yield f"{title}: {', '.join(f'{count} {code}' for code, count in counts.items())}"
    beyond = sum(log.beyond for log in found.logs)
    if beyond:
        yield f"not final yet, not read: {beyond} records"


def _groups(name: str, found: "Found") -> Iterator[str]:
    from mesh.policy.shadow import turn_of

    examples: dict[Turn, list[Judged]] = {}
    for row in found.rows:
        examples.setdefault(turn_of(row), []).append(row)
    for turn, count in sorted(found.groups.items(), key=lambda item: -item[1]):
        yield f"{name}  {count} x  {_turned(turn)}"
        for row in examples.get(turn, ())[:_EXAMPLES]:
            place = f"{telling.node_of(row.origin)}/{row.index}"
            detail = f"  {row.detail}" if row.detail else ""
            yield f"    {place}  {telling.when(row.at_ms)}  {row.subject}  {row.action}  {row.resource}{detail}"
        shown = min(len(examples.get(turn, ())), _EXAMPLES)
        if count > shown:
            yield f"    and {count - shown} more"
    others = found.count - sum(found.groups.values())
    if others:
        yield f"{name}  {others} x  in other groups, not told apart"


def _turned(turn: "Turn") -> str:
    before = _by(turn.effect, turn.determining)
    now = turn.code or _by(turn.now_effect, turn.now_determining)
    other = [name for name in turn.changed if name not in {"effect", "determining"}]
    return f"{before} -> {now}" + (f" (other {', '.join(other)})" if other else "")


def _by(effect: str, determining: Sequence[str]) -> str:
    return f"{effect} by {', '.join(determining) or 'no policy'}"


def _value(read: _Candidate, found: _Shadow, since_ms: int, until_ms: int) -> dict[str, Any]:
    """For programs: all that was kept, and how much was not."""
    table = found.table
    return {
        "domain": read.bundle.domain,
        "digest": read.digest,
        "since": telling.when(since_ms),
        "until": telling.when(until_ms),
        "decisions": table.decisions,
        "replayed": table.replayed,
        "same": table.same,
        "flips": _found_value(table.flips),
        "changes": _found_value(table.changes),
        "unanswerable": _found_value(table.unanswerable),
        "skipped": dict(table.skipped),
        "denied": dict(table.denied),
        "elsewhere": table.elsewhere,
        "logs": [msgspec.to_builtins(log) for log in found.logs],
        "silent": found.silent,
    }


def _found_value(found: "Found") -> dict[str, Any]:
    return {
        "count": found.count,
        "groups": [{"count": count, **msgspec.to_builtins(turn)} for turn, count in found.groups.items()],
        "groups_left_out": found.count - sum(found.groups.values()),
        "rows": [_row_value(row) for row in found.rows],
        "rows_left_out": found.count - len(found.rows),
    }


def _row_value(row: "Judged") -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(row)
    return {"record": f"{telling.node_of(row.origin)}/{row.index}", "at": telling.when(row.at_ms), **value}
