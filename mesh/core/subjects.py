"""Every subject of the mesh is spelled here, and no text of a user can reach one (PROTOCOL 10).

Rules
-----
1. ``mesh.v1.<region>.…`` or, for what no stream may bind, ``mesh.v1.<word>.…``; so no region may be called like a word.
2. A token is ``[a-z0-9-]{1,32}``: no dot, no wildcard, no space can be smuggled in. Names that are longer or freer
   (streams, SPIFFE ids) appear as :func:`short`.
3. A subscriber that wants all tokens of a place passes :data:`ANY`. It is recognised by identity, so a ``*`` that came
   from outside is refused.

Not here: who may publish where (rendered by ``mesh.deploy``), and any belief: a subject says nothing about a message.
"""

import base64
import hashlib
import re
from typing import Final

from mesh.errors import Refused

__all__ = [
    "ANY",
    "checkpoint",
    "cosig",
    "ctl",
    "fraud",
    "hb",
    "intent",
    "is_urgent",
    "law",
    "law_stored",
    "lineage",
    "outcome",
    "quorum",
    "short",
    "sync",
]

_PREFIX: Final = "mesh.v1"
_TOKEN: Final = re.compile(r"[a-z0-9-]{1,32}")
_WORDS: Final = frozenset({"ctl", "hb", "law", "sync"})
_URGENT: Final = tuple(f"{_PREFIX}.{word}." for word in sorted(_WORDS))
_SHORT_CHARS: Final = 26


class _Any(str):
    """A type of its own: equal strings from outside are not it."""

    __slots__ = ()


ANY: Final[str] = _Any("*")
"""Every token of this place, for subscribing."""


def short(name: str) -> str:
    """The token that stands for a name which may not be one: 130 bits of SHA-256 in lowercase base32."""
    return base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:_SHORT_CHARS].lower()


def intent(region: str, tenant: str, workload: str) -> str:
    """Where a workload asks; request-reply, never stored."""
    return f"{_PREFIX}.{_region(region)}.intent.{_token(tenant)}.{_token(workload)}"


def outcome(region: str, enforcer: str) -> str:
    """Where an enforcer reports; request-reply."""
    return f"{_PREFIX}.{_region(region)}.outcome.{_token(enforcer)}"


def quorum(region: str, governor: str) -> str:
    """Where a governor is asked to countersign; request-reply, batched."""
    return f"{_PREFIX}.{_region(region)}.quorum.{_token(governor)}"


def lineage(region: str, node: str) -> str:
    """Batches of records of one log; stored."""
    return f"{_PREFIX}.{_region(region)}.lineage.{_token(node)}"


def checkpoint(region: str, node: str) -> str:
    """Signed notes of one log; live and stored."""
    return f"{_PREFIX}.{_region(region)}.checkpoint.{_token(node)}"


def cosig(region: str, node: str) -> str:
    """Cosignatures and attestations by one node; live and stored."""
    return f"{_PREFIX}.{_region(region)}.cosig.{_token(node)}"


def law_stored(region: str, stream: str) -> str:
    """Governance statements of one stream as the region's nodes republish them; stored."""
    return f"{_PREFIX}.{_region(region)}.law.{_token(stream)}"


def fraud(region: str, node: str) -> str:
    """What a member says of records of others that it refuses; live and stored."""
    return f"{_PREFIX}.{_region(region)}.fraud.{_token(node)}"


def hb(node: str) -> str:
    """Heartbeats of one governor; bound by no stream."""
    return f"{_PREFIX}.hb.{_token(node)}"


def law(stream: str) -> str:
    """The fast path of governance statements; bound by no stream."""
    return f"{_PREFIX}.law.{_token(stream)}"


def sync(node: str) -> str:
    """Where a node answers digests, ranges and boot echoes; request-reply, bound by no stream."""
    return f"{_PREFIX}.sync.{_token(node)}"


def ctl(node: str, verb: str) -> str:
    """Signed requests of operators to one node."""
    return f"{_PREFIX}.ctl.{_token(node)}.{_token(verb)}"


def is_urgent(subject: str) -> bool:
    """Whether it is of those that no stream binds: heartbeats, the fast path of law, questions, requests of operators."""
    return subject.startswith(_URGENT)


def _token(token: str) -> str:
    # `$` would also match before a final newline, which NATS reads as the end of a protocol line: fullmatch does not.
    if token is not ANY and _TOKEN.fullmatch(token) is None:
        raise Refused("malformed", f"{token[:40]!r} cannot stand in a subject")
    return token


def _region(token: str) -> str:
    if token in _WORDS:
        raise Refused("malformed", f"no region may be called {token!r}")
    return _token(token)
