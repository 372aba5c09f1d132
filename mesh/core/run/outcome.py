"""An outcome is what an enforcer says happened: signed, densely numbered and hash-chained per boot.

A missing number is a swallowed outcome; a broken chain is a second history. A crash between start and end is ``unknown``,
never guessed.
"""

from typing import Annotated, Final, Literal

import msgspec

from mesh.core.bytes.canonical import Count, Hex32, Integer, KeyHex, Millis, Name, Payload, Text, Token
from mesh.core.bytes.envelope import statement
from mesh.core.run.intent import Measurement
from mesh.limits import MEASUREMENTS_MAX, MEMBERS_MAX

__all__ = [
    "CHECKS",
    "Aborted",
    "Blocked",
    "Check",
    "Event",
    "EventName",
    "Failed",
    "Finished",
    "Outcome",
    "Started",
    "Unknown",
    "event_name",
]

CHECKS: Final = (
    "authorization",
    "identity",
    "policy",
    "environment",
    "cryptography",
    "governance",
    "lineage",
    "trust",
)
"""The eight runtime checks, in the order in which they are recorded."""


class Check(Payload):
    """One of the eight, as it came out."""

    name: Literal["authorization", "identity", "policy", "environment", "cryptography", "governance", "lineage", "trust"]
    passed: bool


class Started(Payload, tag_field="type", tag="started"):
    """It began: spent, checked again, and run."""

    checks: Annotated[list[Check], msgspec.Meta(min_length=8, max_length=8)]
    heartbeats: Annotated[list[Hex32], msgspec.Meta(max_length=MEMBERS_MAX)]
    """Statement ids of the heartbeats that made the view fresh, so that this verdict can be repeated too."""
    spend: Count
    """How many intents this enforcer has spent, this one included."""


class Finished(Payload, tag_field="type", tag="finished"):
    """It ended by itself."""

    status: Integer
    """Exit status; 0 for a function that returned."""
    outputs: Annotated[list[Measurement], msgspec.Meta(max_length=MEASUREMENTS_MAX)]
    duration_ms: Millis


class Failed(Payload, tag_field="type", tag="failed"):
    """It ended with an error of its own."""

    status: Integer
    """Exit status, or minus the signal; 1 for a function that raised."""
    error: Text
    """The exception's type, or ``exit``/``signal``; never its message, which may hold secrets."""
    outputs: Annotated[list[Measurement], msgspec.Meta(max_length=MEASUREMENTS_MAX)]
    duration_ms: Millis


class Aborted(Payload, tag_field="type", tag="aborted"):
    """The enforcer ended it."""

    code: Name
    duration_ms: Millis


class Unknown(Payload, tag_field="type", tag="unknown"):
    """It was started by a former boot of this enforcer, which left no end."""

    boot: Hex32
    """That boot."""


class Blocked(Payload, tag_field="type", tag="blocked"):
    """It was not started."""

    code: Name
    detail: Text


Event = Started | Finished | Failed | Aborted | Unknown | Blocked
EventName = Literal["started", "finished", "failed", "aborted", "unknown", "blocked"]


def event_name(event: Event) -> EventName:
    """The event's tag on the wire."""
    name: EventName = event.__struct_config__.tag  # type: ignore[assignment]  # each tag above is one of these words
    return name


@statement("outcome", bytes_max=32_768)
class Outcome(Payload):
    """Signed by the enforcer's key."""

    mesh: Token
    enforcer: KeyHex
    identity: Hex32
    """Statement id of the enforcer's identity document."""
    boot: Hex32
    sequence: Count
    """From 0, dense per boot."""
    previous: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$(?!\\n)", max_length=64)]
    """Statement id of the outcome before it in this boot; empty for the first."""
    domain: Token
    intent: Hex32
    authorization: Hex32
    at_ms: Millis
    event: Event
