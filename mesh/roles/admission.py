"""A node's own check of every policy that its signers send: what it has not checked itself it does not decide by.

Rules
-----
1. A manifest is believed for its signatures; its bundle is found by its digest, wherever it comes from: the configuration, the
   file, whoever supplies it, or a member that is asked for it. Nothing is taken that no believed manifest names.
2. It is examined in a child process, while the node goes on; then the node's own engine runs the bundle's cases. What that came
   to is an event for the machine: what is admitted is durable before a heartbeat says so.
3. What was refused is not looked at again in this boot. What could not be examined is, after a while.
4. Newest epochs first, one at a time: an old one matters to whoever replays old records only.

Not here: which epoch is in force (:mod:`mesh.core.law.governance`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from mesh.adapters.cedar import CedarEngine
from mesh.core.law.governance import Governance, Law
from mesh.core.law.policy import Bundle, bundle_digest, read_bundle
from mesh.core.messages import Offered, pack
from mesh.errors import MeshError, Refused, Unavailable
from mesh.policy.admission import admit_laws, examine, install
from mesh.protocol.gossip import PolicyAdmitted, PolicyRefused

__all__ = ["Admission", "Find", "admit_stored", "waiting"]

_LOOK_S: Final = 0.2
_AGAIN_S: Final = 1.0
_AT_START: Final = 4
"""Epochs per domain that are admitted before a node says that it is ready; the others follow."""

Find = Callable[[str], Awaitable[bytes | None]]
"""Digest to bundle, if it is to be had there now."""

_log = logging.getLogger(__name__)


class Admission:
    """Admits what the node comes to hold. :meth:`run` lives as long as the node."""

    def __init__(
        self,
        engine: CedarEngine,
        governance: Callable[[], Governance],
        find: Iterable[Find],
        tell: Callable[[PolicyAdmitted | PolicyRefused], None],
    ) -> None:
        """Nothing is looked at yet.

        Args:
            engine: what decides.
            governance: what is in force now.
            find: where bundles may be had, in this order.
            tell: takes what came of it.
        """
        self._engine = engine
        self._governance = governance
        self._find = list(find)
        self._tell = tell
        self._wake = asyncio.Event()
        self.refused: dict[str, str] = {}
        """Manifest id to code, of what was refused."""
        self._told = set[str]()
        self._supplied: dict[str, bytes] = {}

    def begin_again(self) -> None:
        """What was told may not have become durable: look at everything again."""
        self._told = set(self.refused)
        self._wake.set()

    def supplied(self, data: bytes) -> bytes:
        """Take a bundle that somebody sends; the answer. That it was admitted is said by heartbeats.

        Raises:
            Refused: ``not_found`` if no manifest that is held and not yet admitted names it.
        """
        digest = bundle_digest(data)
        for law in waiting(self._governance()):
            if law.manifest.digest == digest:
                self._supplied[digest] = data
                self._wake.set()
                return pack(Offered(results={digest: self.refused.get(law.manifest_id, "")}))
        raise Refused("not_found", "no manifest that waits for its bundle names this one")

    async def run(self) -> None:
        """Look for what is not admitted, for ever."""
        while True:
            open_ = [law for law in waiting(self._governance()) if law.manifest_id not in self._told]
            if not open_:
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), _LOOK_S)
                except TimeoutError:
                    continue
            for law in open_:
                await self._admit(law)
            if any(law.manifest_id not in self._told for law in open_):
                await asyncio.sleep(_AGAIN_S)

    async def _admit(self, law: Law) -> None:
        data = await self._found(law.manifest.digest)
        if data is None:
            return
        try:
            bundle = _read(law, data)
            if not self._engine.holds(law.manifest.digest):
                await asyncio.to_thread(examine, [data])
            install(law.manifest, bundle, self._engine)
        except Refused as refusal:
            _log.error("policy of %s epoch %d is refused: %s", law.manifest.domain, law.manifest.epoch, refusal)
            self.refused[law.manifest_id] = refusal.code
            self._tell(PolicyRefused(law.manifest_id, refusal.code))
        except MeshError as error:
            _log.error("policy of %s epoch %d cannot be checked: %s", law.manifest.domain, law.manifest.epoch, error)
            return
        else:
            self._tell(PolicyAdmitted(law.manifest_id, bundle, data))
        self._told.add(law.manifest_id)
        self._supplied.pop(law.manifest.digest, None)

    async def _found(self, digest: str) -> bytes | None:
        if digest in self._supplied:
            return self._supplied[digest]
        for find in self._find:
            try:
                data = await find(digest)
                if data is not None and bundle_digest(data) == digest:
                    return data
            except MeshError as error:
                _log.debug("bundle %s: %s", digest, error)
        return None


def waiting(governance: Governance) -> list[Law]:
    """What is not admitted here, newest epochs first."""
    found = [law for laws in governance.laws.values() for law in laws if law.bundle is None]
    return sorted(found, key=lambda law: law.manifest.epoch, reverse=True)


async def admit_stored(governance: Governance, engine: CedarEngine, find: Find) -> Mapping[str, Bundle]:
    """Manifest id to bundle of what this node had admitted before, as far as it is new enough; ``engine`` can decide by it."""
    admitted = dict[str, Bundle]()
    for laws in governance.laws.values():
        for law in [law for law in laws[-_AT_START:] if law.bundle is None]:
            data = await find(law.manifest.digest)
            if data is None:
                continue
            try:
                bundle = _read(law, data)
                admit_laws([Law(manifest=law.manifest, manifest_id=law.manifest_id, bundle=bundle)], engine)
            except (Refused, Unavailable) as error:  # it waits, or is refused again; what it decides meanwhile is no
                _log.error("policy of %s epoch %d: %s", law.manifest.domain, law.manifest.epoch, error)
            else:
                admitted[law.manifest_id] = bundle
    return admitted


def _read(law: Law, data: bytes) -> Bundle:
    bundle = read_bundle(data, digest=law.manifest.digest)
    if bundle.domain != law.manifest.domain:
        raise Refused("policy_invalid", f"bundle of {bundle.domain} under a manifest of {law.manifest.domain}")
    return bundle
