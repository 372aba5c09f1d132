"""A roster never makes for more governance streams than a heartbeat can name, and a bundle is never larger than what can be handed on."""

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.law.heartbeat import Heartbeat, Standing, StreamHead
from mesh.core.law.proof import fraud_stream
from mesh.core.law.reign import in_reign
from mesh.core.law.roster import Role, Roster, frauds_max
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import streams_of
from mesh.core.messages import BundleGiven, Supply, pack
from mesh.core.run.intent import Intent
from mesh.limits import (
    BATCH_EVENTS_MAX,
    BUNDLE_BYTES_MAX,
    FRONTIER_STREAMS_MAX,
    INT_MAX,
    INTENT_BYTES_MAX,
    MEMBERS_MAX,
    MESSAGE_BYTES_MAX,
    STRING_CHARS_MAX,
)
from tests.core.kit import refuses
from tests.support.factory import Lab, secret

LAB = Lab()


def _roster(domains: int, revokers: int) -> Roster:
    policy = {f"domain-{at:025}": Role(keys=[secret(f"of domain {at}").public], threshold=1) for at in range(domains)}
    revoker = Role(keys=[secret(f"revoker {at} of many").public for at in range(revokers)], threshold=1)
    return msgspec.structs.replace(LAB.roster, policy=policy, revoker=revoker)


def _rosters(domains: int, revokers: int) -> Rosters:
    return Rosters.begin(_roster(domains, revokers), "00" * 32)


def test_a_roster_with_more_streams_than_a_heartbeat_can_name_is_unsound() -> None:
    domains = 50
    most = FRONTIER_STREAMS_MAX - 3 - 3 * domains - frauds_max(LAB.roster)
    assert len(streams_of(_rosters(domains, most))) == FRONTIER_STREAMS_MAX - frauds_max(LAB.roster), "liars have room, too"
    with refuses("roster_unsound"):
        _roster(domains, most + 1)


def test_the_largest_heartbeat_fits_a_statement() -> None:
    most = _rosters(0, FRONTIER_STREAMS_MAX - 3 - frauds_max(LAB.roster))
    names = sorted(in_reign(name, "ab" * 32) for name in [*streams_of(most), *map(fraud_stream, ("ab" * 32, "cd" * 32, "ef" * 32))])
    heads = [StreamHead(stream=name, sequence=INT_MAX, head="ab" * 32, forked=False, held="cd" * 32) for name in names]
    beat = Heartbeat(
        mesh="m" * 32,
        member="n" * 32,
        incarnation=INT_MAX,
        sequence=INT_MAX,
        signed_ms=INT_MAX,
        roster_epoch=INT_MAX,
        frontier=heads,
        policies=[Standing(domain="d" * 32, admitted=INT_MAX, active=INT_MAX)] * (FRONTIER_STREAMS_MAX // 3),
        checkpoint="c" * 2_000,
        behind=False,
        echo=["ef" * 32] * BATCH_EVENTS_MAX,
    )
    assert len(beat.frontier) == FRONTIER_STREAMS_MAX
    assert envelope.draft(beat).id


@pytest.mark.parametrize("message", [Supply, BundleGiven])
def test_the_largest_bundle_fits_a_message(message: type[Supply] | type[BundleGiven]) -> None:
    bundle = b'"' + b"b" * (BUNDLE_BYTES_MAX - 2) + b'"'
    assert len(pack(message(bundle=msgspec.Raw(bundle)))) <= MESSAGE_BYTES_MAX


def _intent(length: int) -> bytes:
    """An intent whose payload has so many bytes."""
    plain = envelope.read(Intent, LAB.intent(1)[1]).claims
    texts = {f"text{at:02}": "x" * STRING_CHARS_MAX for at in range(14)}
    missing = length - len(canonical.encode(msgspec.structs.replace(plain, params={**texts, "rest": "", "more": "x" * 200})))
    payload = canonical.encode(msgspec.structs.replace(plain, params={**texts, "rest": "x" * missing, "more": "x" * 200}))
    assert len(payload) == length
    return envelope.assemble(envelope.kind_of(Intent).payload_type, payload, {})


def test_an_intent_is_as_large_as_its_limit_and_no_larger() -> None:
    assert envelope.read(Intent, _intent(INTENT_BYTES_MAX)).id
    with refuses("too_large"):
        envelope.read(Intent, _intent(INTENT_BYTES_MAX + 1))


def test_a_roster_has_as_many_members_as_its_limit_and_no_more() -> None:
    (one, *_) = LAB.roster.members
    uses = ("log_key", "witness_key", "attest_key", "decision_key")
    members = [
        msgspec.structs.replace(one, name=f"node-{at:03}", **{use: secret(f"{use} of {at}").public for use in uses})
        for at in range(MEMBERS_MAX + 1)
    ]
    most = msgspec.structs.replace(LAB.roster, members=members[:-1], k=MEMBERS_MAX - 1)
    assert len(canonical.decode(Roster, canonical.encode(most), bytes_max=INT_MAX).members) == MEMBERS_MAX
    more = canonical.encode(msgspec.structs.replace(most, members=members))
    with refuses("malformed"):
        canonical.decode(Roster, more, bytes_max=INT_MAX)
