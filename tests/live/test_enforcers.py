"""What an enforcer does, a real process on a real mesh, when its peers fall silent or its clock is wrong: it runs nothing, and says why.

Governors deny too, and that is shown elsewhere; here somebody holds an authorization already and comes to use it.
"""

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from mesh.core.bytes import envelope
from mesh.core.messages import Authorized, pack
from mesh.core.run.intent import EntityRef
from mesh.core.run.outcome import Finished
from mesh.deploy.devmesh import create
from mesh.dev.cluster import Cluster
from mesh.errors import MeshError
from mesh.gate.connect import open_core
from mesh.gate.context import load_context
from mesh.gate.core import Asked, Core, Wish
from tests.live.kit import BILLING, GATE, POLICIES, Client, command, until_fresh
from tests.live.test_clock import LIBRARIES, _env

pytestmark = pytest.mark.asyncio
ACCOUNT: Final = EntityRef(type="Account", id="acct:acme-supplies")
WISH: Final = Wish(
    domain="payments",
    action="send",
    resource=ACCOUNT,
    params={"to": ACCOUNT.id, "amount_cents": 1_000},
    committed={},
    purpose="test",
    assurance="local",
    measure=tuple,
)
H_S: Final = 0.5
DELTA_S: Final = 3.0
SLACK_S: Final = 0.7
"""Two cores, seven processes."""


async def _presented(core: Core, asked: Asked) -> str:
    """``ran``, or why not."""
    try:
        work = await core.present(WISH, asked, lambda: None)
    except MeshError as error:
        return error.code
    await core.end(work, Finished(status=0, outputs=[], duration_ms=0))
    return "ran"


@asynccontextmanager
async def _gates(mesh: Cluster, count: int) -> AsyncIterator[list[Core]]:
    context = load_context(str(mesh.files.context))
    cores = [await open_core(context, "billing") for _ in range(count)]
    try:
        yield cores
    finally:
        for core in cores:
            await core.close(wait_ms=200)


async def test_threat_13_when_all_peers_are_stopped_every_enforcer_is_stale_by_delta_and_soon_after_it_is_not(own_mesh: Cluster) -> None:
    await until_fresh(own_mesh)
    async with _gates(own_mesh, 2) as cores:
        held = {core: [await core.request(WISH) for _ in range(4)] for core in cores}
        assert [await _presented(core, held[core].pop()) for core in cores] == ["ran", "ran"]
        for name in own_mesh.files.nodes:
            own_mesh.signal(name, signal.SIGSTOP)
        await asyncio.sleep(DELTA_S + H_S)
        assert [await _presented(core, held[core].pop()) for core in cores] == ["stale", "stale"]
        for name in own_mesh.files.nodes:
            own_mesh.signal(name, signal.SIGCONT)
        thawed = time.monotonic()
        for core in cores:
            while (code := await _presented(core, await _asked(core))) != "ran":
                assert code == "stale"
                assert time.monotonic() - thawed < 3 * H_S + SLACK_S
                await asyncio.sleep(0.02)
        assert [await _presented(core, held[core].pop()) for core in cores] == ["ran", "ran"], "what was authorized before is good again"


async def _asked(core: Core) -> Asked:
    """As soon as a governor permits it."""
    end = time.monotonic() + 10
    while True:
        try:
            return await core.request(WISH)
        except MeshError:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


async def test_threat_11_what_was_authorized_before_and_revoked_since_starts_at_no_enforcer_once_k_members_said_so(
    own_mesh: Cluster,
) -> None:
    """Everybody but the enforcers is out of the way: the authorization is there already, is young, and no governor is asked again."""
    await until_fresh(own_mesh)
    async with _gates(own_mesh, 2) as cores:
        held = {core: [await core.request(WISH) for _ in range(3)] for core in cores}
        assert [await _presented(core, held[core].pop()) for core in cores] == ["ran", "ran"]
        key = str(own_mesh.files.folder / "people" / "revoker.key")
        status, shown, err = await command(own_mesh, "revoke", BILLING.subject, "--key", key, "--watch")
        assert (status, shown["acknowledged"]) == (0, True), err
        await asyncio.sleep(DELTA_S)
        assert [await _presented(core, held[core].pop()) for core in cores] == ["revoked", "revoked"]
        for name in own_mesh.files.nodes:
            own_mesh.kill(name)
        assert [await _presented(core, held[core].pop()) for core in cores] == ["revoked", "revoked"], "not because anybody is silent"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four governors whose documents are some hours old: a clock that is an hour behind is not before all of them."""
    files = create(
        tmp_path_factory.mktemp("older") / "mesh",
        policies=[POLICIES / "payments"],
        principals=[BILLING],
        enforcer=GATE,
        nodes=4,
        random=secrets.token_bytes,
        now_ms=time.time_ns() // 1_000_000 - 3 * 3_600_000,
    )
    with Cluster(files) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
        asyncio.run(until_fresh(cluster))
        yield cluster


CHILD: Final = """
import asyncio, sys
from mesh.core.bytes import envelope
from mesh.core.messages import unpack_answer
from mesh.core.run.intent import Intent
from mesh.gate.connect import open_core
from mesh.gate.context import load_context
from mesh.gate.core import Asked
from tests.live.test_enforcers import _presented

async def main():
    core = await open_core(load_context(sys.argv[1]), "billing")
    print(core._place.boot, flush=True)
    while True:
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            break
        intent, answer = map(bytes.fromhex, line.split())
        draft = envelope.draft(envelope.read(Intent, intent).claims)
        print(await _presented(core, Asked(draft, intent, (), unpack_answer(answer))), flush=True)
    await core.close(wait_ms=100)

asyncio.run(main())
"""


@pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed")
@pytest.mark.parametrize(
    ("offset", "life_ms", "young", "old"),
    [
        ("+0h", 1_200, {"ran"}, {"expired"}),
        ("-3s", 3_200, {"clock_unsure", "stale", "not_yet_valid"}, {"clock_unsure"}),  # by its own clock it is young, and good
        ("-1h", 1_200, {"clock_unsure", "stale", "not_yet_valid"}, {"clock_unsure", "stale", "not_yet_valid"}),
        ("+1h", 1_200, {"clock_unsure", "stale", "expired"}, {"clock_unsure", "stale", "expired"}),
    ],
)
async def test_threat_33_an_enforcer_whose_clock_is_wrong_runs_nothing_neither_what_is_over_nor_what_is_not(
    older: Cluster, offset: str, life_ms: int, young: set[str], old: set[str]
) -> None:
    root = str(Path(__file__).parents[2])
    env = {**os.environ, **_env(offset)}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, str(older.files.context)),
        env={**env, "PYTHONPATH": os.pathsep.join([env["PYTHONPATH"], root])},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    client = await Client.connect(older.files.context)
    try:
        client.boot = (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()
        for lives_ms, wait_s, codes in ((20_000, 0.0, young), (life_ms, life_ms / 1_000 + 0.1, old)):
            now_ms = time.time_ns() // 1_000_000
            intent = client.intent(created_ms=now_ms, expires_ms=now_ms + lives_ms)
            draft = envelope.draft(intent)
            signed = envelope.assemble(draft.payload_type, draft.payload, {client.key.public: client.key.sign(draft.message)})
            answer = await client.send(client.request(intent)[1])
            assert isinstance(answer, Authorized)
            await asyncio.sleep(wait_s)
            child.stdin.write(f"{signed.hex()} {pack(answer).hex()}\n".encode())
            code = (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()
            assert code in codes
    finally:
        child.stdin.close()
        await asyncio.wait_for(child.wait(), 20)
        await client.bus.close()
