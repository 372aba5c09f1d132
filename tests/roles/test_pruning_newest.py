"""The newest record of every log stays, for its time: nothing that its owner writes later may be before it."""

import asyncio
from pathlib import Path

import msgspec

from mesh.core.log.record import GovernanceChanged
from mesh.core.messages import Offer, pack
from mesh.limits import PRUNE_AGE_MS_MIN
from mesh.protocol.events import OfferArrived, Tick
from mesh.protocol.step import Append, PutNote, SetHead
from mesh.protocol.together import resumed
from mesh.roles.loading import load_state
from tests.protocol import machines
from tests.protocol.machines import NOW, Owner, batch, only
from tests.protocol.test_mirror import MEMBERS, Holder
from tests.protocol.test_proven import simple
from tests.roles.test_performer import LAB, Bench
from tests.roles.test_pruning import _later, _pruning
from tests.support.factory import T0
from tests.support.retains import retain


def _backdated(owner: Owner) -> None:
    owner.write(
        lambda writer: GovernanceChanged(
            mesh=writer.mesh, origin=writer.origin, index=writer.index, at_ms=NOW - 86_400_000, change="fresh", about=""
        )
    )


async def test_of_a_log_that_is_silent_for_so_long_the_newest_record_stays_and_nothing_is_attested_that_is_before_it(
    tmp_path: Path,
) -> None:
    bench, owner, mine = await Bench.at(tmp_path), simple("a", 40), Holder()
    stored = mine.batch(batch(owner, note=owner.note(*MEMBERS[1:4])))
    await bench.store.commit([item for item in stored if isinstance(item, Append | SetHead | PutNote)])
    await bench.store.commit([PutNote("certificate", owner.origin, 40, owner.note(*MEMBERS[1:4]))])
    statement = retain(LAB, {owner.origin: 40})
    await bench.performer.take([OfferArrived(9, pack(Offer(statements=[msgspec.Raw(statement.envelope)]))), Tick()])
    _later(bench, PRUNE_AGE_MS_MIN + NOW - T0)
    async with _pruning(bench):
        await asyncio.sleep(0.8)
    held = await load_state(bench.store, machines.LAB.governance, machines.ME)
    mine.state = resumed(owner.origin, held.mirrors[owner.origin], machines.LAB.governance)
    _backdated(owner)
    assert [head.use for head in only(SetHead, mine.batch(batch(owner, 40, note=owner.note())))] == ["witness"]
    assert len(await bench.store.pruned(owner.origin, 0, 128)) == 39
    await bench.store.close()
