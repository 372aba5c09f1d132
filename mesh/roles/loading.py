"""From a node's file to the state its machine starts from, and from its configuration to the engine that it decides with."""

from collections.abc import Mapping

from mesh.adapters.cedar import CedarEngine
from mesh.adapters.decision_thread import DecisionThread
from mesh.adapters.store import Store
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import put_in_force, restore
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member, Roster
from mesh.core.law.travel import Said, read_law
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import read_record
from mesh.errors import Alarm, Refused
from mesh.policy.admission import admit_laws
from mesh.protocol import hearing, serving
from mesh.protocol.histories import RECENT_MAX, Recent
from mesh.protocol.lineage import CHECKPOINT_RECORDS_MAX
from mesh.protocol.members import logs_of
from mesh.protocol.refusing import conflict_key, refused_key
from mesh.protocol.step import Head, HeadUse, KeyUse
from mesh.protocol.stored import INCARNATION, REFILLED, ROSTER_EPOCH, Stored, StoredLog

__all__ = ["admitted_engine", "enrolled", "load_governance", "load_state"]


def admitted_engine(governance: Governance, thread: DecisionThread) -> CedarEngine:
    """The engine with every bundle of ``governance``, evaluated on ``thread``.

    Raises:
        Refused: ``config_invalid`` for a manifest without its bundle; what is wrong with a bundle.
    """
    engine = CedarEngine(thread)
    laws = [law for epochs in governance.laws.values() for law in epochs]
    for law in laws:
        if law.bundle is None:
            raise Refused("config_invalid", f"no bundle for {law.manifest.domain} epoch {law.manifest.epoch}")
    admit_laws(laws, engine)
    return engine


async def load_governance(store: Store, governance: Governance) -> Governance:
    """What the files said with all that was heard since, under the roster that this node went over to.

    What was said in streams of which that roster lets nothing count is deleted.
    """
    held = await _heard_law(store, governance)
    gone = held.forgettable & held.streams.keys()
    if gone:
        await store.forget(gone)
        held = await _heard_law(store, governance)
    return held


async def _heard_law(store: Store, governance: Governance) -> Governance:
    held = restore(governance, await _law(store))
    epoch = max(governance.roster.epoch, await store.meta(ROSTER_EPOCH) or 0)
    return put_in_force(held, min(epoch, len(held.rosters.ids)))  # fewer count after a fork, and nothing is done until that is resolved


def enrolled(roster: Roster, name: str, keys: Mapping[KeyUse, str], *, heard: str = "") -> Member:
    """The member of that name.

    Args:
        roster: in force.
        name: of this node.
        keys: use to the public key (hex) that this node signs with.
        heard: the region whose subjects it has subscribed to; empty for none yet.

    Raises:
        Alarm: ``not_enrolled`` if the roster names no such member, another key, or another region than it hears.
    """
    member = next((member for member in roster.members if member.name == name), None)
    if member is None:
        raise Alarm("not_enrolled", f"roster epoch {roster.epoch} names no member {name}")
    for use, key in keys.items():
        if key != getattr(member, f"{use}_key"):
            raise Alarm("not_enrolled", f"{use}.key is not the key that roster epoch {roster.epoch} names for {name}")
    if heard not in {"", member.region}:
        raise Alarm("not_enrolled", f"{name} moves from {heard} to {member.region}: it begins there when it is started again")
    return member


async def load_state(store: Store, governance: Governance, me: Member) -> Stored:
    """What the file holds of every log of all who are or were members."""
    roster = governance.roster
    heads, sizes = await store.heads(), await store.sizes()
    logs = {origin: await _log(store, origin, heads, sizes) for origin in logs_of(governance)}
    own = logs.pop(roster.origin(me))
    law = await _law(store)
    beats = {member.name: await store.note("heartbeat", roster.origin(member), latest=True) for member in roster.members}
    heard = {name: beat.size for name, beat in beats.items() if beat is not None}
    incarnation, refilled = await store.meta(INCARNATION) or 0, await store.meta(REFILLED) or 0
    return Stored(incarnation=incarnation, own=own, mirrors=logs, law=law, heard=heard, refilled=refilled, words=await _heard(store))


async def _heard(store: Store) -> hearing.Words:
    """What enforcers said last, log by log."""
    words = dict[str, dict[str, hearing.Word]]()
    for (origin, key), index in hearing.restored(await store.metas(hearing.META)).items():
        if await store.pruned(origin, index, 1):
            continue  # whoever was silent for so long is known by nothing any more
        for leaf in await store.records(origin, index, 1):
            for body in (await store.bodies(serving.leaf_ids(leaf)[0][:1])).values():
                word = hearing.word_of(leaf, body, index=index)
                if word is not None:
                    words.setdefault(origin, {})[key] = word
    return words


async def _law(store: Store) -> tuple[Statement[Said], ...]:
    return tuple([_statement(identity, data) for identity, data in await store.all_law()])


def _statement(identity: str, data: bytes) -> Statement[Said]:
    try:
        statement = read_law(data)
    except Refused as refusal:
        raise Alarm("storage_corrupt", f"governance statement {identity}: {refusal}") from None
    if statement.id != identity:
        raise Alarm("storage_corrupt", f"governance statement {identity}")
    return statement


async def _log(store: Store, origin: str, heads: dict[tuple[HeadUse, str], Head], sizes: dict[str, int]) -> StoredLog:
    size = sizes.get(origin, 0)
    certificate = await store.note("certificate", origin, latest=True)
    certified = certificate.size if certificate is not None else 0
    checkpoint = await store.note("checkpoint", origin, latest=True)
    attested = await store.note("attested", origin, latest=True)
    refusal = await store.note("refused", origin, latest=True)
    last_ms = await _last_ms(store, origin, size, heads)
    first_mark = certified - certified % CHECKPOINT_RECORDS_MAX + CHECKPOINT_RECORDS_MAX
    refused, conflict = await store.meta(refused_key(origin)), await store.meta(conflict_key(origin))
    return StoredLog(
        frontier=await store.frontier(origin) if size else Frontier.empty(),
        last_ms=last_ms,
        certified=certified,
        log=heads.get(("log", origin)),
        witness=heads.get(("witness", origin)),
        attest=heads.get(("attest", origin)),
        marks=tuple([await store.frontier_at(origin, mark) for mark in range(first_mark, size + 1, CHECKPOINT_RECORDS_MAX)]),
        refused=refused if refused is not None else -1,
        conflicted=conflict is not None,
        checkpoint=checkpoint.note if checkpoint is not None else b"",
        certificate=certificate.note if certificate is not None else b"",
        attested=attested.note if attested is not None else b"",
        refusal=refusal.note if refusal is not None else b"",
        recent=await _recent(store, origin, certified, size),
    )


async def _last_ms(store: Store, origin: str, size: int, heads: dict[tuple[HeadUse, str], Head]) -> int:
    """Time of the last record; of one that was pruned, when its log was signed here last, or 0 for another's log."""
    if await store.pruned(origin, size - 1, 1):
        own = heads.get(("log", origin))
        return own.time_s * 1000 if own is not None else 0
    return read_record((await store.records(origin, size - 1, 1))[0]).at_ms if size else 0


async def _recent(store: Store, origin: str, certified: int, size: int) -> Recent | None:
    first = max(certified, size - RECENT_MAX)
    if not 0 <= first < size:
        return None
    return Recent(await store.frontier_at(origin, first) if first else Frontier.empty(), await store.tile(origin, 0, first, size - first))
