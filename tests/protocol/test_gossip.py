"""What one governor takes in all of them hold in the end: nothing unverified travels, nothing is lost to a silent bus, and whoever claims
what it cannot serve delays nobody."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core import subjects
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import restore
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import StreamHead, covers
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.streams import Cursor
from mesh.core.messages import (
    LawBatch,
    Offer,
    Offered,
    pack,
    unpack,
)
from mesh.protocol import gossip as gossip_module
from mesh.protocol.freshness import Freshness, Heard
from mesh.protocol.gossip import Asking, Gossip, LawArrived, OfferArrived, wanted
from mesh.protocol.step import AskLaw, Commit, Effect, PutLaw, Reply, Send, Sending, Signed, Step, phases
from tests.protocol.machines import BOOT, LAB, ME, NOW, only
from tests.support.factory import secret
from tests.support.revocations import REVOKERS, STREAM, WORLD, chained, governance, revocation

PLAIN = governance(LAB)
SECOND = stream_of(REVOKERS[1].public)
PATIENCE_MS = gossip_module._PATIENCE_MS
LONGEST_MS = gossip_module._WAIT_MS_MAX
TICK_MS = 50
NOBODY = Signed({}, {})


def _offer(*statements: bytes) -> bytes:
    return pack(Offer(statements=[msgspec.Raw(data) for data in statements]))


def _batch(*statements: bytes) -> bytes:
    return pack(LawBatch(statements=[msgspec.Raw(data) for data in statements]))


def _gossip(governance_: Governance = PLAIN, now_ms: int = NOW) -> Gossip:
    return Gossip(governance_, {}, [], now_ms=now_ms)


def _published(effects: Iterable[Effect]) -> list[bytes]:
    """The statements that go out on published subjects."""
    sent = [effect for effect in effects if isinstance(effect, Send) and not isinstance(effect.to, Reply)]
    return [bytes(raw) for effect in sent for raw in unpack(LawBatch, effect.build(NOBODY)).statements]


def _answered(effects: Iterable[Effect]) -> dict[str, str]:
    (reply,) = [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.to, Reply)]
    return unpack(Offered, reply.build(NOBODY)).results


def _take(held: Gossip, how: str, *statements: bytes) -> list[Effect]:
    """Offered, published, or pulled from a member."""
    if how == "offered":
        return held.offered(OfferArrived(1, _offer(*statements)))[0]
    return held.arrived(LawArrived(_batch(*statements), "us-1" if how == "pulled" else ""))[0]


# ------------------------------------------------------------------------------------------------- what is taken and told

HOW = ["offered", "published", "pulled"]
STRANGER = secret("mallory")
GOOD = chained(4)
FORGED = [
    revocation(1, "", STRANGER, reason="forged"),
    revocation(1, "", key=STRANGER),
    revocation(1, "", mesh="other"),
    revocation(0, ""),
    revocation(2, ""),
    revocation(5, GOOD[3].id, REVOKERS[0], STRANGER),
    revocation(5, GOOD[3].id, target=Target(type="enrolled", value=ME.decision_key)),
]
JUNK = [b"1", b'"a"', b"{}", LAB.identity_envelope, b'{"payload":"e30=","payloadType":"x","signatures":[]}']


@pytest.mark.parametrize("how", HOW)
@given(data=st.data())
def test_whatever_is_mixed_together_exactly_what_is_verified_and_new_is_kept_and_told(how: str, data: st.DataObject) -> None:
    known = data.draw(st.integers(0, 3))
    every = [*(item.envelope for item in [*GOOD, *FORGED]), *JUNK]
    said = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=12))
    held = _gossip(restore(PLAIN, GOOD[:known]))
    effects = _take(held, how, *said)
    new = {item.id: item.envelope for item in GOOD[known:] if item.envelope in said}
    assert {effect.id: effect.envelope for effect in only(PutLaw, effects)} == new
    assert len(only(PutLaw, effects)) == len(new)
    assert sorted(_published(effects)) == sorted([] if how == "published" else new.values())
    assert held.governance.digest == restore(PLAIN, [*GOOD[:known], *(item for item in GOOD[known:] if item.id in new)]).digest
    assert held.news == bool(new)
    if how == "offered":
        told = _answered(effects)
        assert {identity for identity, code in told.items() if not code} == {item.id for item in GOOD if item.envelope in said}
        assert len(told) == len(set(said))


def test_every_statement_offered_is_answered_for_itself() -> None:
    effects, codes = _gossip().offered(OfferArrived(1, _offer(JUNK[0], FORGED[0].envelope, GOOD[0].envelope, JUNK[3])))
    assert _answered(effects) == {
        canonical.sha256_hex(JUNK[0]): "malformed",
        FORGED[0].id: "bad_signature",
        GOOD[0].id: "",
        envelope.identify(JUNK[3])[1]: "wrong_kind",
    }
    assert sorted(codes) == ["bad_signature", "malformed", "wrong_kind"]


@pytest.mark.parametrize("how", HOW)
def test_nothing_is_answered_or_told_before_it_is_durable(how: str) -> None:
    effects = _take(_gossip(), how, GOOD[0].envelope, GOOD[1].envelope)
    parts = list(phases(Step(None, tuple(effects)), sign=lambda _use, _message: b"", public={}, failpoint=lambda _: None))
    assert isinstance(parts[0], Commit)
    assert [type(part) for part in parts[1:]] == ([] if how == "published" else [Sending])
    assert {effect.id for effect in parts[0].effects if isinstance(effect, PutLaw)} == {GOOD[0].id, GOOD[1].id}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("again", HOW)
def test_a_batch_that_comes_twice_changes_nothing_and_is_not_told_again(how: str, again: str) -> None:
    held = _gossip()
    data = [item.envelope for item in WORLD]
    _take(held, how, *data)
    second = Gossip(held.governance, {}, [], now_ms=NOW)
    effects = _take(second, again, *data)
    assert only(PutLaw, effects) == []
    assert _published(effects) == []
    assert second.governance is held.governance
    assert (second.news, second.untold) == (False, [])
    if again == "offered":
        assert set(_answered(effects).values()) == {""}


def test_what_is_told_goes_out_on_the_subject_of_its_stream() -> None:
    effects = _take(_gossip(), "offered", *(item.envelope for item in WORLD))
    sent = {effect.to for effect in only(Send, effects) if not isinstance(effect.to, Reply)}
    assert sent == {subjects.law(subjects.short(stream)) for stream in (STREAM, SECOND)}


# -------------------------------------------------------------------------------------------------------------- who is asked


class _Holder:
    """A governor's statements, and how it asks for more."""

    def __init__(self, name: str, said: Iterable[Statement[Revocation]] = ()) -> None:
        self.name = name
        self.kept = {(*item.claims.link[:2], item.id): item.envelope for item in said}
        self.governance = restore(PLAIN, list(said))
        self.asking: dict[str, Asking] = {}
        self.claims: tuple[StreamHead, ...] | None = None
        """What a liar says that it holds."""

    @property
    def frontier(self) -> tuple[StreamHead, ...]:
        return self.governance.frontier if self.claims is None else self.claims

    def page(self, ask: AskLaw, count: int = 1) -> bytes:
        """What it answers."""
        later = sorted(key for key in self.kept if key[0] == ask.stream and key[1:] > (ask.after.sequence, ask.after.id))
        return _batch(*(self.kept[key] for key in later[:count]))

    def due(self, now_ms: int, *others: "_Holder") -> list[AskLaw]:
        """Whom it asks for what."""
        heard = {one.name: (Heard("", 1, 1, now_ms, one.frontier),) for one in (self, *others)}
        held = Gossip(self.governance, self.asking, [], now_ms=now_ms)
        asks = held.due(msgspec.structs.replace(Freshness.begin(BOOT), heard=heard), me=self.name)
        self.asking = held.asking
        return asks

    def take(self, now_ms: int, data: bytes, member: str) -> bool:
        """Take an answer; whether there may be more."""
        held = Gossip(self.governance, self.asking, [], now_ms=now_ms)
        effects, _ = held.arrived(LawArrived(data, member))
        self.governance, self.asking = held.governance, held.asking
        self.kept |= {(item.stream, item.sequence, item.id): item.envelope for item in only(PutLaw, effects)}
        return held.more


def _streams(holder: _Holder) -> dict[str, Any]:
    return {head.stream: head for head in holder.frontier}


PARTS = st.sets(st.sampled_from(range(len(WORLD)))).map(lambda chosen: [WORLD[number] for number in sorted(chosen)])


@settings(max_examples=60)
@given(st.lists(PARTS, min_size=2, max_size=3), st.integers(1, 3))
def test_members_that_hold_different_parts_hold_the_same_in_the_end_though_nothing_is_published(
    parts: list[list[Statement[Revocation]]], page: int
) -> None:
    holders = {name: _Holder(name, said) for name, said in zip(["eu-1", "us-1", "ap-1"], parts, strict=False)}
    now_ms, asked = NOW, 0
    while True:
        now_ms += TICK_MS
        for holder in holders.values():
            others = [other for other in holders.values() if other is not holder]
            for ask in holder.due(now_ms, *others):
                asked += 1
                holder.take(now_ms, holders[ask.member].page(ask, page), ask.member)
        if not any(wanted(one.governance, two.frontier) for one in holders.values() for two in holders.values()):
            break
        assert now_ms < NOW + 60_000, "it does not end"
    assert len({holder.governance.digest for holder in holders.values()}) == 1
    union = {item.id for said in parts for item in said}
    assert asked <= 4 * len(parts) * (len(union) + 2)
    for holder in holders.values():
        for stream, head in _streams(holder).items():
            if head.forked:  # the whole proof
                ids = {key[2] for key in holder.kept if key[0] == stream}
                assert all(ids == {key[2] for key in other.kept if key[0] == stream} for other in holders.values())
        assert all(covers(list(holder.frontier), list(other.frontier)) for other in holders.values())


def test_a_long_stream_is_pulled_at_the_speed_of_answers_not_of_ticks() -> None:
    slow, full = _Holder("eu-1"), _Holder("us-1", chained(30))
    more = True
    while more:
        (ask,) = slow.due(NOW, full)
        more = slow.take(NOW, full.page(ask, 3), ask.member)
        if slow.governance.digest == full.governance.digest:
            break
    assert slow.governance.digest == full.governance.digest


def test_a_stream_of_nobody_whom_the_roster_knows_is_never_asked_for() -> None:
    stranger = stream_of(STRANGER.public)
    liar = _Holder("us-1")
    names = [stranger, "rosters", "policy/nowhere", "activate/nowhere", "halt/nowhere", "revoke/zz"]
    for sequence in (0, 1, 9):
        for forked in (False, True):
            liar.claims = tuple(StreamHead(stream=name, sequence=sequence, head="ab" * 32, forked=forked, held="") for name in names)
            assert _Holder("eu-1").due(NOW, liar) == []


def test_a_member_that_claims_nothing_of_a_stream_is_not_asked() -> None:
    liar = _Holder("us-1")
    liar.claims = (StreamHead(stream=STREAM, sequence=0, head="ab" * 32, forked=False, held=""),)
    assert _Holder("eu-1").due(NOW, liar) == []
    assert _Holder("eu-1", GOOD).due(NOW, liar) == []


def test_nobody_asks_itself() -> None:
    alone = _Holder("eu-1")
    alone.claims = _claims(5)
    assert alone.due(NOW) == []


def _claims(sequence: int, *, forked: bool = False, stream: str = STREAM) -> tuple[StreamHead, ...]:
    return (*PLAIN.frontier, StreamHead(stream=stream, sequence=sequence, head="ab" * 32, forked=forked, held=""))


def _rising(after: Cursor) -> bytes:
    """A statement that nobody signed, further on than what was asked for."""
    return revocation(max(after.sequence, 5) + 1, "aa" * 32, STRANGER).envelope


LIES: dict[str, Callable[[AskLaw], bytes | None]] = {
    "says nothing": lambda _: None,
    "has nothing": lambda _: _batch(),
    "answers with junk": lambda _: b"junk",
    "answers with junk inside": lambda _: _batch(b"1"),
    "answers with what is held": lambda _: _batch(*(item.envelope for item in GOOD)),
    "invents ever higher numbers": lambda ask: _batch(_rising(ask.after)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("now_and_then", [False, True])
def test_who_claims_what_it_cannot_serve_is_asked_ever_more_rarely(lie: str, forked: bool, now_and_then: bool) -> None:
    mine, liar = _Holder("eu-1", GOOD), _Holder("ap-1")
    asked = list[int]()
    for tick in range(60_000 // TICK_MS):
        now_ms = NOW + tick * TICK_MS
        liar.claims = PLAIN.frontier if now_and_then and tick % 7 > 3 else _claims(999, forked=forked)
        for _ in range(20):  # an answer that leads on is followed up at once
            asks = mine.due(now_ms, liar)
            for ask in asks:
                asked.append(now_ms)
                answer = LIES[lie](ask)
                if answer is not None and answer != b"junk":
                    mine.take(now_ms, answer, ask.member)
            if not asks:
                break
    pages = 2 if lie == "answers with what is held" and forked else 1  # the one page that holds all, and the empty one behind
    assert len(asked) <= 13 * pages * (4 if pages > 1 and now_and_then else 1)
    assert max(asked[-pages - 1 :]) - asked[-pages - 1] <= LONGEST_MS + 7 * TICK_MS
    if pages == 1:
        waits = [later - earlier for earlier, later in pairwise(asked)]
        assert all(later + 7 * TICK_MS >= earlier for earlier, later in pairwise(waits))
        assert waits[-1] >= LONGEST_MS


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("name", ["ap-1", "zz-1"])
def test_a_liar_delays_what_another_has_by_no_more_than_the_patience_with_one(lie: str, forked: bool, name: str) -> None:
    mine, liar, honest = _Holder("eu-1"), _Holder(name), _Holder("us-1")
    liar.claims = _claims(999, forked=forked)
    since = 0
    for tick in range(20_000 // TICK_MS):
        now_ms = NOW + tick * TICK_MS
        if tick % 37 == 0 and len(honest.kept) < len(GOOD):
            grown = _Holder("us-1", GOOD[: len(honest.kept) + 1])
            honest.kept, honest.governance, since = grown.kept, grown.governance, now_ms
        for _ in range(20):
            asks = mine.due(now_ms, liar, honest)
            for ask in asks:
                answer = honest.page(ask) if ask.member == "us-1" else LIES[lie](ask)
                if answer is not None and answer != b"junk":
                    mine.take(now_ms, answer, ask.member)
            if not asks:
                break
        if now_ms - since >= PATIENCE_MS:
            assert honest.kept.keys() <= mine.kept.keys()
    assert mine.kept.keys() == {(*item.claims.link[:2], item.id) for item in GOOD}


def test_one_stream_that_a_member_cannot_serve_hides_no_other_that_it_can() -> None:
    first, second = sorted([STREAM, SECOND])
    key = REVOKERS[0] if second == STREAM else REVOKERS[1]
    mine, only_one = _Holder("eu-1"), _Holder("us-1", chained(3, key))
    honest = only_one.governance.frontier
    only_one.claims = tuple(sorted((*honest, *_claims(99, stream=first)[-1:]), key=lambda head: head.stream))
    for now_ms in range(NOW, NOW + 3_000, TICK_MS):
        for ask in mine.due(now_ms, only_one):
            mine.take(now_ms, only_one.page(ask), ask.member)
    assert len(mine.kept) == 3


def test_one_question_at_a_time_and_one_member_for_each_stream() -> None:
    mine, one, two = _Holder("eu-1"), _Holder("ap-1", WORLD), _Holder("us-1", WORLD)
    asks = mine.due(NOW, one, two)
    assert sorted(ask.member for ask in asks) == ["ap-1", "us-1"]
    assert {ask.stream for ask in asks} == {STREAM, SECOND}
    assert mine.due(NOW + TICK_MS, one, two) == []


def test_another_member_is_asked_when_one_has_not_answered_in_time() -> None:
    mine, one, two = _Holder("eu-1"), _Holder("ap-1", GOOD), _Holder("us-1", GOOD)
    assert [ask.member for ask in mine.due(NOW, one, two)] == ["ap-1"]
    assert mine.due(NOW + PATIENCE_MS - 1, one, two) == []
    assert [ask.member for ask in mine.due(NOW + PATIENCE_MS, one, two)] == ["us-1"]


def test_a_member_that_has_not_answered_is_left_alone_for_twice_as_long_each_time() -> None:
    mine, silent = _Holder("eu-1"), _Holder("us-1", GOOD)
    asked = [now_ms for now_ms in range(NOW, NOW + 40_000, TICK_MS) if mine.due(now_ms, silent)]
    assert [later - earlier for earlier, later in pairwise(asked)] == [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000, 8_000]
    for ask in mine.due(NOW + 50_000, silent):
        mine.take(NOW + 50_000, silent.page(ask, len(GOOD)), ask.member)
    assert mine.governance.digest == silent.governance.digest
    silent.claims = _claims(99)
    assert mine.due(NOW + 50_000, silent) != []  # what it served has cleared its name
