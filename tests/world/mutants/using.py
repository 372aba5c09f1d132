"""Bugs about what is kept and what is used once, each small and real."""

from typing import Any

import msgspec
import pytest

from mesh.protocol import attester, enforcer, mirror
from mesh.protocol.step import Append, Persist


def attests_what_it_does_not_keep(patch: pytest.MonkeyPatch) -> None:
    """Records of others are examined and attested, and thrown away."""
    real = attester.storing

    def storing(*arguments: Any) -> list[Persist]:
        return [effect for effect in real(*arguments) if not isinstance(effect, Append)]

    patch.setattr(mirror, "storing", storing)


def runs_what_is_meant_for_another(patch: pytest.MonkeyPatch) -> None:
    """Whichever enforcer an authorization names, this one takes it."""
    real = enforcer._check_place

    def place(claims: Any, domain: str, place: Any, view: Any) -> Any:
        mine = msgspec.structs.replace(claims.audience, enforcer=place.document.claims.key, boot=place.boot)
        return real(msgspec.structs.replace(claims, audience=mine), domain, place, view)

    patch.setattr(enforcer, "_check_place", place)
