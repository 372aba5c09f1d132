"""The same authorization presented again is refused: it was spent, durably."""

from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.gate.errors import Denied

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 1_500})
    asked = await stage.authorize("billing", wanted)
    await stage.finish("billing", await stage.present("billing", wanted, asked))
    try:
        await stage.present("billing", wanted, asked)
    except Denied as refusal:
        return Measured(refusal.code == "used", f"first presentation ran, second: {refusal.code}")
    return Measured(False, "the second presentation was accepted")


GUARANTEE = Guarantee("replay_refused", "an authorization works once", _check)
