"""What is listed as revoked was verified here, with how many hold it by their signed word."""

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.revocation import Revocation, stream_of
from mesh.core.messages import LawAsked, LawBatch, Offer, Sync, pack
from tests.cli.lawmesh import Desk, code_of

ANNA, BERT, CARL = (f"spiffe://lab/agent/{name}" for name in ("anna", "bert", "carl"))
ALL = ("eu-1", "us-1", "ap-1", "sa-1")
HEX = "ab" * 32


def test_all_revocations_are_listed_with_how_many_hold_them(desk: Desk) -> None:
    assert desk.ls() == []
    first = desk.revoke(ANNA, "--reason", "left")[1]
    desk.revoke(BERT)
    desk.mesh.gossips = False
    desk.losing(Offer, ["us-1", "sa-1"])
    desk.revoke(CARL)
    desk.revoke(f"digest:blake3:{HEX}", key=desk.second)
    rows = desk.ls()
    own = [row for row in rows if row["revoker"] == desk.lab.revoker.public]
    assert [(row["number"], row["target"], row["held"]) for row in own] == [
        (1, f"subject:{ANNA}", "4 of 4"),
        (2, f"subject:{BERT}", "4 of 4"),
        (3, f"subject:{CARL}", "2 of 4"),
    ]
    assert own[2]["held_by"] == ["eu-1", "ap-1"]
    assert (own[0]["id"], own[0]["reason"], own[0]["at"]) == (first["id"], "left", first["issued"])
    (other,) = [row for row in rows if row["revoker"] == desk.lab.second.public]
    assert (other["number"], other["target"]) == (1, f"digest:blake3:{HEX}")
    out = desk.run("revocations", "ls")[1]
    assert out.splitlines()[0].split() == ["number", "by", "target", "reason", "at", "held", "heard"]


def test_a_forked_stream_is_listed_whole_and_marked(desk: Desk) -> None:
    desk.mesh.gossips = False
    values = [f"{ANNA}/{number}" for number in range(5)]
    one = [desk.lab.revocation(desk.lab.revoker, 1, values[0])]
    for number, value in enumerate(values[1:], 2):
        one.append(desk.lab.revocation(desk.lab.revoker, number, value, one[-1].id))
    desk.offer(*one)
    desk.offer(desk.lab.revocation(desk.lab.revoker, 1, BERT), to="us-1")
    desk.revoke(CARL, key=desk.second)
    rows = [row for row in desk.ls() if row["revoker"] == desk.lab.revoker.public]
    assert sorted(row["target"] for row in rows) == sorted(f"subject:{value}" for value in [*values, BERT])
    assert all(row["forked"] and row["held"] == "0 of 4, forked" for row in rows)
    desk.offer(desk.lab.revocation(desk.lab.revoker, 1, BERT))
    rows = [row for row in desk.ls() if row["revoker"] == desk.lab.revoker.public]
    assert [row["held_by"] for row in rows] == [["eu-1"]] * 6
    assert "forked: this key has said two things under one number" in desk.run("revocations", "ls")[2]


def test_what_a_member_claims_and_does_not_show_is_not_listed(desk: Desk) -> None:
    desk.revoke(ANNA)
    desk.lying("eu-1", StreamHead(stream=stream_of(desk.lab.second.public), sequence=1, head=HEX, forked=False, held=""))
    status, out, err = desk.run("revocations", "ls")
    assert (status, len(out.splitlines())) == (0, 2)
    assert "eu-1 claims more of revoke/" in err


def test_what_a_member_serves_is_listed_only_if_a_revoker_signed_it(desk: Desk) -> None:
    desk.revoke(ANNA)
    honest, second = desk.ask, desk.lab.second
    genuine = desk.lab.revocation(second, 1, BERT)
    broken = envelope.assemble(envelope.draft(genuine.claims).payload_type, genuine.payload, {second.public: bytes(64)})
    forged = envelope.read(Revocation, broken)

    async def ask(member: str, message: Payload) -> bytes:
        if member == "eu-1" and isinstance(message, LawAsked) and message.stream == stream_of(second.public):
            return pack(LawBatch(statements=[msgspec.Raw(forged.envelope)]))
        return await honest(member, message)

    desk.ask = ask
    desk.lying("eu-1", StreamHead(stream=stream_of(second.public), sequence=1, head=genuine.id, forked=False, held=""))
    assert [row["target"] for row in desk.ls()] == [f"subject:{ANNA}"]


def test_without_any_member_there_is_no_list(desk: Desk) -> None:
    desk.losing(Sync, ALL)
    status, _, err = desk.run("-o", "json", "revocations", "ls")
    assert (status, code_of(err)) == (4, "unreachable")
