"""What enforcers said last is known again when a governor starts, from its own log and from those that it mirrors."""

from pathlib import Path

from mesh.adapters.store import Store
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import EnforcerHeard, encode_record
from mesh.core.messages import HeardAsked, HeardGiven, unpack
from mesh.protocol.begin import begin
from mesh.protocol.documents import Documents
from mesh.protocol.governor import Machine
from mesh.protocol.hearing import Hearing, newest
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Append, Effect, Persist, PutBody, Send, SetMeta, Sign
from mesh.roles.answers import heard
from mesh.roles.loading import load_state
from tests.protocol.machines import LAB, ME, MESH, NOW, OWNER, empty_log, secret
from tests.support.heard import another_enforcer, request, word

ORIGIN, OTHER = LAB.roster.origin(ME), LAB.roster.origin(OWNER)
GATE_WORD, GATE = another_enforcer(LAB, "gate", at_ms=NOW)
LATER = word(LAB, at_ms=NOW + 5, sequence=2)


def _effects() -> tuple[Hearing, list[Persist]]:
    """Two enforcers speak here; one of them has said something newer elsewhere."""
    log = empty_log(ORIGIN)
    writer, hearing = Writer(log, mesh=MESH, now_ms=NOW), Hearing({}, me=ME, origin=ORIGIN, documents=Documents())
    effects, codes = list[Effect](), list[str]()
    for data in (request(word(LAB, at_ms=NOW).envelope, LAB.place_envelope), request(GATE_WORD, GATE)):
        taken, code = hearing.take(1, data, LAB.governance, writer)
        effects += taken
        codes.append(code)
    assert codes == ["", ""]
    leaf = encode_record(
        EnforcerHeard(
            mesh=MESH, origin=OTHER, index=0, at_ms=NOW + 5, heard=LATER.id, identity=LATER.claims.identity, subject=LAB.place.subject
        )
    )
    stored: list[Persist] = [Append(OTHER, 0, (leaf,), (leaf_hash(leaf),)), PutBody(LATER.id, "heard", LATER.envelope)]
    stored.append(PutBody(LATER.claims.identity, "identity", LAB.place_envelope))
    effects += [*writer.finish(log)[1], *stored, *hearing.mirrored(stored, LAB.governance)]
    return hearing, [effect for effect in effects if not isinstance(effect, Sign | Send)]  # type: ignore[misc]  # the others are not among them


async def test_what_enforcers_said_last_is_known_again_after_a_restart(tmp_path: Path) -> None:
    hearing, effects = _effects()
    store = await Store.open(tmp_path / "node.db", owner=ME.name)
    await store.commit(effects)
    await store.close()
    store = await Store.open(tmp_path / "node.db", owner=ME.name)
    state = begin(Machine(LAB.governance, ME, LAB.engine), await load_state(store, LAB.governance, ME), boot="b0" * 32, now_ms=NOW).state
    assert state.words == hearing.words
    assert {key: log for key, (log, _) in newest(state.words).items()} == {LAB.place_key.public: OTHER, secret("gate").public: ORIGIN}
    given = unpack(HeardGiven, await heard(store, state.words, HeardAsked(after="")))
    assert {(bytes(item.heard), bytes(item.identity)) for item in given.words} == {
        (LATER.envelope, LAB.place_envelope),
        (GATE_WORD, GATE),
    }
    await store.close()


async def test_an_enforcer_that_was_forgotten_stays_so_after_a_restart(tmp_path: Path) -> None:
    _, effects = _effects()
    store = await Store.open(tmp_path / "node.db", owner=ME.name)
    await store.commit([*effects, SetMeta(f"heard {ORIGIN} {secret('gate').public}", -1)])
    words = (await load_state(store, LAB.governance, ME)).words
    assert {origin: set(log) for origin, log in words.items()} == {
        ORIGIN: {LAB.place_key.public},
        OTHER: {LAB.place_key.public},
    }
    await store.close()
