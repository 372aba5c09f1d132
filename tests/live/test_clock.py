"""One governor's clock is an hour wrong: it fences itself, and the others neither wait for it nor believe it."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from mesh.core.messages import Authorized
from mesh.dev.cluster import Cluster
from tests.live.kit import Client, authorization_in, code_of

LIBRARIES = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
pytestmark = [pytest.mark.asyncio, pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed")]
WRONG = "sa-1"


def _env(offset: str) -> Mapping[str, str]:
    # The steady clock stays: a clock that is wrong is not a clock that runs otherwise.
    path = os.pathsep.join([str(Path(__file__).parent / "faketime"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": path}


@pytest.mark.parametrize("offset", ["-1h", "+1h"])
async def test_a_clock_that_is_an_hour_wrong_fences_its_node_and_nothing_is_valid_for_longer(own_mesh: Cluster, offset: str) -> None:
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    own_mesh.stop([WRONG])
    size = (await client.status("eu-1")).size
    own_mesh.start([WRONG], env=_env(offset))
    await client.until_reachable(WRONG)
    status = await client.until(WRONG, "unsure of its clock", lambda status: status.code in {"clock_unsure", "stale"})
    assert not status.fresh
    for _ in range(20):
        assert code_of(await client.ask(region="sa")) in {"clock_unsure", "stale", "intent_expired", "unavailable"}
        await asyncio.sleep(0.05)
    answer = await client.ask(region="eu")
    assert isinstance(answer, Authorized), "three of four go on"
    claims = authorization_in(answer).claims
    now_ms = (await client.status("eu-1")).now_ms
    assert abs(claims.not_before_ms - now_ms) < 2_000
    assert claims.expires_ms - claims.not_before_ms <= 30_000
    await client.until("eu-1", "final without the wrong one", lambda status: status.certified > max(size, claims.index))
    await asyncio.sleep(3.2)  # past Δ: what it signed before is dead too
    if offset == "+1h":  # set back, its steady time is still that of its newest record: a little behind, and no lie
        assert WRONG not in (await client.status("eu-1")).vouchers, "what it signs vouches for nothing"
    own_mesh.stop([WRONG])
    own_mesh.start([WRONG])
    await client.until(WRONG, "itself again", lambda status: status.fresh, wait_s=30)
    assert code_of(await client.ask(region="sa")) == "authorized"
    await client.bus.close()
