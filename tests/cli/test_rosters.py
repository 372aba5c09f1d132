"""Commands know the rosters that members show, and what was final under one that is over is still evidence."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from mesh.cli import client, run
from mesh.cli.output import Cli
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import admit_governance, extend
from mesh.core.law.resolve import RESOLVES, Resolve
from mesh.core.law.roster import ROSTERS, Roster
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import Said, cursor_of, read_law
from mesh.core.law.vouched import newest_begun
from mesh.core.log.bundle import read_proof
from mesh.core.messages import Find, Found, LawAsked, LawBatch, Leaves, NodeStatus, Prove, Proved, Pull, StatusAsked, pack, unpack
from mesh.errors import Unavailable
from mesh.limits import CLOCK_MS_MAX
from mesh.verify import verify
from tests.core.kit import refuses
from tests.support.epochs import ALL, EpochLab, attested_again, lived, successor
from tests.support.epochs import ROSTERS as CHAIN
from tests.support.factory import MESH, T0, sign
from tests.support.rosters import signed

FIRST, SECOND, THIRD = CHAIN
FORK = successor(FIRST, members=ALL.roster.members, k=4, reason="Another second one.")
LATER = successor(THIRD, not_before_ms=CLOCK_MS_MAX, members=ALL.roster.members, k=4)
"""Signed, and not begun in any clock."""


class Epochs:
    """A mesh in its third epoch, and commands of somebody whose files know the first."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys = capsys
        self.law: dict[str, Sequence[Statement[Said]]] = {}
        """What each member shows; by default the whole chain."""
        self.slow_s: dict[str, float] = {}
        self.down: set[str] = {"eu-1"}
        self.attested: tuple[str, ...] = ("ap-1", "sa-1", "us-1")
        """Who has attested the log of who has left, since; if nobody, it has the certificate that its owner made."""
        self.asked: list[tuple[str, Payload]] = []
        monkeypatch.setattr(client, "open_client", self.opened)

    async def ask(self, member: str, message: Payload) -> bytes:
        self.asked.append((member, message))
        await asyncio.sleep(self.slow_s.get(member, 0))
        if member in self.down:
            raise Unavailable("unreachable", member)
        if isinstance(message, LawAsked):
            if message.stream not in {ROSTERS, RESOLVES}:
                return pack(LawBatch(statements=[]))
            after = Cursor(message.sequence, message.id)
            said = [item for item in self.law.get(member, CHAIN) if item.claims.link[0] == message.stream and cursor_of(item) > after]
            return pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in said[:1]]))  # short pages: there is always a next one
        past = lived(1)
        if isinstance(message, StatusAsked):
            now, then = [unpack(NodeStatus, await story.mesh.ask(name, message)) for story, name in ((lived(3), member), (past, "us-1"))]
            left = [mirror for mirror in then.mirrors if mirror.origin == "lab/eu-1/e1"]
            return pack(msgspec.structs.replace(now, mirrors=[*now.mirrors, *left]))
        if isinstance(message, Pull | Leaves) and message.origin == "lab/eu-1/e1":
            return await past.mesh.ask("us-1" if member == "af-1" else member, message)
        if isinstance(message, Find) and past.permitted.startswith(message.prefix):
            found = unpack(Found, await past.mesh.ask("us-1" if member == "af-1" else member, message))
            return pack(Found(records=[place for place in found.records if place.origin == "lab/eu-1/e1"]))
        if isinstance(message, Prove) and message.origin == "lab/eu-1/e1":
            answer = unpack(Proved, await past.mesh.ask("us-1" if member == "af-1" else member, message))
            again = attested_again(answer.proof, *self.attested) if self.attested else answer.proof
            return pack(msgspec.structs.replace(answer, proof=again))
        if isinstance(message, Find) and past.forbidden.startswith(message.prefix):
            return await past.mesh.ask("us-1" if member == "af-1" else member, message)
        return await lived(3).mesh.ask(member, message)

    @property
    def library(self) -> client.Library:
        lab = EpochLab(1)
        return client.Library(
            governance=lab.governance, manifests=(lab.manifest_envelope,), bundles=(lab.bundle_bytes,), roster=FIRST.envelope
        )

    @asynccontextmanager
    async def opened(self, name: str | None) -> AsyncIterator[tuple[client.MeshClient, client.Library]]:
        assert name is None
        yield client.MeshClient(self.ask, self.library.governance), self.library

    def learn(self, now_ms: int = T0) -> client.Library:
        return asyncio.run(client.learn(Cli(), client.MeshClient(self.ask, self.library.governance), self.library, now_ms=now_ms))[1]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        status = run(arguments)
        shown = self.capsys.readouterr()
        return status, shown.out, shown.err

    def json(self, *arguments: str) -> Any:
        status, out, err = self.run("-o", "json", *arguments)
        assert status == 0, err
        return json.loads(out)


@pytest.fixture
def epochs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Epochs:
    return Epochs(capsys, monkeypatch)


# --------------------------------------------------------------------------------------------------------- what commands see


def test_commands_see_who_has_joined_and_no_longer_ask_who_has_left(epochs: Epochs) -> None:
    assert [row["node"] for row in epochs.json("status")] == ["us-1", "ap-1", "sa-1", "af-1"]


def test_the_proof_of_a_joiners_record_is_made_by_whoever_has_only_the_first_roster(epochs: Epochs, tmp_path: Path) -> None:
    out = tmp_path / "proof.json"
    assert epochs.run("prove", lived(3).permitted, "--out", str(out))[0] == 0
    assert len(read_proof(out.read_bytes()).rosters) == len(CHAIN)
    for roster in CHAIN:
        report = verify(out.read_bytes(), trust=roster.envelope)
        assert (report.verdict, report.as_of) == ("VERIFIED", 3)
    trust = tmp_path / "second.json"
    trust.write_bytes(SECOND.envelope)
    (value,) = epochs.json("verify", str(out), "--trust", str(trust), "--pin", SECOND.id)
    assert (value["verdict"], value["as_of_roster_epoch"], value["roster"]) == ("VERIFIED", 3, THIRD.id)


def test_the_record_of_a_member_that_has_left_is_found_and_proved_by_those_who_are_left(epochs: Epochs, tmp_path: Path) -> None:
    out = tmp_path / "proof.json"
    assert epochs.run("prove", "eu-1/0", "--out", str(out))[0] == 0
    report = verify(out.read_bytes(), trust=THIRD.envelope)
    assert (report.verdict, report.as_of) == ("VERIFIED", 3)
    (shown,) = epochs.json("lineage", "show", "eu-1/0")
    assert shown["attested_by"] == ["ap-1", "sa-1", "us-1"]
    asked = [member for member, message in epochs.asked if isinstance(message, Prove)]
    assert "eu-1" not in asked[:1]


def test_the_records_of_a_member_that_has_left_are_listed_told_and_drawn(epochs: Epochs) -> None:
    rows = epochs.json("lineage", "ls", "--node", "eu-1")
    assert [(row["record"], row["kind"], row["final"]) for row in rows] == [
        ("eu-1/2", "decision", True),
        ("eu-1/1", "governance", True),
        ("eu-1/0", "governance", True),
    ]
    assert "eu-1/2" in {row["record"] for row in epochs.json("lineage", "ls", "--effect", "permit")}
    told = epochs.json("why", lived(1).permitted)
    assert [stage["record"] for stage in told["stages"] if "record" in stage] == ["eu-1/2"]
    assert told["questions"]["authorized_by"]["final"]
    drawn = epochs.json("lineage", "graph", lived(1).permitted, "--format", "json")
    assert [(node["record"], node["final"]) for node in drawn["nodes"]] == [("eu-1/2", True)]


def test_a_certificate_of_which_too_few_are_left_is_not_handed_on_as_a_proof(epochs: Epochs) -> None:
    epochs.attested = ()
    status, _, err = epochs.run("prove", "eu-1/0")
    assert (status, "former_certificate" in err) == (2, True)


def test_a_tlog_proof_is_what_it_was(epochs: Epochs, tmp_path: Path) -> None:
    out = tmp_path / "proof.txt"
    assert epochs.run("prove", lived(3).forbidden, "--format", "tlog-proof", "--out", str(out))[0] == 0
    assert (tmp_path / "proof.txt").read_bytes().startswith(b"c2sp.org/tlog-proof@v1\n")
    assert verify(out.read_bytes(), trust=THIRD.envelope).checks[3].result == "passed"


def test_a_decision_that_only_former_members_attested_is_not_final(epochs: Epochs) -> None:
    """In the eyes of whoever holds the third roster, by which it was decided."""
    del epochs
    story = lived(3)
    answer = next(iter(story.answers(story.forbidden, node="us-1")))
    held = lived(3).lab.governance
    assert client.MeshClient(story.mesh.ask, held).is_final(answer)
    assert not client.MeshClient(story.mesh.ask, EpochLab(1).governance).is_final(answer)
    assert not client.MeshClient(story.mesh.ask, EpochLab(2).governance).is_final(answer)


# ------------------------------------------------------------------------------------------------------------- how it is learnt


def test_the_newest_that_has_begun_is_in_force_and_a_later_one_only_held(epochs: Epochs) -> None:
    epochs.law = dict.fromkeys(["us-1", "ap-1", "sa-1", "af-1"], (*CHAIN, LATER))
    library = epochs.learn()
    assert (library.governance.roster, library.governance.rosters.newest) == (THIRD.claims, LATER.claims)
    assert library.rosters == (SECOND.envelope, THIRD.envelope, LATER.envelope)
    assert epochs.learn(now_ms=SECOND.claims.not_before_ms).governance.roster == SECOND.claims
    assert epochs.learn(now_ms=0).governance.roster == FIRST.claims


def test_the_files_pin_is_never_undone_by_a_slow_clock() -> None:
    held = EpochLab(2).governance
    assert newest_begun(held, 0).roster == SECOND.claims
    assert newest_begun(extend(held, [THIRD]).governance, THIRD.claims.not_before_ms).roster == THIRD.claims


def test_if_nobody_answers_the_files_stand_and_only_who_wants_to_know_is_told(epochs: Epochs) -> None:
    epochs.down = {member.name for member in ALL.roster.members}
    assert epochs.learn().governance == epochs.library.governance
    line = "no member answers: rosters are those of the files, epoch 1 is in force"
    assert line in epochs.run("-v", "status")[2]
    assert line not in epochs.run("status")[2]


def test_the_first_member_who_shows_a_roster_leads_to_those_it_names(epochs: Epochs) -> None:
    """Of four members that the files name only one is left."""
    epochs.down = {"eu-1", "us-1", "ap-1"}
    epochs.law = {"sa-1": CHAIN[:2]}
    assert epochs.learn().governance.roster == THIRD.claims


@pytest.mark.parametrize(
    "shown",
    [
        (SECOND, signed(THIRD.claims, *ALL.root[:1])),
        (signed(SECOND.claims, *ALL.root[:1]), THIRD),
        (THIRD,),
        (successor(FIRST, mesh="other"),),
    ],
)
def test_what_a_liar_shows_is_not_believed_and_stops_nobody(epochs: Epochs, shown: Sequence[Statement[Roster]]) -> None:
    epochs.law = {"us-1": shown}
    assert epochs.learn().governance.roster == THIRD.claims


def test_silent_members_cost_nothing_once_k_have_answered_and_a_second_otherwise(epochs: Epochs) -> None:
    epochs.slow_s = {"us-1": 30.0, "eu-1": 30.0}
    start_s = monotonic()
    assert epochs.learn().governance.roster == THIRD.claims
    assert monotonic() - start_s < 0.5
    epochs.slow_s = dict.fromkeys(["us-1", "ap-1", "sa-1", "eu-1"], 30.0)
    start_s = monotonic()
    assert epochs.learn().governance.roster == FIRST.claims
    assert 0.9 < monotonic() - start_s < 2


def test_a_root_that_says_two_things_leaves_what_was_before_until_it_says_which_counts(epochs: Epochs) -> None:
    epochs.law = {"us-1": (FIRST, *sorted((SECOND, FORK), key=cursor_of))}
    torn = epochs.learn()
    assert (torn.governance.roster, torn.rosters, torn.governance.forked(ROSTERS)) == (FIRST.claims, (), True)
    claims = Resolve(
        mesh=MESH, sequence=1, previous="", since="", stream=ROSTERS, head=THIRD.id, aside=[FORK.id], reason="a test", issued_ms=1_000
    )
    resolve = read_law(sign(claims, *ALL.root[:2]))
    epochs.law["ap-1"] = (*CHAIN, resolve)
    mended = epochs.learn()
    assert (mended.governance.roster, mended.governance.forked(ROSTERS)) == (THIRD.claims, False)


def test_whose_log_it_is_is_told_for_every_epoch(epochs: Epochs) -> None:
    mesh = client.MeshClient(epochs.ask, lived(3).lab.governance)
    assert sorted(mesh.origins().values()) == ["af-1", "ap-1", "eu-1", "sa-1", "us-1"]
    assert (mesh.owner("lab/eu-1/e1").name, mesh.member("eu-1").name) == ("eu-1", "eu-1")
    with refuses("unknown_member"):
        mesh.owner("lab/zz-1/e1")


# ------------------------------------------------------------------------------------------------------------------ from files


def test_verify_takes_the_roster_that_the_context_pins(epochs: Epochs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[Statement[Said]] = [SECOND, THIRD]
    governance = admit_governance(FIRST, pin=SECOND.id, said=later)
    library = msgspec.structs.replace(epochs.library, governance=governance, rosters=(SECOND.envelope, THIRD.envelope))
    monkeypatch.setattr(client, "files", lambda _cli: library)
    path = tmp_path / "proof.json"
    path.write_bytes(lived(1).proof(lived(1).forbidden, rosters=[item.envelope for item in CHAIN]))
    (value,) = epochs.json("verify", str(path))
    assert (value["verdict"], value["as_of_roster_epoch"]) == ("VERIFIED", 1)
    assert "epoch 2" in value["checks"][0]["detail"]
    assert epochs.run("verify", str(path), "--pin", THIRD.id)[0] == 2
