"""A part of the payment in the example world: asked for within it, with its papers, and authorized with the line of its ancestors.

It stands in no log of the story: who implements the wire needs its bytes, and what is made of them.
"""

from functools import cache

import msgspec

from mesh.contracts.example import MEMBERS, NODE, OPENING, Signed, asked, base, key, sign, start_ms
from mesh.contracts.story import ORIGIN, story
from mesh.core.bytes import envelope
from mesh.core.messages import IntentRequest, pack
from mesh.core.run.decision import Verdict
from mesh.core.run.intent import Intent
from mesh.core.run.kin import Parent
from mesh.protocol import decide
from mesh.protocol.documents import Documents
from mesh.protocol.examine import authenticate, authorization_draft, question

__all__ = ["part"]

_AT_MS = start_ms(2) + 400
_VERDICT = Verdict(allow=True, determining=("payments/send-by-payers",), errors=())


@cache
def part() -> tuple[Signed, Signed, bytes]:
    """The intent, its authorization, and the request that brought the papers."""
    told, world = {item.name: item for item in story().statements}, base()
    parent = Parent(
        authorization=msgspec.Raw(told["authorization"].envelope),
        outcome=msgspec.Raw(told["outcome-started"].envelope),
        countersignature="",
    )
    plain = envelope.read(Intent, asked("intent-within", "acct:acme-supplies", 2_500, minute=2).envelope).claims
    intent = sign("intent-within", msgspec.structs.replace(plain, within=[told["authorization"].draft.id]), "workload")
    documents = Documents()
    put = question(
        authenticate(intent.envelope, world.workload.envelope, world.governance, documents),
        world.enforcer.envelope,
        [OPENING],
        world.governance,
        documents,
        region=MEMBERS[NODE],
        at_ms=_AT_MS,
        frontier=world.governance.digest,
        parents=[parent],
    )
    decision = decide.conclude(put.request, _VERDICT, put.intent.claims, put.law, profile=world.built.bundle.profile)
    place = ORIGIN, len(story().records)
    draft = authorization_draft(put, decision, world.governance, issuer=NODE, place=place, at_ms=_AT_MS)
    signer = f"{NODE}/decision"
    sealed = envelope.assemble(draft.payload_type, draft.payload, {key(signer).public: key(signer).sign(draft.message)})
    raw = msgspec.Raw
    request = IntentRequest(
        intent=raw(intent.envelope), identity=raw(world.workload.envelope), enforcer=raw(world.enforcer.envelope), openings=[OPENING],
        boxes=[], approvals=[], parents=[parent],
    )  # fmt: skip
    return intent, Signed("authorization-within", "authorization", draft, sealed, (signer,)), pack(request)
