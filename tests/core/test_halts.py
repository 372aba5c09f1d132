"""A halt denies wherever it stands, a resume allows only where nothing is missing, and both are a function of the set of statements."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.fold import extend, restore, unsaid
from mesh.core.law.governance import Governance
from mesh.core.law.halt import Halt, admit_halt
from mesh.core.law.streams import Fork
from mesh.core.law.travel import Said, read_law, streams_of
from mesh.errors import Refused
from mesh.limits import LIFTS_MAX
from tests.support.factory import Lab, secret
from tests.support.halts import DOMAIN, SAID, STREAM, halt, resume
from tests.support.revocations import REVOKERS, WORLD, chained, governance

LAB = Lab()
PLAIN = governance(LAB)
ONE, TWO, THREE = REVOKERS
FIRST, SECOND, LIFTED, THIRD, LAST, OTHER, LOOSE, LOOSE_RESUME = SAID


def _held(*statements: Statement[Halt]) -> Governance:
    taken = extend(PLAIN, statements)
    assert taken.refused == {}
    return taken.governance


def _halted(held: Governance, domain: str = DOMAIN) -> bool:
    if domain not in held.halted:
        held.check_open(domain)
        return False
    with pytest.raises(Refused) as caught:
        held.check_open(domain)
    assert caught.value.code == "halted"
    return True


# ----------------------------------------------------------------------------------------------------------------- the fold


def _in_force(said: Sequence[Statement[Halt]]) -> tuple[str, ...]:
    """What the design says, from nothing but the set."""
    links = {(item.claims.sequence, item.id, item.claims.previous) for item in said}
    forked = any(
        (one[0] == other[0] and one[1] != other[1]) or (one[0] + 1 == other[0] and other[2] != one[1]) for one in links for other in links
    )
    numbers = {item.claims.sequence: item for item in said}
    whole = list[Statement[Halt]]()
    while not forked and len(whole) + 1 in numbers:
        whole.append(numbers[len(whole) + 1])
    lifted = {identity for item in whole for identity in item.claims.lifts}
    return tuple(sorted({item.id for item in said if not item.claims.lifts} - lifted))


@given(st.sets(st.sampled_from(range(len(SAID)))), st.data())
def test_what_is_halted_is_a_function_of_the_set_in_any_order_with_duplicates_and_in_any_batches(
    chosen: set[int], data: st.DataObject
) -> None:
    said = [SAID[number] for number in sorted(chosen)]
    beside = [WORLD[number] for number in data.draw(st.sets(st.sampled_from(range(len(WORLD))), max_size=3))]
    twice: list[Statement[Said]] = data.draw(st.lists(st.sampled_from(said), max_size=4)) if said else []
    every: list[Statement[Said]] = [*said, *beside, *twice]
    heard = data.draw(st.permutations(every))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(heard)), max_size=4))), len(heard)]
    held = PLAIN
    for start, end in pairwise(cuts):
        taken = extend(held, heard[start:end])
        assert taken.refused == {}
        held = taken.governance
    wanted = _in_force(said)
    assert held.halted == ({DOMAIN: wanted} if wanted else {})
    assert _halted(held) is bool(wanted)
    whole = restore(PLAIN, [*said, *beside])
    assert (held.digest, held.halted, held.halts, held.revoked) == (whole.digest, whole.halted, whole.halts, whole.revoked)
    assert extend(held, heard).governance is held


def test_a_halt_denies_in_its_domain_only_until_it_is_lifted() -> None:
    assert not _halted(PLAIN)
    held = _held(FIRST)
    assert _halted(held)
    assert not _halted(held, "elsewhere")
    assert _halted(_held(FIRST, SECOND))
    assert not _halted(_held(FIRST, SECOND, LIFTED))
    assert _halted(_held(FIRST, SECOND, LIFTED, THIRD))
    assert not _halted(_held(FIRST, SECOND, LIFTED, THIRD, LAST))


def test_a_resume_lifts_only_what_it_names() -> None:
    assert _held(FIRST, SECOND, resume(SECOND, FIRST)).halted == {DOMAIN: (SECOND.id,)}
    assert _held(FIRST, resume(FIRST, SECOND)).halted == {DOMAIN: (FIRST.id,)}


def test_a_halt_without_its_predecessor_denies_and_a_resume_without_it_allows_nothing() -> None:
    assert _halted(_held(LOOSE))
    assert _held(LOOSE).frontier == PLAIN.frontier
    assert _halted(_held(FIRST, LIFTED)), "the second halt is not seen yet"
    assert _halted(_held(FIRST, LOOSE_RESUME))
    assert not _halted(_held(FIRST, LIFTED, SECOND))


def test_in_a_forked_stream_every_halt_denies_and_no_resume_allows() -> None:
    held = _held(FIRST, SECOND, LIFTED, OTHER)
    assert isinstance(held.streams[STREAM], Fork)
    assert held.halted == {DOMAIN: tuple(sorted((FIRST.id, SECOND.id)))}
    assert _halted(_held(FIRST, OTHER, SECOND)), "also what had been lifted before"


def test_what_nobody_said_halts_nothing() -> None:
    bare = unsaid(extend(_held(FIRST), chained(2)).governance)
    assert (set(bare.streams), bare.revoked, bare.halts, bare.halted) == ({"roster"}, frozenset(), {}, {})


# ------------------------------------------------------------------------------------------------------------- who may say it

STRANGER = secret("mallory")


def _mangled(statement: Statement[Halt], signer: str) -> Statement[Halt]:
    lines = {**statement.signatures, signer: bytes(64)}
    return envelope.read(Halt, envelope.assemble(envelope.kind_of(Halt).payload_type, statement.payload, lines))


UNBELIEVED: dict[str, tuple[str, Callable[[], Statement[Halt]]]] = {
    "of another mesh": ("wrong_mesh", lambda: halt(None, mesh="other")),
    "of a domain that the roster does not name": ("domain_unknown", lambda: halt(None, domain="elsewhere")),
    "by one revoker": ("threshold_not_met", lambda: halt(None, ONE)),
    "a resume by one revoker": ("threshold_not_met", lambda: halt(None, ONE, lifts=[FIRST.id])),
    "by one revoker and a stranger": ("bad_signature", lambda: halt(None, ONE, STRANGER)),
    "by enough revokers and a stranger": ("bad_signature", lambda: halt(None, ONE, TWO, STRANGER)),
    "by enough revokers and a signer of the domain's policy": ("bad_signature", lambda: halt(None, ONE, TWO, LAB.signers[0])),
    "by root keys": ("bad_signature", lambda: halt(None, *LAB.root[:2])),
    "with a broken second signature": ("bad_signature", lambda: _mangled(halt(None, ONE), TWO.public)),
    "with a broken third signature": ("bad_signature", lambda: _mangled(halt(None), THREE.public)),
    "number 0": ("malformed", lambda: halt(None, sequence=0)),
    "the first with a predecessor": ("malformed", lambda: halt(None, previous="aa" * 32)),
}


@pytest.mark.parametrize("what", UNBELIEVED)
def test_what_cannot_be_believed_is_named_and_halts_nothing(what: str) -> None:
    code, make = UNBELIEVED[what]
    wrong = make()
    taken = extend(PLAIN, [wrong])
    assert taken.governance is PLAIN
    assert {identity: refusal.code for identity, refusal in taken.refused.items()} == {wrong.id: code}


@pytest.mark.parametrize("signers", [(ONE, TWO), (THREE, ONE), (ONE, TWO, THREE)], ids=["two", "two others", "all"])
def test_any_revokers_who_make_the_threshold_halt_and_resume(signers: tuple[SecretKey, ...]) -> None:
    first = halt(None, *signers)
    assert admit_halt(first, PLAIN.roster) == first.claims
    assert _halted(_held(first))
    assert not _halted(_held(first, halt(first, *signers, lifts=[first.id])))


def test_who_signed_does_not_change_which_statement_it_is() -> None:
    assert halt(None, ONE, TWO).id == halt(None, TWO, THREE).id
    assert extend(_held(FIRST), [halt(None, TWO, THREE)]).new == ()


def test_a_resume_lifts_as_many_halts_as_fit_and_no_more() -> None:
    ids = [f"{number:064x}" for number in range(LIFTS_MAX + 1)]
    assert len(read_law(halt(None, lifts=ids[:-1]).envelope).claims.lifts) == LIFTS_MAX  # type: ignore[union-attr]
    with pytest.raises(Refused) as caught:
        halt(None, lifts=ids)
    assert caught.value.code == "malformed"


def test_there_are_streams_of_the_rosters_revokers_and_domains_only() -> None:
    streams = {STREAM, "policy/payments", "activate/payments", "resolve", "erase"}
    assert streams_of(PLAIN.rosters) == {"roster"} | {f"revoke/{key.public}" for key in REVOKERS} | streams


def test_a_statement_of_a_kind_that_does_not_travel_is_not_read() -> None:
    assert read_law(FIRST.envelope).claims == FIRST.claims
    assert read_law(WORLD[0].envelope).claims == WORLD[0].claims
    with pytest.raises(Refused) as caught:
        read_law(LAB.identity_envelope)
    assert caught.value.code == "wrong_kind"
    assert "is not roster or revocation or halt or policy or activate" in str(caught.value)
