"""Whose word counts in a stream, and since when: a roster that gives a stream other signers hands it over behind one statement.

Rules
-----
1. The signers of a stream change only by a roster that says so, and says where: it *hands the stream over* behind the last statement of
   the former signers that counts. Who was removed, or could sign alone before a threshold was raised, adds nothing to it any more.
2. A statement names the roster that made its signers the stream's (``since``); it stands in that *reign* of the stream, and is judged
   by that roster alone. So which signatures are on it decides nothing but whether it is believed.
3. A reign is a stream of its own: what former signers, or thieves of their keys, still say fills and forks theirs. It begins when that
   roster is in force. Its numbers go on behind the statement that was handed over, and all up to there belong to it too: who lacks some
   of it does nothing.
4. Handed over behind nothing (number 0), all that was said before counts no more, and need not be kept.

Not here: which handovers there are and what counts by them (:mod:`mesh.core.law.succession`), what is held of a reign
(:mod:`mesh.core.law.fold`).
"""

from typing import Annotated, Final

import msgspec

from mesh.core.bytes.canonical import Count, Payload

__all__ = ["BaseName", "Handover", "MaybeId", "base_of", "in_reign"]

MaybeId = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
"""A statement id in lowercase hex, or empty for none."""
BaseName = Annotated[str, msgspec.Meta(pattern="^[a-z]{1,16}(/[a-z0-9-]{1,64})?$(?!\\n)", max_length=81)]
"""``policy/<domain>``, ``activate/<domain>``, ``halt/<domain>``, ``revoke/<key>``, ``resolve``, ``erase``: a stream, whoever speaks."""
_SHOWN: Final = 16
"""Characters of a roster's id in the name of a stream. Two rosters that share them are the work of a root that lies."""


class Handover(Payload):
    """Up to where the word of a stream's former signers counts."""

    sequence: Count
    """Of the last statement that does; 0 for none."""
    head: MaybeId
    """Its id; empty for none."""


def in_reign(base: str, since: str) -> str:
    """The stream ``base`` under the signers whom the roster ``since`` (its statement id) named; the first ones have none."""
    return f"{base}@{since[:_SHOWN]}" if since else base


def base_of(stream: str) -> str:
    """The stream, whoever speaks in it."""
    return stream.partition("@")[0]
