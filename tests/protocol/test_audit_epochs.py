"""An auditor follows a mesh through its rosters: it judges each record by the roster of its time, and accuses nobody for lack of one."""

import msgspec
import pytest

from mesh.core.bytes import canonical
from mesh.core.law.fold import extend
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.messages import pack
from mesh.errors import Refused
from mesh.limits import AUDIT_LOGS_MAX
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditEvent, AuditPosition, AuditState, LogPosition
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.step import Ask
from tests.core.kit import refuses
from tests.protocol.machines import NOW, Owner, batch
from tests.support.epochs import ALL, ROSTERS, EpochLab, successor
from tests.support.factory import RuleEngine, secret

LABS = {epoch: EpochLab(epoch) for epoch in (1, 2, 3)}
MEMBERS = {member.name: member for member in ALL.roster.members}
K = {1: ("ap-1", "eu-1", "us-1"), 2: ("af-1", "ap-1", "eu-1", "us-1"), 3: ("af-1", "ap-1", "us-1")}
"""Who attests in that epoch: k, in the order of their names."""


class Story:
    """The logs of three members who decided in the epochs in which they were members, one decision in each."""

    def __init__(self, **epochs: tuple[int, ...]) -> None:
        wanted = epochs or {"us": (1, 2, 3), "eu": (1, 2), "af": (2, 3)}
        self.owners = {f"{name}-1": Owner(MEMBERS[f"{name}-1"]) for name in wanted}
        self.notes: dict[str, list[bytes]] = {}
        number = 0
        for name, lived in wanted.items():
            for epoch in lived:
                number += 1
                self.decide(f"{name}-1", epoch, number)

    def decide(self, name: str, epoch: int, number: int) -> None:
        """One more decision, and the certificate over it."""
        lab, owner = LABS[epoch], self.owners[name]
        _, intent, openings = lab.intent(number, at_ms=NOW)
        (record,) = owner.decide(lab.request(intent, openings), governance=lab.governance)
        assert record.roster_epoch == epoch
        self.notes.setdefault(name, []).append(owner.note(*(MEMBERS[each] for each in K[epoch])))


class Auditing:
    """An auditor who is fed, and asks nobody who answers."""

    def __init__(self, epoch: int, position: AuditPosition | None = None, *, now_ms: int = NOW + 1_000) -> None:
        self.audit = Audit(LABS[epoch].governance, RuleEngine())
        self.state: AuditState = self.audit.begin(position)
        self.now_ms = now_ms

    def feed(self, story: Story, *names: str) -> "Auditing":
        """Every batch, then every certificate."""
        for name in names or story.owners:
            owner = story.owners[name]
            events: list[AuditEvent] = [
                LineageArrived(pack(batch(owner)), pulled=False),
                *(NoteArrived(note) for note in story.notes[name]),
            ]
            self.state = self.audit.step(self.state, events, now_ms=self.now_ms).state
        return self

    def ask(self, rounds: int = 12) -> list[tuple[str, str]]:
        """Whom it asks about which log, while nobody has what it lacks."""
        asked = list[tuple[str, str]]()
        for _ in range(rounds):
            self.now_ms += 400
            step = self.audit.step(self.state, [Tick()], now_ms=self.now_ms)
            self.state = step.state
            for ask in step.effects:
                assert isinstance(ask, Ask)
                asked.append((ask.member, ask.origin))
                empty = msgspec.structs.replace(batch(Owner(MEMBERS["us-1"])), origin=ask.origin, first=ask.first)
                self.state = self.audit.step(self.state, [LineageArrived(pack(empty), pulled=True)], now_ms=self.now_ms).state
        return asked

    @property
    def seen(self) -> dict[str, tuple[int, int, int]]:
        """Node to its records, how many of them are final, and decisions that match."""
        return {origin.split("/")[1]: (log.frontier.size, log.certified, log.match) for origin, log in self.state.logs.items()}

    @property
    def found(self) -> list[tuple[str, str]]:
        return [(finding.code, finding.detail) for finding in self.state.findings]

    def kept(self) -> AuditPosition:
        return canonical.decode(AuditPosition, canonical.encode(self.audit.position(self.state)), bytes_max=10**6)


WHOLE = {"eu-1": (2, 2, 2), "us-1": (3, 3, 3), "ap-1": (0, 0, 0), "sa-1": (0, 0, 0), "af-1": (2, 2, 2)}


def test_decisions_of_all_epochs_match_and_are_final_by_the_roster_of_their_time() -> None:
    auditing = Auditing(3).feed(Story())
    assert (auditing.seen, auditing.found, auditing.state.garbage) == (WHOLE, [], 0)
    assert all(log.caught_up for log in auditing.state.logs.values())


def test_the_log_of_a_member_that_has_left_is_followed_to_its_last_final_record() -> None:
    story = Story()
    auditing = Auditing(3).feed(story, "eu-1")
    log = auditing.state.logs["lab/eu-1/e1"]
    assert (log.certified, log.goal, log.caught_up) == (2, 2, True)


@pytest.mark.parametrize("feed_again", ["eu-1", "us-1"])
def test_what_rests_on_a_roster_not_heard_of_waits_and_matches_once_it_is(feed_again: str) -> None:
    story = Story()
    auditing = Auditing(1).feed(story)
    auditing.ask(rounds=30)
    assert {name: seen[2] for name, seen in auditing.seen.items()} == {"eu-1": 1, "us-1": 1, "ap-1": 0, "sa-1": 0}
    assert auditing.found == []
    assert any(log.lacks_policy for log in auditing.state.logs.values())
    auditing.audit.governance = LABS[3].governance
    auditing.feed(story, feed_again)
    assert auditing.seen[feed_again] == WHOLE[feed_again]
    auditing.feed(story)
    assert (auditing.seen, auditing.found) == (WHOLE, [])


@pytest.mark.parametrize("more", [False, True])
def test_as_few_as_were_enough_before_make_no_later_decision_final(*, more: bool) -> None:
    story = Story(us=(1, 2))
    owner = story.owners["us-1"]
    few, story.notes["us-1"] = owner.note(*(MEMBERS[each] for each in K[1])), [owner.note()]
    auditing = Auditing(2).feed(story)
    if more:  # then what it stands over was settled before, under a certificate that does not come
        owner.decide(LABS[2].request(LABS[2].intent(9, at_ms=NOW)[1], []), governance=LABS[2].governance)
        story.notes["us-1"] = [owner.note()]
        auditing.feed(story)
    story.notes["us-1"] = [few]
    auditing.feed(story)
    assert auditing.seen["us-1"][:2] == (3 if more else 2, 0)


def test_who_joins_while_it_runs_is_followed_from_then_on() -> None:
    story = Story()
    auditing = Auditing(1).feed(story, "af-1")
    assert (auditing.state.garbage > 0, "af-1" in auditing.seen) == (True, False)
    auditing.audit.governance = extend(auditing.audit.governance, [ROSTERS[1], ROSTERS[2]]).governance
    auditing.feed(story, "af-1")
    assert (auditing.seen["af-1"], auditing.found) == ((2, 2, 2), [])


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3), (3, 3)])
def test_a_position_goes_on_under_another_roster_of_the_same_chain(before: int, after: int) -> None:
    story = Story()
    first = Auditing(before).feed(story)
    second = Auditing(after, first.kept())
    assert {name: seen for name, seen in second.seen.items() if name in first.seen} == first.seen
    second.audit.governance = LABS[3].governance
    second.feed(story)
    assert (second.seen, second.found) == (WHOLE, [])


def test_the_position_of_a_mesh_with_another_beginning_is_refused() -> None:
    kept = Auditing(3).kept()
    assert kept.roster == ROSTERS[0].id
    with refuses("wrong_epoch"):
        Auditing(3, msgspec.structs.replace(kept, roster=ROSTERS[1].id))


def test_a_log_whose_owner_is_not_known_yet_is_kept_and_nobody_is_asked_about_it() -> None:
    behind = msgspec.structs.replace(Auditing(3).feed(Story()).kept().logs[-1], size=1, hashes=["ab" * 32], certified=0)
    position = msgspec.structs.replace(Auditing(1).kept(), logs=[msgspec.structs.replace(behind, origin="lab/af-1/e1")])
    auditing = Auditing(1, position)
    assert auditing.ask() == []
    assert auditing.seen["af-1"][0] == 1
    assert any(log.origin == "lab/af-1/e1" for log in auditing.kept().logs)


# ------------------------------------------------------------------------------------------------------------------- accusing


def test_a_decision_under_a_roster_that_its_log_has_left_is_a_finding() -> None:
    auditing = Auditing(3).feed(Story(us=(1, 2, 1)))
    assert auditing.found == [("record_invalid", "decided under roster epoch 1 after 2")]


def test_also_if_the_position_was_kept_in_between() -> None:
    story = Story(us=(1, 3))
    first = Auditing(3).feed(story)
    assert (first.found, {log.epoch for log in first.kept().logs}) == ([], {0, 3})
    story.decide("us-1", 2, 9)
    assert Auditing(3, first.kept()).feed(story).found == [("record_invalid", "decided under roster epoch 2 after 3")]


def test_a_decision_by_nobody_who_was_a_member_then_is_a_finding() -> None:
    story = Story(us=(1,))
    owner = story.owners["us-1"]
    owner.leaves = [canonical.encode(msgspec.structs.replace(_only(owner), origin="lab/af-1/e1"))]
    joiner = Owner(MEMBERS["af-1"])
    joiner.leaves, joiner.bodies = owner.leaves, owner.bodies
    story.owners, story.notes = {"af-1": joiner}, {"af-1": [joiner.note(*(MEMBERS[each] for each in K[3]))]}
    assert Auditing(3).feed(story).found == [("unknown_member", "af-1 is no member of roster epoch 1")]


def _only(owner: Owner) -> DecisionMade:
    record = read_record(owner.leaves[-1])
    assert isinstance(record, DecisionMade)
    return record


def test_who_changes_other_keys_than_that_of_its_log_keeps_its_past() -> None:
    """The same log goes on, under another decision key; what it decided before is still its own."""
    changed = msgspec.structs.replace(MEMBERS["us-1"], decision_key=secret("another decision key").public)
    rest = [member for member in ROSTERS[1].claims.members if member.name != "us-1"]
    third = successor(ROSTERS[1], members=[*rest, changed])
    auditing = Auditing(2)
    auditing.audit.governance = extend(LABS[2].governance, [third]).governance.under(3)
    auditing.feed(Story(us=(1, 2)))
    assert (auditing.seen["us-1"], auditing.found) == ((2, 2, 2), [])


def test_a_signer_whom_only_a_newer_roster_knows_is_waited_for_and_then_named() -> None:
    story = Story(us=(1,))
    lab = LABS[3]
    number, intent, openings = lab.intent(7, action="steal", at_ms=NOW)
    assert number
    owner = story.owners["us-1"]
    owner.decide(lab.request(intent, openings), governance=lab.governance)
    story.notes["us-1"].append(owner.note(*(MEMBERS[each] for each in ("ap-1", "sa-1", "us-1"))))
    auditing = Auditing(1).feed(story)
    auditing.ask(rounds=20)
    assert (auditing.found, auditing.seen["us-1"][0]) == ([], 1)
    assert auditing.state.logs["lab/us-1/e1"].lacks_policy
    learnt = Auditing(1, auditing.kept(), now_ms=auditing.now_ms)
    learnt.audit.governance = lab.governance
    assert (learnt.feed(story).found, learnt.seen["us-1"][:2]) == ([], (2, 2))
    auditing.now_ms = NOW + 60_000
    auditing.ask(rounds=20)
    assert [code for code, _ in auditing.found] == ["body_missing"]


# -------------------------------------------------------------------------------------------------------------------- finality


@pytest.mark.parametrize(
    ("attesters", "final"),
    [
        (("ap-1", "eu-1", "us-1"), 0),  # k of the first, and two of them are left
        (("ap-1", "sa-1", "us-1"), 1),
        (("af-1", "ap-1", "us-1"), 1),
        (("af-1", "ap-1", "eu-1", "us-1"), 1),
        (("af-1", "eu-1", "us-1"), 0),
        (("af-1", "us-1"), 0),
    ],
)
def test_it_is_final_by_k_of_one_roster_and_never_of_several_together(attesters: tuple[str, ...], final: int) -> None:
    story = Story(us=(1,))
    story.notes["us-1"] = [story.owners["us-1"].note(*(MEMBERS[name] for name in attesters))]
    auditing = Auditing(3).feed(story)
    assert (auditing.seen["us-1"], auditing.found) == ((1, final, 1), [])


@pytest.mark.parametrize("late", [False, True])
def test_members_who_had_left_before_it_was_decided_make_nothing_final(*, late: bool) -> None:
    story = Story(us=(1, 3))
    old = story.owners["us-1"].note(*(MEMBERS[name] for name in K[1]))
    story.notes["us-1"] = [story.owners["us-1"].note(), old] if late else [old]
    assert Auditing(3).feed(story).seen["us-1"] == (2, 0, 2)


# ------------------------------------------------------------------------------------------------------------------------ size


def test_positions_of_as_many_logs_as_can_be_kept_are_kept_and_those_of_members_first() -> None:
    def one(number: int) -> LogPosition:
        return msgspec.structs.replace(Auditing(3).kept().logs[0], origin=f"lab/gone-{number}/e1")

    template = Auditing(3).kept()
    logs = [one(number) for number in range(AUDIT_LOGS_MAX)]
    auditing = Auditing(3, msgspec.structs.replace(template, logs=logs))
    assert len(auditing.state.logs) == AUDIT_LOGS_MAX + len(WHOLE)
    kept = auditing.kept()
    assert (len(kept.logs), {log.origin for log in kept.logs} >= {f"lab/{name}/e1" for name in K[3]}) == (AUDIT_LOGS_MAX, True)
    with pytest.raises(Refused):
        canonical.decode(AuditPosition, canonical.encode(msgspec.structs.replace(template, logs=[*logs, logs[0]])), bytes_max=10**6)
