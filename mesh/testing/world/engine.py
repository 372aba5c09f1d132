"""A policy engine of a few lines: what an intent may do stands in its parameters, so a world chooses every answer.

It is pure like the real one: the same request gets the same verdict on every node. ``down`` is a node's own trouble: no answer
at all, which everybody must take for no decision.
"""

from collections.abc import Sequence
from typing import Final

from mesh.core.run.decision import EngineRequest, Verdict

__all__ = ["BUILD", "PROFILE", "WorldEngine"]

PROFILE: Final = "world/1"
BUILD: Final = "world 1.0"


class WorldEngine:
    """Permits what says ``allow``; what says ``fail`` makes a policy err, which is a denial."""

    def __init__(self) -> None:
        self.down = False
        self.lies = False
        """Whether it answers the opposite, as a governor would have it that lies about policy."""

    @property
    def profile(self) -> str:
        """As decisions name it."""
        return PROFILE

    @property
    def build(self) -> str:
        """As records name it."""
        return BUILD

    def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> Sequence[Verdict | None]:
        """One verdict per request, or none for any while the engine is down; there is one bundle in a world."""
        del bundle_digest
        return [None if self.down else self._verdict(request) for request in requests]

    def _verdict(self, request: EngineRequest) -> Verdict:
        params = request.asserted.params
        if params.get("fail"):
            return Verdict(allow=True, determining=("permit-allowed",), errors=("overflow",))
        if bool(params.get("allow")) != self.lies:
            return Verdict(allow=True, determining=("permit-allowed",), errors=())
        return Verdict(allow=False, determining=(), errors=())
