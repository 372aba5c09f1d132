"""`mesh audit run --from FILE`: the same audit of what files hold, without a mesh: exports, proofs, a node's file or a copy of it.

Rules
-----
1. The context says whom to trust. What governs is taken from the files as it would be from a member: signed, and verified here.
2. Records are judged by the same procedure as those of a mesh, and every decision is repeated with the real engine.
3. The auditor's own position is neither read nor written: a file is judged from its first record on.
4. What the files lack nobody else is asked for: a log with a gap is judged up to it, and the gap is named. Of what a node's file has
   pruned below a floor that it holds, hashes are enough, as they are from a member.

Not here: judging single proofs (``mesh verify``).
"""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mesh.cli import client
from mesh.cli.offline import proofs_of
from mesh.cli.output import Cli
from mesh.core.bytes import canonical, envelope
from mesh.core.law.fold import extend, with_bundle
from mesh.core.law.governance import Governance
from mesh.core.law.policy import bundle_digest, read_bundle
from mesh.core.law.travel import read_law
from mesh.core.law.vouched import newest_begun
from mesh.core.log.bundle import ProofBundle, read_proof
from mesh.core.log.record import read_record
from mesh.core.messages import Openings
from mesh.errors import Refused
from mesh.limits import BATCH_RECORDS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol.alarms import Patience, Standing
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditEvent, AuditState
from mesh.protocol.events import LineageArrived, NoteArrived
from mesh.protocol.filed import Filed, proofs_as_events, that_is_all
from mesh.protocol.serving import body_ids, opening_ids, pull_answer

if TYPE_CHECKING:
    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.storereader import StoreReader

__all__ = ["audit_files"]

_Law = dict[str, bytes]


async def audit_files(cli: Cli, paths: Sequence[Path], patience: Patience) -> tuple[AuditState, list[Standing], bool]:
    """What an auditor makes of these files: its state, the alarms that stand, whether all that is final was judged.

    Raises:
        Refused: ``config_invalid`` for a file that cannot be read, and what is wrong with it.
        Alarm: ``storage_corrupt``.
    """
    from mesh.adapters.cedar import CedarEngine
    from mesh.adapters.decision_thread import DecisionThread
    from mesh.policy.admission import admit_laws

    library = client.files(cli)
    thread = DecisionThread()
    try:
        engine = CedarEngine(thread)
        admit_laws([law for laws in library.governance.laws.values() for law in laws], engine)
        now_ms = time.time_ns() // 1_000_000
        governance = await _learnt(cli, paths, library.governance, engine, now_ms)
        audit = Audit(governance, engine)
        state = audit.begin(None)
        for path in paths:
            async for events in _events(cli, path):
                state = (await thread.run(audit.step, state, events, now_ms=now_ms)).state if events else state
        state = await thread.run(that_is_all, audit, state, now_ms=now_ms)
        standing = audit.standing(state, now_ms=now_ms, patience=patience)
        return state, standing, all(log.caught_up and log.held >= log.wanted for log in state.logs.values())
    finally:
        thread.close()


# ----------------------------------------------------------------------------------------------------------------- what governs


async def _learnt(cli: Cli, paths: Sequence[Path], governance: Governance, engine: "CedarEngine", now_ms: int) -> Governance:
    """Rule 1. What cannot be believed, or would be no policy here, is said and left out: what rests on it cannot be judged then."""
    law, bundles = await _governing(cli, paths)
    taken = extend(governance, [read_law(data) for data in law.values()])
    for identity, refusal in taken.refused.items():
        cli.say(f"statement {identity[:16]} is left out: {refusal}")
    governance = newest_begun(taken.governance, now_ms)
    for laws in list(governance.laws.values()):
        for law_ in laws:
            data = bundles.get(law_.manifest.digest)
            if law_.bundle is None and data is not None:
                governance = _admitted(cli, governance, law_.manifest_id, data, engine)
    return governance


async def _governing(cli: Cli, paths: Sequence[Path]) -> tuple[_Law, _Law]:
    """Statements by id, and policy bundles by digest, as files have them."""
    law, bundles = _Law(), _Law()
    for path in paths:
        with _store(path) as reader:
            if reader is not None:
                law |= dict(await reader.all_law())
                bundles |= {bundle_digest(data): data for data in await reader.bundles()}
                continue
        for proof in _proofs(cli, path):
            for raw in (*proof.rosters, *proof.manifests, *proof.activations):
                law.setdefault(envelope.identify(bytes(raw))[1], bytes(raw))
            bundles |= {bundle_digest(bytes(raw)): bytes(raw) for raw in proof.bundles}
    return law, bundles


def _admitted(cli: Cli, governance: Governance, manifest: str, data: bytes, engine: "CedarEngine") -> Governance:
    """With that bundle under that manifest, examined as a node does: in a child process first, because its text can kill one."""
    from mesh.policy.admission import examine, install

    law = next(law for laws in governance.laws.values() for law in laws if law.manifest_id == manifest)
    try:
        examine([data])
        bundle = read_bundle(data, digest=law.manifest.digest)
        install(law.manifest, bundle, engine)
    except Refused as refusal:
        cli.say(f"the policy of {law.manifest.domain} epoch {law.manifest.epoch} is left out: {refusal}")
        return governance
    return with_bundle(governance, manifest, bundle)


# --------------------------------------------------------------------------------------------------------------------- records


async def _events(cli: Cli, path: Path) -> AsyncIterator[list[AuditEvent]]:
    with _store(path) as reader:
        if reader is None:
            for events in proofs_as_events(_proofs(cli, path)):
                yield events
            return
        for origin, size in sorted((await reader.sizes()).items()):
            async for events in _log(reader, origin, size):
                yield events


async def _log(reader: "StoreReader", origin: str, size: int) -> AsyncIterator[list[AuditEvent]]:
    """One log of a node's file, with the certificates that it holds."""
    filed, first = Filed(), 0
    while first < size:
        gone = await reader.pruned(origin, first, BATCH_RECORDS_MAX)
        if gone:
            yield [*filed.end(), await _hashes(reader, origin, first, gone)]
            first += len(gone)
            continue
        leaves = await reader.records(origin, first, BATCH_RECORDS_MAX)
        records = [read_record(leaf) for leaf in leaves]
        bodies = await reader.bodies(name for record in records for name in body_ids(record))
        opened = await reader.openings(name for record in records for name in opening_ids(record))
        note = await reader.note("certificate", origin, at_least=first + len(leaves))
        for leaf, record in zip(leaves, records, strict=True):
            mine = next((opened[name] for name in opening_ids(record) if name in opened), None)
            openings = canonical.decode(Openings, mine, bytes_max=MESSAGE_BYTES_MAX) if mine is not None else None
            named = [bodies[name] for name in body_ids(record) if name in bodies]
            yield filed.add(origin, record.index, leaf, named, openings, note.note if note is not None else b"")
        first += len(leaves)
    newest = await reader.note("certificate", origin, latest=True)
    yield [*filed.end(), *([NoteArrived(newest.note)] if newest is not None else [])]


async def _hashes(reader: "StoreReader", origin: str, first: int, gone: Sequence[bytes]) -> LineageArrived:
    """Hashes of records that were pruned, and how they lead to a certificate, as a member answers who is asked for them."""
    end, path = first + len(gone), list[bytes]()
    certificate = await reader.note("certificate", origin, at_least=end)
    if certificate is not None and end < certificate.size:
        path += await reader.consistency_path(origin, end, certificate.size)
    note = certificate.note if certificate is not None else b""
    return LineageArrived(pull_answer(origin, first, [], {}, {}, note, path=path, pruned=gone), pulled=True)


def _proofs(cli: Cli, path: Path) -> Iterator[ProofBundle]:
    for data in proofs_of(cli, path):
        yield read_proof(data)


@contextmanager
def _store(path: Path) -> Iterator["StoreReader | None"]:
    """A node's file, opened; ``None`` for a file of another kind."""
    from mesh.adapters.storereader import StoreReader, is_store

    if not is_store(path):
        yield None
        return
    with StoreReader(path) as reader:
        yield reader
