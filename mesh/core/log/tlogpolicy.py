"""C2SP tlog-policy (c2sp.org/tlog-policy): what counts as final for one log, as a file that any C2SP verifier reads.

Rules
-----
1. What is written asks for k of the members. External witnesses are named with their addresses, and stand in no group: they never
   count.
2. Of a file that is read, only the logs matter here; the rest must be lines of the format all the same, so that a typing error in a
   log's line is not a log left out.

Not here: what counts as final for us. That stands in the roster.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from mesh.core.log.note import SignatureType, Verifier
from mesh.errors import Refused
from mesh.limits import TLOG_POLICY_BYTES_MAX

__all__ = ["Outsider", "read_logs", "tlog_policy"]

_GROUP: Final = "Quorum"
"""No name of a member has a capital letter."""
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_FIELDS: Final = {"log": (2, 3), "witness": (3, 4), "group": (4, 10_000), "quorum": (2, 2)}
"""How many words each kind of line has."""


class Outsider(NamedTuple):
    """A witness that is no member."""

    verifier: Verifier
    url: str
    """Its submission prefix."""


def tlog_policy(log: Verifier, cosigners: Mapping[str, str], k: int, outside: Mapping[str, Outsider] | None = None) -> str:
    """A policy that asks for ``k`` of these cosigners over checkpoints of that log.

    Args:
        log: the key of the log, under its origin.
        cosigners: note key name, ``mesh/NODE/attest``, to public key, hex; the policy itself calls it NODE.
        k: how many.
        outside: external witnesses by name (rule 1); the policy calls them ``outside/NAME``.

    Raises:
        Refused: ``bad_key`` if an external witness has a member's key, or another's.
    """
    names = {name: name.split("/")[1] for name in cosigners}
    lines = [f"log {log.vkey}"]
    lines += [f"witness {names[name]} {Verifier(name, SignatureType.COSIGNATURE, key).vkey}" for name, key in cosigners.items()]
    lines += [f"witness outside/{name} {one.verifier.vkey} {one.url}" for name, one in (outside or {}).items()]
    lines += [f"group {_GROUP} {k} {' '.join(names.values())}", f"quorum {_GROUP}"]
    keys = [log.key, *cosigners.values(), *(one.verifier.key for one in (outside or {}).values())]
    if len(frozenset(keys)) != len(keys):
        raise Refused("bad_key", "one key stands there twice")
    return "\n".join(lines) + "\n"


def read_logs(data: bytes) -> list[Verifier]:
    """The keys of the logs that a policy file names.

    Raises:
        Refused: ``too_large``, ``malformed``; ``bad_key`` for a log whose key is unusable here, or stands there twice.
    """
    if len(data) > TLOG_POLICY_BYTES_MAX:
        raise Refused("too_large", f"{len(data)} bytes, at most {TLOG_POLICY_BYTES_MAX}")
    if _CONTROL.search(data) or (data and not data.endswith(b"\n")):
        raise Refused("malformed", "a policy is lines of text")
    rows = [re.split(rb"[ \t]+", line.strip(b" \t")) for line in data.split(b"\n")]
    rows = [row for row in rows if row != [b""] and not row[0].startswith(b"#")]
    for row in rows:
        low, high = _FIELDS.get(row[0].decode("latin-1"), (1, 0))
        if not low <= len(row) <= high:
            raise Refused("malformed", f"no line of a policy: {row[0][:20].decode('latin-1')!r} with {len(row)} words")
    if [row[0] for row in rows].count(b"quorum") != 1:
        raise Refused("malformed", "a policy has one quorum line")
    try:
        logs = [Verifier.from_vkey(row[1].decode()) for row in rows if row[0] == b"log"]
    except UnicodeDecodeError:
        raise Refused("malformed", "not UTF-8") from None
    if any(log.kind is not SignatureType.PLAIN for log in logs) or len({log.key for log in logs}) != len(logs):
        raise Refused("bad_key", "a log signs with a key of type 1, which stands there once")
    return logs
