"""Bugs about catching up with what was final, each small and real."""

from typing import Any

import pytest

from mesh.protocol import catching
from mesh.protocol.holding import Mirror


def believes_the_owner_below_the_goal(patch: pytest.MonkeyPatch) -> None:
    """Whatever its owner has signed is stored, as if nothing had been shown."""
    patch.setattr(Mirror, "seeking", property(lambda _: False))


def counts_before_the_goal(patch: pytest.MonkeyPatch) -> None:
    """As soon as it holds anything of a log."""

    def behind(state: Any) -> bool:
        return bool(state.goal > 0 and state.frontier.size == 0)

    patch.setattr(catching, "behind", behind)
