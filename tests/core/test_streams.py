"""A stream is a function of what was said, whoever heard it in which order; a gap is not advertised, and a fork is found by everybody."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes.canonical import sha256_hex
from mesh.core.law.heartbeat import StreamHead, covers
from mesh.core.law.streams import Chain, Cursor, Fork, Growth, Link, Stream, ahead, head_of, take
from mesh.errors import Refused
from mesh.limits import STREAM_STATEMENTS_MAX

NAME = "revoke/" + "aa" * 32


def _id(number: int, branch: int = 0) -> str:
    return sha256_hex(f"{number} {branch}".encode())


def _link(number: int, branch: int = 0, before: int | None = None) -> Link:
    return Link(number, _id(number, branch), _id(number - 1, branch if before is None else before) if number > 1 else "")


@st.composite
def _said(draw: st.DrawFn) -> list[Link]:
    """Part of what an author said: one history with gaps, or up to three that cross."""
    branches = draw(st.integers(1, 3))
    before, every = [""], list[Link]()
    for number in range(1, draw(st.integers(1, 6))):
        previous = [draw(st.sampled_from(before)) for _ in range(branches)]
        made = [Link(number, sha256_hex(f"{number} {branch} {previous[branch]}".encode()), previous[branch]) for branch in range(branches)]
        before, every = [link.id for link in made], every + made
    return [link for link in every if draw(st.booleans())]


def _fork(links: Iterable[Link]) -> Fork:
    """By definition: whole is what leads back to number 1 without a gap."""
    said = {link.id: link for link in links}

    def whole(link: Link) -> bool:
        before = said.get(link.previous)
        return link.sequence == 1 or (before is not None and before.sequence == link.sequence - 1 and whole(before))

    held = {link.id: link for link in said.values() if whole(link)}
    broken = sorted((link for link in said.values() if link.id not in held), key=lambda link: (link.sequence, link.id))
    return Fork(frozenset(said), held, tuple(broken), hashlib.sha256("".join(sorted(said)).encode()).hexdigest())


def _plainly(links: Iterable[Link]) -> Stream:
    """The same by definition: compare every pair, then count."""
    found = {link.sequence: link for link in links}
    for one in links:
        for two in links:
            same = one.sequence == two.sequence and one.id != two.id
            if same or (one.sequence + 1 == two.sequence and two.previous != one.id):
                return _fork(links)
    length = next(number for number in range(len(found) + 1) if number + 1 not in found)
    ids = tuple(found[number].id for number in range(1, length + 1))
    return Chain(ids, {number: link for number, link in found.items() if number > length})


@given(_said(), st.data())
def test_a_stream_is_a_function_of_the_set_in_any_order_with_duplicates_and_in_any_batches(said: list[Link], data: st.DataObject) -> None:
    heard = data.draw(st.permutations(said + data.draw(st.lists(st.sampled_from(said), max_size=4) if said else st.just([]))))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(heard)), max_size=4))), len(heard)]
    stream: Stream = Chain()
    for first, last in pairwise(cuts):
        stream = take(stream, heard[first:last])
    assert stream == _plainly(said)
    assert all(Growth(stream).holds(link) for link in said)
    assert take(stream, heard) is stream


@given(_said(), st.integers(1, 7), st.integers(3, 4))
def test_what_was_not_said_is_not_held(said: list[Link], number: int, branch: int) -> None:
    assert not Growth(take(Chain(), said)).holds(_link(number, branch))


def test_a_stream_that_grows_leaves_the_one_before_as_it_was() -> None:
    before = take(Chain(), [_link(1), _link(3)])
    kept = Chain(before.ids, dict(before.loose)) if isinstance(before, Chain) else before
    assert take(before, [_link(2)]) == Chain((_id(1), _id(2), _id(3)))
    assert isinstance(take(before, [_link(1, 1)]), Fork)
    assert before == kept
    fork = take(before, [_link(1, 1)])
    assert isinstance(take(fork, [_link(2)]), Fork)
    assert fork == _fork([_link(1), _link(3), _link(1, 1)])


# ------------------------------------------------------------------------------------------------------ gaps and forks


def test_without_its_predecessor_a_statement_is_kept_and_not_advertised() -> None:
    stream = take(Chain(), [_link(2), _link(4)])
    assert head_of(NAME, stream) is None
    stream = take(stream, [_link(1)])
    assert head_of(NAME, stream) == StreamHead(stream=NAME, sequence=2, head=_id(2), forked=False, held="")
    stream = take(stream, [_link(3)])
    assert head_of(NAME, stream) == StreamHead(stream=NAME, sequence=4, head=_id(4), forked=False, held="")


FORKS: dict[str, tuple[Link, Link]] = {
    "the first number twice": (_link(1), _link(1, 1)),
    "a number twice": (_link(2), _link(2, 1, 0)),
    "a number twice, both without predecessor": (_link(5), _link(5, 1, 0)),
    "another predecessor": (_link(2), _link(3, 0, 1)),
    "another predecessor, both without their own": (_link(5), _link(6, 0, 1)),
}


@pytest.mark.parametrize("what", FORKS)
@pytest.mark.parametrize("held", [[], [1], [1, 2]], ids=str)
def test_two_histories_are_a_fork_whichever_came_first(what: str, held: list[int]) -> None:
    one, two = FORKS[what]
    for pair in ((one, two), (two, one)):
        stream = take(Chain(), [*map(_link, held), *pair])
        assert isinstance(stream, Fork)
        head = head_of(NAME, stream)
        assert head is not None
        assert head.forked
        assert head.sequence == len({*map(_id, held), one.id, two.id})


@given(_said(), _said())
def test_freshness_does_not_wait_for_a_stream_that_both_know_to_be_forked(mine: list[Link], theirs: list[Link]) -> None:
    heads = [head_of(NAME, take(Chain(), said)) for said in (mine, theirs)]
    forked = [head for head in heads if head is not None and head.forked]
    if len(forked) == 2:
        assert covers(forked[:1], forked[1:])


@given(_said(), _said())
def test_a_fork_that_i_alone_was_shown_hides_no_chain_that_others_hold(mine: list[Link], theirs: list[Link]) -> None:
    own, other = take(Chain(), mine), take(Chain(), theirs)
    head, mine_head = head_of(NAME, other), head_of(NAME, own)
    if isinstance(own, Fork) and isinstance(other, Chain) and head is not None and mine_head is not None:
        lacking = set(other.ids) - own.ids
        assert covers([mine_head], [head], {NAME: own.whole}) <= (not lacking), "whoever vouches says nothing that I lack"
        assert (NAME in ahead({NAME: own}, [head])) or not lacking
        healed = take(own, [link for link in theirs if link.id in other.ids])
        assert isinstance(healed, Fork)
        assert covers([mine_head], [head], {NAME: healed.whole}), "and what it holds it can show"


@given(_said(), _said())
def test_a_fork_that_others_know_is_to_be_seen_first(mine: list[Link], theirs: list[Link]) -> None:
    own, other = take(Chain(), mine), take(Chain(), theirs)
    head, mine_head = head_of(NAME, other), head_of(NAME, own)
    if isinstance(own, Chain) and head is not None and head.forked:
        assert not covers([mine_head] if mine_head is not None else [], [head])
        assert ahead({NAME: own}, [head]) == {NAME: Cursor(0)}


@given(_said(), _said())
def test_two_forks_look_the_same_only_if_they_are(one: list[Link], two: list[Link]) -> None:
    first, second = (take(Chain(), said) for said in (one, two))
    if isinstance(first, Fork) and isinstance(second, Fork):
        assert (head_of(NAME, first) == head_of(NAME, second)) == (first.ids == second.ids)


# --------------------------------------------------------------------------------------------------- what another holds


@given(st.integers(0, 3), st.booleans(), st.sampled_from(["aa" * 32, _id(1), _id(2)]), _said())
def test_whatever_a_member_claims_can_be_compared(sequence: int, forked: bool, head: str, said: list[Link]) -> None:
    claim = StreamHead(stream=NAME, sequence=sequence, head=head, forked=forked, held="")
    wanted = ahead({NAME: take(Chain(), said)} if said else {}, [claim])
    assert set(wanted) <= {NAME}
    if sequence == 0 and not forked:
        assert wanted == {}


def test_what_another_holds_beyond_mine_is_asked_for_from_there_on() -> None:
    mine: dict[str, Stream] = {NAME: take(Chain(), [_link(1), _link(2)])}
    for length, wanted in ((1, {}), (2, {}), (3, {NAME: Cursor(3)}), (9, {NAME: Cursor(3)})):
        head = head_of(NAME, take(Chain(), [_link(number) for number in range(1, length + 1)]))
        assert head is not None
        assert ahead(mine, [head]) == wanted
    assert ahead({}, [StreamHead(stream=NAME, sequence=1, head=_id(1), forked=False, held="")]) == {NAME: Cursor(1)}


def test_another_history_is_asked_for_where_it_differs() -> None:
    mine: dict[str, Stream] = {NAME: take(Chain(), [_link(1), _link(2), _link(3)])}
    assert ahead(mine, [StreamHead(stream=NAME, sequence=2, head=_id(2, 1), forked=False, held="")]) == {NAME: Cursor(2)}


class _Holder:
    """One stream and what is stored of it."""

    def __init__(self, said: Iterable[Link]) -> None:
        self.kept = {(link.sequence, link.id): link for link in said}
        self.stream = take(Chain(), self.kept.values())

    def page(self, after: Cursor) -> list[Link]:
        """The next one."""
        later = sorted(key for key in self.kept if key > (after.sequence, after.id))
        return [self.kept[key] for key in later[:1]]

    def pull(self, other: "_Holder") -> bool:
        """Ask for what the other claims, page by page; whether there was anything to ask for."""
        head = head_of(NAME, other.stream)
        after = ahead({NAME: self.stream}, [head] if head is not None else []).get(NAME)
        if after is None:
            return False
        while page := other.page(after):
            self.stream = take(self.stream, page)
            self.kept |= {(link.sequence, link.id): link for link in page}
            after = Cursor(page[-1].sequence, page[-1].id)
        return True


@given(st.lists(_said(), min_size=2, max_size=3))
def test_holders_that_ask_each_other_hold_the_same_in_the_end(sets: list[list[Link]]) -> None:
    holders = [_Holder(said) for said in sets]
    pairs = [(one, two) for one in holders for two in holders if one is not two]
    rounds, asked = 0, 1
    while asked:
        asked = sum(one.pull(two) for one, two in pairs)
        rounds += 1
        # Each round that does not end brings somebody something, or the second half of a fork to whoever has the first.
        assert rounds <= 1 + sum(map(len, sets))
    heads = [head_of(NAME, holder.stream) for holder in holders]
    assert heads.count(heads[0]) == len(heads)
    if heads[0] is not None and heads[0].forked:
        assert all(holder.kept.keys() == holders[0].kept.keys() for holder in holders)


# ---------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("wrong", [Link(0, _id(9), ""), Link(1, _id(9), _id(0)), Link(2, _id(9), ""), Link(-1, _id(9), "")])
def test_a_number_that_no_statement_has_is_refused(wrong: Link) -> None:
    for stream in (Chain(), take(Chain(), [_link(1), _link(1, 1)])):
        with pytest.raises(Refused) as caught:
            take(stream, [wrong])
        assert caught.value.code == "malformed"


def _almost_full(kind: str) -> tuple[Stream, Sequence[Link]]:
    """A stream with room for one more, and two that it does not hold."""
    last, beyond = STREAM_STATEMENTS_MAX, STREAM_STATEMENTS_MAX + 1
    if kind == "forked":
        ids = frozenset(f"{number:064x}" for number in range(2 * STREAM_STATEMENTS_MAX - 1))
        return Fork(ids, {}, (), "00" * 32), [_link(7), _link(7, 1)]
    ids_ = tuple(f"{number:064x}" for number in range(STREAM_STATEMENTS_MAX - 1))
    if kind == "loose":
        return Chain(ids_[:-2]), [_link(last), _link(beyond)]
    return Chain(ids_), [Link(last, _id(last), ids_[-1]), _link(beyond)]


def test_what_makes_a_fork_is_taken_in_however_full_a_chain_is() -> None:
    """Or two halves of a mesh would hold two histories, and neither could ever be shown the other."""
    one, two = (Chain(tuple(f"{half}{number:063x}" for number in range(STREAM_STATEMENTS_MAX))) for half in "ab")
    for mine, theirs in ((one, two), (two, one)):
        forked = take(mine, [Link(2, theirs.ids[1], theirs.ids[0]), Link(1, theirs.ids[0], "")])
        assert isinstance(forked, Fork)
        assert theirs.ids[1] in forked.whole


@pytest.mark.parametrize("kind", ["gapless", "loose", "forked"])
def test_a_stream_holds_as_many_statements_as_it_may_and_not_one_more(kind: str) -> None:
    stream, (last, beyond) = _almost_full(kind)
    full = take(stream, [last])
    with pytest.raises(Refused) as caught:
        take(full, [beyond])
    assert caught.value.code == "stream_full"
    assert take(full, [last]) is full
