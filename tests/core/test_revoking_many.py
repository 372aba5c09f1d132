"""An issuer or a governor is revoked by the threshold only; what that kills depends on the set of revocations, and only grows."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import extend
from mesh.core.law.governance import Governance
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Role
from mesh.core.run.identity import Identity
from mesh.errors import Refused
from mesh.limits import SPARED_MAX
from tests.core.kit import refuses
from tests.support.factory import Lab, secret, sign
from tests.support.revocations import REVOKERS, governance, revocation

ONE, TWO, _ = REVOKERS
LAB = Lab()
ISSUERS = (LAB.issuer, secret("another issuer"))
_ROLE = Role(keys=[key.public for key in ISSUERS], threshold=1)
PLAIN = msgspec.structs.replace(governance(LAB), roster=msgspec.structs.replace(governance(LAB).roster, issuers=_ROLE))
PEOPLE = ("anna", "bert", "carl")


def _document(name: str, *issuers: int) -> Statement[Identity]:
    claims = envelope.read(Identity, LAB.identity(f"spiffe://lab/agent/{name}", secret(name), groups=[])).claims
    return envelope.read(Identity, sign(claims, *(ISSUERS[number] for number in issuers)))


_SIGNED: tuple[tuple[int, ...], ...] = ((0,), (1,), (0, 1))
DOCUMENTS = {(name, issuers): _document(name, *issuers) for name in PEOPLE for issuers in _SIGNED}
IDS = sorted({document.id for document in DOCUMENTS.values()})


def _no_issuer(number: int, spared: Sequence[str] = (), *, at: int = 1, previous: str = "", reason: str = "") -> Statement[Revocation]:
    target = Target(type="issuer", value=ISSUERS[number].public)
    return revocation(at, previous, ONE, TWO, target=target, spares=sorted(spared), reason=reason)


def _dead(held: Governance, document: Statement[Identity]) -> bool:
    try:
        held.check_issued(document)
    except Refused as refusal:
        return refusal.code == "revoked"
    return False


_SPARED = st.lists(st.tuples(st.integers(0, 1), st.sets(st.sampled_from(IDS))), max_size=5)


@given(_SPARED, st.data())
def test_a_document_lives_exactly_if_every_revocation_of_everybody_who_signed_it_spares_it_in_any_order(
    said: list[tuple[int, set[str]]], data: st.DataObject
) -> None:
    """In a chain, in forks, or behind a gap: what denies counts wherever it stands."""
    statements, chains = list[Statement[Revocation]](), data.draw(st.lists(st.booleans(), min_size=5, max_size=5))
    for number, (issuer, spared) in enumerate(said):
        behind = statements[-1] if statements and chains[number] else None
        at, previous = (behind.claims.sequence + 1, behind.id) if behind is not None else (1, "")
        statements.append(_no_issuer(issuer, sorted(spared), at=at, previous=previous, reason=f"{number}"))
    heard = data.draw(st.permutations(statements * 2))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(heard)), max_size=3))), len(heard)]
    held, dead = PLAIN, set[tuple[str, tuple[int, ...]]]()
    for first, last in pairwise(cuts):
        taken = extend(held, heard[first:last])
        assert taken.refused == {}
        held = taken.governance
        now = {key for key, document in DOCUMENTS.items() if _dead(held, document)}
        assert now >= dead, "what is revoked only grows"
        dead = now
    for (name, issuers), document in DOCUMENTS.items():
        lives = all(document.id in spared for issuer, spared in said if issuer in issuers)
        assert ((name, issuers) in dead) != lives


def test_of_a_revoked_issuer_a_document_that_another_signs_anew_lives() -> None:
    held = extend(PLAIN, [_no_issuer(0)]).governance
    both, anew = DOCUMENTS["anna", (0, 1)], DOCUMENTS["anna", (1,)]
    assert both.id == anew.id
    assert _dead(held, both)
    assert not _dead(held, anew)


def test_one_document_that_is_dead_spoils_all_that_are_asked_about() -> None:
    held = extend(PLAIN, [_no_issuer(0)]).governance
    with refuses("revoked"):
        held.check_issued(DOCUMENTS["anna", (1,)], DOCUMENTS["bert", (0,)])
    held.check_issued()
    held.check_issued(DOCUMENTS["anna", (1,)], DOCUMENTS["bert", (1,)])


@pytest.mark.parametrize(
    "target",
    [
        Target(type="issuer", value=LAB.issuer.public),
        Target(type="issuer", value=secret("an issuer to come").public),
        Target(type="governor", value="eu-1"),
        Target(type="governor", value="a-member-to-come"),
    ],
    ids=["issuer", "a later issuer", "governor", "a later governor"],
)
def test_who_stands_for_many_is_revoked_by_the_threshold_only(target: Target) -> None:
    for signers, code in (((ONE,), "threshold_not_met"), ((TWO,), "bad_signature"), ((ONE, secret("a stranger")), "bad_signature")):
        taken = extend(PLAIN, [revocation(1, "", *signers, target=target)])
        assert [refusal.code for refusal in taken.refused.values()] == [code]
        assert taken.governance is PLAIN
    held = extend(PLAIN, [revocation(1, "", ONE, TWO, target=target)]).governance
    assert held.revoked == {(target.type, target.value)}
    with refuses("revoked"):
        held.check_unrevoked((target.type, target.value))


def test_only_of_an_issuer_documents_are_spared_and_each_once_in_their_order() -> None:
    issuer = Target(type="issuer", value=LAB.issuer.public)
    for target, spares in (
        (Target(type="subject", value="spiffe://lab/agent/anna"), IDS[:1]),
        (Target(type="key", value=LAB.issuer.public), IDS[:1]),
        (Target(type="governor", value="eu-1"), IDS[:1]),
        (issuer, IDS[:2][::-1]),
        (issuer, IDS[:1] * 2),
    ):
        taken = extend(PLAIN, [revocation(1, "", ONE, TWO, target=target, spares=spares)])
        assert [refusal.code for refusal in taken.refused.values()] == ["malformed"]


def test_as_many_documents_are_spared_as_the_limit_says_and_no_more() -> None:
    ids = sorted(sha256_hex(f"document {number}".encode()) for number in range(SPARED_MAX + 1))
    assert extend(PLAIN, [_no_issuer(0, ids[:-1])]).refused == {}
    with refuses("malformed"):
        _no_issuer(0, ids)
