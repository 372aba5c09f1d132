"""For whom a parameter is sealed is what the signed policy says: its bundle is asked for once and held to the digest in the manifest.

Nobody who answers is believed: a bundle is what its digest says, and the digest is what the policy signers signed.

Not here: boxes (:mod:`mesh.adapters.sealer`).
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from mesh.adapters.bus import Bus
from mesh.adapters.sealer import seal
from mesh.core import subjects
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Bundle, read_bundle
from mesh.core.messages import BundleAsked, BundleGiven, pack, unpack
from mesh.core.run.params import Opening
from mesh.core.run.sealed import Box, Seal
from mesh.errors import MeshError, Refused, Unavailable

__all__ = ["Auditors", "Sealed"]

_ASK_MS: Final = 2_000
_BUNDLES_MAX: Final = 16


class Sealed(NamedTuple):
    """What goes into an intent, and what goes beside it."""

    seals: dict[str, list[Seal]]
    boxes: list[Box]


class Auditors:
    """Whom the policy names, of every domain that was asked for."""

    def __init__(self, bus: Bus, governance: Callable[[], Governance], region: str, now_ms: Callable[[], int]) -> None:
        """Nothing is known yet."""
        self._bus = bus
        self._governance = governance
        self._region = region
        self._now_ms = now_ms
        self._bundles: dict[str, Bundle] = {}

    async def seal(self, domain: str, action: str, openings: Sequence[Opening], *, holder: str) -> Sealed:
        """These parameters of an action, each sealed for whom the policy in force names, in an intent that ``holder`` (hex) signs.

        Raises:
            Refused: ``params_mismatch`` for one that the action does not declare sealed; ``action_unknown``, ``domain_unknown`` and what
                else keeps a policy from being in force; ``bad_key``, ``too_large``.
            Unavailable: ``unreachable`` if nobody shows the bundle.
        """
        found = Sealed({}, [])
        if not openings:
            return found
        bundle = await self._bundle(domain)
        keys = {auditor.name: auditor.key for auditor in bundle.auditors}
        declared = {param.name: param.auditors for param in bundle.action(action).params if param.privacy == "sealed"}
        for opening in openings:
            if opening.name not in declared:
                raise Refused("params_mismatch", f"{opening.name} is not declared sealed")
            readers = {name: keys.get(name, "") for name in declared[opening.name]}  # nobody's key is `bad_key`
            seals, boxes = seal(opening, readers, holder=holder)
            found.seals[opening.name] = seals
            found.boxes.extend(boxes)
        return found

    async def _bundle(self, domain: str) -> Bundle:
        governance = self._governance()
        law = governance.active(domain, self._region, self._now_ms())
        if law.bundle is not None:
            return law.bundle
        digest = law.manifest.digest
        known = self._bundles.get(digest)
        if known is None:
            known = await self._asked(governance, digest)
            while len(self._bundles) >= _BUNDLES_MAX:
                self._bundles.pop(next(iter(self._bundles)))
            self._bundles[digest] = known
        return known

    async def _asked(self, governance: Governance, digest: str) -> Bundle:
        failure: MeshError = Unavailable("unreachable", "nobody shows the policy bundle, which says for whom to seal")
        for member in sorted(governance.roster.members, key=lambda member: member.region != self._region):
            try:
                answer = await self._bus.request(subjects.sync(member.name), pack(BundleAsked(digest=digest)), timeout_ms=_ASK_MS)
                return read_bundle(bytes(unpack(BundleGiven, answer.data).bundle), digest=digest)
            except MeshError as error:
                failure = error
        raise Unavailable("unreachable", f"nobody shows the policy bundle, which says for whom to seal: {failure}"[:200])
