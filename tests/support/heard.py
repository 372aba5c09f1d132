"""What an enforcer of the lab says that it has heard, as it should be or as it should not."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.heartbeat import StreamHead
from mesh.core.messages import HeardRequest
from mesh.core.run.heard import Heard
from tests.support.factory import MESH, Lab, secret, sign

__all__ = ["BOOT", "another_enforcer", "heads", "request", "said", "word"]

BOOT: Final = "b0" * 32


def heads(*streams: tuple[str, int]) -> list[StreamHead]:
    """A frontier of (stream, number), with an id for each."""
    return [
        StreamHead(stream=name, sequence=number, head=canonical.sha256_hex(f"{name} {number}".encode()), forked=False, held="")
        for name, number in streams
    ]


def said(lab: Lab, *, at_ms: int, sequence: int = 1, boot: str = BOOT, frontier: Sequence[StreamHead] | None = None) -> Heard:
    """What the lab's enforcer says."""
    return Heard(
        mesh=MESH,
        enforcer=lab.place_key.public,
        identity=envelope.draft(lab.place).id,
        boot=boot,
        sequence=sequence,
        frontier=list(lab.governance.frontier if frontier is None else frontier),
        at_ms=at_ms,
    )


def word(lab: Lab, *, at_ms: int, **rest: Any) -> Statement[Heard]:
    """The same, signed."""
    return envelope.read(Heard, sign(said(lab, at_ms=at_ms, **rest), lab.place_key))


def request(heard: bytes, identity: bytes) -> bytes:
    """What is sent."""
    return canonical.encode(HeardRequest(heard=msgspec.Raw(heard), identity=msgspec.Raw(identity)))


def another_enforcer(
    lab: Lab, name: str, *, at_ms: int, frontier: Sequence[StreamHead] | None = None, **changes: Any
) -> tuple[bytes, bytes]:
    """The word and the document of another enforcer that the lab's issuer knows, whose document may differ in ``changes``."""
    key = secret(name)
    place: Payload = msgspec.structs.replace(lab.place, subject=f"spiffe://lab/enforcer/{name}", key=key.public, **changes)
    document = sign(place, lab.issuer)
    claims = msgspec.structs.replace(said(lab, at_ms=at_ms, frontier=frontier), enforcer=key.public, identity=envelope.draft(place).id)
    return sign(claims, key), document
