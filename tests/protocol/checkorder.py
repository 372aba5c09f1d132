"""In which order a governor looks at an intent: what is broken, the step that finds it, the code that it is found by.

The order is a promise: of several things that are wrong the earliest step is named, so a code does not change because something else
that is wrong comes or goes. :file:`docs/denials.md` shows this table.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.law.fold import restore
from mesh.core.law.halt import Halt
from mesh.core.messages import IntentRequest
from mesh.core.run.identity import Identity
from mesh.core.run.intent import EntityRef, Intent
from mesh.errors import Refused
from tests.protocol.machines import DOMAIN, LAB, MESH, NOW, T0, altered, revoking, secret
from tests.support.factory import sign

__all__ = ["GOVERNOR", "STEPS", "Case"]

_STRANGER: Final = secret("stranger")
_HALT: Final = Halt(mesh=MESH, domain=DOMAIN, sequence=1, previous="", since="", lifts=[], reason="test", issued_ms=T0)

STEPS: Final = (
    "it is of this mesh",
    "the identity document is issued by an issuer of the roster",
    "it is the document of this subject and key",
    "the intent is signed by its holder; until here a no is unsigned and only counted",
    "the domain is not halted, nor do its policy signers contradict one another",
    "this governor's view is fresh, and its clock can be trusted",
    "the identity document is valid now",
    "the enforcer's document is issued by an issuer, and is the audience's",
    "the intent is alive",
    "the domain has a policy in force",
    "it lists the enforcer",
    "it declares the action",
    "the assurance can be given",
    "every approval and grant that came with it holds for exactly this",
    "the executions that it names as its parents are shown",
    "parameters, openings and entities are those that are declared",
    "nothing that it rests on is revoked, nor is a signer caught",
    "policy permits it, with the approvals that came",
)


class Case:
    """One request and what it comes upon, before it is put together."""

    def __init__(self) -> None:
        self.intent: dict[str, Any] = {}
        self.who: dict[str, Any] = {}
        self.manifest: dict[str, Any] = {}
        self.holder = LAB.holder
        self.issuer = LAB.issuer
        self.place = LAB.place_envelope
        self.revoked: list[tuple[str, str]] = []
        self.halted = False
        self.stale: Refused | None = None
        self.approvals: list[bytes] = []

    @property
    def governance(self) -> Any:
        found = revoking(*self.revoked, manifest=msgspec.structs.replace(LAB.manifest, **self.manifest))
        return restore(found, [envelope.read(Halt, sign(_HALT, LAB.revoker))]) if self.halted else found

    @property
    def request(self) -> bytes:
        who = altered(LAB.identity_envelope, Identity, self.issuer, **self.who)
        times = {"created_ms": NOW, "expires_ms": NOW + 30_000, "identity": envelope.identify(who)[1]}
        intent = altered(LAB.intent(1)[1], Intent, self.holder, **{**times, **self.intent})
        raw = msgspec.Raw
        return canonical.encode(
            IntentRequest(
                intent=raw(intent),
                identity=raw(who),
                enforcer=raw(self.place),
                openings=[],
                boxes=[],
                approvals=[raw(said) for said in self.approvals],
                parents=[],
            )
        )


def _set(part: str, **fields: Any) -> Callable[[Case], None]:
    return lambda case: getattr(case, part).update(fields)


def _attr(**fields: Any) -> Callable[[Case], None]:
    return lambda case: vars(case).update(fields)


GOVERNOR: Final[dict[str, tuple[int, str, Callable[[Case], None]]]] = {
    # what is broken: (step, code, how)
    "another mesh": (1, "wrong_mesh", _set("intent", mesh="other")),
    "a document that nobody issued": (2, "identity_unknown", _attr(issuer=_STRANGER)),
    "another's document": (3, "identity_mismatch", _set("intent", subject="spiffe://lab/agent/eve")),
    "a stranger's signature": (4, "unauthenticated", _attr(holder=_STRANGER)),
    "a halted domain": (5, "halted", _attr(halted=True)),
    "a view that is old": (6, "stale", _attr(stale=Refused("stale", "2 of 3"))),
    "a clock that is wrong": (6, "clock_unsure", _attr(stale=Refused("clock_unsure", ""))),
    "a document that is over": (7, "identity_expired", _set("who", expires_ms=NOW)),
    "an enforcer that nobody enrolled": (8, "identity_unknown", _attr(place=altered(LAB.place_envelope, Identity, _STRANGER))),
    "a workload for an enforcer": (8, "identity_mismatch", _attr(place=LAB.identity_envelope)),
    "an intent that is over": (9, "intent_expired", _set("intent", created_ms=NOW - 9_000, expires_ms=NOW)),
    "a policy that is over": (10, "policy_expired", _set("manifest", expires_ms=NOW)),
    "an enforcer of another domain": (11, "audience_unknown", _set("manifest", enforcers=["spiffe://lab/other"])),
    "an action that is none": (12, "action_unknown", _set("intent", action="steal")),
    "more assurance than there is": (13, "assurance_unavailable", _set("intent", assurance_min="quorum")),
    "an approval of something else": (14, "approval_mismatch", _attr(approvals=[LAB.approval(LAB.intent(9, amount=77)[1])])),
    "a parent without papers": (15, "parent_unknown", _set("intent", within=["ab" * 32])),
    "a parameter of another type": (16, "params_mismatch", _set("intent", params={"amount": "10"})),
    "a revoked subject": (17, "revoked", _attr(revoked=[("subject", "spiffe://lab/agent/anna")])),
    "a policy that says no": (18, "policy_denied", _set("intent", resource=EntityRef(type="Account", id="frozen"))),
}
