"""An intent is what a workload asks to do, exactly: everything that will run or be touched, signed by the holder key.

Its statement id is the key under which it is spent: one intent runs at most once, whoever authorized it.
"""

from typing import Annotated, Literal

import msgspec

from mesh.core.bytes.canonical import Hex16, Hex32, KeyHex, Millis, Name, Params, Payload, Spiffe, Text, Token
from mesh.core.bytes.envelope import statement
from mesh.core.run.params import Commitments
from mesh.core.run.sealed import Seals
from mesh.errors import Refused
from mesh.limits import AFTER_MAX, INTENT_BYTES_MAX, INTENT_LIFE_MS_MAX, MEASUREMENTS_MAX

__all__ = ["ASSURANCES", "After", "Assurance", "Audience", "EntityRef", "Intent", "Measurement", "check_intent_times", "strongest"]

Assurance = Literal["observe", "local", "quorum", "final"]
ASSURANCES: tuple[Assurance, ...] = ("observe", "local", "quorum", "final")
"""Weakest first. ``local``: one governor decides, abuse is detected; from ``quorum`` on it is prevented."""

Digest = Annotated[str, msgspec.Meta(pattern="^(blake3|sha256):[0-9a-f]{64}$(?!\\n)", min_length=71, max_length=71)]


class EntityRef(Payload):
    """A Cedar entity uid: ``Type::"id"``."""

    type: Name
    id: Text


class Audience(Payload):
    """The one enforcer that may honour the authorization, and its boot."""

    enforcer: KeyHex
    boot: Hex32
    """Drawn afresh at each start of the enforcer, so a lost or rolled-back spent store cannot matter."""


class Measurement(Payload):
    """A digest of something that will run: executable, script, function source, model, image."""

    name: Name
    digest: Digest


class After(Payload):
    """An execution that has finished, and whose result this one uses."""

    authorization: Hex32
    """Statement id of its authorization."""
    outcome: Hex32
    """Statement id of the ``finished`` that its enforcer signed: a digest of all that it said, its outputs included."""


@statement("intent", bytes_max=INTENT_BYTES_MAX)
class Intent(Payload):
    """What ``subject`` asks to do. Signed by ``holder``."""

    mesh: Token
    domain: Token
    """The enforcement domain."""
    subject: Spiffe
    holder: KeyHex
    identity: Hex32
    """Statement id of the identity document that names subject and holder."""
    action: Name
    """The verb; Cedar sees ``Action::"<domain>/<action>"``."""
    resource: EntityRef
    params: Params
    committed: Commitments
    sealed: Seals
    """Those of the committed parameters whose openings are encrypted, with for whom; the others' travel in the clear."""
    measurements: Annotated[list[Measurement], msgspec.Meta(max_length=MEASUREMENTS_MAX)]
    """In the order in which they will be used."""
    purpose: Text
    """Why, in the workload's words; policy sees it as *asserted*."""
    audience: Audience
    assurance_min: Assurance
    """The caller may only raise what policy demands."""
    within: Annotated[list[Hex32], msgspec.Meta(max_length=1)]
    """Statement id of the authorization of the running execution that this is a part of; none for one that stands alone."""
    after: Annotated[list[After], msgspec.Meta(max_length=AFTER_MAX)]
    nonce: Hex16
    created_ms: Millis
    expires_ms: Millis


def strongest(*levels: Assurance) -> Assurance:
    """The strongest of ``levels``; at least one must be given."""
    return max(levels, key=ASSURANCES.index)


def check_intent_times(intent: Intent, *, now_ms: int, skew_ms: int) -> None:
    """That the intent is alive at ``now_ms``, allowing the creator's clock to be ahead by ``skew_ms``, never its end to slip.

    Raises:
        Refused: ``intent_too_long``, ``intent_expired``.
    """
    if intent.expires_ms - intent.created_ms > INTENT_LIFE_MS_MAX:
        raise Refused("intent_too_long", f"{intent.expires_ms - intent.created_ms} ms, at most {INTENT_LIFE_MS_MAX}")
    if intent.created_ms - skew_ms > now_ms or now_ms >= intent.expires_ms:
        raise Refused("intent_expired", f"now {now_ms}, valid {intent.created_ms}..{intent.expires_ms}")
