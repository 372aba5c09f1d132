"""An authorization that lived for two seconds is worth nothing in the third."""

import asyncio

from mesh.core.bytes import envelope
from mesh.core.run.authorization import Authorization
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.gate.errors import Denied

__all__ = ["GUARANTEE"]

_SLACK_S = 0.2


async def _check(stage: Stage) -> Measured:
    wanted = wish("ops/blink", ("Host", "local"), {})
    asked = await stage.authorize("deployer", wanted)
    claims = envelope.read(Authorization, bytes(asked.answer.authorization)).claims
    life_ms = claims.expires_ms - claims.not_before_ms
    await asyncio.sleep(life_ms / 1000 + _SLACK_S)
    try:
        await stage.present("deployer", wanted, asked)
    except Denied as refusal:
        return Measured(refusal.code == "expired", f"lived {life_ms} ms, presented {int(_SLACK_S * 1000)} ms later: {refusal.code}")
    return Measured(False, f"lived {life_ms} ms and was accepted later")


GUARANTEE = Guarantee("expired_refused", "an authorization ends when it says", _check, settle_s=2.2)
