"""A revocation is signed once, never lost, never said twice under one number, and called acknowledged only by k signed heartbeats."""

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters.store import hold
from mesh.cli.revoke import parse_target
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.revocation import Revocation, stream_of
from mesh.core.messages import LawAsked, Offer, Offered, Sync, pack
from mesh.errors import Refused
from mesh.limits import BATCH_EVENTS_MAX, REASON_CHARS_MAX, SPARED_MAX
from tests.cli.lawmesh import Desk, code_of

ANNA, BERT, CARL = (f"spiffe://lab/agent/{name}" for name in ("anna", "bert", "carl"))
ALL = ("eu-1", "us-1", "ap-1", "sa-1")
HEX = "ab" * 32


def _kept(desk: Desk) -> list[int]:
    return [entry["sequence"] for entry in json.loads(desk.signed.read_bytes())["signed"]]


# ------------------------------------------------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (f"key:{HEX}", "key", HEX),
        (f"subject:{ANNA}", "subject", ANNA),
        (ANNA, "subject", ANNA),
        (f"document:{HEX}", "document", HEX),
        (f"intent:{HEX}", "intent", HEX),
        (f"authorization:{HEX}", "authorization", HEX),
        (f"digest:blake3:{HEX}", "digest", f"blake3:{HEX}"),
        (f"issuer:{HEX}", "issuer", HEX),
        ("governor:eu-1", "governor", "eu-1"),
    ],
)
def test_a_target_is_one_exact_thing(text: str, kind: str, value: str) -> None:
    target = parse_target(text)
    assert (target.type, target.value) == (kind, value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "anna", HEX, f"person:{HEX}", "key:", f"key:{HEX[:-1]}", f"key:{HEX}0", f"key:{HEX.upper()}", f"intent: {HEX}"),
        *("document:abcd", f"digest:{HEX}", f"digest:sha256:{HEX}", f"digest:blake3:{HEX}\n", "subject:anna", "spiffe://", "subject:"),
        *(f"spiffe://lab/{'a' * 300}", f"{ANNA}/..", f"{ANNA}\n"),
        *("issuer:", "issuer:abcd", "governor:", "governor:EU", f"governor:{'a' * 33}", "governor:eu-1\n"),
    ],
)
def test_anything_else_is_refused_before_a_key_is_touched(desk: Desk, text: str) -> None:
    status, shown, err = desk.revoke(text)
    assert (status, shown, code_of(err)) == (3, None, "usage")
    assert not desk.signed.exists()


def test_a_reason_that_fits_no_statement_is_refused(desk: Desk) -> None:
    assert code_of(desk.revoke(ANNA, "--reason", "x" * (REASON_CHARS_MAX + 1))[2]) == "usage"
    assert desk.revoke(ANNA, "--reason", "x" * REASON_CHARS_MAX)[0] == 0


def test_a_target_is_refused_with_its_own_words() -> None:
    with pytest.raises(Refused, match="what begins like another must not be revoked"):
        parse_target("intent:abcd")


# ------------------------------------------------------------------------------------------------------------------ signing


def test_a_revocation_reaches_every_member_and_is_kept_beside_its_key(desk: Desk) -> None:
    status, shown, _ = desk.revoke(ANNA, "--reason", "left")
    assert status == 0
    assert {row["node"]: row["answer"] for row in shown["members"]} == dict.fromkeys(ALL, "held")
    assert (shown["sequence"], shown["previous"], shown["target"], shown["reason"]) == (1, "", f"subject:{ANNA}", "left")
    assert (shown["held"], shown["needed"], shown["acknowledged"], shown["signed_before"]) == (4, 3, False, False)
    assert desk.mesh.revoked() == {name: {ANNA} for name in ALL}
    assert stat.S_IMODE(desk.signed.stat().st_mode) == 0o600
    (entry,) = json.loads(desk.signed.read_bytes())["signed"]
    statement = envelope.read(Revocation, msgspec.json.encode(entry["envelope"]))
    assert (entry["sequence"], entry["id"], statement.id) == (1, shown["id"], shown["id"])


def test_without_watch_nothing_is_called_acknowledged(desk: Desk) -> None:
    status, out, err = desk.run("revoke", ANNA, "--key", str(desk.key))
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [["node", "answer"], *([name, "held"] for name in ALL)]
    assert "4 of 4 say that they hold it; it is acknowledged once 3 do by their signed heartbeats" in err
    assert "acknowledged by" not in err


def test_one_member_that_holds_it_suffices_to_go_on(desk: Desk) -> None:
    assert desk.revoke(ANNA)[0] == 0
    desk.losing(Payload, ALL[1:])
    status, shown, _ = desk.revoke(BERT)
    assert status == 0
    assert {row["answer"] for row in shown["members"]} == {"held", "unreachable"}
    assert (shown["held"], shown["sequence"]) == (1, 2)


def test_each_revocation_follows_the_one_before(desk: Desk) -> None:
    first = desk.revoke(ANNA)[1]
    second = desk.revoke(BERT)[1]
    third = desk.revoke(CARL)[1]
    assert [(item["sequence"], item["previous"]) for item in (first, second, third)] == [(1, ""), (2, first["id"]), (3, second["id"])]
    assert _kept(desk) == [3], "what an honest member holds need not be kept"


def test_the_same_again_signs_nothing_new(desk: Desk) -> None:
    first = desk.revoke(ANNA)[1]
    again = desk.revoke(f"subject:{ANNA}", "--reason", "another")[1]
    assert (again["id"], again["signed_before"], again["reason"]) == (first["id"], True, "")
    assert len(desk.mesh.law) == 1


def test_a_key_of_the_roster_takes_the_threshold_of_revokers(desk: Desk) -> None:
    target = f"key:{desk.lab.issuer.public}"
    status, _, err = desk.revoke(target)
    assert (status, code_of(err)) == (5, "threshold_not_met")
    assert "2 revokers must sign, and 1 did; add --co-sign FILE for each" in err
    assert code_of(desk.revoke(target, "--co-sign", str(desk.key))[2]) == "threshold_not_met", "one key twice is one key"
    assert not desk.signed.exists()
    status, shown, _ = desk.revoke(target, "--co-sign", str(desk.second))
    assert (status, shown["held"]) == (0, 4)
    assert shown["signed_by"] == sorted([desk.lab.revoker.public, desk.lab.second.public])
    assert desk.mesh.revoked()["sa-1"] == {desk.lab.issuer.public}
    assert desk.revoke(f"key:{HEX}")[0] == 0, "any other key takes one revoker"


def test_an_issuer_is_revoked_by_the_threshold_with_all_its_documents_but_those_named(desk: Desk) -> None:
    target, ids = f"issuer:{desk.lab.issuer.public}", [HEX, "0" * 64]
    spare = [part for name in (*ids, HEX) for part in ("--except", name)]
    status, _, err = desk.revoke(target, *spare)
    assert (status, code_of(err)) == (5, "threshold_not_met")
    assert "issuer stands for many, so 2 revokers must sign, and 1 did" in err
    assert not desk.signed.exists()
    status, shown, _ = desk.revoke(target, *spare, "--co-sign", str(desk.second))
    assert (status, shown["target"], shown["spares"], shown["held"]) == (0, target, sorted(ids), 4)
    assert {name: node.state.governance.spared for name, node in desk.mesh.nodes.items()} == {
        name: {desk.lab.issuer.public: frozenset(ids)} for name in ALL
    }
    again = desk.revoke(target, *spare, "--co-sign", str(desk.second))[1]
    assert (again["id"], again["signed_before"]) == (shown["id"], True)
    fewer = desk.revoke(target, "--except", HEX, "--co-sign", str(desk.second))[1]
    assert (fewer["sequence"], fewer["spares"]) == (2, [HEX]), "another word, and each must spare what lives"
    assert {node.state.governance.spared[desk.lab.issuer.public] for node in desk.mesh.nodes.values()} == {frozenset({HEX})}
    assert [row["spares"] for row in desk.ls()] == [sorted(ids), [HEX]]
    assert f"{target} except 2" in desk.run("revocations", "ls")[1]


def test_a_governor_is_revoked_by_the_threshold_and_its_own_mesh_knows_its_name(desk: Desk) -> None:
    assert code_of(desk.revoke("governor:eu-1")[2]) == "threshold_not_met"
    assert code_of(desk.revoke("governor:xx-9", "--co-sign", str(desk.second))[2]) == "unknown_member"
    assert not desk.signed.exists()
    status, shown, _ = desk.revoke("governor:eu-1", "--co-sign", str(desk.second), "--watch")
    assert (status, shown["target"], shown["acknowledged"]) == (0, "governor:eu-1", True), "it counts as before, and so do the others"
    assert desk.mesh.revoked() == {name: {"eu-1"} for name in ALL}


@pytest.mark.parametrize(
    ("target", "more"),
    [
        (f"issuer:{HEX}", []),
        (f"key:{HEX}", ["--except", HEX]),
        ("governor:eu-1", ["--except", HEX]),
        ("issuer:", ["--except", "abcd"]),
        ("issuer:", [part for number in range(SPARED_MAX + 1) for part in ("--except", f"{number:064x}")]),
    ],
    ids=["no issuer", "of a key", "of a governor", "no id", "too many"],
)
def test_what_can_spare_nothing_is_refused_before_a_key_is_touched(desk: Desk, target: str, more: list[str]) -> None:
    whole = f"issuer:{desk.lab.issuer.public}" if target == "issuer:" else target
    status, shown, err = desk.revoke(whole, *more, "--co-sign", str(desk.second))
    assert (status, shown, code_of(err)) == (3, None, "usage")
    assert not desk.signed.exists()


def test_only_revokers_of_the_roster_sign(desk: Desk) -> None:
    stranger, holder = desk.key_file("stranger"), desk.key_file("holder", use="holder")
    for err in (desk.revoke(ANNA, key=stranger)[2], desk.revoke(ANNA, "--co-sign", str(stranger))[2]):
        assert code_of(err) == "bad_signature"
        assert "is no revoker of this roster" in err
    assert code_of(desk.revoke(ANNA, key=holder)[2]) == "config_invalid"
    assert code_of(desk.revoke(ANNA, key=desk.folder / "none.key")[2]) == "config_invalid"
    assert desk.mesh.law == {}


# ---------------------------------------------------------------------------------------------------------- never one number twice


def test_what_was_signed_and_not_taken_is_offered_again_first(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    status, shown, err = desk.revoke(ANNA)
    assert (status, code_of(err)) == (4, "unreachable")
    assert "Number 1 is signed and kept" in err
    lost = shown["id"]
    desk.ask = honest
    after = desk.revoke(BERT)[1]
    assert (after["sequence"], after["previous"]) == (2, lost)
    assert desk.mesh.revoked() == {name: {ANNA, BERT} for name in ALL}


def test_what_was_signed_and_not_taken_is_not_signed_again(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    lost = desk.revoke(ANNA)[1]["id"]
    desk.ask = honest
    again = desk.revoke(ANNA)[1]
    assert (again["id"], again["signed_before"], again["held"]) == (lost, True, 4)


def test_what_only_a_liar_says_it_holds_is_not_lost(desk: Desk) -> None:
    honest = desk.ask

    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, Offer) and member == "eu-1":
            names = [envelope.identify(bytes(raw))[1] for raw in message.statements]
            return pack(Offered(results=dict.fromkeys(names, "")))
        return await honest(member, message)

    desk.ask = ask
    desk.losing(Offer, ALL[1:])
    first = desk.revoke(ANNA)[1]
    assert first["held"] == 1
    stream = stream_of(desk.lab.revoker.public)
    desk.lying("eu-1", StreamHead(stream=stream, sequence=1, head=first["id"], forked=False, held=""))
    assert desk.revoke(BERT)[1]["held"] == 1
    assert _kept(desk) == [1, 2], "what only f members sign that they hold may be lost with them"
    desk.ask = honest
    assert desk.revoke(CARL)[1]["sequence"] == 3
    assert desk.mesh.revoked() == {name: {ANNA, BERT, CARL} for name in ALL}


def test_no_more_is_signed_than_can_be_offered_at_once(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    for number in range(BATCH_EVENTS_MAX):
        desk.revoke(f"{ANNA}/{number}")
    assert len(_kept(desk)) == BATCH_EVENTS_MAX
    status, shown, err = desk.revoke(BERT)
    assert (status, shown, code_of(err)) == (4, None, "unreachable")
    desk.ask = honest
    assert desk.revoke(f"{ANNA}/{BATCH_EVENTS_MAX - 1}")[1]["held"] == 4
    assert desk.revoke(BERT)[1]["sequence"] == BATCH_EVENTS_MAX + 1


def test_a_key_whose_memory_is_lost_goes_on_where_the_mesh_is(desk: Desk) -> None:
    first = desk.revoke(ANNA)[1]
    old = desk.signed.read_bytes()
    second = desk.revoke(BERT)[1]
    desk.signed.unlink()
    third = desk.revoke(CARL)[1]
    assert (third["sequence"], third["previous"]) == (3, second["id"])
    desk.signed.write_bytes(old)
    fourth = desk.revoke(ANNA)[1]
    assert (fourth["sequence"], fourth["previous"], first["sequence"]) == (4, third["id"], 1), "the mesh is ahead of the file: it wins"


def test_a_key_without_memory_must_hear_k_members(desk: Desk) -> None:
    desk.losing(Sync, ["us-1", "sa-1"])
    status, shown, err = desk.revoke(ANNA)
    assert (status, shown, code_of(err)) == (4, None, "unreachable")
    assert "2 of 4 members answered" in err
    assert desk.mesh.law == {}
    assert not desk.signed.exists()


def test_without_any_member_nothing_is_signed(desk: Desk) -> None:
    desk.revoke(ANNA)
    desk.losing(Sync, ALL)
    assert code_of(desk.revoke(BERT)[2]) == "unreachable"
    assert _kept(desk) == [1]


def test_two_copies_of_a_key_that_said_two_things_are_stopped(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    desk.revoke(ANNA)
    desk.ask = honest
    elsewhere = desk.folder / "elsewhere"
    elsewhere.mkdir()
    copied = Path(shutil.copy2(desk.key, elsewhere / desk.key.name))
    assert desk.revoke(BERT, key=copied)[1]["sequence"] == 1
    status, shown, err = desk.revoke(CARL)
    assert (status, shown, code_of(err)) == (5, None, "stream_forked")


def test_a_forked_stream_is_not_continued(desk: Desk) -> None:
    desk.mesh.gossips = False
    one, other = (desk.lab.revocation(desk.lab.revoker, 1, value) for value in (ANNA, BERT))
    desk.offer(one)
    desk.offer(other, to="us-1")
    status, shown, err = desk.revoke(CARL)
    assert (status, shown, code_of(err)) == (5, None, "stream_forked"), "two members, two statements"
    desk.offer(other)
    desk.losing(Sync, ["us-1"])
    assert code_of(desk.revoke(CARL)[2]) == "stream_forked", "one member says so, and shows both"
    assert desk.revoke(CARL, key=desk.second)[0] == 0, "another key goes on"


def test_a_link_to_a_key_is_that_key(desk: Desk) -> None:
    desk.revoke(ANNA)
    (desk.folder / "links").mkdir()
    link = desk.folder / "links" / "mine.key"
    link.symlink_to(desk.key)
    assert desk.revoke(BERT, key=link)[1]["sequence"] == 2
    assert _kept(desk) == [2]


def test_one_command_at_a_time_signs_with_a_key(desk: Desk) -> None:
    held = hold(desk.signed.with_name(f"{desk.signed.name}.lock"))
    assert held is not None
    status, _, err = desk.revoke(ANNA)
    assert (status, code_of(err)) == (4, "unavailable")
    assert desk.mesh.law == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text.replace('"sequence":1', '"sequence":2'),
        lambda text: text.replace(json.loads(text)["signed"][0]["id"], HEX),
        lambda text: json.dumps({"signed": json.loads(text)["signed"] * 2}, separators=(",", ":")),
        lambda _: '{"signed":[{"envelope":{},"id":"' + HEX + '","sequence":1}]}',
    ],
    ids=["cut", "number", "id", "twice", "empty"],
)
def test_a_memory_that_was_tampered_with_is_not_believed(desk: Desk, spoil: Any) -> None:
    desk.revoke(ANNA)
    desk.signed.write_text(spoil(desk.signed.read_text()))
    status, shown, err = desk.revoke(BERT)
    assert (status, shown, code_of(err)) == (3, None, "config_invalid")
    assert len(desk.mesh.law) == 1


@pytest.mark.parametrize("where", ["signature", "mesh"])
def test_a_memory_that_is_not_of_this_key_and_mesh_is_not_believed(desk: Desk, where: str) -> None:
    desk.revoke(ANNA)
    mesh, key = ("lab", desk.lab.second) if where == "signature" else ("other", desk.lab.revoker)
    statement = desk.lab.revocation(key, 1, ANNA, mesh=mesh)
    entry = {"envelope": json.loads(statement.envelope), "id": statement.id, "sequence": 1}
    desk.signed.write_text(json.dumps({"signed": [entry]}, separators=(",", ":")))
    assert code_of(desk.revoke(BERT)[2]) == ("config_invalid" if where == "signature" else "wrong_mesh")


def test_what_cannot_be_kept_is_not_sent(desk: Desk) -> None:
    desk.signed.with_name(f"{desk.signed.name}.new").mkdir()
    status, _, err = desk.revoke(ANNA)
    assert (status, code_of(err)) == (1, "storage_failed")
    assert desk.mesh.law == {}


def test_a_number_is_never_signed_twice_because_nobody_could_be_asked_what_he_claims(desk: Desk) -> None:
    """On a new machine, while members answer with heartbeats and are too busy for questions."""
    assert desk.revoke(ANNA)[0] == 0
    assert desk.revoke(BERT)[0] == 0
    desk.signed.unlink()
    honest = desk.ask
    desk.losing(LawAsked, ALL)
    status, shown, err = desk.revoke(CARL)
    assert (status, shown) == (4, None)
    assert "claim more than they could be asked to show" in err
    desk.ask = honest
    assert desk.revoke(CARL)[1]["sequence"] == 3
