"""A record becomes final when k distinct members have replayed and attested it, and that can be counted from outside."""

import time

from mesh.core.bytes import envelope
from mesh.core.log.checkpoint import log_verifier
from mesh.core.log.tlogproof import TlogProof
from mesh.core.run.authorization import Authorization
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    wanted = wish("payments/send", ("Account", "acct:harbour-power"), {"to": "acct:harbour-power", "amount_cents": 3_100})
    asked = await stage.authorize("billing", wanted)
    begun = time.monotonic()
    record = envelope.read(Authorization, bytes(asked.answer.authorization)).claims

    async def final() -> bool:
        return bool((await stage.proof(record.origin, record.index)).proof)

    await stage.until("a certificate", final)
    took_ms = (time.monotonic() - begun) * 1000
    roster = (await stage.governance()).roster
    proved = await stage.proof(record.origin, record.index)
    attested = TlogProof.parse(proved.proof.encode()).verify(
        bytes(proved.batch.records[0]),
        log=log_verifier(record.origin, roster.owner(record.origin).log_key),
        cosigners=roster.attest_keys(),
        k=roster.k,
    )
    keys = {item.verifier.key for item in attested.attestations}
    return Measured(
        len(keys) >= roster.k,
        f"record {record.index} of {record.origin} attested by {len(keys)} of {len(roster.members)} members, "
        f"{took_ms:.0f} ms after the answer",
    )


GUARANTEE = Guarantee("final_by_k", "a record is final when k members have replayed it", _check)
