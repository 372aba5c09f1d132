"""Bugs about what need not be kept, each small and real."""

import pytest

from mesh.testing.world import pruning
from mesh.testing.world.disk import Disk


def prunes_what_is_not_final(patch: pytest.MonkeyPatch) -> None:
    """What is held, old and below a floor is enough."""

    def held(disk: Disk, origin: str) -> int:
        return disk.size(origin)

    patch.setattr(pruning, "final_in", held)
