"""An operator sees which enforcers have heard, by their own signed words, which are verified here; no member can add one."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.revocation import stream_of
from mesh.core.messages import HeardAsked, HeardGiven, HeardWord, pack, unpack
from mesh.core.run.heard import Heard
from mesh.core.run.identity import Identity
from mesh.limits import CLOCK_MS_MAX
from tests.cli.lawmesh import Desk, code_of
from tests.protocol.machines import altered
from tests.support.factory import secret, sign
from tests.support.heard import another_enforcer, request

ANNA, BERT = (f"spiffe://lab/agent/{name}" for name in ("anna", "bert"))
DOOR, GATE, TILL = (f"spiffe://lab/enforcer/{name}" for name in ("door", "gate", "till"))
ALL = ("eu-1", "us-1", "ap-1", "sa-1")


def says(desk: Desk, name: str, frontier: Sequence[StreamHead], *, to: str = "eu-1", expires_ms: int = CLOCK_MS_MAX) -> tuple[bytes, bytes]:
    """An enforcer says that, to one member."""
    desk.mesh.run(4)
    heard, document = another_enforcer(desk.lab, name, at_ms=desk.mesh.now_ms, frontier=frontier, expires_ms=expires_ms)
    desk.mesh.report(to, request(heard, document))
    desk.mesh.run(4)
    return heard, document


def held(desk: Desk) -> list[StreamHead]:
    """What all members hold."""
    return list(desk.mesh.nodes["eu-1"].state.governance.frontier)


def test_each_enforcer_is_shown_with_when_it_confirmed_and_who_has_not(desk: Desk) -> None:
    says(desk, "gate", held(desk))
    desk.revoke(ANNA)
    said, _ = says(desk, "door", held(desk), to="us-1")
    status, shown, err = desk.revoke(ANNA, "--watch")
    assert status == 0, err
    rows = {row["enforcer"]: row for row in shown["enforcers"]}
    assert {name: row["covers_ms"] is not None for name, row in rows.items()} == {DOOR: True, GATE: False, TILL: False}
    assert rows[DOOR]["covers_ms"] >= 0
    assert (rows[DOOR]["id"], rows[DOOR]["record"].partition("/")[0]) == (envelope.identify(said)[1], "us-1")
    assert (rows[DOOR]["key"], rows[TILL]["key"]) == (secret("door").public, ""), "a policy names one that has said nothing"
    assert (shown["enforcers_confirmed"], shown["enforcers_needed"]) == ([DOOR], 0)
    assert f"{DOOR} has heard it after" in err
    assert f"1 enforcers confirm it, not {GATE}, {TILL}" in err
    assert desk.run("revoke", ANNA, "--key", str(desk.key), "--watch")[1].splitlines()[5].split() == ["enforcer", "covers_ms", "record"]


def test_enforcers_change_the_exit_status_only_if_they_are_asked_for(desk: Desk) -> None:
    desk.revoke(ANNA)
    says(desk, "door", held(desk))
    assert desk.revoke(ANNA, "--watch", "--enforcers", "1")[0] == 0
    status, shown, err = desk.revoke(ANNA, "--watch", "--enforcers", "2", "--wait", "0.6")
    assert (status, code_of(err), shown["acknowledged"]) == (4, "not_acknowledged", True)
    assert "1 enforcers confirm it" in err
    assert TILL in err
    says(desk, "gate", held(desk), to="sa-1")
    assert desk.revoke(ANNA, "--watch", "--enforcers", "2")[0] == 0


def test_nothing_is_signed_when_enforcers_are_asked_for_and_nobody_watches(desk: Desk) -> None:
    status, _, err = desk.revoke(ANNA, "--enforcers", "1")
    assert (status, code_of(err), desk.signed.exists()) == (3, "usage", False)
    status, _, err = desk.halting("halt", "--enforcers", "1")
    assert (status, code_of(err), desk.halted()["eu-1"]) == (3, "usage", 0)


@pytest.mark.parametrize("command", ["halt", "resume"])
def test_halts_and_resumes_are_confirmed_too(desk: Desk, command: str) -> None:
    desk.halting("halt")
    if command == "resume":
        desk.halting("resume")
    says(desk, "door", held(desk))
    if command == "halt":
        status, shown, err = desk.halting("halt", "--watch", "--enforcers", "1")
        assert (status, shown["enforcers_confirmed"]) == (0, [DOOR]), err
    else:
        says(desk, "gate", [head for head in held(desk) if not head.stream.startswith("halt/")])
        rows = {row["enforcer"]: row["covers_ms"] for row in desk.halting("resume", "--watch")[1]["enforcers"]}
        assert rows[DOOR] is not None
        assert rows[GATE] is None


def test_an_enforcer_that_may_start_nothing_any_more_is_not_waited_for(desk: Desk) -> None:
    old = says(desk, "gate", held(desk), expires_ms=desk.mesh.now_ms + 3_600_000)  # of the lab's time, which is long over
    desk.revoke(ANNA)
    assert GATE not in {row["enforcer"] for row in desk.revoke(ANNA, "--watch")[1]["enforcers"]}
    says(desk, "gate", held(desk), expires_ms=envelope.read(Heard, old[0]).claims.at_ms + 3_600_000)
    assert GATE in desk.revoke(ANNA, "--watch")[1]["enforcers_confirmed"], "what it signed when it might is what it signed"


def test_revocations_are_listed_with_how_many_enforcers_confirm_them(desk: Desk) -> None:
    desk.revoke(ANNA)
    says(desk, "door", held(desk))
    says(desk, "gate", held(desk), to="ap-1")
    desk.revoke(BERT)
    says(desk, "gate", held(desk), to="ap-1")
    rows = desk.ls()
    assert [(row["target"], row["heard"], row["heard_by"]) for row in rows] == [
        (f"subject:{ANNA}", "2 of 3", [DOOR, GATE]),
        (f"subject:{BERT}", "1 of 3", [GATE]),
    ]


def _adding(desk: Desk, member: str, *words: tuple[bytes, bytes]) -> None:
    """From now on this member also answers these words."""
    honest = desk.ask

    async def ask(name: str, message: Payload) -> bytes:
        data = await honest(name, message)
        if name != member or not isinstance(message, HeardAsked):
            return data
        given = unpack(HeardGiven, data)
        more = [HeardWord(heard=msgspec.Raw(one), identity=msgspec.Raw(other), origin="lab/eu-1/e1", index=7) for one, other in words]
        return pack(HeardGiven(words=[*given.words, *more], after="f" * 64))

    desk.ask = ask


def test_no_member_can_say_what_an_enforcer_did_not(desk: Desk) -> None:
    desk.revoke(ANNA)
    true, document = another_enforcer(desk.lab, "door", at_ms=desk.mesh.now_ms, frontier=held(desk), expires_ms=CLOCK_MS_MAX)
    stranger, own = secret("stranger"), secret("eu-1 decision")
    forged = altered(true, Heard, stranger)
    wrong_mesh = altered(true, Heard, secret("door"), mesh="other")
    unsorted = altered(true, Heard, secret("door"), frontier=held(desk)[::-1] + held(desk))
    claims = envelope.read(Heard, true).claims
    unknown = sign(msgspec.structs.replace(claims, enforcer=own.public), own)
    _adding(
        desk,
        "eu-1",
        (forged, document),
        (wrong_mesh, document),
        (unsorted, document),
        (unknown, document),
        (true, desk.lab.place_envelope),
        (true, altered(document, Identity, stranger)),
        (b"{}", b"{}"),
    )
    shown = desk.revoke(ANNA, "--watch")[1]
    assert (shown["enforcers_confirmed"], {row["enforcer"] for row in shown["enforcers"]}) == ([], {TILL})
    _adding(desk, "us-1", (true, document))
    assert desk.revoke(ANNA, "--watch")[1]["enforcers_confirmed"] == [DOOR], "true words count, whoever shows them"


def test_a_member_that_hides_words_hides_none_that_others_show(desk: Desk) -> None:
    desk.revoke(ANNA)
    says(desk, "door", held(desk))
    desk.losing(HeardAsked, ["eu-1", "us-1", "ap-1"])
    assert desk.revoke(ANNA, "--watch")[1]["enforcers_confirmed"] == [DOOR]


def test_an_old_word_said_again_covers_nothing_new(desk: Desk) -> None:
    old, document = says(desk, "door", held(desk))
    desk.revoke(ANNA)
    desk.mesh.report("us-1", request(old, document))
    shown = desk.revoke(ANNA, "--watch", "--wait", "3")[1]
    assert shown["enforcers_confirmed"] == []
    stream = stream_of(desk.lab.revoker.public)
    claims = envelope.read(Heard, old).claims
    assert all(head.stream != stream for head in claims.frontier)


def test_what_an_enforcer_has_heard_is_proved_to_strangers(desk: Desk, tmp_path: Path) -> None:
    desk.revoke(ANNA)
    heard, _ = says(desk, "door", held(desk))
    record = {row["enforcer"]: row for row in desk.revoke(ANNA, "--watch")[1]["enforcers"]}[DOOR]
    out, roster = tmp_path / "proof.json", tmp_path / "roster.json"
    roster.write_bytes(desk.lab.roster_envelope)
    for name in (record["record"], envelope.identify(heard)[1][:16]):
        status, _, err = desk.run("prove", name, "--out", str(out))
        assert status == 0, err
        status, shown, err = desk.run("-o", "json", "verify", str(out), "--trust", str(roster))
        assert status == 0, err
        assert [item["verdict"] for item in json.loads(shown)] == ["VERIFIED"]
    status, _, err = desk.run("lineage", "ls")
    assert status == 0, err
