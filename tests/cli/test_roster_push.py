"""A roster is handed over only if members will take it in time; what it says then is what k of them sign that they hold."""

import json

import msgspec
import pytest

from mesh.cli import roster_draft, roster_push
from mesh.cli import roster_words as words
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.roster import ROSTERS, Roster
from mesh.core.messages import Offer, StatusAsked, Sync, SyncAnswer, pack, unpack
from tests.cli.lawmesh import code_of
from tests.cli.policymesh import ALL
from tests.cli.rosterdesk import RosterDesk
from tests.support.factory import sign


def _signed(desk: RosterDesk, *more: str) -> str:
    """The next roster, with a member more."""
    desk.made("add", "af-1", "--region", "af", "--keys", desk.member("af-1"), *more)
    desk.seal("roster-2.json", *desk.roots[:2], desk.operator)
    return "roster-2.json"


def _held(desk: RosterDesk) -> dict[str, int]:
    """The newest epoch that each member holds."""
    return {name: len(node.state.governance.rosters.ids) for name, node in desk.mesh.nodes.items()}


def _peers(desk: RosterDesk) -> tuple[int, dict[str, dict[str, object]], str]:
    status, out, err = desk.run("-o", "json", "peer", "ls")
    return status, {row["node"]: row for row in json.loads(out)}, err


def test_a_signed_roster_reaches_every_member_and_k_of_them_sign_that_they_hold_it(rosters: RosterDesk) -> None:
    status, shown, err = rosters.plan("push", _signed(rosters), "--watch")
    assert (status, shown["held"] >= 3, shown["needed"], shown["held_ms"] is not None) == (0, True, 3, True), err
    assert [(row["node"], row["member"]) for row in shown["members"]] == [*((name, "of both") for name in ALL), ("af-1", "comes")]
    assert {row["node"]: row["answer"] for row in shown["members"] if row["node"] in ALL} == dict.fromkeys(ALL, "held")
    assert _held(rosters) == dict.fromkeys(ALL, 2)
    assert "members go over at " in err
    again = rosters.plan("push", "roster-2.json", "--watch")
    assert again[0] == 0
    assert "members hold epoch 2 already; it is offered again" in again[2]


def test_what_members_hold_is_listed_and_shown_by_its_number(rosters: RosterDesk) -> None:
    assert rosters.plan("push", _signed(rosters, "--reason", "more of us"))[0] == 0
    status, rows, err = rosters.plan("ls")
    assert (status, [row["state"] for row in rows]) == (0, ["in force", "held"]), err
    assert (rows[1]["held_by"], rows[1]["acting"], rows[1]["reason"]) == (list(ALL), [], "more of us")
    assert (rows[0]["acting"], rows[0]["id"]) == (list(ALL), rosters.lab.pin)
    second = rosters.plan("show", "2")[1]
    assert (second["id"], second["n"], second["signed"]) == (rows[1]["id"], 5, "by 2 of its own root's 3 keys, 2 needed")
    assert [owner["members"] for owner in second["operators"]] == [[*ALL, "af-1"]]
    assert rosters.plan("show", "1")[1]["id"] == rosters.lab.pin
    assert code_of(rosters.plan("show", "3")[2]) == "wrong_epoch"


def test_the_next_is_planned_and_signed_behind_what_members_hold(rosters: RosterDesk) -> None:
    rosters.plan("push", _signed(rosters))
    made = rosters.made("remove", "af-1", "--begins", "+3h")
    assert (made.claims.epoch, made.claims.previous) == (3, words.read(rosters.folder / "roster-2.json").id)
    assert len(rosters.seal("roster-3.json", *rosters.roots[:2]).signatures) == 2, "no --from is needed"
    status, shown, err = rosters.plan("push", "roster-3.json", "--watch")
    assert (status, shown["needed"]) == (0, 4), "k of epoch 2, one of whose members does not run yet"
    assert _held(rosters) == dict.fromkeys(ALL, 3), err


def test_what_members_would_refuse_is_not_offered(rosters: RosterDesk) -> None:
    file = rosters.folder / _signed(rosters)
    whole = words.read(file)
    offered = list[str]()
    honest = rosters.ask

    async def ask(member: str, message: object) -> bytes:
        if isinstance(message, Offer):
            offered.append(member)
        return await honest(member, message)  # type: ignore[arg-type]

    rosters.ask = ask
    for lacking, code in ((rosters.lab.root[0], "threshold_not_met"), (rosters.lab.operator, "operator_unsigned")):
        lines = {key: line for key, line in whole.signatures.items() if key != lacking.public}
        file.write_bytes(_with(whole, lines))
        assert code_of(rosters.plan("push", str(file))[2]) == code
    file.write_bytes(_with(whole, {**whole.signatures, rosters.lab.revoker.public: bytes(64)}))
    assert code_of(rosters.plan("push", str(file))[2]) == "bad_signature"
    assert code_of(rosters.plan("push", str(rosters.roster))[2]) == "usage", "the first is pinned"
    file.write_bytes(whole.envelope)
    assert rosters.revoke(f"key:{rosters.public('af-1', 'log')}", "--co-sign", str(rosters.second))[0] == 0
    offered.clear()
    assert code_of(rosters.plan("push", str(file))[2]) == "revoked"
    assert offered == []


def _with(statement: Statement[Roster], lines: dict[str, bytes]) -> bytes:
    return envelope.assemble(envelope.draft(statement.claims).payload_type, statement.payload, lines)


def test_another_roster_of_an_epoch_that_members_hold_is_not_offered(rosters: RosterDesk) -> None:
    rosters.plan("push", _signed(rosters))
    other = rosters.made("set", "--bound", "heartbeat_ms=600", "--from", str(rosters.roster), "--out", "other.json")
    assert other.claims.epoch == 2
    assert code_of(rosters.plan("push", "other.json")[2]) == "wrong_epoch"


def test_a_name_that_comes_back_begins_a_new_log(rosters: RosterDesk) -> None:
    rosters.plan("push", _signed(rosters))
    rosters.made("remove", "af-1", "--begins", "+3h")
    rosters.seal("roster-3.json", *rosters.roots[:2])
    rosters.plan("push", "roster-3.json")
    back = ["add", "af-1", "--region", "af", "--keys", rosters.member("again"), "--begins", "+5h"]
    assert rosters.made(*back).claims.member("af-1").log_epoch == 2
    assert rosters.made(*back, "--log-epoch", "7").claims.member("af-1").log_epoch == 7


def test_behind_two_rosters_of_one_epoch_nothing_is_planned_or_pushed(rosters: RosterDesk) -> None:
    file = _signed(rosters)
    drawn = words.read(rosters.folder / file).claims
    forged = sign(msgspec.structs.replace(drawn, reason="by a thief"), *rosters.lab.root[:2], rosters.lab.operator)
    rosters.offer(envelope.read(Roster, forged), to="us-1")
    assert code_of(rosters.plan("push", file)[2]) == "wrong_epoch", "another of it is there"
    rosters.offer(words.read(rosters.folder / file), to="us-1")
    for command in (["push", file], ["remove", "sa-1"]):
        assert code_of(rosters.plan(*command)[2]) == "roster_conflict"
    status, rows, err = rosters.plan("ls")
    assert (status, [row["epoch"] for row in rows]) == (0, [1])
    assert "the root has said two things" in err


def test_what_begins_before_all_can_have_heard_of_it_is_offered_only_if_asked_for(
    rosters: RosterDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _signed(rosters, "--begins", "+12s")
    monkeypatch.setattr(roster_draft, "wall_ms", lambda: words.read(rosters.folder / file).claims.not_before_ms - 10_999)
    status, _, err = rosters.plan("push", file)
    assert (status, code_of(err), _held(rosters)) == (3, "too_soon", dict.fromkeys(ALL, 1))
    assert rosters.plan("push", file, "--late")[0] == 0
    assert _held(rosters) == dict.fromkeys(ALL, 2)


def test_fewer_than_k_are_not_enough_and_who_lacks_it_is_named(rosters: RosterDesk) -> None:
    file = _signed(rosters)
    rosters.mesh.gossips = False
    rosters.losing(Offer, ("us-1", "ap-1"))
    status, shown, err = rosters.plan("push", file, "--watch", "--wait", "0.5")
    assert (status, code_of(err), shown["held"]) == (4, "not_acknowledged", 2)
    assert "us-1 (unreachable), ap-1 (unreachable)" in err


def test_nobody_took_it_is_no_success(rosters: RosterDesk) -> None:
    file = _signed(rosters)
    rosters.losing(Offer, ALL)
    assert code_of(rosters.plan("push", file)[2]) == "unreachable"


def test_who_waits_for_members_to_act_under_it_is_told_that_they_do_not(rosters: RosterDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _signed(rosters)
    monkeypatch.setattr(roster_push, "wall_ms", lambda: words.read(rosters.folder / file).claims.not_before_ms)
    status, shown, err = rosters.plan("push", file, "--follow", "--wait", "0.3")
    assert (status, code_of(err), shown["acting"]) == (4, "roster_pending", 0), "these governors are never restarted"


# ------------------------------------------------------------------------------------------------------------------------ peers


def test_peers_are_shown_by_their_signed_word(rosters: RosterDesk) -> None:
    rosters.plan("push", _signed(rosters))
    status, rows, err = _peers(rosters)
    assert status == 0, err
    assert list(rows) == [*ALL, "af-1"]
    assert [(row["operator"], row["state"], row["acts_under"], row["holds"]) for name, row in rows.items() if name in ALL] == [
        ("lab", "fresh", 1, 2)
    ] * 4
    assert (rows["af-1"]["reachable"], rows["af-1"]["in_force"], rows["af-1"]["state"]) == (False, False, "unreachable")
    assert "epoch 1 is in force: 4 of 4 fresh, 3 needed" in err
    assert "epoch 2 is held by 4" in err


def test_a_member_whose_word_is_not_its_own_is_not_counted_on(rosters: RosterDesk) -> None:
    rosters.lying("us-1", key=rosters.lab.revoker)
    rows = _peers(rosters)[1]
    assert (rows["us-1"]["reachable"], rows["us-1"]["state"]) == (False, "bad_signature")


def _lying(desk: RosterDesk, liars: tuple[str, ...], **claimed: object) -> None:
    """From now on the heartbeats of these say so, and are signed by them."""
    honest = desk.ask

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if member not in liars or not isinstance(message, Sync):
            return data
        beat = envelope.read(Heartbeat, bytes(unpack(SyncAnswer, data).heartbeat)).claims
        said = sign(msgspec.structs.replace(beat, **claimed), desk.lab.keys[member]["decision"])
        return pack(SyncAnswer(heartbeat=msgspec.Raw(said)))

    desk.ask = ask


@pytest.mark.parametrize(("liars", "in_force"), [(("us-1",), 1), (("us-1", "ap-1"), 2)], ids=["f", "f and one more"])
def test_as_many_as_may_lie_do_not_put_a_roster_into_force(rosters: RosterDesk, liars: tuple[str, ...], in_force: int) -> None:
    rosters.plan("push", _signed(rosters))
    _lying(rosters, liars, roster_epoch=2)
    assert f"epoch {in_force} is in force" in _peers(rosters)[2]


def test_one_that_claims_a_roster_and_shows_none_convinces_nobody(rosters: RosterDesk) -> None:
    ahead = StreamHead(stream=ROSTERS, sequence=9, head="ab" * 32, forked=False, held="")
    _lying(rosters, ("us-1",), frontier=[ahead], roster_epoch=9)
    status, rows, err = rosters.plan("ls")
    assert (status, [row["epoch"] for row in rows]) == (0, [1])
    assert "us-1 claims more of roster than it shows" in err
    assert rosters.made("add", "af-1", "--region", "af", "--keys", rosters.member("af-1")).claims.epoch == 2


def test_fewer_than_k_fresh_end_with_4(rosters: RosterDesk) -> None:
    rosters.losing(StatusAsked, ("us-1", "ap-1"))
    status, rows, err = _peers(rosters)
    assert (status, rows["us-1"]["state"], rows["us-1"]["reachable"]) == (4, "unreachable", True)
    assert "2 of 4 fresh, 3 needed" in err
    rosters.losing(Sync, ALL)
    assert code_of(rosters.run("-o", "json", "peer", "ls")[2]) == "unreachable"


def test_a_ping_is_an_answer_that_the_member_signs_now(rosters: RosterDesk) -> None:
    status, out, err = rosters.run("-o", "json", "peer", "ping", "us-1", "-c", "3")
    shown = json.loads(out)
    assert (status, shown["asked"], shown["answered"]) == (0, 3, 3), err
    assert 0 < shown["least_ms"] <= shown["median_ms"] <= shown["most_ms"]
    assert code_of(rosters.run("-o", "json", "peer", "ping", "xx-1")[2]) == "unknown_member"
    rosters.lying("us-1", key=rosters.lab.revoker)
    assert code_of(rosters.run("-o", "json", "peer", "ping", "us-1")[2]) == "bad_signature"
    rosters.losing(Sync, ("ap-1",))
    assert code_of(rosters.run("-o", "json", "peer", "ping", "ap-1")[2]) == "unreachable"
