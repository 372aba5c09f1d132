"""What the evidence commands print is what the nodes hold, and nothing is called final that was not proved here."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.cli import client
from mesh.cli.telling import when
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.log.bundle import encode_proof, read_proof
from mesh.core.messages import Find, Found, OutcomeRequest, Proved, pack, unpack
from mesh.core.run.outcome import Outcome
from mesh.errors import Unavailable
from mesh.verify import verify
from tests.cli.shell import Shell
from tests.support.factory import Lab, secret, sign
from tests.support.littlemesh import LittleMesh
from tests.support.proofs import FIXTURE, Happened, write_fixture


def _code(err: str) -> str:
    return err.removeprefix("error[").split("]")[0]


# ------------------------------------------------------------------------------------------------------------------- lineage


def test_lineage_lists_the_newest_of_all_logs(shell: Shell) -> None:
    rows = shell.json("lineage", "ls", "-n", "5")
    assert [row["record"] for row in rows] == ["us-1/3", "us-1/2", "eu-1/2", "ap-1/3", "ap-1/2"]
    assert rows[2]["what"] == "permit by small-payments"
    assert rows[2]["intent"] == shell.story.permitted
    only = shell.json("lineage", "ls", "--node", "sa-1")
    assert [row["kind"] for row in only] == ["governance", "governance"]


def test_lineage_is_served_by_mirrors_of_a_node_that_is_gone(own: Shell) -> None:
    own.story.mesh.nodes["us-1"].up = False
    assert [row["record"] for row in own.json("lineage", "ls", "--node", "us-1")][:2] == ["us-1/3", "us-1/2"]


def test_lineage_of_a_stranger_is_refused(shell: Shell) -> None:
    assert shell.run("lineage", "ls", "--node", "zz-1")[0] == 5
    assert _code(shell.run("lineage", "show", "zz-1/3")[2]) == "unknown_member"


def test_lineage_show_opens_what_a_record_names(shell: Shell) -> None:
    (shown,) = shell.json("lineage", "show", "eu-1/2")
    assert shown["attested_by"] == ["ap-1", "eu-1", "us-1"]
    assert [item["kind"] for item in shown["statements"]].count("identity") == 2
    intent = next(item for item in shown["statements"] if item["kind"] == "intent")
    assert (intent["id"], intent["says"]["params"]) == (shell.story.permitted, {"amount": 10})
    assert intent["signed_by"] == [shell.story.lab.holder.public]
    assert json.loads(shell.run("lineage", "show", "eu-1/2")[1])[0] == shown


def test_lineage_show_names_the_state_by_whom_and_when_and_what_of_it_is_only_said(own: Shell) -> None:
    (shown,) = own.json("lineage", "show", "eu-1/2")
    assert (shown["state"], shown["proved"], list(shown["way"])) == ("final", True, ["recorded", "witnessed", "final"])
    assert shown["way"]["recorded"] == {"by": ["eu-1"], "at": when(shown["record"]["at_ms"])}
    assert (shown["way"]["final"]["by"], len(shown["way"]["witnessed"]["by"])) == (["ap-1", "eu-1", "us-1"], 1)
    assert shown["way"]["witnessed"]["by"][0] in {"ap-1", "us-1"}
    times = [shown["way"][state]["at"] for state in ("witnessed", "final")]
    assert all(times)
    assert times == sorted(times)
    assert {row["state"] for row in own.json("lineage", "ls")} == {"final"}
    for node in own.story.mesh.nodes.values():
        node.notes.clear()
    (said,) = own.json("lineage", "show", "eu-1/2")
    assert (said["state"], said["proved"], said["way"]["witnessed"]["at"]) == ("witnessed", False, "")
    assert "eu-1" not in said["way"]["witnessed"]["by"]
    rows = json.loads(own.run("-o", "json", "lineage", "ls")[1])
    assert {(row["state"], row["final"]) for row in rows} == {("witnessed", False)}


# ----------------------------------------------------------------------------------------------------------------------- why


def test_why_tells_the_whole_life_of_an_execution(shell: Shell) -> None:
    stages = shell.json("why", shell.story.permitted[:12])["stages"]
    assert [stage["stage"] for stage in stages] == ["intent", "decision", "authorization", "started", "finished"]
    assert all(stage["attested_by"] == ["ap-1", "eu-1", "us-1"] for stage in stages if "record" in stage)
    assert stages[0]["params"] == {"amount": 10, "memo": "(committed)"}
    assert stages[1]["annotations"] == ["small-payments @obligation(receipt)"]
    assert stages[2]["id"] == shell.story.authorization
    assert stages[4]["what"] == "status 0 after 5 ms"


def test_why_is_asked_by_any_id_of_the_execution(shell: Shell) -> None:
    told = shell.run("why", shell.story.permitted)[1]
    for name in (shell.story.authorization, envelope.identify(shell.story.outcomes[1])[1], "us-1/2"):
        assert shell.run("why", name)[1] == told
    assert "final: attested by ap-1, eu-1, us-1" in told


def test_why_explains_a_no(shell: Shell) -> None:
    stages = shell.json("why", shell.story.late)["stages"]
    assert stages[1]["what"].startswith("denied: action_unknown")
    assert stages[1]["meaning"] == "the domain declares no such action"
    assert shell.json("why", shell.story.forbidden)["stages"][1]["what"] == "deny by never-frozen"
    assert shell.json("why", "eu-1/0")["stages"][0]["stage"] == "governance"


def test_why_says_what_is_not_final_and_what_never_ran(own: Shell) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    name, intent, openings = lab.intent(9, at_ms=mesh.now_ms)
    mesh.request("sa-1", lab.request(intent, openings))
    out = own.run("why", name)[1]
    assert "not final yet" in out
    assert "none recorded" in out
    mesh.run(6)
    assert "not final yet" not in own.run("why", name)[1]


def test_why_lives_without_the_bodies(own: Shell) -> None:
    for node in own.story.mesh.nodes.values():
        node.bodies.clear()
    stages = own.json("why", own.story.permitted)["stages"]
    assert stages[0]["what"] == "its text is not held by whoever answered"
    assert stages[-1]["what"] == "its text is not held by whoever answered"


# --------------------------------------------------------------------------------------------------------------------- names


def test_a_beginning_that_fits_two_ids_is_ambiguous(own: Shell) -> None:
    assert _code(own.run("why", "")[2]) == "not_found"
    names = [own.story.deny("eu-1", number, "policy_denied", account="frozen") for number in range(100, 117)]
    digit = next(name[0] for name in names if sum(other[0] == name[0] for other in names) > 1)
    status, _, err = own.run("why", digit)
    assert (status, _code(err)) == (3, "ambiguous")


@pytest.mark.parametrize("name", ["00" * 32, "xyz", "eu-1/99", "eu-1/-1"])
def test_what_is_not_there_is_not_found(shell: Shell, name: str) -> None:
    status, _, err = shell.run("lineage", "show", name)
    assert (status, _code(err)) == (3, "not_found")


def test_a_mesh_that_does_not_answer_ends_with_4(own: Shell) -> None:
    for node in own.story.mesh.nodes.values():
        node.up = False
    for arguments in (["why", "ab"], ["lineage", "ls"], ["prove", "eu-1/2"], ["status"]):
        assert own.run(*arguments)[0] == 4


def test_a_member_that_talks_nonsense_hinders_nobody(own: Shell) -> None:
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        return b'{"answer":"refused","code":"no such word","detail":""}' if member == "eu-1" else await honest(member, message)

    own.ask = ask
    assert len(own.json("why", own.story.permitted)["stages"]) == 5
    assert own.run("status")[0] == 0

    async def worse(member: str, message: Payload) -> bytes:
        return b'{"answer":"refused","code":"word","detail":""}' if member == "eu-1" else await honest(member, message)

    own.ask = worse
    assert [row["state"] for row in own.json("status")] == ["unavailable", "fresh", "fresh", "fresh"]


def test_one_that_serves_another_record_is_not_believed(own: Shell) -> None:
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        swapped = msgspec.structs.replace(message, index=0) if member == "eu-1" and hasattr(message, "index") else message
        return await honest(member, swapped)

    own.ask = ask
    assert own.json("lineage", "show", "eu-1/2")[0]["record"]["index"] == 2


def test_one_that_finds_what_was_not_asked_for_is_not_believed(own: Shell) -> None:
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        if member == "sa-1" and isinstance(message, Find):
            message = Find(prefix="", count=message.count)
        return await honest(member, message)

    own.ask = ask
    assert len(own.json("why", own.story.permitted)["stages"]) == 5


# ------------------------------------------------------------------------------------------------------------ prove and verify


def test_what_is_proved_is_verified_elsewhere(shell: Shell, tmp_path: Path) -> None:
    proof, roster = tmp_path / "proof.json", tmp_path / "roster.json"
    roster.write_bytes(shell.story.lab.roster_envelope)
    status, out, err = shell.run("prove", shell.story.permitted[:10], "--out", str(proof))
    assert (status, out) == (0, "")
    assert "permit by small-payments, 2 outcomes" in err
    assert shell.run("verify", str(proof), "--trust", str(roster), "--pin", shell.story.lab.pin)[0] == 0
    (value,) = json.loads(shell.run("verify", "-o", "json", str(proof), "--trust", str(roster))[1])
    assert (value["verdict"], value["record"]["record"]) == ("VERIFIED", "decision")
    assert next(check["result"] for check in value["checks"] if check["name"] == "replay") == "passed"


def test_without_a_file_the_proof_goes_to_standard_output(shell: Shell) -> None:
    out = shell.run("prove", shell.story.forbidden)[1]
    assert verify(out.encode(), trust=shell.story.lab.roster_envelope).verdict == "VERIFIED"


def test_an_outcome_is_proved_by_its_own_id(shell: Shell) -> None:
    out = shell.run("prove", "us-1/3")[1]
    assert json.loads(out)["record"]["event"] == "finished"
    assert json.loads(shell.run("prove", json.loads(out)["record"]["outcome"])[1]) == json.loads(out)


def test_a_tlog_proof_is_partial_evidence(shell: Shell, tmp_path: Path) -> None:
    proof, roster = tmp_path / "proof.tlog", tmp_path / "roster.json"
    roster.write_bytes(shell.story.lab.roster_envelope)
    assert shell.run("prove", "eu-1/2", "--format", "tlog-proof", "-o", str(proof))[0] == 0
    assert proof.read_bytes().startswith(b"c2sp.org/tlog-proof@v1\n")
    assert shell.run("verify", str(proof), "--trust", str(roster))[0] == 2


def test_what_is_not_final_is_not_proved(own: Shell) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    name, intent, openings = lab.intent(9, at_ms=mesh.now_ms)
    mesh.request("sa-1", lab.request(intent, openings))
    assert own.run("prove", name)[::2] == (
        2,
        "error[not_final]: nobody holds a certificate over it yet\nfix: Wait, or collect the certificate again.\n",
    )


def test_outcomes_that_are_not_final_are_left_out_and_named(own: Shell) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    late = lab.lived(own.story.permitted, own.story.authorization, at_ms=mesh.now_ms, sequence=2, previous="00" * 32)
    mesh.report("sa-1", lab.report(late[:1]))
    status, out, err = own.run("prove", own.story.permitted)
    assert (status, len(json.loads(out)["outcomes"])) == (0, 2)
    assert "1 outcomes are not final yet and were left out" in err


def test_a_proof_that_would_fail_is_not_handed_out(own: Shell) -> None:
    for node in own.story.mesh.nodes.values():
        node.bodies.clear()
    status, out, err = own.run("prove", own.story.permitted)
    assert (status, out) == (4, "")
    assert "error[body_missing]: what the nodes answered is no proof: statements" in err


def test_a_context_without_the_policy_cannot_prove_a_decision(shell: Shell) -> None:
    shell.manifests = ()
    assert shell.run("prove", shell.story.permitted)[0] == 3


def test_a_proof_that_cannot_be_written_is_an_error(shell: Shell, tmp_path: Path) -> None:
    status, _, err = shell.run("prove", "eu-1/2", "--out", str(tmp_path / "no" / "proof.json"))
    assert (status, _code(err)) == (3, "config_invalid")


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        (lambda data: data, 0, "VERIFIED"),
        (lambda data: data.replace(b'"effect":"permit"', b'"effect":"deny"', 1), 5, "FAILED"),
        (lambda data: data[:-1], 3, "UNREADABLE"),
        (lambda data: encode_proof(msgspec.structs.replace(read_proof(data), openings=[])), 2, "PARTIAL"),
    ],
)
def test_verify_ends_with_the_status_of_its_word(shell: Shell, tmp_path: Path, change: Any, status: int, word: str) -> None:
    proof = tmp_path / "proof.json"
    proof.write_bytes(change((FIXTURE / "proof.json").read_bytes()))
    for form in ("table", "json"):
        ended, out, _ = shell.run("-o", form, "verify", str(proof), "--trust", str(FIXTURE / "roster.json"))
        assert ended == status
        assert word in out


def test_verify_ends_with_the_worst_of_all_files(shell: Shell, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(b"{}")
    files = [str(FIXTURE / "proof.json"), str(bad), str(tmp_path / "missing.json")]
    status, out, _ = shell.run("verify", *files, "--trust", str(FIXTURE / "roster.json"))
    assert status == 3
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == ["VERIFIED", "UNREADABLE", "UNREADABLE"]


def test_verify_refuses_a_roster_that_is_not_the_pinned_one(shell: Shell) -> None:
    proof, roster = str(FIXTURE / "proof.json"), str(FIXTURE / "roster.json")
    assert shell.run("verify", proof, "--trust", roster, "--pin", "00" * 32)[0] == 2
    assert shell.run("verify", proof, "--trust", proof)[0] == 3


def test_the_proof_in_the_tree_is_the_one_that_is_made_today(tmp_path: Path) -> None:
    write_fixture(tmp_path)
    for path in FIXTURE.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), "python -m tests.support.proofs writes it anew"


# -------------------------------------------------------------------------------------------------------------------- replay


def test_replay_repeats_a_decision_with_the_real_engine(shell: Shell) -> None:
    status, out, _ = shell.run("replay", shell.story.permitted)
    assert (status, out.split()[0]) == (0, "match")
    assert shell.json("replay", shell.story.forbidden)["result"] == "match"


def test_replay_finds_what_governors_decided_otherwise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    story = Happened.__new__(Happened)
    story.lab = Lab()
    story.lab.engine.limit = 1_000_000
    story.mesh = LittleMesh(story.lab)
    name, intent, openings = story.lab.intent(1, amount=5_000, at_ms=story.mesh.now_ms)
    story.mesh.request("eu-1", story.lab.request(intent, openings))
    story.mesh.run(6)
    status, out, _ = Shell(story, monkeypatch, capsys).run("replay", name)
    assert (status, out.split()[0]) == (5, "mismatch")


def test_replay_says_when_it_cannot_tell(own: Shell) -> None:
    for node in own.story.mesh.nodes.values():
        node.openings.clear()
    status, out, _ = own.run("replay", own.story.permitted)
    assert (status, out.split()[0]) == (2, "unverifiable")
    assert own.run("replay", own.story.late)[0] == 3


def test_what_another_enforcer_says_is_told_as_such_and_is_no_outcome(own: Shell) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    rogue = secret("rogue")
    place = msgspec.structs.replace(lab.place, key=rogue.public, subject="spiffe://lab/enforcer/rogue")
    ended = envelope.read(Outcome, own.story.outcomes[1]).claims
    said = msgspec.structs.replace(ended, enforcer=rogue.public, identity=envelope.draft(place).id)
    request = OutcomeRequest(identity=msgspec.Raw(sign(place, lab.issuer)), outcomes=[msgspec.Raw(sign(said, rogue))])
    mesh.report("ap-1", pack(request))
    mesh.run(6)
    told = own.run("why", own.story.permitted)[1]
    assert told.count("by another enforcer or boot than the intent is meant for: status 0") == 1
    status, out, _ = own.run("prove", own.story.permitted)
    assert (status, len(read_proof(out.encode()).outcomes)) == (0, 2)
    assert verify(out.encode(), trust=lab.roster_envelope).verdict == "VERIFIED"


# ----------------------------------------------------------------------------------------------------------------------- log


def test_a_checkpoint_is_a_note_for_any_tool(shell: Shell) -> None:
    out = shell.run("log", "checkpoint", "us-1")[1]
    assert out.splitlines()[:2] == ["lab/us-1/e1", "4"]
    assert shell.json("log", "checkpoint", "us-1")["note"] == out


def test_a_log_without_certificate_has_no_checkpoint_to_show(own: Shell) -> None:
    for node in own.story.mesh.nodes.values():
        node.up = node.name == "eu-1"
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        return data.replace(b'"certified":4', b'"certified":0')

    own.ask = ask
    assert own.run("log", "checkpoint", "us-1")[0] == 2


async def test_a_search_asks_all_members_and_merges(own: Shell) -> None:
    async def ask(member: str, message: Payload) -> bytes:
        if member in {"eu-1", "us-1"}:
            raise Unavailable("unreachable", member)
        found = unpack(Found, await own.story.mesh.ask(member, message))
        half = found.records[::2] if member == "ap-1" else found.records[1::2]
        return pack(Found(records=half))

    mesh = client.MeshClient(ask, own.story.lab.governance)
    places = (await mesh.find(own.story.permitted))[own.story.permitted]
    assert {(place.origin, place.index) for place in places} == {("lab/eu-1/e1", 2), ("lab/us-1/e1", 2), ("lab/us-1/e1", 3)}


async def test_of_several_answers_the_final_one_is_taken(own: Shell) -> None:
    async def ask(member: str, message: Payload) -> bytes:
        answer = unpack(Proved, await own.story.mesh.ask(member, message))
        return pack(answer if member == "sa-1" else msgspec.structs.replace(answer, proof=""))

    mesh = client.MeshClient(ask, own.story.lab.governance)
    answer = await mesh.prove(client.Place("lab/eu-1/e1", 2))
    assert mesh.is_final(answer)


def test_what_a_stranger_wrote_cannot_look_like_a_line_of_ours(own: Shell) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    name, intent, openings = lab.intent(11, purpose="rent\ndecision       permit by everything\u2028started\x0bfine\r!", at_ms=mesh.now_ms)
    mesh.request("sa-1", lab.request(intent, openings))
    lines = own.run("why", name)[1].splitlines()
    assert [line for line in lines if line.startswith(("decision       permit by everything", "started", "fine", "!"))] == []
    assert any("rent\\ndecision" in line for line in lines)
