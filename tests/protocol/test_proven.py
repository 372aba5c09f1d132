"""What was final is taken because it leads to a certificate: no owner, and no stolen key, takes a newcomer elsewhere or holds it up."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mesh.core.bytes import canonical
from mesh.core.log.checkpoint import Checkpoint, read_checkpoint
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Note, parse_note
from mesh.core.log.record import GovernanceChanged
from mesh.core.messages import LineageBatch, pack, unpack
from mesh.protocol.events import LineageArrived, NoteArrived
from mesh.protocol.lineage import CHECKPOINT_RECORDS_MAX
from mesh.protocol.members import is_current
from mesh.protocol.proven import attest_held, behind, take_proven
from mesh.protocol.serving import pull_answer, shown_paths
from mesh.protocol.step import Append, Ask, Head, PutNote, Send, SetHead, SetMeta, Sign
from mesh.protocol.stored import StoredLog
from mesh.protocol.together import resumed
from tests.protocol.machines import LAB, NOW, Owner, batch, line, only
from tests.protocol.test_catching import K, Newcomer
from tests.protocol.test_together import EU, FIRST, MEMBERS, STALL_MS, Heir, _another, _batch, _eu, _note, _stored, _talk

PAGE = 128


def simple(tag: str, count: int, owner: Owner | None = None) -> Owner:
    """A log of records that need nothing beside them."""
    owner = owner or Owner()
    for number in range(count):
        index = len(owner.leaves)
        owner.write(
            lambda writer, index=index, number=number: GovernanceChanged(  # type: ignore[misc]  # default arguments bind them now
                mesh=writer.mesh, origin=writer.origin, index=index, at_ms=NOW, change="fresh", about=f"{tag} {number}"
            )
        )
    return owner


A, B = simple("a", 200), simple("b", 240)


def page(owner: Owner, first: int, note: bytes, count: int = PAGE) -> LineageBatch:
    leaves, hashes = owner.leaves[first : first + count], [leaf_hash(leaf) for leaf in owner.leaves]
    path, start = shown_paths(hashes, first, first + len(leaves), read_checkpoint(note).size if note else 0)
    return unpack(LineageBatch, pull_answer(owner.origin, first, leaves, {}, {}, note, path=path, start=start))


def _bring(newcomer: Newcomer, sent: LineageBatch, node: str = A.member.name) -> list[Any]:
    return newcomer.take(LineageArrived(pack(sent), pulled=True, node=node))


def _attests(effects: Sequence[Any]) -> list[Any]:
    return [effect for effect in only(SetHead, effects) if effect.origin == A.origin]


# --------------------------------------------------------------------------------------------------------------- below the goal


def test_a_newcomer_takes_and_attests_nothing_that_contradicts_the_certificate_it_was_shown() -> None:
    newcomer = Newcomer(A.note(*K))
    (ask,) = only(Ask, newcomer.later())
    assert ask.member == A.member.name, "the liar is asked first"
    for size in (5, 128):
        effects = _bring(newcomer, batch(B, 0, size, note=B.note(size=size)))
        assert (only(Append, effects), _attests(effects)) == ([], [])
    assert newcomer.state.mirrors[A.origin].frontier.size == 0


def test_it_catches_up_and_counts_whatever_the_owner_answers() -> None:
    newcomer = Newcomer(A.note(*K))
    for _ in range(60):
        for ask in only(Ask, newcomer.later(350)):
            liar = ask.member == A.member.name
            _bring(newcomer, batch(B, ask.first, PAGE, note=B.note(size=5)) if liar else page(A, ask.first, A.note(*K)), ask.member)
    held = newcomer.state.mirrors[A.origin]
    assert (held.frontier, held.attested and held.attested.size) == (A.log.frontier, 200)
    newcomer.later()
    assert not behind(held)


def test_a_certificate_may_be_further_than_any_staging_reaches_and_one_spoilt_page_costs_one_pull() -> None:
    far = simple("far", 4_200)
    newcomer, note, asked = Newcomer(far.note(*K)), far.note(*K), 0
    for turn in range(60):
        for ask in only(Ask, newcomer.later(350)):
            asked += 1
            sent = page(far, ask.first, note)
            _bring(newcomer, msgspec.structs.replace(sent, path=sent.path[:-1]) if turn == 3 else sent, ask.member)
    held = newcomer.state.mirrors[far.origin]
    assert (held.frontier.size, held.certified, asked) == (4_200, 4_200, 1 + -(-4_200 // PAGE))


def test_an_owner_that_answers_with_one_record_at_a_time_delays_by_its_own_turns_only() -> None:
    far = simple("far", 1_280)
    newcomer, note, asked = Newcomer(far.note(*K)), far.note(*K), list[str]()
    for _ in range(40):
        for ask in only(Ask, newcomer.later(350)):
            asked.append(ask.member)
            _bring(newcomer, page(far, ask.first, note, 1 if ask.member == far.member.name else PAGE), ask.member)
    assert newcomer.state.mirrors[far.origin].frontier.size == 1_280
    assert asked == [far.member.name, *[asked[1]] * 10], "whoever brings a whole page is asked on"


def test_who_fell_far_behind_later_catches_up_by_a_certificate_too_and_counts_meanwhile() -> None:
    far, newcomer = simple("far", 4_200), Newcomer()
    newcomer.take(NoteArrived(far.note(*K)))
    for _ in range(60):
        for ask in only(Ask, newcomer.later(350)):
            assert not behind(newcomer.state.mirrors[far.origin])
            _bring(newcomer, page(far, ask.first, far.note(*K)), ask.member)
    assert newcomer.state.mirrors[far.origin].frontier.size == 4_200


def test_a_certificate_by_which_nothing_is_believed_carries_nothing() -> None:
    newcomer = Newcomer(A.note(*K))
    newcomer.later()
    for note in (A.note(*K[:-1], size=150), A.note(size=150), b"no note\n"):
        sent = msgspec.structs.replace(page(A, 0, A.note(*K, size=150)), checkpoint=note.decode())
        assert only(Append, _bring(newcomer, sent)) == []
    assert len(only(Append, _bring(newcomer, page(A, 0, A.note(*K, size=150))))) == 1, "of the log as it was when less was certified"


def test_what_is_published_below_the_goal_is_not_taken() -> None:
    newcomer = Newcomer(A.note(*K))
    effects = newcomer.take(LineageArrived(pack(page(A, 0, A.note(*K))), pulled=False, node=A.member.name))
    assert only(Append, effects) == []


def test_a_stolen_log_key_of_a_removed_member_keeps_no_newcomer_from_holding_what_was_final() -> None:
    heir = Heir("af-1")
    heir.seek(_note(*FIRST, size=6))
    for size in (5, 6):
        lie = Checkpoint(heir.state.origin, size, bytes(32)).to_text()
        heir.hear(Note(lie, (line(MEMBERS["eu-1"], "log", lie),)).encode())
    heir.take(_batch(0, note=_note(*FIRST, size=6)))
    assert (heir.state.frontier.size, heir.state.conflicted, behind(heir.state)) == (6, False, False)
    assert heir.state.attested is not None


def test_a_record_that_is_incomplete_is_waited_for_and_what_stands_before_it_is_kept() -> None:
    heir = Heir("af-1")
    heir.seek(_note(*FIRST, size=6))
    whole = _batch(0, note=_note(*FIRST, size=6))
    heir.take(msgspec.structs.replace(whole, bodies=_batch_bodies(4)))
    assert (heir.state.frontier.size, heir.state.attested, behind(heir.state)) == (4, None, True)
    for _ in range(3):
        heir.now_ms += STALL_MS
        effects = heir.take(_batch_without_bodies(4))
        assert only(SetHead, effects) == []
    assert heir.state.missing == 4
    heir.take(_batch(4, note=_note(*FIRST, size=6)))
    assert (heir.state.frontier.size, behind(heir.state)) == (6, False)


def _batch_bodies(count: int) -> list[msgspec.Raw]:
    later = {bytes(raw) for raw in _batch(count).bodies} - {bytes(raw) for raw in _first(count)}
    return [raw for raw in _batch(0).bodies if bytes(raw) not in later]


def _first(count: int) -> list[msgspec.Raw]:

    return batch(EU, 0, count).bodies


def _batch_without_bodies(first: int) -> LineageBatch:
    return msgspec.structs.replace(_batch(first, note=_note(*FIRST, size=6)), bodies=[])


def test_a_leaf_that_is_no_record_is_refused_not_stored_and_does_not_count() -> None:
    owner = simple("left", 2, Owner(MEMBERS["eu-1"]))
    owner.append(b'{"record":"nonsense"}')
    heir, note = Heir("af-1", owner=owner), _note(*FIRST, size=3, owner=owner)
    heir.seek(note)
    said = [effect for _ in range(3) for effect in heir.take(page(owner, heir.state.frontier.size, note))]
    assert (heir.state.frontier.size, heir.state.refused, behind(heir.state)) == (2, 2, True)
    assert len(only(SetMeta, said)) == len(only(Send, said)) == 1


def test_who_was_restored_and_has_cosigned_another_history_stores_the_final_one_and_signs_nothing_of_it() -> None:
    heir, head = Heir("ap-1"), Head(3, Frontier.empty().extend(map(leaf_hash, _another().leaves[:3])).root(), NOW // 1000 - 9)
    heir.state = msgspec.structs.replace(heir.state, witnessed=head)
    heir.seek(_note(*FIRST, size=6))
    effects = heir.take(_batch(0, note=_note(*FIRST, size=6)))
    assert (heir.state.frontier.size, heir.state.conflicted, behind(heir.state)) == (6, True, False)
    assert only(SetHead, [*effects, *heir.due()]) == []


# ---------------------------------------------------------------------------------------------------------------------- quietly


def test_one_wrong_record_behind_the_goal_takes_nothing_from_it() -> None:
    owner = simple("left", 4, Owner(MEMBERS["eu-1"]))
    back = GovernanceChanged(mesh="lab", origin=owner.origin, index=4, at_ms=NOW - 1, change="fresh", about="goes back in time")
    owner.append(canonical.encode(back))
    heir = Heir("af-1", owner=owner)
    heir.seek(_note(*FIRST, size=4, owner=owner))
    heir.state, _ = take_proven(heir.state, page(owner, 0, _note(size=5, owner=owner)), heir.context, quiet=True)
    assert (heir.state.frontier.size, heir.state.refused, behind(heir.state)) == (4, -1, False)


def test_what_was_stored_under_a_clock_that_was_ahead_is_not_attested_before_its_time() -> None:
    heir = Heir("af-1")
    heir.seek(_note(*FIRST, size=6))
    heir.state, _ = take_proven(heir.state, _batch(0, note=_note(*FIRST, size=6)), heir.context, quiet=True)
    assert heir.state.frontier.size == 6
    heir.now_ms = NOW - 3_600_000
    assert attest_held(heir.state, heir.context)[1] == []
    heir.now_ms = NOW
    assert len(attest_held(heir.state, heir.context)[1]) == 2


# ------------------------------------------------------------------------------------------------------------- what is remembered


def test_a_goal_stays_known_however_many_sizes_its_log_signs() -> None:
    newcomer = Newcomer(A.note(*K))
    for size in range(201, 241):
        newcomer.take(NoteArrived(B.note(size=size)))
    for size in range(1, 200):
        newcomer.take(NoteArrived(B.note(size=size)))
    assert read_checkpoint(newcomer.state.mirrors[A.origin].signed[200]).root == A.log.frontier.root()


def test_no_certificate_is_made_of_lines_on_two_histories_and_a_bad_one_on_disk_is_none() -> None:
    other = _another()
    heir = Heir("ap-1", _stored(6, owner=other), owner=other)
    good, lie = parse_note(_note("af-1", "sa-1", "us-1", size=6)), parse_note(_note(size=6, owner=other))
    lines = {item.name: item for item in good.lines if item.name.endswith("attest")}
    place = 6, read_checkpoint(lie.encode()).root
    heir.state = msgspec.structs.replace(heir.state, lines={place: lines})
    assert only(PutNote, heir.due()) == []
    assert heir.state.certified == 0
    bad = Note(lie.text, (lie.lines[0], *lines.values())).encode()
    again = Heir("ap-1", msgspec.structs.replace(_stored(6, owner=other), certified=6, certificate=bad), owner=other)
    assert (again.state.goal, again.state.certified, again.state.certificate) == (0, 0, b"")


def test_a_line_that_only_its_key_id_recommends_spoils_no_start() -> None:
    note = parse_note(_note(*FIRST, size=4))
    spoilt = [msgspec.structs.replace(item, signature=bytes(72)) if item.name == "lab/us-1/attest" else item for item in note.lines]
    heir = Heir("af-1")
    heir.seek(Note(note.text, tuple(spoilt)).encode())
    assert {name for lines in heir.state.lines.values() for name in lines} == {"lab/ap-1/attest"}


def test_a_wrong_record_at_the_end_takes_no_proof_from_what_was_before_it() -> None:
    """The owner adds one wrong record and leaves; all start again."""
    heir, owner = Heir("af-1"), _eu(5)
    heir.hear(_note(size=5))
    heir.take(_batch(0, note=_note(size=5)))
    owner.append(canonical.encode(GovernanceChanged(mesh="lab", origin=owner.origin, index=5, at_ms=NOW - 1, change="fresh", about="")))
    effects = heir.take(_batch(5, owner=owner, note=_note(size=6, owner=owner)))
    assert PutNote("attested", owner.origin, 5, _note(size=5)) in effects, "the newest checkpoint is another one from now on"
    kept = Head(5, _stored(5).frontier.root(), NOW // 1000 - 9)
    stored = msgspec.structs.replace(_stored(6, 4), refused=5, attest=kept, attested=_note(size=5))
    heirs = [Heir(name, stored) for name in ("af-1", "ap-1", "sa-1", "us-1")]
    _talk(heirs, 60)
    assert [heir.state.certified for heir in heirs] == [5] * 4


# ----------------------------------------------------------------------------------------------------- owners that certify nothing


def _next(heir: Heir, owner: Owner, size: int) -> None:
    page = unpack(LineageBatch, pull_answer(owner.origin, size - 1, owner.leaves[size - 1 : size], {}, {}, _note(size=size, owner=owner)))
    heir.take(page, helper="")


def test_an_owner_that_moves_and_never_certifies_is_waited_for_no_longer_than_the_stall() -> None:
    owner = simple("moving", 30, Owner(MEMBERS["us-1"]))
    heir, said = Heir("ap-1", owner=owner), list[int]()
    for size in range(1, 30):
        heir.now_ms += STALL_MS // 2
        _next(heir, owner, size)
        said += [heir.now_ms - NOW for _ in heir.said(heir.due())]
    assert said[0] == 2 * STALL_MS, "half a stall, one stall, and the next look"


def test_an_owner_that_certifies_in_time_is_never_overtaken_however_busy_it_is() -> None:
    owner = simple("busy", 30, Owner(MEMBERS["us-1"]))
    heir = Heir("ap-1", owner=owner)
    for size in range(1, 30):
        heir.now_ms += STALL_MS // 2
        _next(heir, owner, size)
        if size > 1:
            heir.state = msgspec.structs.replace(heir.state, certified=size - 1)
        assert heir.due() == []


def test_members_attest_an_uncertified_log_up_to_a_bound_where_their_lines_meet() -> None:
    most = 2 * CHECKPOINT_RECORDS_MAX
    owner = simple("fast", most + 1, Owner(MEMBERS["us-1"]))
    for size, attested in ((most, True), (most + 1, False)):
        heir = Heir("ap-1", owner=owner)
        heir.hear(_note(size=size, owner=owner))
        heir.hear(_note(size=CHECKPOINT_RECORDS_MAX, owner=owner))
        for first in range(0, size, PAGE):
            heir.take(page(owner, first, b"", min(PAGE, size - first)), helper="us-1")
        assert heir.state.frontier.size == size
        assert heir.state.attested is not None
        assert (heir.state.attested.size == size) is attested


def test_a_former_owner_cannot_grow_its_log_step_by_step() -> None:
    owner = simple("left", 2 * CHECKPOINT_RECORDS_MAX, Owner(MEMBERS["eu-1"]))
    heir = Heir("ap-1", owner=owner)
    for size in (CHECKPOINT_RECORDS_MAX, 2 * CHECKPOINT_RECORDS_MAX):
        note = _note(size=size, owner=owner)
        heir.hear(note)
        for first in range(heir.state.frontier.size, size, PAGE):
            heir.take(page(owner, first, note), helper="us-1")
        for said in (*heir.said(heir.due()), _note("sa-1", "us-1", size=size, owner=owner)):
            heir.hear(said)
    assert (heir.state.frontier.size, heir.state.certified) == (CHECKPOINT_RECORDS_MAX, CHECKPOINT_RECORDS_MAX)


def test_replaying_an_old_note_silences_nobody_and_is_no_line() -> None:
    owner = simple("x", 6, Owner(MEMBERS["us-1"]))
    stored = _stored(6, 4, owner=owner, by=("ap-1", "sa-1", "us-1"))
    heir, quiet = Heir("ap-1", stored, owner=owner), Heir("ap-1", stored, owner=owner)
    old, said = parse_note(_note("sa-1", size=2, owner=owner)), list[bool]()
    spoilt = Note(old.text, (old.lines[0], msgspec.structs.replace(old.lines[1], key_id=bytes(4)))).encode()
    assert heir.hear(spoilt) == [], "nobody who says a line is answered before it was verified"
    (shown,) = only(Send, heir.hear(old.encode()))
    assert not shown.durable, "streams keep it already"
    for _ in range(400):
        for each in (heir, quiet):
            each.now_ms += 250
        heir.hear(old.encode())
        said.append(len(only(Sign, heir.due())) == len(only(Sign, quiet.due())))
    assert all(said)
    assert heir.state.said > 1


def test_what_is_stored_as_a_certificate_is_one_by_the_roster_in_force_or_is_none_of_now() -> None:
    state = resumed(A.origin, StoredLog(frontier=A.log.frontier, last_ms=NOW, certified=200, certificate=A.note(*K)), LAB.governance)
    assert is_current(state.certificate, LAB.governance)
