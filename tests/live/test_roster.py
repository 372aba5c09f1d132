"""The roster changes while the mesh runs: a node joins, another leaves, and everything goes on that may."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mesh.adapters import signer
from mesh.adapters.bus import Bus
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.roster import Member, Roster
from mesh.core.log.checkpoint import log_verifier
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import Offer, Offered, Prove, Proved, pack, unpack
from mesh.core.run.authorization import Authorization
from mesh.core.run.intent import EntityRef
from mesh.core.run.outcome import Finished
from mesh.deploy.devmesh import DevMeshFiles, enlist
from mesh.dev.cluster import Cluster
from mesh.errors import MeshError
from mesh.gate.connect import open_core
from mesh.gate.context import load_context
from mesh.gate.core import Core, Wish
from mesh.gate.errors import Denied
from mesh.roles.performer import USES
from mesh.verify import verify
from tests.live.kit import Client, code_of, command, make_files

pytestmark = pytest.mark.asyncio


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Cluster]:
    """Four governors, and one that nobody knows yet."""
    with Cluster(make_files(tmp_path / "mesh", spares=1)) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
        yield cluster


def _spare_member(files: DevMeshFiles, name: str) -> Member:
    keys = {f"{use}_key": signer.load(files.folder / "nodes" / name / "keys" / f"{use}.key").key.public for use in USES}
    return Member(name=name, region=name.partition("-")[0], operator="dev", log_epoch=1, **keys)


def _next(files: DevMeshFiles, before: Statement[Roster], members: list[Member], k: int, *, f: int = 1, in_ms: int) -> Statement[Roster]:
    now_ms = time.time_ns() // 1_000_000
    claims = msgspec.structs.replace(
        before.claims,
        epoch=before.claims.epoch + 1,
        previous=before.id,
        not_before_ms=now_ms + in_ms,
        members=members,
        k=k,
        f=f,
        reason="a test",
        issued_ms=now_ms,
    )
    draft = envelope.draft(claims)
    keys = [signer.load(files.folder / "people" / f"root-{number}.key").key for number in (1, 2)]
    keys.append(signer.load(files.folder / "people" / "operator-dev.key").key)
    said = envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message) for key in keys})
    (files.folder / f"roster-{claims.epoch}.json").write_bytes(said)
    return envelope.read(Roster, said)


async def _push(bus: Bus, node: str, roster: Statement[Roster]) -> None:
    answer = await bus.request(subjects.sync(node), pack(Offer(statements=[msgspec.Raw(roster.envelope)])), timeout_ms=5_000)
    assert unpack(Offered, answer.data).results == {roster.id: ""}


SEND = Wish(
    domain="payments",
    action="send",
    resource=EntityRef(type="Account", id="acct:acme-supplies"),
    params={"to": "acct:acme-supplies", "amount_cents": 700},
    committed={},
    purpose="",
    assurance="local",
    measure=tuple,
)


async def _runs(core: Core) -> bool:
    """Whether something may be started now."""
    try:
        work = await core.begin(SEND, lambda: None)
    except MeshError:
        return False
    await core.end(work, Finished(status=0, outputs=[], duration_ms=0))
    return True


async def _until_it_runs(core: Core, epoch: int) -> None:
    end = time.monotonic() + 15.0
    while core.outlook.governance.roster.epoch != epoch or not await _runs(core):
        assert time.monotonic() < end, core.outlook.counters
        await asyncio.sleep(0.1)


async def test_what_a_governor_authorized_that_was_removed_since_does_not_start(mesh: Cluster) -> None:
    files = mesh.files
    client = await Client.connect(files.context)
    core = await open_core(load_context(str(files.context)), "billing")
    elsewhere = await open_core(msgspec.structs.replace(load_context(str(files.context)), region="ap"), "billing")
    try:
        await _until_it_runs(core, 1)
        genesis = envelope.read(Roster, files.roster.read_bytes())
        rest = [member for member in genesis.claims.members if member.name != "ap-1"]
        narrower = _next(files, genesis, rest, 3, f=0, in_ms=7_000)
        await _push(client.bus, "us-1", narrower)
        asked, held = None, asyncio.get_running_loop().time()
        while elsewhere.outlook.governance.roster.epoch == 1:
            try:
                answer = await elsewhere.request(SEND)
                if envelope.read(Authorization, bytes(answer.answer.authorization)).claims.issuer == "ap-1":
                    asked = answer
            except MeshError:
                begun = time.time_ns() // 1_000_000 >= narrower.claims.not_before_ms - 100
                assert begun or asked is None, "it is authorized until the next roster begins"
            assert asyncio.get_running_loop().time() < held + 25.0
            await asyncio.sleep(0.05)
        assert asked is not None
        with pytest.raises(Denied) as caught:
            await elsewhere.present(SEND, asked, lambda: None)
        assert caught.value.code in {"wrong_epoch", "unknown_member"}
        await _until_it_runs(core, 2)
        await asyncio.to_thread(mesh.nodes["ap-1"].wait, 25.0)
        assert "not_enrolled" in mesh.log_tail("ap-1")
    finally:
        await core.close(wait_ms=2_000)
        await elsewhere.close(wait_ms=2_000)
        await client.bus.close()


async def _proved_by_who_is_left(mesh: Cluster, owner: str, newest: Statement[Roster]) -> None:
    """That the first record in the log of who has left is final for whoever trusts the newest roster, as of that."""
    target, end = mesh.files.folder / "proof.json", time.monotonic() + 15.0
    while (await command(mesh, "prove", f"{owner}/0", "--out", str(target)))[0] != 0:
        assert time.monotonic() < end, "nobody proves it"
    while (report := verify(target.read_bytes(), trust=newest.envelope)).as_of != newest.claims.epoch:
        assert time.monotonic() < end, report.checks
        assert (await command(mesh, "prove", f"{owner}/0", "--out", str(target)))[0] == 0
    assert report.verdict == "VERIFIED"


async def test_a_mesh_of_one_takes_a_second_in_and_lets_the_first_go_and_loses_nothing_that_was_final(tmp_path: Path) -> None:
    with Cluster(make_files(tmp_path / "mesh", nodes=1, spares=1)) as mesh:
        mesh.start_bus()
        await mesh.provision()
        mesh.start()
        files = mesh.files
        (first,), (spare,) = files.nodes, files.spares
        client = await Client.connect(files.context)
        await client.until(first, "fresh", lambda status: status.fresh)
        for _ in range(20):
            assert code_of(await client.ask()) == "authorized"
        before = await client.until(first, "final", lambda status: status.certified == status.size > 20)
        genesis = envelope.read(Roster, files.roster.read_bytes())
        second = _next(files, genesis, [*genesis.claims.members, _spare_member(files, spare)], 2, f=0, in_ms=1_000)
        third = _next(files, second, [_spare_member(files, spare)], 1, f=0, in_ms=7_500)
        await _push(client.bus, first, second)
        await _push(client.bus, first, third)
        enlist(files, spare, [files.folder / "roster-2.json"], second.id)
        mesh.start([spare])
        await client.until(spare, "alone", lambda status: status.roster_epoch == 3 and status.fresh, wait_s=40.0)
        await asyncio.to_thread(mesh.nodes[first].wait, 25.0)
        assert "not_enrolled" in mesh.log_tail(first)
        (mirror,) = (await client.status(spare)).mirrors
        assert mirror.origin == before.origin
        assert mirror.size >= before.certified
        await _final_as_of(client.bus, spare, before.origin, before.certified - 1, genesis, third)
        await client.bus.close()


async def _final_as_of(bus: Bus, node: str, origin: str, index: int, former: Statement[Roster], newest: Statement[Roster]) -> None:
    """That a node proves that record by a certificate of the newest roster: no file of a command knows that one."""
    log, by = log_verifier(origin, former.claims.owner(origin).log_key), newest.claims
    end = time.monotonic() + 15.0
    while True:
        answer = await bus.request(subjects.sync(node), pack(Prove(origin=origin, index=index)), timeout_ms=5_000)
        proved = unpack(Proved, answer.data)
        try:
            proof = TlogProof.parse(proved.proof.encode())
            proof.verify(bytes(proved.batch.records[0]), log=log, cosigners=by.attest_keys(), k=by.k)
        except MeshError:
            await asyncio.sleep(0.2)
        else:
            return
        assert time.monotonic() < end, f"{node} proves nothing by the roster of epoch {by.epoch}"


async def test_a_node_joins_a_live_mesh_catches_up_and_counts_and_another_leaves(mesh: Cluster) -> None:
    files = mesh.files
    client = await Client.connect(files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    assert code_of(await client.ask()) == "authorized"
    genesis = envelope.read(Roster, files.roster.read_bytes())
    (spare,) = files.spares
    wider = _next(files, genesis, [*genesis.claims.members, _spare_member(files, spare)], 4, in_ms=7_000)
    await _push(client.bus, "us-1", wider)
    enlist(files, spare, [files.folder / "roster-2.json"], wider.id)
    mesh.start([spare])
    for name in (*files.nodes, spare):
        await client.until(name, "in epoch 2", lambda status: status.roster_epoch == 2 and status.fresh, wait_s=25.0)
    for name in (*files.nodes, spare):
        await client.until(name, "final", lambda status: status.certified > 0 and len(status.vouchers) == 5, wait_s=25.0)
    assert code_of(await client.ask()) == "authorized"

    # It counts: with one of the others gone, four of five are k.
    mesh.kill("ap-1")
    size = (await client.status("eu-1")).size
    assert code_of(await client.ask()) == "authorized"
    await client.until("eu-1", "final without ap-1", lambda status: status.certified > size and status.fresh, wait_s=15.0)

    # And the one that is gone leaves for good; it learns so when it comes back.
    narrower = _next(files, wider, [member for member in wider.claims.members if member.name != "ap-1"], 3, in_ms=7_000)
    await _push(client.bus, spare, narrower)
    staying = [name for name in (*files.nodes, spare) if name != "ap-1"]
    for name in staying:
        await client.until(name, "in epoch 3", lambda status: status.roster_epoch == 3 and status.fresh, wait_s=25.0)
    assert code_of(await client.ask()) == "authorized"
    await _proved_by_who_is_left(mesh, "ap-1", narrower)
    mesh.start(["ap-1"])
    await asyncio.to_thread(mesh.nodes["ap-1"].wait, 25.0)
    assert "not_enrolled" in mesh.log_tail("ap-1")
    await client.bus.close()
