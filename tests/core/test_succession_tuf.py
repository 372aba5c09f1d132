"""An independent implementation of chained key rings (python-tuf: root metadata) gives the same verdicts as our chains of rosters.

What both must agree on: which keys count, how many, in which order versions come, and what is over. What TUF does not have: the id of the
predecessor, the name of the mesh, members and their overlap. Those are ours alone and tested beside this file.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

# Their packages hand on names of private modules, which is how their own documentation imports them.
# pyright: reportPrivateImportUsage=false
from securesystemslib.signer import Key, Signature, SSlibKey
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Root, Timestamp
from tuf.api.metadata import Role as TheirRole
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.fold import admit_governance
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Roster, admit_roster
from mesh.core.law.succession import admit_successor
from mesh.errors import Refused
from tests.core.kit import refuses
from tests.support.factory import T0, Lab, sign
from tests.support.rosters import key, owners, roster, signed

POOL = tuple(key(f"pool {number}") for number in range(6))
SERVICE = key("service")
"""Signs what is below the root in TUF, which we have no counterpart for."""
FAR = datetime(2100, 1, 1, tzinfo=UTC)
MEMBERS = ("a", "b", "c", "d")


class Ring(msgspec.Struct, frozen=True):
    """One version of the root, before it is either format's."""

    version: int
    keys: tuple[SecretKey, ...]
    threshold: int
    signers: tuple[SecretKey, ...]
    broken: tuple[SecretKey, ...] = ()
    """These sign something else."""


def _key(of: SecretKey, keyid: str | None = None) -> Key:
    return SSlibKey(keyid or of.public, "ed25519", "ed25519", {"public": of.public})


def _theirs(ring: Ring, *, ids: Sequence[str] | None = None, expires: datetime = FAR) -> Metadata[Root]:
    """TUF root metadata; ``ids`` are the key ids, otherwise a key's id is the key."""
    ids = ids or [one.public for one in ring.keys]
    keys = {keyid: _key(one, keyid) for keyid, one in zip(ids, ring.keys, strict=True)} | {SERVICE.public: _key(SERVICE)}
    below = {name: TheirRole([SERVICE.public], 1) for name in ("timestamp", "snapshot", "targets")}
    root = Root(version=ring.version, expires=expires, keys=keys, roles={"root": TheirRole(list(ids), ring.threshold), **below})
    metadata = Metadata(root)
    for signer in ring.signers:
        signature = signer.sign(b"something else" if signer in ring.broken else metadata.signed_bytes).hex()
        names = {keyid for keyid, held in keys.items() if held.keyval["public"] == signer.public}
        metadata.signatures |= {keyid: Signature(keyid, signature) for keyid in names | {signer.public}}
    return metadata


def _trusted(first: Metadata[Root]) -> TrustedMetadataSet:
    return TrustedMetadataSet(first.to_bytes(), EnvelopeType.METADATA)


def _ours(ring: Ring, after: Statement[Roster] | None) -> Statement[Roster]:
    value = roster(MEMBERS, 1, 3, after=after, root=ring.keys, threshold=ring.threshold)
    value = msgspec.structs.replace(value, epoch=ring.version, handovers=value.handovers if ring.version > 1 else {})
    draft = envelope.draft(value)
    lines = {one.public: one.sign(b"something else" if one in ring.broken else draft.message) for one in ring.signers}
    lines |= {one.public: one.sign(draft.message) for one in owners(value)}
    return envelope.read(Roster, envelope.assemble(draft.payload_type, draft.payload, lines))


def _they_accept(trusted: TrustedMetadataSet, metadata: Metadata[Root]) -> bool:
    try:
        trusted.update_root(metadata.to_bytes())
    except RepositoryError:
        return False
    return True


def _refused(now: Statement[Roster], offered: Statement[Roster]) -> str:
    """The code with which we refuse; empty if we accept."""
    try:
        admit_successor(now.claims, now.id, offered)
    except Refused as refusal:
        return refusal.code
    return ""


# ----------------------------------------------------------------------------------------------------------- the same verdicts


@st.composite
def _rings(draw: st.DrawFn, now: Ring | None) -> Ring:
    """Mostly a step that may be right, sometimes one that cannot."""
    keys = tuple(draw(st.lists(st.sampled_from(POOL), min_size=1, max_size=4, unique=True)))
    threshold = draw(st.integers(1, len(keys)))
    if now is None:
        return Ring(1, keys, threshold, keys)
    if draw(st.booleans()):
        keys, threshold = now.keys, now.threshold
    version = now.version + draw(st.sampled_from([1, 1, 1, 1, 0, -1, 2]))
    enough = (*now.keys[: now.threshold], *keys[:threshold])
    short = (*now.keys[: now.threshold - 1], *keys), (*now.keys, *keys[: threshold - 1])
    chosen = draw(st.sampled_from([enough, enough, *short]) | st.lists(st.sampled_from(POOL)).map(tuple))
    signers = tuple(dict.fromkeys(chosen))
    broken = draw(st.sampled_from([(), (), (), signers[:1], signers[-1:]]))
    return Ring(max(1, version), keys, threshold, signers, broken)


@settings(max_examples=120)
@given(st.data())
def test_every_chain_gets_the_same_verdict_at_every_step(data: st.DataObject) -> None:
    ring = data.draw(_rings(None))
    now, trusted = _ours(ring, None), _trusted(_theirs(ring))
    assert admit_roster(now, pin=now.id) == now.claims
    for _ in range(data.draw(st.integers(1, 5))):
        offered = data.draw(_rings(ring))
        statement, metadata = _ours(offered, now), _theirs(offered)
        code = _refused(now, statement)
        assert _they_accept(trusted, metadata) is (not code), code
        event(code or "accepted")
        if not code:
            ring, now = offered, statement
        assert trusted.root.version == now.claims.epoch
        assert set(trusted.root.roles["root"].keyids) == set(now.claims.root.keys)


OLD = Ring(5, POOL[:3], 2, POOL[:3])
TABLE: dict[str, tuple[Ring, str]] = {
    "nothing changes": (Ring(6, POOL[:3], 2, POOL[:2]), ""),
    "one key is replaced": (Ring(6, POOL[1:4], 2, POOL[:3]), ""),
    "all keys are replaced": (Ring(6, POOL[3:], 2, (*POOL[:2], *POOL[3:5])), ""),
    "the threshold rises": (Ring(6, POOL[:3], 3, POOL[:3]), ""),
    "the threshold falls": (Ring(6, POOL[:3], 1, POOL[:2]), ""),
    "the threshold falls and is used at once": (Ring(6, POOL[:3], 1, POOL[:1]), "threshold_not_met"),
    "the threshold rises and is not met": (Ring(6, POOL[:3], 3, POOL[:2]), "threshold_not_met"),
    "one short of the old": (Ring(6, POOL[2:5], 2, POOL[2:5]), "threshold_not_met"),
    "one short of the new": (Ring(6, POOL[2:5], 2, POOL[:3]), "threshold_not_met"),
    "a version is skipped": (Ring(7, POOL[:3], 2, POOL[:3]), "wrong_epoch"),
    "the same version": (Ring(5, POOL[1:4], 2, POOL[:4]), "wrong_epoch"),
    "rolled back": (Ring(4, POOL[:3], 2, POOL[:3]), "wrong_epoch"),
    "a wrong signature of the old root": (Ring(6, POOL[3:], 2, (*POOL[:2], *POOL[3:]), POOL[:1]), "threshold_not_met"),
    "a wrong signature of the new root": (Ring(6, POOL[3:5], 2, POOL[:5], POOL[3:4]), "threshold_not_met"),
    "a wrong signature beside enough right ones": (Ring(6, POOL[:3], 2, POOL[:3], POOL[:1]), ""),
    "strangers sign too": (Ring(6, POOL[:3], 2, POOL), ""),
    "only strangers sign": (Ring(6, POOL[:3], 2, POOL[3:]), "threshold_not_met"),
    "nobody signs": (Ring(6, POOL[:3], 2, ()), "threshold_not_met"),
}


@pytest.mark.parametrize("what", TABLE)
def test_both_say_the_same_when(what: str) -> None:
    offered, code = TABLE[what]
    now = _ours(OLD, None)
    assert _refused(now, _ours(offered, now)) == code
    assert _they_accept(_trusted(_theirs(OLD)), _theirs(offered)) is (not code)


@pytest.mark.parametrize("signers", [POOL[:3], POOL[:2], POOL[:1], (), POOL[3:]], ids=["all", "enough", "one", "none", "strangers"])
def test_both_believe_the_first_one_for_its_own_signatures_only(signers: tuple[SecretKey, ...]) -> None:
    ring = Ring(1, POOL[:3], 2, signers)
    statement = _ours(ring, None)
    if len(set(signers) & set(ring.keys)) >= 2:
        admit_roster(statement, pin=statement.id)
        _trusted(_theirs(ring))
        return
    with refuses("threshold_not_met"):
        admit_roster(statement, pin=statement.id)
    with pytest.raises(RepositoryError):
        _trusted(_theirs(ring))


# ------------------------------------------------------------------------------------------------------ where we differ, on purpose


def test_one_key_under_two_ids_counts_twice_there_and_cannot_be_named_here() -> None:
    """TUF counts key ids, and this reader does not compute them from keys; with us the id is the key."""
    doubled = Ring(6, (POOL[0], POOL[0]), 2, POOL[:2])
    their = _theirs(doubled, ids=["first", "second"])
    assert their.signed.roles["root"].threshold == 2
    assert _they_accept(_trusted(_theirs(OLD)), their)  # one key of the new ring has signed, under two names
    with refuses("bad_key"):
        _ours(doubled, _ours(OLD, None))


def test_even_a_list_that_names_one_key_twice_counts_it_once_here() -> None:
    statement = signed(roster(MEMBERS, 1, 3, root=POOL[:2]), POOL[0])
    with refuses("threshold_not_met"):
        statement.verify_threshold([POOL[0].public, POOL[0].public], 2)


def test_a_successor_of_another_predecessor_passes_there_and_not_here() -> None:
    """TUF chains versions; we chain ids. Two rosters of one epoch have no common successor."""
    now, twin = _ours(OLD, None), _ours(Ring(5, POOL[:3], 1, POOL[:3]), None)
    offered = Ring(6, POOL[:3], 2, POOL[:3])
    assert _refused(now, _ours(offered, now)) == ""
    assert _refused(now, _ours(offered, twin)) == "wrong_epoch"
    assert _they_accept(_trusted(_theirs(OLD)), _theirs(offered))


# ------------------------------------------------------------------------------------------------------------------ what is over


LAB = Lab()
WHEN = datetime.fromtimestamp(T0 / 1000, tz=UTC)
SECONDS = st.integers(1, 6)


@settings(max_examples=60)
@given(st.lists(SECONDS, min_size=1, max_size=4), st.integers(0, 7))
def test_the_last_of_a_chain_of_manifests_decides_what_is_over_and_nobody_falls_back(ends: list[int], at: int) -> None:
    """TUF checks the expiry of the last root only, when it goes on to a timestamp; whole seconds, because TUF writes no others."""
    manifests: list[Statement[Manifest]] = []
    for epoch, end in enumerate(ends, 1):
        previous = manifests[-1].id if manifests else ""
        value = msgspec.structs.replace(LAB.manifest, epoch=epoch, previous=previous, expires_ms=T0 + 1000 * end)
        manifests.append(envelope.read(Manifest, sign(value, *LAB.signers[:2])))
    begun = [LAB.activation(manifests[-1], ([], T0))] if len(manifests) > 1 else []
    held = admit_governance(envelope.read(Roster, LAB.roster_envelope), pin=LAB.pin, manifests=manifests, said=begun)
    chain = [_theirs(Ring(version, POOL[:3], 2, POOL[:3]), expires=WHEN + timedelta(seconds=end)) for version, end in enumerate(ends, 1)]
    trusted = _trusted(chain[0])
    for metadata in chain[1:]:
        trusted.update_root(metadata.to_bytes())
    trusted.reference_time = WHEN + timedelta(seconds=at)
    timestamp = Metadata(Timestamp(version=1, expires=FAR))
    timestamp.signatures[SERVICE.public] = Signature(SERVICE.public, SERVICE.sign(timestamp.signed_bytes).hex())
    if at < ends[-1]:
        assert held.active("payments", "eu", T0 + 1000 * at).manifest.epoch == len(ends)
        trusted.update_timestamp(timestamp.to_bytes())
        return
    with refuses("policy_expired"):
        held.active("payments", "eu", T0 + 1000 * at)
    with pytest.raises(ExpiredMetadataError):
        trusted.update_timestamp(timestamp.to_bytes())
