"""An authorization signed by a key that is not in the roster is worth nothing, however well it is made."""

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.keys import SecretKey
from mesh.core.run.authorization import Authorization
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.gate.core import Asked
from mesh.gate.errors import Denied

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 2_500})
    asked = await stage.authorize("billing", wanted)
    statement = envelope.read(Authorization, bytes(asked.answer.authorization))
    stranger = SecretKey(bytes(32))
    forged = envelope.assemble(
        "application/vnd.govmesh.authorization.v1+json", statement.payload, {stranger.public: stranger.sign(statement.message)}
    )
    answer = msgspec.structs.replace(asked.answer, authorization=msgspec.Raw(forged))
    try:
        await stage.present("billing", wanted, Asked(asked.intent, asked.envelope, asked.openings, answer))
    except Denied as refusal:
        return Measured(refusal.code == "bad_signature", f"same words, a stranger's signature: {refusal.code}")
    return Measured(False, "a stranger's signature was accepted")


GUARANTEE = Guarantee("forged_refused", "only keys of the roster authorize", _check)
