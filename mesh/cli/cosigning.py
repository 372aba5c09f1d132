"""A statement that several people sign, each on a machine of their own: it passes as a file, and each adds one line to it.

Rules
-----
1. A key signs one statement under one number. What it signed is durable beside it before the file is written; asked for another
   statement under that number, or under one before, it refuses.
2. A file is added to only if every line in it is a valid one of that role.
3. A number that the mesh does not show yet may be another's draft: the next one is only ever drawn up behind what members show.
4. Fewer signatures than the threshold are no error here. Whoever offers needs them all.

Not here: whose word counts where (:mod:`mesh.cli.gathering`), offering (:mod:`mesh.cli.spreading`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mesh.adapters.signer import KeyFile
from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client, saying, signed, telling
from mesh.cli.gathering import Frontiers, Head
from mesh.cli.output import Cli
from mesh.cli.saying import Plan
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Manifest
from mesh.core.law.reign import in_reign
from mesh.core.law.roster import Role, Roster
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said, link_of, read_law
from mesh.errors import Refused
from mesh.limits import ENVELOPE_BYTES_MAX

__all__ = [
    "Signers",
    "Tally",
    "check_enough",
    "check_free",
    "countersign",
    "draw",
    "facts",
    "joined",
    "lacking",
    "read_file",
    "signers",
    "tally",
    "tell",
    "write_file",
]

_KEPT: Final = 4
"""Statements that stay beside a key: the newest says which numbers are used up; those before may have to be offered again."""


class Signers(NamedTuple):
    """The keys at hand that sign in one stream."""

    stream: str
    role: Role
    keys: Mapping[Path, KeyFile]
    """By where it is kept what each has signed."""
    roster: Roster
    since: str
    """Id of the roster that named this role; empty for the first."""
    handed: Head | None
    """Behind which statement of others it goes on, if behind any."""

    @property
    def paths(self) -> list[Path]:
        """Where it is kept."""
        return list(self.keys)

    def kept(self) -> list[Statement[Said]]:
        """What these keys have signed, oldest first; of one statement the copy with the most lines."""
        found = dict[str, Statement[Said]]()
        for path, key in self.keys.items():
            for item in signed.kept(path, stream=self.stream, key=key.key.public, mesh=self.roster.mesh):
                if item.id not in found or len(item.signatures) > len(found[item.id].signatures):
                    found[item.id] = item
        return sorted(found.values(), key=lambda item: item.claims.sequence)


class Tally(NamedTuple):
    """Who has signed a statement."""

    signed: list[str]
    """Keys."""
    open: list[str]
    """Keys of the role that have not."""
    needed: int

    @property
    def complete(self) -> bool:
        """Whether that is enough."""
        return len(self.signed) >= self.needed


def signers(paths: Sequence[Path], rosters: Rosters, domain: str, base: str) -> Signers:
    """The policy keys in these files, for a stream of that domain.

    Raises:
        Refused: ``bad_signature`` for a key that the roster does not name; as :func:`mesh.cli.saying.keys_of`.
    """
    files = saying.keys_of(paths, "policy")
    role = rosters.newest.policy[domain]
    saying.check_named(list(files.values()), role, f"policy signer of {domain}")
    since, handed = saying.taken_over(rosters, base)
    kept = {signed.since_path(signed.path_of(path, base), since): key for path, key in files.items()}
    return Signers(in_reign(base, since), role, kept, rosters.newest, since, handed)


def tally(statement: Statement[Said], role: Role) -> Tally:
    """Who has signed it (rule 2).

    Raises:
        Refused: ``bad_signature`` for a line that is not valid, or by a key that is none of the role.
    """
    for key in statement.signatures:
        if key not in role.keys or not statement.signed_by(key):
            raise Refused("bad_signature", f"the line of {key[:12]}… is not valid, or that key is none of this role")
    lines = sorted(statement.signatures)
    return Tally(lines, [key for key in role.keys if key not in statement.signatures], role.threshold)


def lacking(count: Tally) -> str:
    """Who signed, and who may sign still, in words."""
    told = f"{len(count.signed)} of {count.needed} signatures"
    if count.signed:
        told += f"; signed by {', '.join(f'{key[:12]}…' for key in count.signed)}"
    if not count.complete:
        told += f"; still to sign: {count.needed - len(count.signed)} of {', '.join(f'{key[:12]}…' for key in count.open)}"
    return told


def check_enough(statement: Statement[Said], role: Role) -> None:
    """That the threshold has signed it, as members will ask.

    Raises:
        Refused: ``bad_signature``, ``threshold_not_met``.
    """
    count = tally(statement, role)
    if not count.complete:
        stream, link = link_of(statement)
        raise Refused(
            "threshold_not_met",
            f"{stream} number {link.sequence} has {lacking(count)}. Each of them: mesh policy sign FILE --key KEYFILE",
        )


def countersign(statement: Statement[Said], by: Signers, *, whole: bool = False) -> Statement[Said]:
    """The statement with one line more for each key; it is durable beside each (rules 1 and 2). The caller holds the locks.

    Args:
        statement: with the lines of others, or none.
        by: whose lines to add.
        whole: refuse, before anything is signed, if the threshold is not met then.

    Raises:
        Refused: ``already_signed``, ``bad_signature``, ``threshold_not_met``.
        Unavailable: ``storage_failed``.
    """
    tally(statement, by.role)
    before = dict[Path, list[Statement[Said]]]()
    for path, key in by.keys.items():
        before[path] = signed.kept(path, stream=by.stream, key=key.key.public, mesh=by.roster.mesh)
        check_free(statement, before[path], path)
    new = read_law(envelope.assemble(*_bare(statement), {**statement.signatures, **_lines(statement, by)}))
    if whole:
        check_enough(new, by.role)
    for path, items in before.items():
        signed.keep(path, [*[item for item in items if item.id != new.id][-(_KEPT - 1) :], new])
    return new


def check_free(statement: Statement[Said], kept: Sequence[Statement[Said]], path: Path) -> None:
    """That the key behind ``path`` has not signed another statement under that number, or a later one (rule 1).

    Raises:
        Refused: ``already_signed``.
    """
    number = statement.claims.sequence
    if not kept or kept[-1].claims.sequence < number or any(item.id == statement.id for item in kept[-1:]):
        return
    last = kept[-1]
    raise Refused(
        "already_signed",
        f"{path} says that this key signed number {last.claims.sequence} of {last.claims.link[0]} already, {last.id[:12]}…;"
        f" this is another number {number}, {statement.id[:12]}…",
    )


def _lines(statement: Statement[Said], by: Signers) -> dict[str, bytes]:
    return {key.key.public: key.key.sign(statement.message) for key in by.keys.values()}


def _bare(statement: Statement[Said]) -> tuple[str, bytes]:
    return envelope.kind_of(type(statement.claims)).payload_type, statement.payload


async def draw(
    mesh: client.MeshClient,
    governance: Governance,
    claimed: Frontiers,
    by: Signers,
    *,
    same: Callable[[Said, bool], bool],
    draft: Callable[[int, str], Said],
    whole: bool = False,
) -> Plan:
    """Draw up the next statement of the stream and sign it, unless these keys have signed one already that says the same (rule 3).

    Args:
        mesh: whom to ask.
        governance: whom to believe.
        claimed: what members sign that they hold.
        by: what signs.
        same: whether a statement says already what is to be said; the second argument tells whether members show it.
        draft: what is to be said, by (number, id of the statement before).
        whole: as for :func:`countersign`.

    Raises:
        Refused: ``already_signed``, ``stream_forked``, ``threshold_not_met``.
        Unavailable: ``unreachable``, ``storage_failed``.
    """
    saying.check_heard(mesh.roster, claimed)
    head = await saying.shown(mesh, claimed, by.stream, governance, by.handed) or by.handed
    number, kept = head.sequence if head else 0, by.kept()
    last = kept[-1] if kept else None
    safe = saying.settled(claimed, by.stream, mesh.roster)
    lasting = tuple(item for item in kept if item.claims.sequence > safe and tally(item, by.role).complete)
    if last is not None and last.claims.sequence >= number:
        shown = head == Head(last.claims.sequence, last.id)
        if (shown or last.claims.sequence > number) and same(last.claims, shown):
            again = countersign(last, by, whole=whole)
            return Plan(again, (*[item for item in lasting if item.id != again.id], again), again=True)
        if last.claims.sequence > number:
            raise Refused(
                "already_signed",
                f"this key signed number {last.claims.sequence} of {by.stream}, {last.id[:12]}…, which says something else and which no"
                f" member shows yet; it stands in {by.paths[0]}",
            )
        if last.id != (head.id if head else "") and tally(last, by.role).complete:
            raise Refused("stream_forked", f"number {number} of {by.stream} is another in the mesh than in {by.paths[0]}")
    claims = saying.stamped(draft(number + 1, head.id if head else ""), by.since)
    plain = envelope.draft(claims)
    new = countersign(read_law(envelope.assemble(plain.payload_type, plain.payload, {})), by, whole=whole)
    return Plan(new, (*[item for item in lasting if item.claims.sequence <= number], new), again=False)


# ------------------------------------------------------------------------------------------------------------------- files


def read_file(path: Path) -> Statement[Said]:
    """The manifest or activation in the file. Nothing in it is believed.

    Raises:
        Refused: ``config_invalid``, the codec's codes, ``wrong_kind``.
    """
    data = read_bounded(path, ENVELOPE_BYTES_MAX)
    return envelope.read_any((Manifest, Activation), data)


def joined(statement: Statement[Said], path: Path, role: Role) -> Statement[Said]:
    """The statement, with the valid lines that a copy of it in that file has more: what somebody signed there is not written over."""
    try:
        other = read_file(path)
    except Refused:
        return statement
    if other.id != statement.id:
        return statement
    lines = {key: line for key, line in other.signatures.items() if key in role.keys and other.signed_by(key)}
    return read_law(envelope.assemble(*_bare(statement), {**lines, **statement.signatures}))


def write_file(path: Path, data: bytes) -> None:
    """Write a file that is handed on.

    Raises:
        Refused: ``config_invalid``.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Refused("config_invalid", f"{path}: {error.strerror}") from None


def facts(statement: Statement[Said], role: Role) -> dict[str, Any]:
    """What a manifest or activation says and who signed it, for people and programs."""
    claims, count = statement.claims, tally(statement, role)
    value: dict[str, Any] = {"kind": envelope.kind_of(type(claims)).name, "id": statement.id}
    if isinstance(claims, Manifest):
        value |= {
            "domain": claims.domain,
            "epoch": claims.epoch,
            "previous": claims.previous,
            "digest": claims.digest,
            "terms": {
                name: f"{terms.assurance}, authorization {terms.authorization_ms} ms, lease {terms.lease_ms} ms"
                + "".join(f", {least} of {group} approve" for group, least in sorted(terms.approvals.items()))
                for name, terms in claims.actions.items()
            },
            "enforcers": claims.enforcers,
            "not_before": telling.when(claims.not_before_ms),
            "expires": telling.when(claims.expires_ms),
        }
    elif isinstance(claims, Activation):
        value |= {
            "domain": claims.domain,
            "epoch": claims.epoch,
            "manifest": claims.manifest,
            "sequence": claims.sequence,
            "previous": claims.previous,
            "rings": {(", ".join(ring.regions) or "everywhere else"): telling.when(ring.not_before_ms) for ring in claims.rings},
        }
    value |= {"reason": claims.reason, "issued": telling.when(claims.issued_ms)}
    return value | {"signed_by": count.signed, "needed": count.needed, "complete": count.complete}


def tell(cli: Cli, statement: Statement[Said], role: Role, path: Path) -> None:
    """Print what was signed and where it is now."""
    value = facts(statement, role)
    if cli.format == "table":
        for name, what in value.pop("terms", {}).items():
            value[f"terms of {name}"] = what
        for name, what in value.pop("rings", {}).items():
            value[f"begins in {name}"] = what
    cli.value({**value, "file": str(path)})
    cli.say(f"{path} has {lacking(tally(statement, role))}")
