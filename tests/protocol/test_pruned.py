"""Who comes late takes hashes for records: below a floor that it holds, where they lead to what k members attested, and nowhere else."""

from typing import Any

import msgspec
import pytest

from mesh.core.law.governance import Governance
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import GovernanceChanged
from mesh.core.messages import LineageBatch, unpack
from mesh.protocol.proven import aimed_at
from mesh.protocol.serving import pull_answer
from mesh.protocol.step import Append, AppendHashes, Ask, PutNote, SetHead
from tests.protocol.machines import LAB, Owner, batch, only
from tests.protocol.test_gone import _Late
from tests.protocol.test_mirror import MEMBERS
from tests.protocol.test_proven import page, simple
from tests.support.retains import retaining

LOG, OTHER = simple("a", 300), simple("b", 300)
FINAL = LOG.note(*MEMBERS[1:4])


def hashed(owner: Owner, first: int, end: int, note: bytes = FINAL) -> LineageBatch:
    """The answer of a member that has nothing but the hashes of these."""
    whole = page(owner, first, note, end - first)
    answer = pull_answer(owner.origin, first, [], {}, {}, note, pruned=[leaf_hash(leaf) for leaf in owner.leaves[first:end]])
    return msgspec.structs.replace(unpack(LineageBatch, answer), path=whole.path, start=whole.start)


def _late(below: int) -> _Late:
    return _Late(_governed(below))


def _governed(below: int) -> Governance:
    return retaining(LAB, {LOG.origin: below}) if below else LAB.governance


def _uses(effects: list[Any]) -> list[str]:
    return [item.use for item in only(SetHead, effects)]


def test_hashes_that_lead_to_a_certificate_are_held_below_a_floor_and_attested_with_the_records_behind_them() -> None:
    mine = _late(128)
    mine.state = aimed_at(mine.state, FINAL)
    (effect,) = only(AppendHashes, effects := mine.batch(hashed(LOG, 0, 128), helper="eu-2"))
    assert (effect.origin, effect.first, effect.below) == (LOG.origin, 0, 128)
    assert effect.hashes == tuple(leaf_hash(leaf) for leaf in LOG.leaves[:128])
    assert (_uses(effects), mine.state.frontier.size) == ([], 128)
    effects = mine.batch(page(LOG, 128, FINAL), helper="eu-2") + mine.batch(page(LOG, 256, FINAL), helper="eu-2")
    assert [(append.first, len(append.leaves)) for append in only(Append, effects)] == [(128, 128), (256, 44)]
    assert _uses(effects) == ["witness", "attest"]
    assert mine.state.frontier == LOG.log.frontier
    assert mine.state.refused == -1


def test_a_log_of_which_everything_was_pruned_is_held_and_attested_by_its_hashes() -> None:
    mine = _late(300)
    mine.state, effects = aimed_at(mine.state, FINAL), []
    for first, end in ((0, 128), (128, 256), (256, 300)):
        effects += mine.batch(hashed(LOG, first, end), helper="eu-2")
    assert sum(len(append.hashes) for append in only(AppendHashes, effects)) == 300
    assert _uses(effects) == ["witness", "attest"]
    assert [note.size for note in only(PutNote, effects) if note.space == "certificate"] == [300]


@pytest.mark.parametrize("below", [0, 1, 127])
def test_hashes_above_a_floor_are_not_taken_whoever_sends_them(below: int) -> None:
    mine = _late(below)
    mine.state = aimed_at(mine.state, FINAL)
    for helper in ("eu-2", LOG.member.name):
        assert only(AppendHashes, mine.batch(hashed(LOG, 0, 128), helper=helper)) == []
    assert len(only(Append, mine.batch(page(LOG, 0, FINAL), helper="eu-2"))) == 1


def test_hashes_that_do_not_lead_to_the_certificate_are_not_taken() -> None:
    mine = _late(300)
    mine.state = aimed_at(mine.state, FINAL)
    spoilt = hashed(LOG, 0, 128)
    for sent in (
        hashed(OTHER, 0, 128),
        msgspec.structs.replace(hashed(OTHER, 0, 128), path=spoilt.path),
        msgspec.structs.replace(spoilt, path=spoilt.path[:-1]),
        msgspec.structs.replace(spoilt, pruned=[*spoilt.pruned[1:], spoilt.pruned[0]]),
        msgspec.structs.replace(spoilt, pruned=spoilt.pruned[:-1]),
        msgspec.structs.replace(spoilt, first=1),
    ):
        assert only(AppendHashes, mine.batch(sent, helper="eu-2")) == []
    assert len(only(AppendHashes, mine.batch(spoilt, helper="eu-2"))) == 1


def test_its_owners_word_alone_lets_no_hash_be_taken() -> None:
    mine = _late(300)
    for note in (LOG.note(), LOG.note(*MEMBERS[1:3])):
        for helper in ("", LOG.member.name, "eu-2"):
            assert only(AppendHashes, mine.batch(hashed(LOG, 0, 128, note), helper=helper)) == []
    assert mine.state.aim is None
    assert only(AppendHashes, mine.batch(hashed(LOG, 0, 128), helper="")) == []  # what is published proves nothing


def test_who_was_away_and_is_answered_with_hashes_aims_at_their_certificate_and_goes_on() -> None:
    mine, effects = _late(256), []
    mine.batch(batch(LOG, 0, 50, LOG.note(size=50)))
    assert mine.state.frontier.size == 50
    mine.note(LOG.note(size=200))  # its owner has signed more, and keeps none of it
    for _ in range(8):
        for ask in only(Ask, mine.tick()):
            end = min(ask.first + 128, 256)
            sent = hashed(LOG, ask.first, end) if ask.first < 256 else page(LOG, ask.first, FINAL)
            effects += mine.batch(sent, helper=ask.member)
    assert (mine.state.frontier, mine.state.certified) == (LOG.log.frontier, 300)
    assert sum(len(append.hashes) for append in only(AppendHashes, effects)) == 206
    assert sum(len(append.leaves) for append in only(Append, effects)) == 44
    assert _uses(effects) == ["witness", "attest"]


def test_what_cosigned_another_history_stores_the_certified_hashes_and_signs_nothing_of_it() -> None:
    mine = _late(300)
    mine.batch(batch(OTHER, 0, 128, OTHER.note(size=128)))
    cosigned = mine.state.witnessed
    assert cosigned is not None
    fresh = _late(300)
    fresh.state = aimed_at(msgspec.structs.replace(fresh.state, witnessed=cosigned), FINAL)
    effects = fresh.batch(hashed(LOG, 0, 128), helper="eu-2") + fresh.batch(hashed(LOG, 128, 256), helper="eu-2")
    effects += fresh.batch(hashed(LOG, 256, 300), helper="eu-2")
    assert sum(len(append.hashes) for append in only(AppendHashes, effects)) == 300
    assert (_uses(effects), fresh.state.conflicted) == ([], True)


def test_a_wrong_record_behind_hashes_is_refused_as_ever() -> None:
    owner = simple("c", 200)
    owner.write(
        lambda writer: GovernanceChanged(mesh=writer.mesh, origin=writer.origin, index=7, at_ms=writer.at_ms, change="fresh", about="")
    )
    mine, final = _late(128), owner.note(*MEMBERS[1:4])
    mine.state = aimed_at(mine.state, final)
    mine.batch(hashed(owner, 0, 128, final), helper="eu-2")
    effects = mine.batch(page(owner, 128, final), helper="eu-2")
    assert (_uses(effects), mine.state.refused) == ([], 200)


def test_records_that_were_staged_before_a_pruned_stretch_hold_nobody_up() -> None:
    mine, effects = _late(256), []
    mine.batch(batch(LOG, 0, 50, LOG.note(size=50)))
    mine.batch(batch(LOG, 50, 1, b""))  # published, and no signed root was heard of that ends there
    assert (mine.state.frontier.size, mine.state.held) == (50, 51)
    mine.note(LOG.note(size=200))
    for _ in range(8):
        for ask in only(Ask, mine.tick()):
            sent = hashed(LOG, ask.first, min(ask.first + 128, 256)) if ask.first < 256 else page(LOG, ask.first, FINAL)
            effects += mine.batch(sent, helper=ask.member)
    assert (mine.state.frontier, mine.state.certified) == (LOG.log.frontier, 300)
    assert sum(len(append.hashes) for append in only(AppendHashes, effects)) == 206
