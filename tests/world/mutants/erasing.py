"""Bugs about what was erased, each small and real."""

from collections.abc import Sequence

import pytest

from mesh.protocol import mirror, proven


def waits_for_what_was_erased(patch: pytest.MonkeyPatch) -> None:
    """Who comes back wants all openings, whatever is known to be final."""

    def passing(records: Sequence[object], *_: object) -> list[bool]:
        return [False] * len(records)

    patch.setattr(proven, "passing", passing)


def aims_at_nothing_where_it_stops(patch: pytest.MonkeyPatch) -> None:
    """Who was only cut off wants all openings."""
    patch.setattr(mirror, "lets_past", lambda *_: False)
