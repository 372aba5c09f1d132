"""A proof is verified elsewhere: another process, another folder, no bus, public keys only; one changed byte and it fails."""

import json
import os

from mesh.core.bytes import envelope
from mesh.core.run.authorization import Authorization
from mesh.dev.guarantee import Guarantee, Measured
from mesh.dev.stage import Stage, wish

__all__ = ["GUARANTEE"]

_FORGED = frozenset({3, 5})


async def _check(stage: Stage) -> Measured:
    wanted = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 700})
    asked = await stage.authorize("billing", wanted)
    record = envelope.read(Authorization, bytes(asked.answer.authorization)).claims

    async def final() -> bool:
        return bool((await stage.proof(record.origin, record.index)).proof)

    await stage.until("a certificate", final)
    proof = stage.folder / "proof.json"
    made = await stage.command("--context", str(stage.cluster.files.context), "prove", asked.intent.id, "-o", str(proof))
    elsewhere = stage.folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    # No context, no home: nothing but the proof and the roster.
    env = {"HOME": str(elsewhere), **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}}
    roster = str(stage.cluster.files.roster)
    verified = await stage.command("-o", "json", "verify", str(proof), "--trust", roster, cwd=elsewhere, env=env)
    verdict = _verdict(verified.out)
    data = bytearray(proof.read_bytes()) if proof.exists() else bytearray(1)
    data[len(data) // 2] ^= 1
    forged = stage.folder / "forged.json"
    forged.write_bytes(data)
    refused = await stage.command("verify", str(forged), "--trust", roster, cwd=elsewhere, env=env)
    return Measured(
        made.status == 0 and verified.status == 0 and verdict == "VERIFIED" and refused.status in _FORGED,
        f"{len(data)} bytes, in an empty folder: {verdict or verified.err.strip()}; with one bit flipped: exit {refused.status}",
    )


def _verdict(out: str) -> str:
    try:
        reports: list[dict[str, object]] = json.loads(out)
        return str(reports[0]["verdict"])
    except (ValueError, LookupError):
        return ""


GUARANTEE = Guarantee("proof_verifies_offline", "a proof needs no network, no mesh and no trust in who hands it over", _check)
