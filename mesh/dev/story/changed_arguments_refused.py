"""An authorization for one amount does not start another."""

from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish
from mesh.gate.errors import Denied

__all__ = ["GUARANTEE"]


async def _check(stage: Stage) -> Measured:
    account = "acct:acme-supplies"
    small = wish("payments/send", ("Account", account), {"to": account, "amount_cents": 1_000})
    large = wish("payments/send", ("Account", account), {"to": account, "amount_cents": 1_001})
    asked = await stage.authorize("billing", small)
    try:
        await stage.present("billing", large, asked)
    except Denied as refusal:
        return Measured(refusal.code == "digest_mismatch", f"authorized 1000, presented with 1001: {refusal.code}")
    return Measured(False, "authorized 1000, ran with 1001")


GUARANTEE = Guarantee("changed_arguments_refused", "one changed argument voids an authorization", _check)
