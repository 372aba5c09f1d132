"""`mesh approve` and `mesh grant`: people read what would happen, sign it, and hand on a file to which others add their line.

Rules
-----
1. What is signed was shown in full before, and confirmed; a digest that nobody could read is never signed.
2. A file is added to only if it is about what stands in it, and every line in it is a valid one of its group.
3. The key says which group it signs for: all keys of a roster are distinct.
4. Nothing is handed to the mesh: the file goes with the request (``--approval``), and counts there or nowhere.

Not here: what counts (:mod:`mesh.core.run.approval`), which permits demand it (policy).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.adapters.signer import KeyFile
from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client, saying, telling
from mesh.cli.cosigning import write_file
from mesh.cli.output import Cli, one_line, pass_cli
from mesh.cli.requests import is_request, read_request
from mesh.cli.spans import span
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Role, Roster
from mesh.core.log.record import DecisionMade
from mesh.core.run.approval import Approval, BreakGlass, Effect, Said, check_life, demands, read_said
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.paper import fold, unfold
from mesh.errors import Refused
from mesh.limits import APPROVAL_USES_MAX, ENVELOPE_BYTES_MAX
from mesh.protocol.proving import bodies_of, record_of

__all__ = ["approve", "grant"]

_HOUR_MS: Final = 3_600_000
_QUARTER_MS: Final = 900_000
_FILE: Final = click.Path(dir_okay=False, path_type=Path)


class _Target(NamedTuple):
    """What is to be signed about."""

    effect: Effect
    needs: Sequence[str] = ()
    """What policy asked for when it was denied."""


class _Pen(NamedTuple):
    """Who signs."""

    group: str
    role: Role
    keys: Sequence[KeyFile]


class _Asked(NamedTuple):
    """What both commands take."""

    target: str
    keys: tuple[Path, ...]
    reason: str
    life_ms: int | None
    uses: int | None
    identity: str | None
    out: Path | None
    dry_run: bool
    yes: bool

    @property
    def says(self) -> bool:
        """Whether it says what a file that others signed says already."""
        return bool(self.reason or self.life_ms or self.uses or self.identity)


def _options(life: str) -> Callable[[Callable[..., int]], Callable[..., Any]]:
    """What both commands take, handed on as ``asked``."""
    options: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
        click.argument("target", metavar="ID|NODE/INDEX|FILE"),
        saying.signing_options("approver"),
        click.option("--for", "life_ms", metavar="DURATION", callback=span, help=f"How long it is valid: 15m, 8h, 2d; by default {life}."),
        click.option("--uses", type=click.IntRange(1, APPROVAL_USES_MAX), help="How often it may be used; once if not said."),
        click.option("--as", "identity", metavar="ID", help="For a request in a FILE: whose request it is."),
        click.option("-o", "--out", type=_FILE, help="Write it there; by default a name of its own, or FILE itself."),
        click.option("--dry-run", is_flag=True, help="Show what would be signed, and sign nothing."),
        click.option("--yes", is_flag=True, help="Do not ask whether to sign."),
    )

    def decorate(command: Callable[..., int]) -> Callable[..., Any]:
        @wraps(command)
        def collected(*, key_file: Path, others: tuple[Path, ...], **given: Any) -> int:  # noqa: ANN401 -- what click has read
            fields = {name: given.pop(name) for name in _Asked._fields if name != "keys"}
            return command(asked=_Asked(keys=(key_file, *others), **fields), **given)

        decorated: Callable[..., Any] = collected
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


@click.command()
@_options("1h")
@pass_cli
def approve(cli: Cli, *, asked: _Asked) -> int:
    """Approve what a denied intent would do, by its ID, or what a request in a FILE would do.

    Shows it in full, asks, signs, and writes a file; of a FILE that others signed it adds a line. The file goes with the next request for
    exactly that (--approval), whenever it is made again within its time.
    """
    plan = _Plan(cli, asked)
    if plan.handed_on:
        return plan.add(Approval, said=asked.says)
    found = plan.target(asked.identity)
    pen = _pen(plan.keys, plan.roster)
    now_ms = wall_ms()
    claims = Approval(
        mesh=plan.roster.mesh,
        group=pen.group,
        effect=found.effect.digest,
        uses=asked.uses or 1,
        reason=asked.reason,
        not_before_ms=now_ms,
        expires_ms=now_ms + (asked.life_ms or _HOUR_MS),
    )
    if found.effect.committed:
        cli.say("its committed parameters are salted anew in each intent: only this very intent, sent again, keeps the approval")
    if plan.file is None and not found.needs:
        cli.say("policy asked nobody to approve it when it was decided: this changes nothing unless policy is another by now")
    return plan.sign(_unsigned(claims), found.effect, pen, found.needs)


@click.command()
@click.option("--action", "actions", multiple=True, metavar="VERB", help="Another action of the domain that it is for, too.")
@_options("15m")
@pass_cli
def grant(cli: Cli, *, asked: _Asked, actions: tuple[str, ...]) -> int:
    """Break the glass for the workload of a denied intent, by its ID, or of a request in a FILE: for its domain and action, for a while.

    A grant allows nothing by itself: policy must ask for it (context.attested.breakglass). Halts, revocations, freshness and recording
    stay as they are, and every use stands in the log as what it is. To a FILE that others signed it adds a line.
    """
    plan = _Plan(cli, asked)
    if plan.handed_on:
        return plan.add(BreakGlass, said=asked.says or bool(actions))
    if not asked.reason:
        raise Refused("usage", "--reason: why the glass is broken stands in every record of it")
    effect = plan.target(asked.identity).effect
    pen = _pen(plan.keys, plan.roster)
    now_ms = wall_ms()
    claims = BreakGlass(
        mesh=plan.roster.mesh,
        group=pen.group,
        domain=effect.domain,
        subject=effect.subject,
        actions=sorted({effect.action, *actions}),
        uses=asked.uses or 1,
        reason=asked.reason,
        not_before_ms=now_ms,
        expires_ms=now_ms + (asked.life_ms or _QUARTER_MS),
    )
    return plan.sign(_unsigned(claims), None, pen, [f"{pen.role.threshold} of {pen.group}"])


class _Plan:
    """One command: what was named, and with which keys it is signed."""

    def __init__(self, cli: Cli, asked: _Asked) -> None:
        self.cli = cli
        self.asked = asked
        self.file = Path(asked.target) if Path(asked.target).is_file() else None
        self.data = read_bounded(self.file, ENVELOPE_BYTES_MAX) if self.file is not None else b""
        self.handed_on = self.file is not None and not is_request(self.data)
        self.keys = list(saying.keys_of(asked.keys, "approver").values())
        self.roster = client.files(cli).governance.roster
        """Of the files, so that who signs a file that is handed on needs no network; of the mesh once that was asked."""

    def target(self, identity: str | None) -> _Target:
        """What the intent of that id, or the request in that file, would do."""
        if self.file is not None:
            return _Target(self._requested(self.file, identity))
        if identity is not None:
            raise Refused("usage", "--as is for a request in a file: a record says whose it is")
        return client.run(self.cli, self._recorded)

    def add(self, kind: type[Said], *, said: bool) -> int:
        """A line on what others signed (rule 2)."""
        if said:
            raise Refused("usage", f"{self.file} says already what, why and how long")
        statement, effect, needs = unfold(self.data)
        if not isinstance(statement.claims, kind):
            raise Refused("usage", f"{self.file} holds a {envelope.kind_of(type(statement.claims)).name}")
        pen = _pen(self.keys, self.roster)
        if statement.claims.mesh != self.roster.mesh:
            raise Refused("wrong_mesh", statement.claims.mesh)
        if statement.claims.group != pen.group:
            raise Refused("bad_signature", f"the key is one of {pen.group}, it asks for {statement.claims.group}")
        if not statement.sealed_by(pen.role.keys):
            raise Refused("bad_signature", f"a line in {self.file} is not valid, or by nobody of {pen.group}")
        if wall_ms() >= statement.claims.expires_ms:
            raise Refused("approval_expired", f"it ended {telling.when(statement.claims.expires_ms)}")
        return self.sign(statement, effect, pen, needs)

    def sign(self, statement: Statement[Said], effect: Effect | None, pen: _Pen, needs: Sequence[str]) -> int:
        """Show, ask, sign, write (rule 1)."""
        check_life(statement.claims)
        asked = [demand for need in needs for demand in demands(need) if demand.group == pen.group]
        wanted = max([pen.role.threshold, *(demand.least for demand in asked)])
        facts = _facts(statement, effect)
        if self.asked.dry_run:
            self.cli.value(facts)
            self.cli.say("nothing was signed")
            self.cli.next(f"the same command without --dry-run signs it as one of {pen.group}")
            return 0
        self._confirm(facts)
        lines = {key.key.public: key.key.sign(statement.message) for key in pen.keys}
        kind = envelope.kind_of(type(statement.claims))
        new = read_said(envelope.assemble(kind.payload_type, statement.payload, {**statement.signatures, **lines}))
        path = self.asked.out or (self.file if self.handed_on and self.file else Path(f"{kind.name}-{new.id[:12]}.json"))
        write_file(path, fold(new, effect, list(map(str, asked))))
        self.cli.value({**_facts(new, effect), "signed_by": sorted(new.signatures), "needed": wanted, "file": str(path)})
        if len(new.signatures) < wanted:
            self.cli.say(f"{path} has {len(new.signatures)} of {wanted} signatures of {pen.group}")
            self.cli.next(f"mesh {'grant' if effect is None else 'approve'} {path} --key KEYFILE")
        else:
            self.cli.next(f"mesh request {'REQUEST' if self.file is None or self.handed_on else self.file} --approval {path}")
        return 0

    def _confirm(self, facts: Mapping[str, Any]) -> None:
        if self.asked.yes:
            return
        if not sys.stdin.isatty():
            raise Refused("usage", "nobody is here to be asked: read it with --dry-run, then sign with --yes")
        for name, value in facts.items():
            click.echo(f"{name.ljust(12)} {one_line(str(value))}", err=True)
        click.confirm("sign this?", abort=True, err=True)

    def _requested(self, file: Path, identity: str | None) -> Effect:
        from mesh.gate.arguments import values
        from mesh.gate.connect import pick
        from mesh.gate.context import load_context

        context = load_context(self.cli.context)
        document = read_bounded(context.path(pick(context, identity).document), ENVELOPE_BYTES_MAX)
        asked = read_request(file)
        if asked.committed or asked.sealed:
            raise Refused("usage", "committed and sealed parameters are salted anew in each intent: approve the denied intent by its id")
        domain, _, verb = asked.action.partition("/")
        effect = {
            "mesh": self.roster.mesh,
            "domain": domain,
            "subject": envelope.read(Identity, document).claims.subject,
            "action": verb,
            "resource": msgspec.to_builtins(asked.resource),
            "params": values(asked.params),
            "committed": {},
            "measurements": msgspec.to_builtins(asked.measurements),
        }
        try:
            return msgspec.convert(effect, Effect)
        except msgspec.ValidationError as error:
            raise Refused("malformed", f"{file}: {str(error)[:160]}") from None

    async def _recorded(self, mesh: client.MeshClient, _library: client.Library) -> _Target:
        self.roster = mesh.roster
        needs, held = set[str](), dict[str, bytes]()
        wanted = ""
        for answer in await mesh.prove_all(await mesh.locate(self.asked.target)):
            record = record_of(answer)
            wanted = client.intent_of(record) or wanted
            held.update(bodies_of(answer))
            if isinstance(record, DecisionMade):
                needs.update(record.decision.needs)
        if wanted not in held:
            raise Refused("not_found", "no member that answers holds the text of an intent of that name")
        return _Target(Effect.of(envelope.read(Intent, held[wanted]).claims), sorted(needs))


def _pen(keys: Sequence[KeyFile], roster: Roster) -> _Pen:
    """Rule 3.

    Raises:
        Refused: ``bad_signature`` for a key that approves nothing here, ``usage`` for keys of two groups.
    """
    groups = dict[str, str]()
    for key in keys:
        group = next((name for name, role in roster.approvers.items() if key.key.public in role.keys), "")
        if not group:
            raise Refused("bad_signature", f"key {key.key.public[:12]}… is in no group of approvers of this roster")
        groups[group] = key.key.public
    if len(groups) != 1:
        raise Refused("usage", f"the keys are of {', '.join(sorted(groups))}: one file for each group")
    (group,) = groups
    return _Pen(group, roster.approvers[group], keys)


def _unsigned(claims: Said) -> Statement[Said]:
    plain = envelope.draft(claims)
    return read_said(envelope.assemble(plain.payload_type, plain.payload, {}))


def _facts(statement: Statement[Said], effect: Effect | None) -> dict[str, Any]:
    """What it says, for people and programs."""
    claims = statement.claims
    facts: dict[str, Any] = {"kind": envelope.kind_of(type(claims)).name, "id": statement.id}
    if effect is not None:
        facts |= {"effect": effect.digest, **msgspec.to_builtins(effect)}
    elif isinstance(claims, BreakGlass):
        facts |= {"mesh": claims.mesh, "domain": claims.domain, "subject": claims.subject, "actions": claims.actions}
    return facts | {
        "group": claims.group,
        "uses": claims.uses,
        "reason": claims.reason,
        "not_before": telling.when(claims.not_before_ms),
        "expires": telling.when(claims.expires_ms),
    }
