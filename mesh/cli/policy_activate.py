"""`mesh policy activate`: the threshold says from when an epoch decides, region by region, once k members could decide by it.

Rules
-----
1. Nothing is signed or offered unless k members say by signed heartbeats that they have admitted exactly this epoch.
2. What is drawn up begins 2Δ from now or later: by then whoever has not heard of it is stale and decides nothing.
3. What was signed is offered again as it is. If it has become later than rule 2 allows, only --late offers it: each region begins
   as it hears of it, and enforcers that have heard refuse what others still decide. Not to offer it at all would leave the
   stream where it is: its number is used up.

Not here: numbers and lines (:mod:`mesh.cli.cosigning`), what is in force (:mod:`mesh.core.law.activation`).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from mesh.adapters.clock import wall_ms
from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client, cosigning, epochs, saying, spreading, telling
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.times import parse_when
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, Ring, activate_stream
from mesh.core.law.governance import Law
from mesh.core.law.roster import Roster
from mesh.core.law.travel import Said
from mesh.errors import Refused, Unavailable
from mesh.limits import CLOCK_MS_MAX, ENVELOPE_BYTES_MAX

__all__ = ["activate", "parse_ring"]

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_RING: Final = re.compile(r"(\*|[a-z0-9-]+(?:,[a-z0-9-]+)*)(?:@(.+))?")
_MARGIN_MS: Final = 1_000
"""More than 2Δ by default: signing and offering take a moment too."""


class Wave(NamedTuple):
    """Some regions, and when the epoch is to begin there."""

    regions: tuple[str, ...]
    """Sorted; empty for all that no other wave names."""
    after_ms: int | None = None
    """From now on."""
    at_ms: int | None = None
    """Exactly then; with neither, as soon as may be."""

    def ring(self, now_ms: int, stale_ms: int) -> Ring:
        """With the time worked out."""
        if self.at_ms is not None:
            begins_ms = self.at_ms
        else:
            begins_ms = now_ms + (2 * stale_ms + _MARGIN_MS if self.after_ms is None else self.after_ms)
        return Ring(regions=list(self.regions), not_before_ms=begins_ms)

    def is_ring(self, ring: Ring) -> bool:
        """Whether that ring says what was asked for: a time from now on was meant then."""
        return tuple(ring.regions) == self.regions and self.at_ms in {None, ring.not_before_ms}


class _Wanted(NamedTuple):
    """What was asked for."""

    domain: str
    epoch: int | None
    waves: Sequence[Wave]
    paths: Sequence[Path]
    reason: str
    file: Statement[Activation] | None
    """What others signed."""
    offers: bool
    """Whether it is to be offered, so that the threshold must have signed."""
    late: bool


class _Made(NamedTuple):
    """What came of it."""

    plan: saying.Plan
    roster: Roster
    going: spreading.Spread | None
    paths: Sequence[Path]


@click.command()
@click.argument("what", metavar="DOMAIN|FILE")
@click.option("--epoch", type=click.IntRange(2), help="Which; by default the newest that members hold.")
@click.option(
    "--ring", "rings", multiple=True, metavar="REGIONS@WHEN", help="eu,us@+30s, '*@+2m', ap@2027-01-31T09:00:00Z; may be given often."
)
@saying.signing_options("policy signer", required=False)
@click.option("--out", type=_FILE, help="Offer nothing: write it to this file for other signers.")
@click.option(
    "--late", is_flag=True, help="Offer what was signed although its time is less than 2Δ ahead: each region begins as it hears of it."
)
@saying.watching("k members hold it")
@format_option
@pass_cli
def activate(  # noqa: PLR0913 -- one for each option
    cli: Cli,
    *,
    what: str,
    epoch: int | None,
    rings: tuple[str, ...],
    key_file: Path | None,
    others: tuple[Path, ...],
    reason: str,
    out: Path | None,
    late: bool,
    watch: bool,
    wait_s: float,
) -> int:
    """Say from when an epoch of DOMAIN decides, by the threshold of its policy signers.

    Refused unless k members have admitted that epoch. By default it begins everywhere at once, a little more than 2Δ from now; a region
    that no --ring names keeps what it has. Signers on other machines: --out FILE writes it, `mesh policy sign FILE` adds a line, and
    `mesh policy activate FILE`, with the last key or with none, offers it. Ends with 0 once a member holds it; with --watch, once k do.
    """
    saying.check_reason(reason)
    file = _file(what)
    if file is not None and (epoch is not None or rings or reason):
        raise Refused("usage", f"{what} says already which epoch, when and why")
    paths = (*([key_file] if key_file else []), *others)
    if file is None and not paths:
        raise Refused("usage", f"--key FILE is missing, or {what} is meant to be a file that is not there")
    domain = what if file is None else file.claims.domain
    waves = [parse_ring(text) for text in rings] or [Wave(())]
    wanted = _Wanted(domain, epoch, waves, paths, reason, file, out is None, late)

    async def work(mesh: client.MeshClient, library: client.Library) -> _Made:
        epochs.check_domain(mesh.rosters.newest, domain)
        by = cosigning.signers(paths, mesh.rosters, domain, activate_stream(domain))
        with saying.signing(by.paths):
            plan = await _planned(cli, mesh, library, wanted, by)
            going = await spreading.spread(cli, mesh, plan, watch=watch, wait_s=wait_s) if out is None else None
        return _Made(plan, mesh.rosters.newest, going, by.paths)

    made = client.run(cli, work)
    if out is not None:
        return _handed_on(cli, made, domain, out)
    return _told(cli, made, watch=watch, wait_s=wait_s)


async def _planned(cli: Cli, mesh: client.MeshClient, library: client.Library, wanted: _Wanted, by: cosigning.Signers) -> saying.Plan:
    """What to offer, signed as far as keys are here; nothing is signed that may not be offered."""
    roster, domain = mesh.roster, wanted.domain
    held = await epochs.read(cli, mesh, library.governance, [domain])
    held.check_one_history(domain)
    law = _law(held, wanted)
    _check_admitted(mesh, held, law)
    rings = [wave.ring(wall_ms(), roster.bounds.stale_ms) for wave in wanted.waves]
    if wanted.file is not None:
        _check_regions(wanted.file.claims.rings, roster)
        _check_place(held, wanted.file)
        if wanted.file.id not in held.statements:
            _check_ahead(wanted.file.claims.rings, roster, late=wanted.late)
        new: Statement[Said] = cosigning.countersign(wanted.file, by, whole=wanted.offers) if by.keys else wanted.file
        plan = saying.Plan(new, (new,), again=False)
    else:
        _check_regions(rings, roster)
        plan = await cosigning.draw(
            mesh,
            library.governance,
            saying.frontiers_of(held.beats),
            by,
            same=lambda said, _: _says(said, law, wanted.waves),
            draft=lambda number, previous: _draft(wanted, law, rings, number, previous, roster),
            whole=wanted.offers,
        )
        if plan.again:
            cli.say(f"number {plan.statement.claims.sequence} of {by.stream} says so already; nothing else is signed")
            if isinstance(plan.statement.claims, Activation) and plan.statement.id not in held.statements:
                _check_ahead(plan.statement.claims.rings, roster, late=wanted.late)
    if wanted.offers:
        cosigning.check_enough(plan.statement, by.role)
    return plan


def _draft(wanted: _Wanted, law: Law, rings: list[Ring], number: int, previous: str, roster: Roster) -> Activation:
    _check_ahead(rings, roster, late=False)
    return Activation(
        mesh=roster.mesh,
        domain=wanted.domain,
        sequence=number,
        previous=previous,
        since="",
        epoch=law.manifest.epoch,
        manifest=law.manifest_id,
        rings=sorted(rings, key=lambda ring: ring.regions),
        reason=wanted.reason,
        issued_ms=wall_ms(),
    )


def _says(said: Said, law: Law, waves: Sequence[Wave]) -> bool:
    """Whether it says already what was asked for."""
    if not isinstance(said, Activation) or said.manifest != law.manifest_id or len(said.rings) != len(waves):
        return False
    return all(any(wave.is_ring(ring) for ring in said.rings) for wave in waves)


# ------------------------------------------------------------------------------------------------------------------ checks


def _law(held: epochs.Epochs, wanted: _Wanted) -> Law:
    """The epoch that is to begin.

    Raises:
        Refused: ``not_found``, ``wrong_epoch``, ``policy_expired``, ``policy_conflict``.
    """
    law = held.law(wanted.domain, wanted.epoch if wanted.file is None else wanted.file.claims.epoch)
    epoch = law.manifest.epoch
    if wanted.file is not None and wanted.file.claims.manifest != law.manifest_id:
        raise Refused("policy_conflict", f"it activates another manifest of epoch {epoch} than members hold")
    if epoch == 1:
        raise Refused("wrong_epoch", f"epoch 1 of {wanted.domain} begins by itself, at {telling.when(law.manifest.not_before_ms)}")
    highest = max((step.epoch for _, step in held.activations(wanted.domain)), default=1)
    if epoch < highest:
        raise Refused(
            "wrong_epoch",
            f"epoch {highest} of {wanted.domain} was activated, and {epoch} is before it; its content comes back by"
            f" `mesh policy rollback {wanted.domain} --to {epoch}`",
        )
    if law.manifest.expires_ms <= wall_ms():
        raise Refused("policy_expired", f"{wanted.domain} epoch {epoch} expired at {telling.when(law.manifest.expires_ms)}")
    return law


def _check_admitted(mesh: client.MeshClient, held: epochs.Epochs, law: Law) -> None:
    """Rule 1."""
    admitted = held.admitted(law)
    if len(admitted) < mesh.roster.k:
        lacking = ", ".join(member.name for member in mesh.roster.members if member.name not in admitted)
        raise Unavailable(
            "not_admitted",
            f"{law.manifest.domain} epoch {law.manifest.epoch} is admitted by {epochs.stand(mesh, admitted)}, {mesh.roster.k} needed;"
            f" lacking: {lacking}",
        )


def _check_ahead(rings: Sequence[Ring], roster: Roster, *, late: bool) -> None:
    """Rule 2; and 3 if it is ``late`` on purpose."""
    first_ms, now_ms = min(ring.not_before_ms for ring in rings), wall_ms()
    if first_ms - now_ms < 2 * roster.bounds.stale_ms and not late:
        raise Refused(
            "too_soon",
            f"it begins {first_ms - now_ms} ms from now, and 2Δ are {2 * roster.bounds.stale_ms} ms."
            " What is signed already can be offered with --late",
        )
    if max(ring.not_before_ms for ring in rings) > CLOCK_MS_MAX:
        raise Refused("usage", "--ring: that is after the year 9999")


def _check_regions(rings: Sequence[Ring], roster: Roster) -> None:
    """That each region is one of the roster's, and stands in one ring.

    Raises:
        Refused: ``usage``.
    """
    known = {member.region for member in roster.members}
    named = [region for ring in rings for region in ring.regions or ["*"]]
    for region in named:
        if region != "*" and region not in known:
            raise Refused("usage", f"no member is in {region[:40]!r}: the regions are {', '.join(sorted(known))}")
        if named.count(region) > 1:
            raise Refused("usage", f"{region} stands in two rings")


def _check_place(held: epochs.Epochs, file: Statement[Activation]) -> None:
    """That it is the next of its stream, or one that members hold.

    Raises:
        Refused: ``wrong_epoch``.
    """
    if file.id in held.statements:
        return
    steps = held.activations(file.claims.domain)
    last = (steps[-1][1].sequence, steps[-1][0]) if steps else (0, "")
    if (file.claims.sequence, file.claims.previous) != (last[0] + 1, last[1]):
        raise Refused(
            "wrong_epoch", f"it is activation {file.claims.sequence}, members hold {last[0]} of {file.claims.domain}: draw up another"
        )


# ----------------------------------------------------------------------------------------------------------------- reading


def parse_ring(text: str) -> Wave:
    """A ring as it is written: ``eu,us@+30s``, ``*@+2m``, ``ap@2027-01-31T09:00:00Z``, ``sa``.

    Raises:
        Refused: ``usage``.
    """
    found = _RING.fullmatch(text)
    if found is None:
        raise Refused("usage", f"--ring {text[:80]!r}: wanted is REGIONS@WHEN, such as eu,us@+30s or '*@+2m'")
    names, when = found.groups()
    regions = () if names == "*" else tuple(sorted(set(names.split(","))))
    if when is None:
        return Wave(regions)
    at = parse_when(when, where=f"--ring {text[:80]!r}")
    return Wave(regions, after_ms=at.after_ms, at_ms=at.at_ms)


def _file(what: str) -> Statement[Activation] | None:
    path = Path(what)
    return envelope.read(Activation, read_bounded(path, ENVELOPE_BYTES_MAX)) if path.is_file() else None


# ----------------------------------------------------------------------------------------------------------------- telling


def _begins(step: Activation, roster: Roster) -> Mapping[str, int]:
    """Region to when it begins there."""
    times = {region: step.begins_ms(region) for region in sorted({member.region for member in roster.members})}
    return {region: at_ms for region, at_ms in times.items() if at_ms is not None}


def _handed_on(cli: Cli, made: _Made, domain: str, out: Path) -> int:
    role = made.roster.policy[domain]
    cosigning.write_file(out, made.plan.statement.envelope)
    cosigning.tell(cli, made.plan.statement, role, out)
    complete = cosigning.tally(made.plan.statement, role).complete
    cli.next(f"mesh policy activate {out} --watch" if complete else f"mesh policy sign {out} --key KEYFILE, by another signer")
    return 0


def _told(cli: Cli, made: _Made, *, watch: bool, wait_s: float) -> int:
    step, going = made.plan.statement.claims, made.going
    if not isinstance(step, Activation) or going is None:
        raise Refused("wrong_kind")
    begins = _begins(step, made.roster)
    facts: dict[str, Any] = {
        "domain": step.domain,
        "epoch": step.epoch,
        "manifest": step.manifest,
        "begins": {region: telling.when(at_ms) for region, at_ms in begins.items()},
    }
    by = saying.Pen(activate_stream(step.domain), [], made.paths, alone=False, before=())
    spreading.report(cli, made.plan, going, by, watch=watch, does=f"activates {step.domain} epoch {step.epoch}", facts=facts)
    for region, at_ms in begins.items():
        cli.say(f"{region}: epoch {step.epoch} from {telling.when(at_ms)} ({(at_ms - wall_ms()) / 1_000:+.1f} s)")
    return spreading.ended(
        cli,
        made.plan,
        going,
        watch=watch,
        wait_s=wait_s,
        follows="from those times on every governor decides by it, and enforcers refuse what was authorized before",
        then=f"mesh policy show {step.domain} --epoch {step.epoch}",
    )
