"""The streams of a region exist exactly as they should, or provisioning refuses: nodes never make, change or empty one.

Rules
-----
1. Per region two: ``LINEAGE_<region>`` (records, checkpoints, cosignatures) and ``LAW_<region>`` (governance statements,
   fraud proofs). Every subject carries the region, so streams of two domains never bind the same one.
2. A full stream refuses what is new and keeps what is old; nobody can delete or purge single messages. Nodes keep everything
   in their own stores, so a stream holds at most what they can publish again.
3. Provisioning twice changes nothing. A stream or consumer that stands there otherwise is reported field by field and left
   alone: what to do about it is for people.
4. Heartbeats, the fast path of law, syncs and intents are bound by no stream: a stored intent executed late is a hazard.

Not here: who may call this (an administrator, once; no node has the right), and reading a stream (:meth:`Bus.pull`).
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from mesh.adapters.bus import Bus
from mesh.core import subjects
from mesh.core.subjects import ANY
from mesh.errors import Refused, Unavailable
from mesh.limits import MESSAGE_BYTES_MAX

__all__ = ["ensure_consumer", "law_stream", "lineage_stream", "provision"]

_NS_PER_S: Final = 1_000_000_000
_TIMEOUT_MS: Final = 10_000
"""A cluster elects a leader for a new stream first."""
_DAY_S: Final = 86_400
_HEADER_BYTES: Final = 4_096
"""Streams count headers as part of a message."""
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503
_ACK_WAIT_S: Final = 30
_ACK_PENDING_MAX: Final = 4_096
_PULLS_WAITING_MAX: Final = 16
"""One puller has one fetch under way; left-over requests of crashed ones expire within seconds."""


class _Fault(msgspec.Struct, frozen=True):
    code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    error: _Fault | None = None
    config: dict[str, Any] = {}


def lineage_stream(region: str) -> str:
    """The stream of records, checkpoints and cosignatures of a region."""
    return f"LINEAGE_{region}"


def law_stream(region: str) -> str:
    """The stream of governance statements and fraud proofs of a region."""
    return f"LAW_{region}"


async def provision(
    bus: Bus,
    regions: Iterable[str],
    *,
    replicas: int = 1,
    lineage_bytes_max: int = 256 * 1024 * 1024,
    law_bytes_max: int = 64 * 1024 * 1024,
    domain: str = "",
) -> None:
    """Make the streams of ``regions``, or check that they stand as they should.

    Args:
        bus: connected as somebody who may make streams.
        regions: tokens, see :mod:`mesh.core.subjects`.
        replicas: servers that hold each stream, 1 or 3.
        lineage_bytes_max: of each lineage stream, in bytes on disk of every replica.
        law_bytes_max: the same of each law stream.
        domain: the JetStream domain of the servers, if they have one.

    Raises:
        Refused: ``malformed`` for a region that is no token; ``config_invalid`` naming each field that differs, or what the
            server will not have.
        Unavailable: ``unreachable``, or ``unavailable`` when the server cannot now.
    """
    for region in regions:
        lineage = [build(region, ANY) for build in (subjects.lineage, subjects.checkpoint, subjects.cosig)]
        law = [subjects.law_stored(region, ANY), subjects.fraud(region, ANY)]
        name = lineage_stream(region)
        await _ensure_stream(bus, domain, _stream(name, lineage, replicas, lineage_bytes_max, age_s=7 * _DAY_S, window_s=600))
        await _ensure_stream(bus, domain, _stream(law_stream(region), law, replicas, law_bytes_max, age_s=0, window_s=3_600))


async def ensure_consumer(bus: Bus, stream: str, durable: str, *, filter_subject: str = "", domain: str = "") -> None:
    """Make the durable pull consumer ``durable``, from the beginning of ``stream``, or check that it stands as it should.

    Args:
        bus: connected as somebody who may make consumers.
        stream: its name.
        durable: the reader's name, a token.
        filter_subject: only these messages.
        domain: the JetStream domain of the servers, if they have one.

    Raises:
        Refused: ``config_invalid``.
        Unavailable: ``unreachable``, or ``unavailable`` when the server cannot now.
    """
    wanted: dict[str, Any] = {
        "name": durable,
        "durable_name": durable,
        "ack_policy": "explicit",
        "ack_wait": _ACK_WAIT_S * _NS_PER_S,
        "deliver_policy": "all",
        "max_ack_pending": _ACK_PENDING_MAX,
        "max_waiting": _PULLS_WAITING_MAX,
        "replay_policy": "instant",
    }
    verb = f"CONSUMER.CREATE.{stream}.{durable}"
    if filter_subject:
        wanted["filter_subject"] = filter_subject
        verb += f".{filter_subject}"
    found = await _ask(bus, domain, f"CONSUMER.INFO.{stream}.{durable}", None)
    if found is None:
        found = await _ask(bus, domain, verb, {"stream_name": stream, "config": wanted, "action": "create"})
    if found is None:
        raise Refused("config_invalid", f"no stream {stream}")
    _compare(f"{stream}/{durable}", wanted | {"filter_subject": filter_subject}, {"filter_subject": ""} | found)


def _stream(name: str, bound: list[str], replicas: int, bytes_max: int, *, age_s: int, window_s: int) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": bound,
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": replicas,
        "max_bytes": bytes_max,
        "max_age": age_s * _NS_PER_S,
        "max_msg_size": MESSAGE_BYTES_MAX + _HEADER_BYTES,
        "duplicate_window": window_s * _NS_PER_S,
        "deny_delete": True,
        "deny_purge": True,
        "allow_direct": True,
        "compression": "s2",
    }


async def _ensure_stream(bus: Bus, domain: str, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    found = await _ask(bus, domain, f"STREAM.INFO.{name}", None)
    if found is None:
        found = await _ask(bus, domain, f"STREAM.CREATE.{name}", wanted)
    _compare(name, wanted, found or {})


async def _ask(bus: Bus, domain: str, verb: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
    """The configuration in the server's answer; None for "not found"."""
    prefix = f"$JS.{domain}.API" if domain else "$JS.API"
    data = msgspec.json.encode(body) if body is not None else b""
    message = await bus.request(f"{prefix}.{verb}", data, timeout_ms=_TIMEOUT_MS)
    try:
        answer = msgspec.json.decode(message.data, type=_Answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise Unavailable("unavailable", f"{verb}: no answer of a JetStream server") from None
    if answer.error is None:
        return answer.config
    if answer.error.code == _NOT_FOUND:
        return None
    detail = f"{verb}: {answer.error.description[:160]}"
    if answer.error.code == _UNAVAILABLE:
        raise Unavailable("unavailable", detail)
    raise Refused("config_invalid", detail)


def _compare(name: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    differ = [f"{field} is {found.get(field)!r}, must be {value!r}" for field, value in wanted.items() if found.get(field) != value]
    if differ:
        raise Refused("config_invalid", f"{name}: {'; '.join(differ)}")
