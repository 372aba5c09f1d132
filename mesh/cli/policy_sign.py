"""`mesh policy sign` and `mesh policy rollback`: a manifest is drawn up once, passes as a file, and gets one line from each signer.

Not here: numbers, keeping and lines (:mod:`mesh.cli.cosigning`), handing it to the mesh (:mod:`mesh.cli.policy_push`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from mesh.adapters.clock import wall_ms
from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client, cosigning, epochs, saying
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation
from mesh.core.law.policy import Manifest, Terms, bundle_digest, policy_stream
from mesh.core.law.reign import base_of
from mesh.core.law.roster import Roster, admit_roster
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said
from mesh.errors import Refused
from mesh.limits import BUNDLE_BYTES_MAX, ENVELOPE_BYTES_MAX

if TYPE_CHECKING:
    from mesh.policy.build import Built

__all__ = ["rollback", "sign"]

_DAY_MS: Final = 86_400_000
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_VALID = click.option("--valid", "days", default=365, show_default=True, type=click.IntRange(1, 3_650), help="Days until it expires.")


class _Content(NamedTuple):
    """What a manifest names, on which terms."""

    domain: str
    digest: str
    actions: Mapping[str, Terms]
    enforcers: Sequence[str]

    @classmethod
    def of(cls, built: "Built") -> "_Content":
        """What a folder makes."""
        return cls(built.bundle.domain, built.digest, built.actions, built.enforcers)

    def manifest(self, mesh: str, number: int, previous: str, days: int, reason: str) -> Manifest:
        """The manifest of it under that epoch."""
        now_ms = wall_ms()
        return Manifest(
            mesh=mesh,
            domain=self.domain,
            epoch=number,
            previous=previous,
            since="",
            digest=self.digest,
            actions=dict(self.actions),
            enforcers=list(self.enforcers),
            not_before_ms=now_ms,
            expires_ms=now_ms + days * _DAY_MS,
            reason=reason,
            issued_ms=now_ms,
        )

    def is_in(self, said: Said) -> bool:
        """Whether that manifest says the same."""
        if not isinstance(said, Manifest):
            return False
        return (said.domain, said.digest, said.actions, said.enforcers) == (self.domain, self.digest, self.actions, self.enforcers)


@click.command()
@click.argument("source", metavar="FOLDER|FILE", type=click.Path(exists=True, path_type=Path))
@saying.signing_options("policy signer")
@click.option("--out", type=_FILE, help="Write it there; by default DOMAIN-EPOCH.manifest.json, or FILE itself.")
@click.option("--epoch", type=click.IntRange(1), help="For a FOLDER, without asking the mesh: under this epoch.")
@click.option("--previous", default="", metavar="ID", help="With --epoch: id of the manifest before.")
@_VALID
@click.option("--bundle", "expected", type=click.Path(exists=True, path_type=Path), help="Refuse unless FILE names this bundle or folder.")
@click.option("--trust", type=_FILE, help="The roster to go by; by default the context's.")
@format_option
@pass_cli
def sign(  # noqa: PLR0913 -- one for each option
    cli: Cli,
    *,
    source: Path,
    key_file: Path,
    others: tuple[Path, ...],
    reason: str,
    out: Path | None,
    epoch: int | None,
    previous: str,
    days: int,
    expected: Path | None,
    trust: Path | None,
) -> int:
    """Sign a policy with keys that are here, or add their lines to what others signed.

    Of a policy FOLDER this makes the manifest of the next epoch: the mesh is asked which that is, or --epoch and --previous say it. Of a
    FILE, a manifest or an activation that others signed, it shows what is said and adds a line. No key ever signs two statements under one
    number. Ends with 0 also while signatures are missing, and says whose.
    """
    saying.check_reason(reason)
    paths = (key_file, *others)
    if source.is_file() and (reason or epoch is not None or previous):
        raise Refused("usage", f"{source} says already which epoch and why")
    if source.is_dir():
        content = _Content.of(_checked(source))
        _expect(expected, content.digest)
        made, rosters = _first(cli, content, paths, reason=reason, place=_place(epoch, previous), days=days, trust=trust)
    else:
        statement, rosters = _read(source), _rosters(cli, trust)
        if isinstance(statement.claims, Manifest):
            _expect(expected, statement.claims.digest)
        made = _line(statement, paths, rosters)
    target = out or (source if source.is_file() else _name(made))
    _finish(cli, made, rosters.newest, target, f"{source} " if source.is_dir() else "")
    return 0


@click.command()
@click.argument("domain")
@click.option("--to", "epoch", required=True, type=click.IntRange(1), help="The epoch whose content is to decide again.")
@saying.signing_options("policy signer")
@click.option("--out", type=_FILE, help="Write it there; by default DOMAIN-EPOCH.manifest.json.")
@_VALID
@format_option
@pass_cli
def rollback(
    cli: Cli, *, domain: str, epoch: int, key_file: Path, others: tuple[Path, ...], reason: str, out: Path | None, days: int
) -> int:
    """Make the manifest of a new epoch of DOMAIN with the content and terms of an older one.

    Nothing is taken back: epochs only go on. The new one is signed, pushed and activated like any other; it needs no bundle, because the
    mesh has it.
    """
    saying.check_reason(reason)

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[Statement[Said], Rosters]:
        epochs.check_domain(mesh.rosters.newest, domain)
        held = await epochs.read(cli, mesh, library.governance, [domain])
        held.check_one_history(domain)
        older = held.law(domain, epoch).manifest
        await epochs.bundle(mesh, library, older.digest)
        content = _Content(domain, older.digest, older.actions, older.enforcers)
        why = reason or f"as epoch {epoch}"
        return await _next(mesh, library, held, content, (key_file, *others), reason=why, days=days), mesh.rosters

    made, rosters = client.run(cli, work)
    cli.say(f"{domain} epoch {made.claims.sequence} is a new epoch, with what epoch {epoch} says")
    _finish(cli, made, rosters.newest, out or _name(made), "")
    return 0


# ----------------------------------------------------------------------------------------------------------------- drawing


def _first(
    cli: Cli,
    content: _Content,
    paths: Sequence[Path],
    *,
    reason: str,
    place: tuple[int, str] | None,
    days: int,
    trust: Path | None,
) -> tuple[Statement[Said], Rosters]:
    """The manifest of this content, with the first lines."""
    if place is not None:
        rosters = _rosters(cli, trust)
        epochs.check_domain(rosters.newest, content.domain)
        by = cosigning.signers(paths, rosters, content.domain, policy_stream(content.domain))
        with saying.signing(by.paths):
            kept = next((item for item in by.kept() if item.claims.sequence == place[0] and content.is_in(item.claims)), None)
            if kept is None:
                plain = envelope.draft(saying.stamped(content.manifest(rosters.newest.mesh, *place, days, reason), by.since))
                kept = envelope.read(Manifest, envelope.assemble(plain.payload_type, plain.payload, {}))
            return cosigning.countersign(kept, by), rosters

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[Statement[Said], Rosters]:
        epochs.check_domain(mesh.rosters.newest, content.domain)
        held = await epochs.read(cli, mesh, library.governance, [content.domain])
        held.check_one_history(content.domain)
        return await _next(mesh, library, held, content, paths, reason=reason, days=days), mesh.rosters

    return client.run(cli, work)


async def _next(
    mesh: client.MeshClient,
    library: client.Library,
    held: epochs.Epochs,
    content: _Content,
    paths: Sequence[Path],
    *,
    reason: str,
    days: int,
) -> Statement[Said]:
    by = cosigning.signers(paths, mesh.rosters, content.domain, policy_stream(content.domain))
    with saying.signing(by.paths):
        made = await cosigning.draw(
            mesh,
            library.governance,
            saying.frontiers_of(held.beats),
            by,
            same=lambda said, shown: not shown and content.is_in(said),
            draft=lambda number, previous: content.manifest(mesh.roster.mesh, number, previous, days, reason),
        )
    return made.statement


def _line(statement: Statement[Said], paths: Sequence[Path], rosters: Rosters) -> Statement[Said]:
    """The statement with one line more for each key."""
    claims = statement.claims
    if not isinstance(claims, Manifest | Activation):
        raise Refused("wrong_kind", "only manifests and activations are signed so")
    newest = rosters.newest
    if claims.mesh != newest.mesh:
        raise Refused("wrong_mesh", f"it is of {claims.mesh}, the roster of {newest.mesh}")
    epochs.check_domain(newest, claims.domain)
    stream, number, previous = claims.link
    by = cosigning.signers(paths, rosters, claims.domain, base_of(stream))
    if claims.since != by.since:
        raise Refused("handed_over", f"it was drawn up for other signers of {base_of(stream)} than roster epoch {newest.epoch} names")
    rosters.appointed(base_of(stream), claims.since, number, previous)
    with saying.signing(by.paths):
        return cosigning.countersign(statement, by)


def _finish(cli: Cli, made: Statement[Said], roster: Roster, target: Path, folder: str) -> None:
    claims = made.claims
    role = roster.policy[claims.domain] if isinstance(claims, Manifest | Activation) else roster.revoker
    made = cosigning.joined(made, target, role)
    cosigning.write_file(target, made.envelope)
    cosigning.tell(cli, made, role, target)
    if not cosigning.tally(made, role).complete:
        cli.next(f"mesh policy sign {target} --key KEYFILE, by another signer")
    elif isinstance(claims, Activation):
        cli.next(f"mesh policy activate {target} --watch")
    else:
        cli.next(f"mesh policy push {target} {'BUNDLE ' if folder else '[BUNDLE] '}--watch")


# ------------------------------------------------------------------------------------------------------------------- files


def _checked(folder: Path) -> "Built":
    from mesh.cli.policy import checked

    return checked(folder)


def _place(epoch: int | None, previous: str) -> tuple[int, str] | None:
    if epoch is None:
        if previous:
            raise Refused("usage", "--previous says nothing without --epoch")
        return None
    if (epoch == 1) != (previous == ""):
        raise Refused("usage", "--epoch 1 has no --previous; every later one names the id of the manifest before")
    return epoch, previous


def _read(path: Path) -> Statement[Said]:
    try:
        return cosigning.read_file(path)
    except Refused as refusal:
        if refusal.code in {"malformed", "too_large"}:
            raise Refused("usage", f"{path} is no manifest or activation ({refusal}); a bundle says no terms: give its folder") from None
        raise


def _rosters(cli: Cli, trust: Path | None) -> Rosters:
    """The rosters of the context, or the one in the file; no network is asked.

    Raises:
        Refused: ``usage`` for a file from which it cannot be told who signed before; what is wrong with the file.
    """
    if trust is None:
        return client.files(cli).governance.rosters
    statement = envelope.read(Roster, read_bounded(trust, ENVELOPE_BYTES_MAX))
    cli.say(f"trusting the roster {statement.id} because it was given")
    if statement.claims.epoch > 1 and not all(policy_stream(domain) in statement.claims.handovers for domain in statement.claims.policy):
        raise Refused("usage", f"{trust} is epoch {statement.claims.epoch} and does not say who signed before: use a context")
    return Rosters.begin(admit_roster(statement, pin=statement.id), statement.id)


def _expect(path: Path | None, digest: str) -> None:
    """That this folder or bundle is the one that is named."""
    if path is None:
        return
    found = _checked(path).digest if path.is_dir() else bundle_digest(read_bounded(path, BUNDLE_BYTES_MAX))
    if found != digest:
        raise Refused("digest_mismatch", f"{path} is {found[:24]}…, what is to be signed names {digest[:24]}…")


def _name(made: Statement[Said]) -> Path:
    claims = made.claims
    domain = claims.domain if isinstance(claims, Manifest | Activation) else "statement"
    return Path(f"{domain}-{claims.sequence}.manifest.json")
