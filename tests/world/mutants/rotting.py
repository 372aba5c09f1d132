"""Bugs about records that rot on a disk, each small and real."""

from typing import Any

import pytest

from mesh.testing.world import disk, rotting
from mesh.testing.world import governor as shell


def looks_at_nothing_it_reads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(disk, "whole", lambda *_: True)


def never_walks(patch: pytest.MonkeyPatch) -> None:
    """It finds what it happens to read; most is read by nobody for long."""
    patch.setattr(rotting.Walk, "on", lambda *_: None)


def goes_on_with_what_it_found(patch: pytest.MonkeyPatch) -> None:
    real = shell.Governor.alarmed

    def alarmed(self: Any, alarm: Any) -> None:
        if alarm.code != "storage_corrupt":
            real(self, alarm)

    patch.setattr(shell.Governor, "alarmed", alarmed)


def puts_back_whatever_it_is_given(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rotting, "fits", lambda *_: True)
