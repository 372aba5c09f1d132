"""What the mesh holds of the policy of its domains: manifests, activations and bundles, and how each member says it stands to them.

Rules
-----
1. Only what was seen and verified counts; how members stand is their signed word, by heartbeats made now.
2. A member has *admitted* an epoch if its heartbeat says exactly that number, and its frontier is not about another manifest of it.
3. A bundle is what its digest says, whoever gives it.

Not here: signing (:mod:`mesh.cli.cosigning`), offering (:mod:`mesh.cli.spreading`).
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

from mesh.cli import client, saying
from mesh.cli.gathering import gather
from mesh.cli.output import Cli
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation, activate_stream
from mesh.core.law.fold import extend, with_bundle
from mesh.core.law.governance import Governance, Law
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.law.policy import Manifest, bundle_digest, policy_stream, read_bundle
from mesh.core.law.reign import base_of
from mesh.core.law.roster import Roster
from mesh.core.law.streams import Fork
from mesh.core.law.travel import Said
from mesh.core.log.record import DecisionMade, Record
from mesh.core.messages import BundleAsked, BundleGiven
from mesh.errors import MeshError, Refused, Unavailable

__all__ = ["Epochs", "admits", "bundle", "check_domain", "knowing", "learn", "read", "stand"]


class Epochs(NamedTuple):
    """What was seen."""

    governance: Governance
    """All of it, folded; without bundles."""
    statements: Mapping[str, Statement[Said]]
    """By id."""
    beats: Mapping[str, Heartbeat]
    """Member to what it signs now."""

    def law(self, domain: str, epoch: int | None = None) -> Law:
        """That epoch of the domain, or the newest.

        Raises:
            Refused: ``not_found``; ``policy_conflict`` if the signers have said two things.
        """
        laws = [law for law in self.governance.laws.get(domain, ()) if epoch in {None, law.manifest.epoch}]
        if not laws:
            raise Refused("not_found", f"no member shows {'a policy' if epoch is None else f'epoch {epoch}'} of {domain}")
        law = laws[-1]
        if sum(other.manifest.epoch == law.manifest.epoch for other in laws) > 1:
            raise Refused("policy_conflict", f"{domain} epoch {law.manifest.epoch}: members show two manifests of it")
        return law

    def check_one_history(self, domain: str) -> None:
        """That the signers of the domain have said one thing, as far as members show.

        Raises:
            Refused: ``policy_conflict``.
        """
        for stream in map(self.governance.current, (policy_stream(domain), activate_stream(domain))):
            if isinstance(self.governance.streams.get(stream), Fork):
                raise Refused("policy_conflict", f"members show two histories of {stream}")

    def admitted(self, law: Law) -> list[str]:
        """Who says that it has admitted this epoch, by this manifest."""
        return [name for name, beat in self.beats.items() if admits(beat, law.manifest, law.manifest_id)]

    def active(self, law: Law) -> list[str]:
        """Who says that it decides by this epoch now."""
        return [
            name
            for name, beat in self.beats.items()
            if any((item.domain, item.active) == (law.manifest.domain, law.manifest.epoch) for item in beat.policies)
        ]

    def activations(self, domain: str, manifest: str = "") -> list[tuple[str, Activation]]:
        """The activations of the domain with their ids, oldest first; only those of that ``manifest``, if it is given."""
        held = self.governance.activations.get(domain, {})
        return sorted(
            ((identity, step) for identity, step in held.items() if manifest in {"", step.manifest}), key=lambda item: item[1].sequence
        )


def admits(beat: Heartbeat, manifest: Manifest, identity: str) -> bool:
    """Whether a member that signs this has admitted exactly this epoch (rule 2)."""
    if not any((item.domain, item.admitted) == (manifest.domain, manifest.epoch) for item in beat.policies):
        return False
    for head in beat.frontier:
        if base_of(head.stream) == policy_stream(manifest.domain):
            return not head.forked and (head.sequence > manifest.epoch or (head.sequence, head.head) == (manifest.epoch, identity))
    return False


def check_domain(roster: Roster, domain: str) -> None:
    """That the roster names it.

    Raises:
        Refused: ``domain_unknown``.
    """
    if domain not in roster.policy:
        raise Refused("domain_unknown", f"{domain[:40]}: this roster names {', '.join(sorted(roster.policy))}")


async def read(cli: Cli, mesh: client.MeshClient, governance: Governance, domains: Collection[str]) -> Epochs:
    """What members show of the policy of these domains; ``governance`` says whom to believe.

    Raises:
        Unavailable: ``unreachable`` if there is no heartbeat to believe.
    """
    beats = await saying.hear(cli, mesh)
    streams = {stream(domain) for domain in domains for stream in (policy_stream, activate_stream)}
    gathered = await gather(mesh, saying.frontiers_of(beats), governance, streams=lambda name: base_of(name) in streams)
    for member, stream in gathered.withheld:
        cli.say(f"{member} claims more of {stream} than it shows")
    return Epochs(gathered.governance, {item.id: item for item in gathered.statements}, beats)


async def bundle(mesh: client.MeshClient, library: client.Library, digest: str) -> bytes:
    """The bundle of that digest, from the context's files or from whichever member gives it.

    Raises:
        Refused: ``not_found``.
    """
    for data in library.bundles:
        if bundle_digest(data) == digest:
            return data
    for member in mesh.roster.members:
        with suppress(MeshError):
            data = bytes((await mesh.ask(member.name, BundleAsked(digest=digest), BundleGiven)).bundle)
            read_bundle(data, digest=digest)
            return data
    raise Refused("not_found", f"no member gives the bundle {digest[:20]}…: it has not been admitted anywhere")


async def knowing(cli: Cli, mesh: client.MeshClient, library: client.Library, records: Iterable[Record]) -> client.Library:
    """The library with all on which these decisions rested, asked for where the context's files do not have it.

    What members cannot give is left out: whoever needs it says so.
    """
    wanted = [record for record in records if isinstance(record, DecisionMade)]
    held = {envelope.identify(data)[1] for data in (*library.manifests, *library.activations)}
    digests = {bundle_digest(data) for data in library.bundles}
    if all({r.attested.manifest, *filter(None, [r.attested.activation])} <= held and r.decision.bundle in digests for r in wanted):
        return library
    try:
        return await learn(cli, mesh, library, {record.decision.bundle for record in wanted})
    except Unavailable as error:
        cli.say(f"policies are those of the files, members were not heard: {error.code}")
        return library


async def learn(cli: Cli, mesh: client.MeshClient, library: client.Library, digests: Collection[str] | None = None) -> client.Library:
    """The library with every manifest and activation that members show, and these bundles, or all that manifests name.

    Raises:
        Unavailable: ``unreachable``.
    """
    epochs = await read(cli, mesh, library.governance, mesh.roster.policy)
    governance = extend(library.governance, list(epochs.statements.values())).governance
    bundles = {bundle_digest(data): data for data in library.bundles}
    for law in (law for laws in governance.laws.values() for law in laws):
        digest = law.manifest.digest
        if digest not in bundles and (digests is None or digest in digests):
            with suppress(Refused):
                bundles[digest] = await bundle(mesh, library, digest)
        if law.bundle is None and digest in bundles:
            governance = with_bundle(governance, law.manifest_id, read_bundle(bundles[digest], digest=digest))
    manifests = [item.envelope for item in epochs.statements.values() if isinstance(item.claims, Manifest)]
    activations = [item.envelope for item in epochs.statements.values() if isinstance(item.claims, Activation)]
    return msgspec.structs.replace(
        library,
        governance=governance,
        manifests=(*library.manifests, *manifests),
        activations=(*library.activations, *activations),
        bundles=tuple(bundles.values()),
    )


def stand(mesh: client.MeshClient, members: Collection[str]) -> str:
    """How many of how many."""
    return f"{len(members)} of {len(mesh.roster.members)}"
