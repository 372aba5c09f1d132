"""A client of a mesh with nothing of govmesh: plain NATS requests, JSON, Ed25519. Any language can do this.

    python any_language.py .mesh/dev/context.toml billing 1000

Needs nats-py and pynacl. It signs COUNT payment intents as the given identity, sends each to a governor of its region and
prints how many were authorized, denied or refused, and the intents' ids to standard output if --ids is given.
"""

import asyncio
import base64
import collections
import hashlib
import json
import pathlib
import secrets
import sys
import time
import tomllib

import nacl.signing
import nats

KIND = "application/vnd.govmesh.intent.v1+json"


def canonical(value):
    """RFC 8785 for what intents hold: ASCII keys, sorted; no spaces; integers only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def pae(kind, payload):
    """DSSE's pre-authentication encoding: exactly this is signed."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)


def sign(payload, key):
    """The envelope, and the statement id under which everybody knows it."""
    message = pae(KIND, payload)
    signature = {"keyid": key.verify_key.encode().hex(), "sig": base64.b64encode(key.sign(message).signature).decode()}
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": KIND, "signatures": [signature]}
    return envelope, hashlib.sha256(message).hexdigest()


def load(path, holder):
    """An identity document (as it is, byte for byte) and its key."""
    document = json.loads((path / holder["document"]).read_bytes())
    seed = bytes.fromhex((path / holder["key"]).read_text().split()[-1])
    return document, nacl.signing.SigningKey(seed)


async def main(context_file, who, count, show_ids):
    """Send the intents, thirty-two at a time, and count the answers."""
    folder = pathlib.Path(context_file).parent
    context = tomllib.loads(pathlib.Path(context_file).read_text())
    document, key = load(folder, context["identities"][who])
    enforcer, enforcer_key = load(folder, context["enforcer"])
    claims = json.loads(base64.b64decode(document["payload"]))
    document_id = hashlib.sha256(pae(document["payloadType"], base64.b64decode(document["payload"]))).hexdigest()
    workload = base64.b32encode(hashlib.sha256(claims["subject"].encode()).digest()).decode()[:26].lower()
    subject = f"mesh.v1.{context['region']}.intent.{context['tenant']}.{workload}"
    boot = secrets.token_hex(32)
    bus = await nats.connect(
        context["bus"]["servers"],
        user=context["bus"]["user"],
        password=(folder / context["bus"]["password_file"]).read_text().strip(),
        inbox_prefix=b"_INBOX_anylanguage",
    )
    answers = collections.Counter()
    gate = asyncio.Semaphore(32)

    async def ask(number):
        now = time.time_ns() // 1_000_000
        intent = {
            "mesh": context["mesh"],
            "domain": "payments",
            "subject": claims["subject"],
            "holder": claims["key"],
            "identity": document_id,
            "action": "send",
            "resource": {"type": "Account", "id": "acct:acme-supplies"},
            # Every tenth asks for more than this agent may pay.
            "params": {"to": "acct:acme-supplies", "amount_cents": 900_000 if number % 10 == 0 else 1_000 + number},
            "committed": {},
            "sealed": {},
            "measurements": [],
            "purpose": f"invoice {number}",
            "audience": {"enforcer": enforcer_key.verify_key.encode().hex(), "boot": boot},
            "assurance_min": "local",
            "within": [],
            "after": [],
            "nonce": secrets.token_hex(16),
            "created_ms": now,
            "expires_ms": now + 30_000,
        }
        envelope, intent_id = sign(canonical(intent), key)
        request = {
            "enforcer": enforcer,
            "identity": document,
            "intent": envelope,
            "openings": [],
            "boxes": [],
            "approvals": [],
            "parents": [],
        }
        async with gate:
            answer = json.loads((await bus.request(subject, canonical(request), timeout=10)).data)
        answers[answer["answer"]] += 1
        if answer["answer"] == "refused":
            answers[answer["code"]] += 1
        if show_ids:
            print(intent_id)

    await asyncio.gather(*(ask(number) for number in range(count)))
    await bus.drain()
    print(json.dumps(answers), file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), "--ids" in sys.argv))
