"""What is in force is a function of the believed statements, in any order, any batches and any process; and what is not believed counts
for nothing."""

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import extend, restore
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import frontier_digest
from mesh.core.law.revocation import Revocation, Target, admit_revocation
from mesh.core.law.streams import Chain, Fork, Stream
from mesh.errors import Refused
from mesh.limits import BATCH_RECORDS_MAX, STREAM_STATEMENTS_MAX
from tests.support.factory import Lab, secret
from tests.support.revocations import REVOKERS, STREAM, WORLD, chained, governance, revocation

LAB = Lab()
PLAIN = governance(LAB)


def _state(held: Governance) -> tuple[object, ...]:
    """All that decides anything."""
    return held.digest, held.frontier, held.revoked, dict(held.streams), held.former[held.digest]


def _restored(statements: Sequence[Statement[Revocation]]) -> Governance:
    return restore(PLAIN, statements)


# --------------------------------------------------------------------------------------------------- a function of the set


@given(st.sets(st.sampled_from(range(len(WORLD)))), st.data())
def test_the_state_is_a_function_of_the_set_in_any_order_with_duplicates_and_in_any_batches(chosen: set[int], data: st.DataObject) -> None:
    said = [WORLD[number] for number in sorted(chosen)]
    heard = data.draw(st.permutations(said + data.draw(st.lists(st.sampled_from(said), max_size=4) if said else st.just([]))))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(heard)), max_size=4))), len(heard)]
    held, new = PLAIN, list[str]()
    for first, last in pairwise(cuts):
        taken = extend(held, heard[first:last])
        assert taken.refused == {}
        held = taken.governance
        new += [statement.id for statement in taken.new]
    assert sorted(new) == sorted(statement.id for statement in said)
    assert _state(held) == _state(_restored(said))
    assert held.revoked == {(item.claims.target.type, item.claims.target.value) for item in said}
    assert held.digest == frontier_digest(list(held.frontier))
    again = extend(held, heard)
    assert again.governance is held
    assert again.new == ()


SCRIPT = """
import sys
from mesh.core.law.fold import extend
from tests.support.factory import Lab
from tests.support.revocations import WORLD, governance
held = governance(Lab())
for statement in WORLD:
    held = extend(held, [statement]).governance
print(held.digest, sorted(held.revoked), held.frontier, list(held.streams), file=sys.stdout)
"""


def test_the_state_is_the_same_under_every_hash_seed() -> None:
    said = set[str]()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, check=True, capture_output=True, text=True)
        said.add(done.stdout)
    (out,) = said
    assert out.startswith(_restored(WORLD).digest)


def test_a_statement_without_its_predecessor_denies_and_is_not_advertised() -> None:
    lone = WORLD[4]
    held = extend(PLAIN, [lone]).governance
    with pytest.raises(Refused) as caught:
        held.check_unrevoked(("subject", lone.claims.target.value))
    assert caught.value.code == "revoked"
    assert held.frontier == PLAIN.frontier
    assert held.digest == PLAIN.digest
    complete = extend(held, WORLD[:4]).governance
    assert [(head.sequence, head.head) for head in complete.frontier if head.stream == STREAM] == [(5, lone.id)]


def test_both_halves_of_a_fork_deny_and_it_is_advertised_as_one() -> None:
    first = revocation(1, "", target=Target(type="subject", value="spiffe://lab/agent/anna"))
    second = revocation(1, "", target=Target(type="subject", value="spiffe://lab/agent/otto"))
    for pair in ((first, second), (second, first)):
        held = extend(PLAIN, pair).governance
        for name in ("anna", "otto"):
            with pytest.raises(Refused) as caught:
                held.check_unrevoked(("subject", f"spiffe://lab/agent/{name}"))
            assert caught.value.code == "revoked"
        (head,) = [head for head in held.frontier if head.stream == STREAM]
        assert (head.forked, head.sequence) == (True, 2)
        assert isinstance(held.streams[STREAM], Fork)


def test_the_last_frontiers_are_remembered_and_older_ones_forgotten() -> None:
    held, digests = PLAIN, [PLAIN.digest]
    for statement in chained(40):
        held = extend(held, [statement]).governance
        digests.append(held.digest)
    assert list(held.former) == digests[-32:]
    assert all(frontier_digest(list(frontier)) == digest for digest, frontier in held.former.items())


# ------------------------------------------------------------------------------------------------------------- who may say it

MEMBER_KEY = Target(type="enrolled", value=LAB.roster.members[0].decision_key)
ONE, TWO, THREE = REVOKERS
STRANGER = secret("mallory")


def _mangled(statement: Statement[Revocation], signer: str) -> Statement[Revocation]:
    """With another signature under one of the keys."""
    lines = {**statement.signatures, signer: bytes(64)}
    return envelope.read(Revocation, envelope.assemble(envelope.kind_of(Revocation).payload_type, statement.payload, lines))


UNBELIEVED: dict[str, tuple[str, Callable[[], Statement[Revocation]]]] = {
    "of another mesh": ("wrong_mesh", lambda: revocation(1, "", mesh="other")),
    "by nobody whom the roster knows": ("bad_signature", lambda: revocation(1, "", key=STRANGER)),
    "by a stranger in a revoker's name": ("bad_signature", lambda: revocation(1, "", STRANGER)),
    "by another revoker in its name": ("bad_signature", lambda: revocation(1, "", TWO)),
    "by its revoker and a stranger": ("bad_signature", lambda: revocation(1, "", ONE, STRANGER)),
    "by its revoker and a member of the mesh": ("bad_signature", lambda: revocation(1, "", ONE, LAB.keys["eu-1"]["decision"])),
    "with a broken second signature": ("bad_signature", lambda: _mangled(revocation(1, "", ONE, TWO), TWO.public)),
    "with a broken signature": ("bad_signature", lambda: _mangled(revocation(1, ""), ONE.public)),
    "of a member's key by one revoker": ("threshold_not_met", lambda: revocation(1, "", target=MEMBER_KEY)),
    "of a member's key by one revoker and a stranger": ("bad_signature", lambda: revocation(1, "", ONE, STRANGER, target=MEMBER_KEY)),
    "of an issuer's key by one revoker": (
        "threshold_not_met",
        lambda: revocation(1, "", target=Target(type="enrolled", value=LAB.issuer.public)),
    ),
    "of a revoker's key by one revoker": ("threshold_not_met", lambda: revocation(1, "", target=Target(type="enrolled", value=TWO.public))),
    "of a member's key by two revokers who are not its own": ("bad_signature", lambda: revocation(1, "", TWO, THREE, target=MEMBER_KEY)),
    "number 0": ("malformed", lambda: revocation(0, "")),
    "the first with a predecessor": ("malformed", lambda: revocation(1, "aa" * 32)),
    "a later one without": ("malformed", lambda: revocation(2, "")),
}


@pytest.mark.parametrize("what", UNBELIEVED)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_cannot_be_believed_is_named_and_counts_for_nothing(what: str, before: int) -> None:
    code, make = UNBELIEVED[what]
    wrong = make()
    held = _restored(chained(before))
    taken = extend(held, [wrong])
    assert taken.governance is held
    assert taken.new == ()
    assert {identity: refusal.code for identity, refusal in taken.refused.items()} == {wrong.id: code}
    beside = extend(held, [wrong, *chained(before + 1)])
    assert _state(beside.governance) == _state(_restored(chained(before + 1)))
    assert set(beside.refused) == {wrong.id}


@pytest.mark.parametrize("signers", [(ONE, TWO), (THREE, ONE), (ONE, TWO, THREE)], ids=["with another", "with a third", "all"])
def test_a_key_that_the_roster_names_is_revoked_by_the_threshold(signers: tuple[object, ...]) -> None:
    statement = revocation(1, "", *signers, target=MEMBER_KEY)  # type: ignore[arg-type]
    held = extend(PLAIN, [statement]).governance
    assert held.denies(("key", MEMBER_KEY.value))
    assert admit_revocation(statement, PLAIN.roster) == statement.claims


def test_a_key_that_it_does_not_name_is_revoked_by_one() -> None:
    assert extend(PLAIN, [revocation(1, "", target=Target(type="key", value=LAB.holder.public))]).refused == {}


@pytest.mark.parametrize("first", ["broken", "sound"])
def test_a_statement_that_also_comes_with_broken_signatures_is_believed_for_the_sound_ones(first: str) -> None:
    sound = revocation(1, "")
    pair = [_mangled(sound, ONE.public), sound]
    taken = extend(PLAIN, pair if first == "broken" else pair[::-1])
    assert taken.new == (sound,)
    assert taken.refused == {}


def test_a_full_stream_takes_no_more_and_what_it_holds_still_denies() -> None:
    ids = tuple(f"{number:064x}" for number in range(STREAM_STATEMENTS_MAX - 1))
    streams: dict[str, Stream] = {**PLAIN.streams, STREAM: Chain(ids)}
    held = msgspec.structs.replace(PLAIN, streams=streams)
    last = revocation(STREAM_STATEMENTS_MAX, ids[-1])
    beyond, other = revocation(STREAM_STATEMENTS_MAX + 1, last.id), revocation(1, "", key=TWO)
    taken = extend(held, [last, beyond, other])
    assert taken.new == (last, other)
    assert {identity: refusal.code for identity, refusal in taken.refused.items()} == {beyond.id: "stream_full"}
    again = extend(taken.governance, [beyond, last])
    assert set(again.refused) == {beyond.id}
    assert ("subject", last.claims.target.value) in again.governance.revoked


# --------------------------------------------------------------------------------------------------------------------- size


def test_ten_thousand_revocations_are_taken_in_and_restored_in_bounded_time_and_memory() -> None:
    said = chained(10_000)
    tracemalloc.start()
    begun, held = time.monotonic(), PLAIN
    for first in range(0, len(said), BATCH_RECORDS_MAX):
        held = extend(held, said[first : first + BATCH_RECORDS_MAX]).governance
    taken_s, begun = time.monotonic() - begun, time.monotonic()
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert _state(_restored(said)) == _state(held)
    assert len(held.revoked) == len(said)
    assert taken_s < 60
    assert time.monotonic() - begun < 10
    assert memory < 100_000_000


def test_what_is_held_of_a_long_stream_costs_next_to_nothing_to_hear_again() -> None:
    ids = [f"{number:064x}" for number in range(STREAM_STATEMENTS_MAX - 1)]
    known = chained(1)[0]
    fork = Fork(frozenset([known.id, *ids[1:]]), {}, (), "00" * 32)
    begun = time.monotonic()
    for stream in (Chain((known.id, *ids[1:])), fork):
        held = msgspec.structs.replace(PLAIN, said={STREAM: stream})
        assert extend(held, [known] * 10_000).governance is held
    assert time.monotonic() - begun < 5  # copied for each, it would be minutes
