"""A governor's file gives a newcomer pages that show by themselves where they lead, and remembers what a start compares with."""

from pathlib import Path

import msgspec

from mesh.adapters.store import Store
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.merkle import Frontier, leaf_hash, verify_consistency
from mesh.core.log.record import GovernanceChanged
from mesh.core.messages import LineageBatch, Pull, unpack
from mesh.protocol.documents import Documents
from mesh.protocol.holding import MirrorContext
from mesh.protocol.lineage import Writer
from mesh.protocol.mirror import pull_due, take_batch
from mesh.protocol.proven import behind
from mesh.protocol.step import Append, Ask, Head, PutNote, SetHead
from mesh.protocol.together import resumed, seek
from mesh.roles.answers import pulled
from mesh.roles.loading import load_state
from tests.protocol.machines import LAB, ME, MESH, NOW, OWNER, Owner, empty_log, only

K = [member for member in LAB.roster.members if member.name != ME.name][: LAB.roster.k]
SIZE = 300


def _owner() -> Owner:
    owner = Owner()
    for index in range(SIZE):
        owner.write(
            lambda writer, index=index: GovernanceChanged(  # type: ignore[misc]  # a default argument binds it now
                mesh=MESH, origin=writer.origin, index=index, at_ms=NOW, change="fresh", about=f"{index}"
            )
        )
    return owner


async def _filled(path: Path, owner: Owner) -> Store:
    store = await Store.open(path, owner=ME.name)
    hashes = tuple(map(leaf_hash, owner.leaves))
    head = Head(290, Frontier.empty().extend(hashes[:290]).root(), NOW // 1000)
    await store.commit(
        [
            Append(owner.origin, 0, tuple(owner.leaves), hashes),
            PutNote("certificate", owner.origin, 200, owner.note(*K, size=200)),
            PutNote("certificate", owner.origin, 260, owner.note(*K, size=260)),
            PutNote("attested", owner.origin, 290, owner.note(size=290)),
            PutNote("checkpoint", owner.origin, SIZE, owner.note()),
            SetHead("witness", owner.origin, head),
            SetHead("attest", owner.origin, head),
        ]
    )
    return store


async def test_pages_of_a_file_lead_a_newcomer_to_its_goal_and_show_where_they_begin(tmp_path: Path) -> None:
    owner = _owner()
    store = await _filled(tmp_path / "node.db", owner)
    writer = Writer(empty_log(LAB.roster.origin(ME)), mesh=MESH, now_ms=NOW)
    context = MirrorContext(LAB.governance, ME, OWNER, writer, Documents(), LAB.engine, NOW)
    state, _ = seek(resumed(owner.origin, None, LAB.governance), owner.note(*K, size=260), context)
    pages = 0
    while behind(state):
        context = msgspec.structs.replace(context, now_ms=context.now_ms + 300)
        state, effects = pull_due(state, context)
        (ask,) = only(Ask, effects)
        page = unpack(
            LineageBatch, await pulled(store, Pull(origin=ask.origin, first=ask.first, count=128), b"", LAB.governance, openings=True)
        )
        if ask.first:
            size, root = read_checkpoint(page.checkpoint.encode()).size, read_checkpoint(page.checkpoint.encode()).root
            assert page.start[0] == state.frontier.root().hex()
            verify_consistency(ask.first, size, state.frontier.root(), root, [bytes.fromhex(value) for value in page.start[1:]])
        state, _ = take_batch(state, page, context, helper=ask.member)
        pages += 1
    assert (pages, state.frontier.size, state.certified) == (3, 260, 260)
    await store.close()


async def test_a_start_knows_the_tail_behind_the_certificate_and_the_note_of_what_was_attested(tmp_path: Path) -> None:
    owner = _owner()
    store = await _filled(tmp_path / "node.db", owner)
    held = (await load_state(store, LAB.governance, ME)).mirrors[owner.origin]
    for size in (260, 270, SIZE):
        assert held.root(size) == Frontier.empty().extend(map(leaf_hash, owner.leaves[:size])).root()
    assert held.root(259) is None
    mirror = resumed(owner.origin, held, LAB.governance)
    assert {260, 290, SIZE} <= mirror.signed.keys()
    await store.close()
