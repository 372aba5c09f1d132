"""Logs name one another's trees, so that none can be rewritten alone; and nobody speaks for that reason only."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical
from mesh.core.log.checkpoint import log_origin
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import Cosigned, CosignedHead, GovernanceChanged, encode_record, read_record
from mesh.errors import Refused
from mesh.limits import COSIGNED_HEADS_MAX, RECORD_BYTES_MAX
from mesh.protocol import entangling
from mesh.protocol.attester import Material, examine_records
from mesh.protocol.documents import Documents
from mesh.protocol.entangling import ENTANGLE_MS, entangle
from mesh.protocol.holding import Mirror
from mesh.protocol.lineage import LogState, Writer
from mesh.protocol.step import Append, Head
from mesh.protocol.stored import mirror_of
from mesh.testing.world.world import World
from tests.protocol.machines import LAB, ME, MESH, NOW, OWNER, Owner, empty_log

ORIGIN = LAB.roster.origin(ME)
LATER = NOW + ENTANGLE_MS


def _head(size: int) -> Head:
    return Head(size, bytes([size % 256]) * 32, NOW // 1000)


def _mirrors(**sizes: int) -> dict[str, Mirror]:
    return {name: msgspec.structs.replace(mirror_of(name, None), witnessed=_head(size)) for name, size in sizes.items()}


def _said(state: LogState, mirrors: Mapping[str, Mirror], *, now_ms: int, records: int = 1) -> tuple[LogState, list[list[CosignedHead]]]:
    """What a step with so many records of its own says of other logs."""
    writer = Writer(state, mesh=MESH, now_ms=now_ms)
    for _ in range(records):
        place = {"mesh": MESH, "origin": ORIGIN, "index": writer.index, "at_ms": writer.at_ms}
        writer.append(GovernanceChanged(**place, change="policy", about="x"))  # type: ignore[arg-type]
    state = entangle(state, mirrors, writer, now_ms=now_ms)
    state, effects = writer.finish(state)
    leaves = [leaf for effect in effects if isinstance(effect, Append) for leaf in effect.leaves]
    return state, [record.heads for record in map(read_record, leaves) if isinstance(record, Cosigned)]


def _sizes(heads: Iterable[CosignedHead]) -> list[tuple[str, int]]:
    return [(head.origin, head.size) for head in heads]


def test_a_log_names_the_newest_tree_of_each_other_log_that_it_has_cosigned() -> None:
    mirrors = {**_mirrors(**{"lab/us-1/e1": 7, "lab/ap-1/e1": 3}), "lab/sa-1/e1": mirror_of("lab/sa-1/e1", None)}
    state, (heads,) = _said(empty_log(ORIGIN), mirrors, now_ms=LATER)
    assert _sizes(heads) == [("lab/ap-1/e1", 3), ("lab/us-1/e1", 7)], "in their order; of whom nothing was cosigned, nothing"
    assert heads[1] == CosignedHead(origin="lab/us-1/e1", root=_head(7).root.hex(), size=7, time_s=NOW // 1000)
    assert state.frontier.size == 2


def test_only_what_is_new_is_named_and_not_more_often_than_every_interval() -> None:
    before = _mirrors(**{"lab/us-1/e1": 7, "lab/ap-1/e1": 3})
    state, _ = _said(empty_log(ORIGIN), before, now_ms=LATER)
    grown = {**before, **_mirrors(**{"lab/us-1/e1": 9})}
    state, early = _said(state, grown, now_ms=LATER + ENTANGLE_MS - 1)
    assert early == []
    state, (heads,) = _said(state, grown, now_ms=LATER + ENTANGLE_MS)
    assert _sizes(heads) == [("lab/us-1/e1", 9)]
    assert _said(state, grown, now_ms=LATER + 2 * ENTANGLE_MS)[1] == [], "nothing is new"


def test_who_has_nothing_to_say_does_not_speak_for_that_reason() -> None:
    mirrors = _mirrors(**{"lab/us-1/e1": 7})
    empty = empty_log(ORIGIN)
    assert _said(empty, mirrors, now_ms=LATER, records=0)[1] == []
    state, _ = _said(empty, mirrors, now_ms=LATER)
    newer = _mirrors(**{"lab/us-1/e1": 8})
    waiting, none = _said(state, newer, now_ms=LATER + ENTANGLE_MS, records=0)
    assert none == [], "the last record that waits for its certificate is one of this kind"
    certified = msgspec.structs.replace(_said(state, newer, now_ms=LATER + 1)[0], certified=3)
    assert _said(certified, newer, now_ms=LATER + ENTANGLE_MS, records=0)[1] == [], "nothing waits for a certificate"
    assert len(_said(certified, newer, now_ms=LATER + ENTANGLE_MS)[1]) == 1
    assert waiting.entangled == state.entangled


def test_more_logs_than_one_record_takes_are_named_one_record_after_the_other_and_each_fits_into_its_log() -> None:
    mirrors = _mirrors(**{log_origin("m" * 32, f"{number:032d}", 9_999): 2**52 for number in range(COSIGNED_HEADS_MAX + 1)})
    state, (first,) = _said(empty_log(ORIGIN), mirrors, now_ms=LATER)
    _, (second,) = _said(state, mirrors, now_ms=LATER + ENTANGLE_MS)
    assert [head.origin for head in (*first, *second)] == sorted(mirrors)
    assert len(first) == COSIGNED_HEADS_MAX
    record = Cosigned(mesh=MESH, origin=ORIGIN, index=0, at_ms=NOW, heads=first)
    assert len(encode_record(record)) <= RECORD_BYTES_MAX
    with pytest.raises(Refused):
        read_record(canonical.encode(msgspec.structs.replace(record, heads=[*first, *second])))


def _wrong() -> dict[str, Any]:
    good = [CosignedHead(origin=f"{MESH}/{name}/e1", root="00" * 32, size=3, time_s=1) for name in ("ap-1", "us-1")]
    return {
        "its own log": [msgspec.structs.replace(good[0], origin=LAB.roster.origin(OWNER))],
        "another mesh": [msgspec.structs.replace(good[0], origin="other/ap-1/e1")],
        "twice": [good[0], good[0]],
        "another order": good[::-1],
        "an empty tree": [msgspec.structs.replace(good[0], size=0)],
    }


@pytest.mark.parametrize("what", _wrong())
def test_what_names_no_trees_of_other_logs_in_order_is_not_attested(what: str) -> None:
    owner = Owner()
    owner.write(lambda writer: Cosigned(mesh=MESH, origin=writer.origin, index=writer.index, at_ms=writer.at_ms, heads=_wrong()[what]))
    (item,) = examine_records(
        owner.leaves, Material({}, {}), owner=OWNER, first=0, after_ms=0, governance=LAB.governance, documents=Documents(),
        engine=LAB.engine, now_ms=NOW,
    )  # fmt: skip
    assert item.code == "record_invalid"


def test_in_a_mesh_that_works_every_tree_that_a_log_names_is_one_that_the_other_log_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entangling, "ENTANGLE_MS", 500)  # a world lasts some seconds
    named = 0
    for seed in range(2):
        world = World(seed, nodes=4)
        result = world.run()
        assert not result.promise, result.message
        governors, liars = world.stage.governors, world.stage.watch.liars
        logs = {name: governor.disk.logs for name, governor in governors.items() if name not in liars}
        whole: dict[str, list[bytes]] = {}
        for held in logs.values():
            whole.update({origin: log.hashes for origin, log in held.items() if len(log.hashes) > len(whole.get(origin, []))})
        for stored in (log for held in logs.values() for log in held.values()):
            for record in map(read_record, stored.leaves):
                for head in record.heads if isinstance(record, Cosigned) else ():
                    if head.origin.split("/")[1] not in liars:
                        assert Frontier.empty().extend(whole[head.origin][: head.size]).root().hex() == head.root
                        named += 1
    assert named > 10
