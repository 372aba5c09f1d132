"""`mesh why` answers the seven questions, each by something that was recorded, and says what it cannot answer and what is not final."""

import json
from typing import Any

import msgspec
import pytest

from mesh.cli.answering import QUESTIONS
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.messages import LineageBatch, NodeStatus, Prove, Proved, StatusAsked, pack, unpack
from tests.cli.shell import Shell

STAGES = "accepted > recorded > witnessed by 3, and as they say by 1 more > final"


def test_the_seven_questions_have_keys_that_stay() -> None:
    assert list(QUESTIONS) == ["origin", "authorized_by", "policy", "runtime", "dependencies", "inherited", "controls"]


def test_every_question_is_answered_by_something_final(shell: Shell) -> None:
    story = shell.story
    asked = shell.json("why", story.permitted)["questions"]
    assert list(asked) == list(QUESTIONS)
    assert all(answer["final"] and not answer["unanswered"] and answer["rests_on"] for answer in asked.values())
    says = {key: answer["says"] for key, answer in asked.items()}
    assert (says["origin"]["subject"], says["origin"]["person"]) == ("spiffe://lab/agent/anna", "Anna Muster")
    assert says["origin"]["asked"] == 'payments/send on Account::"acme"'
    assert (says["authorized_by"]["governor"], says["authorized_by"]["authorization"]) == ("eu-1", story.authorization)
    assert says["authorized_by"]["attested_by"] == ["ap-1", "eu-1", "us-1"]
    assert (says["policy"]["epoch"], says["policy"]["determining"]) == (1, ["small-payments"])
    assert (says["runtime"]["enforcer"], says["runtime"]["class"]) == ("spiffe://lab/enforcer/till", "sidecar")
    assert says["dependencies"]["after"] == ["nothing: it names no execution whose result it uses"]
    assert (says["inherited"]["within"], says["inherited"]["roster_epoch"]) == ("nothing: it stands alone", 1)
    assert (set(says["controls"]["checks"].values()), says["controls"]["obligations"]) == ({"passed"}, ["receipt"])
    rests = asked["origin"]["rests_on"]
    assert {"record": "eu-1/2", "reached": "final", "statement": story.permitted, "kind": "intent"} in rests
    assert asked["policy"]["rests_on"][1]["statement"] == envelope.identify(story.lab.manifest_envelope)[1]


def test_a_person_reads_the_same_under_seven_headings(shell: Shell) -> None:
    lines = shell.run("why", shell.story.permitted)[1].splitlines()
    headings = [line[:18].strip() for line in lines[: lines.index("")] if line[:1] != " "]
    assert headings == list(QUESTIONS.values())
    assert sum("rests on eu-1/2, final" in line for line in lines) == 7


def test_how_far_each_record_has_come_is_shown(own: Shell) -> None:
    told = own.json("why", own.story.permitted)["stages"]
    assert {stage["stages"] for stage in told if "record" in stage} == {STAGES}
    lab, mesh = own.story.lab, own.story.mesh
    for node in mesh.nodes.values():
        node.up = node.name == "sa-1"
    name, intent, openings = lab.intent(9, at_ms=mesh.now_ms)
    mesh.request("sa-1", lab.request(intent, openings))
    for node in mesh.nodes.values():
        node.up = True
    (decided,) = [stage for stage in own.json("why", name)["stages"] if stage["stage"] == "decision"]
    assert (decided["reached"], decided["stages"]) == ("recorded", "accepted > recorded > not final yet")
    asked = own.json("why", name)["questions"]
    assert not any(answer["final"] for answer in asked.values())


def test_who_has_witnessed_what_is_not_final_is_told_as_their_word(own: Shell) -> None:
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if isinstance(message, Prove):
            return pack(msgspec.structs.replace(unpack(Proved, data), proof=""))
        if isinstance(message, StatusAsked) and member == "sa-1":
            said = unpack(NodeStatus, data)
            return pack(msgspec.structs.replace(said, mirrors=[msgspec.structs.replace(one, witnessed=0) for one in said.mirrors]))
        return data

    own.ask = ask
    (decided,) = [stage for stage in own.json("why", own.story.permitted)["stages"] if stage["stage"] == "decision"]
    assert (decided["attested_by"], decided["witnessed_by"]) == ([], ["us-1", "ap-1"])
    assert decided["stages"] == "accepted > recorded > witnessed by 2, as they say > not final yet"


def test_a_no_is_answered_too(shell: Shell) -> None:
    denied = shell.json("why", shell.story.forbidden)["questions"]
    assert denied["authorized_by"]["says"] == {"denied": "policy_denied", "by": "ap-1"}
    assert denied["authorized_by"]["unanswered"] == "nobody did"
    assert denied["policy"]["says"]["determining"] == ["never-frozen"]
    assert denied["runtime"]["unanswered"] == "none: nothing was authorized"
    before = shell.json("why", shell.story.late)["questions"]
    assert before["policy"]["unanswered"] == "none was asked: it was denied before, with action_unknown"
    assert before["dependencies"]["says"] == {"asked": ["nothing"]}
    assert all(answer["final"] for answer in before.values())


def test_what_did_not_run_has_no_runtime_that_could_be_shown(own: Shell) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    name, intent, openings = lab.intent(9, at_ms=mesh.now_ms)
    mesh.request("sa-1", lab.request(intent, openings))
    mesh.run(6)
    asked = own.json("why", name)["questions"]
    assert asked["runtime"]["unanswered"].startswith("that it ran: no start")
    assert asked["controls"]["unanswered"] == "what was checked at the start: none is recorded"


def test_without_the_statements_it_says_so_and_answers_what_the_records_say(own: Shell) -> None:
    for node in own.story.mesh.nodes.values():
        node.bodies.clear()
    asked = own.json("why", own.story.permitted)["questions"]
    assert asked["origin"]["unanswered"] == "the text of the intent is not held by whoever answered"
    assert "subject" not in asked["origin"]["says"]
    assert asked["policy"]["says"]["determining"] == ["small-payments"]
    assert asked["authorized_by"]["final"]


def test_a_statement_whose_signature_does_not_hold_answers_nothing(own: Shell) -> None:
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if not isinstance(message, Prove):
            return data
        answer = unpack(Proved, data)
        bodies = [msgspec.Raw(_unsigned(bytes(raw))) for raw in answer.batch.bodies]
        batch: LineageBatch = msgspec.structs.replace(answer.batch, bodies=bodies)
        return pack(msgspec.structs.replace(answer, batch=batch))

    own.ask = ask
    asked = own.json("why", own.story.permitted)["questions"]
    assert asked["origin"]["unanswered"] == "its signature does not hold"
    assert "enforcer" not in asked["runtime"]["says"]


def _unsigned(data: bytes) -> bytes:
    """The same words under a signature of nobody: its id stays."""
    read: dict[str, Any] = json.loads(data)
    read["signatures"] = [{**line, "sig": "A" * 86 + "=="} for line in read["signatures"]]
    return json.dumps(read, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", ["eu-1/0", "sa-1/1"])
def test_what_belongs_to_no_intent_has_no_such_questions(shell: Shell, name: str) -> None:
    told = shell.json("why", name)
    assert (told["questions"], [stage["stage"] for stage in told["stages"]]) == ({}, ["governance"])
