"""`mesh policy push`: a signed manifest is offered to every member, its bundle supplied, and watched until k have admitted that epoch.

Rules
-----
1. What members would refuse is refused here first, before anything is sent: signatures, place in the stream, the bundle itself.
2. *Admitted* is a member's signed heartbeat that says exactly this epoch. That it holds the manifest is less.
3. One member alone cannot stop it: it has failed once more of them refuse than may lie.

Not here: what members check (:mod:`mesh.policy.admission`), signing (:mod:`mesh.cli.policy_sign`).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec

from mesh.adapters.clock import wall_ms
from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client, cosigning, epochs, saying, telling
from mesh.cli.output import Cli, fail, format_option, pass_cli
from mesh.cli.spreading import HELD, Live, Spread, registered
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Law
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.law.policy import Manifest, admit_manifest, check_succession, read_bundle
from mesh.core.messages import NodeStatus, Offered, StatusAsked, Supply
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import BUNDLE_BYTES_MAX, ENVELOPE_BYTES_MAX

__all__ = ["Handover", "push"]

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_NOT_THE_BUNDLE: Final = frozenset({"body_missing", "domain_unknown", "halted", "policy_conflict", "policy_expired"})
"""What a member says of the epoch by which it decides now, not of the newest that it holds."""


class _Wanted(NamedTuple):
    """What is handed over."""

    manifest: Statement[Manifest]
    bundle: bytes | None
    """Nothing if members have it already."""


@click.command()
@click.argument("manifest", type=_FILE)
@click.argument("bundle", type=_FILE, required=False)
@saying.watching("k members have admitted it")
@format_option
@pass_cli
def push(cli: Cli, *, manifest: Path, bundle: Path | None, watch: bool, wait_s: float) -> int:
    """Hand the signed MANIFEST of a new epoch, and the BUNDLE that it names, to every member.

    Each checks it by itself and says so in its heartbeats. Nothing decides by it yet: that is for `mesh policy activate`, except for the
    first epoch of a domain. BUNDLE may be left out where members have it, as after a rollback. Ends with 0 once a member holds MANIFEST;
    with --watch, once k members have admitted the epoch.
    """
    wanted = _Wanted(
        envelope.read(Manifest, read_bounded(manifest, ENVELOPE_BYTES_MAX)), read_bounded(bundle, BUNDLE_BYTES_MAX) if bundle else None
    )

    async def work(mesh: client.MeshClient, library: client.Library) -> "Handover":
        await _check(cli, mesh, library, wanted)
        live = Live(cli, [member.name for member in mesh.roster.members], does="has admitted it") if watch else None
        going = Handover(mesh, wanted.manifest, wanted.bundle, live.show if live else lambda _: None)
        try:
            await going.run(watch_s=wait_s if watch else 0)
        finally:
            if live:
                live.clear()
        return going

    going = client.run(cli, work)
    _report(cli, wanted, going, watch=watch)
    return _ended(cli, wanted, going, watch=watch, wait_s=wait_s)


class Handover(Spread):
    """A manifest on its way to the members, and its bundle behind it."""

    def __init__(
        self,
        mesh: client.MeshClient,
        manifest: Statement[Manifest],
        bundle: bytes | None,
        show: Callable[[Spread], None],
    ) -> None:
        """Offer ``manifest``, supply ``bundle`` to whoever holds it then."""
        super().__init__(mesh, manifest, [manifest], show)
        self._manifest = manifest
        self._supply = Supply(bundle=msgspec.Raw(bundle)) if bundle is not None else None
        self.refused: dict[str, str] = {}
        """Member to the code by which it will not decide by this epoch."""
        self.supplied: dict[str, str] = {}
        """Member to what became of the bundle that it was given."""

    async def offer(self, member: str) -> None:
        """Offer the manifest to one member, and then its bundle."""
        await super().offer(member)
        if self._supply is None or self.answers[member] != HELD:
            return
        try:
            answer = await self._mesh.ask(member, self._supply, Offered)
        except MeshError as error:
            self.supplied[member] = "not asked for" if error.code == "not_found" else error.code  # it may get it from another member
        else:
            self.supplied[member] = "taken"
            self._refuse(member, answer.results.get(self._manifest.claims.digest, ""))

    def covers(self, beat: Heartbeat) -> bool:
        """Whether a member that signs this has admitted exactly this epoch (rule 2)."""
        return epochs.admits(beat, self._manifest.claims, self._manifest.id)

    async def missed(self, member: str) -> None:
        """It has not admitted it yet: ask whether it says why."""
        claims = self._manifest.claims
        with suppress(MeshError):
            status = await self._mesh.ask(member, StatusAsked(), NodeStatus)
            for policy in status.policies:
                if policy.domain == claims.domain and policy.held == claims.epoch and policy.admitted < claims.epoch:
                    self._refuse(member, "" if policy.code in _NOT_THE_BUNDLE else policy.code)

    def _refuse(self, member: str, code: str) -> None:
        if code:
            self.refused[member] = registered(code)
            if len(self.refused) > self.roster.f:  # rule 3
                self._end.set()


# ----------------------------------------------------------------------------------------------------------------- before


async def _check(cli: Cli, mesh: client.MeshClient, library: client.Library, wanted: _Wanted) -> None:
    """Rule 1."""
    claims, roster = wanted.manifest.claims, mesh.roster
    epochs.check_domain(roster, claims.domain)
    cosigning.check_enough(wanted.manifest, roster.policy[claims.domain])
    admit_manifest(wanted.manifest, roster)
    if claims.expires_ms <= wall_ms():
        raise Refused("policy_expired", f"{claims.domain} epoch {claims.epoch} expired at {telling.when(claims.expires_ms)}")
    if wanted.bundle is not None:
        _examine(wanted.manifest, wanted.bundle)
    held = await epochs.read(cli, mesh, library.governance, [claims.domain])
    saying.check_heard(roster, saying.frontiers_of(held.beats))  # what k hold must be seen: a second manifest of it would shut the domain
    held.check_one_history(claims.domain)
    if wanted.manifest.id in held.statements:
        cli.say(f"members hold {claims.domain} epoch {claims.epoch} already; it is offered again")
    elif held.governance.laws.get(claims.domain):
        newest = held.law(claims.domain)
        check_succession(newest.manifest, newest.manifest_id, claims)
    elif claims.epoch != 1 or claims.previous:
        raise Refused("wrong_epoch", f"no member shows an epoch of {claims.domain}, this is {claims.epoch}")
    if wanted.bundle is None:
        await epochs.bundle(mesh, msgspec.structs.replace(library, bundles=()), claims.digest)


def _examine(manifest: Statement[Manifest], data: bytes) -> None:
    """The bundle as a member looks at it: what it refuses is refused here."""
    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.decision_thread import DecisionThread
    from mesh.policy.admission import admit_laws

    claims = manifest.claims
    bundle = read_bundle(data, digest=claims.digest)
    if bundle.domain != claims.domain:
        raise Refused("policy_invalid", f"bundle of {bundle.domain} under a manifest of {claims.domain}")
    thread = DecisionThread()
    try:
        admit_laws([Law(manifest=claims, manifest_id=manifest.id, bundle=bundle)], CedarEngine(thread))
    finally:
        thread.close()


# ------------------------------------------------------------------------------------------------------------------ after


def _report(cli: Cli, wanted: _Wanted, going: Handover, *, watch: bool) -> None:
    claims, roster = wanted.manifest.claims, going.roster
    rows = [
        {
            "node": member.name,
            "answer": going.answers.get(member.name, ""),
            "bundle": going.supplied.get(member.name, ""),
            "admits_ms": going.covered_ms.get(member.name),
            "refused": going.refused.get(member.name, ""),
        }
        for member in roster.members
    ]
    if cli.format == "table":
        cli.say(f"{claims.domain} epoch {claims.epoch} ({wanted.manifest.id[:12]}…), {claims.digest[:19]}…")
        cli.rows(("node", "answer", "bundle", *(["admits_ms"] if watch else []), "refused"), rows)
        return
    cli.value(
        {
            "id": wanted.manifest.id,
            "domain": claims.domain,
            "epoch": claims.epoch,
            "digest": claims.digest,
            "members": rows,
            "held": len(going.held),
            "admitted": len(going.covered_ms),
            "needed": roster.k,
            "admitted_ms": going.acknowledged_ms,
        }
    )


def _ended(cli: Cli, wanted: _Wanted, going: Handover, *, watch: bool, wait_s: float) -> int:
    claims, roster = wanted.manifest.claims, going.roster
    if len(going.refused) > roster.f:
        told = ", ".join(f"{name} {code}" for name, code in going.refused.items())
        code = next(iter(going.refused.values()))
        return fail(
            cli, Refused(code, f"{claims.domain} epoch {claims.epoch} is refused: {told}. Sign the next epoch with a bundle that passes")
        )
    if not going.held and not going.covered_ms:
        return fail(cli, _nobody(going.answers))
    then = f"mesh policy activate {claims.domain} --epoch {claims.epoch} --key KEYFILE --co-sign KEYFILE --watch"
    if not watch:
        cli.say(f"{len(going.held)} of {len(roster.members)} hold the manifest; `mesh policy ls {claims.domain}` shows who has admitted it")
        cli.next(then)
        return 0
    if going.acknowledged_ms is None:
        lacking = [_lacking(going, member.name) for member in roster.members if member.name not in going.covered_ms]
        return fail(
            cli, Unavailable("not_admitted", f"{len(going.covered_ms)} of {roster.k} after {wait_s:g} s; lacking: {', '.join(lacking)}")
        )
    cli.say(f"admitted by {roster.k} of {len(roster.members)} after {going.acknowledged_ms} ms")
    if claims.epoch == 1:
        cli.say(f"the first epoch of a domain begins by itself: this one at {telling.when(claims.not_before_ms)}")
        cli.next(f"mesh policy show {claims.domain}")
    else:
        cli.next(then)
    return 0


def _lacking(going: Handover, member: str) -> str:
    supplied = going.supplied.get(member, "taken")
    told = f"bundle: {supplied}" if supplied != "taken" else going.answers.get(member, "no answer")
    return f"{member} ({going.refused.get(member) or told})"


def _nobody(answers: "dict[str, str]") -> MeshError:
    told = ", ".join(f"{name} {code}" for name, code in answers.items())
    codes: Sequence[str] = [code for code in answers.values() if code != "unreachable"]
    return Unavailable("unreachable", f"nobody took it: {told}") if not codes else Refused(codes[0], f"nobody took it: {told}")
