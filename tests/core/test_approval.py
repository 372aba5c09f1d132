"""What people approve is one exact effect, for a time, by enough of the right keys; whatever else comes is refused."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.roster import Role
from mesh.core.run.approval import NOTHING, Approval, Backing, Effect, demands, read_said, unmet, weigh
from mesh.core.run.intent import Audience, EntityRef, Intent, Measurement
from mesh.core.run.paper import fold, statement_in, unfold
from mesh.limits import (
    APPROVAL_BYTES_MAX,
    APPROVAL_LIFE_MS_MAX,
    APPROVAL_USES_MAX,
    APPROVALS_BYTES_MAX,
    APPROVALS_MAX,
    GRANT_ACTIONS_MAX,
    GRANT_LIFE_MS_MAX,
)
from tests.core.kit import refuses
from tests.support.factory import T0, Lab, secret, sign, sign_draft

LAB = Lab()
SKEW_MS = LAB.roster.bounds.skew_ms
ONE, TWO, THREE = LAB.approvers


def asked(**changed: Any) -> bytes:
    """The envelope of an intent to send 500 to the vault."""
    _, data, _ = LAB.intent(1, amount=500, account="vault")
    claims = msgspec.structs.replace(envelope.read(Intent, data).claims, **changed)
    return sign(claims, LAB.holder)


def weighed(*said: bytes, intent: bytes | None = None, at_ms: int = T0 + 10) -> Backing:
    return weigh(said, envelope.read(Intent, intent or asked()).claims, LAB.roster, at_ms=at_ms)


def approval(*keys: SecretKey, **changed: Any) -> bytes:
    return LAB.approval(asked(), *keys, **changed)


# ------------------------------------------------------------------------------------------------------------ the effect


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": "ab" * 16},
        {"created_ms": T0 + 5, "expires_ms": T0 + 20_000},
        {"audience": Audience(enforcer="ab" * 32, boot="cd" * 32)},
        {"purpose": "asked again"},
        {"identity": "ab" * 32},
        {"holder": secret("another holder").public},
    ],
    ids=str,
)
def test_an_intent_that_is_made_again_keeps_its_approval(changed: dict[str, Any]) -> None:
    assert weighed(approval(), intent=asked(**changed)).approvals == {"security": 2}


@pytest.mark.parametrize(
    "changed",
    [
        {"mesh": "other"},
        {"domain": "ops"},
        {"subject": "spiffe://lab/agent/bert"},
        {"action": "refund"},
        {"resource": EntityRef(type="Account", id="vault-2")},
        {"resource": EntityRef(type="Safe", id="vault")},
        {"params": {"amount": 501}},
        {"params": {"amount": 500, "urgent": True}},
        {"committed": {"memo": "ab" * 32}},
        {"measurements": [Measurement(name="program", digest=f"blake3:{'ab' * 32}")]},
    ],
    ids=str,
)
def test_whatever_would_happen_otherwise_loses_the_approval(changed: dict[str, Any]) -> None:
    with refuses("approval_mismatch"):
        weighed(approval(), intent=asked(**changed))


# --------------------------------------------------------------------------------------------------------------- who says so


def test_approvals_count_distinct_keys_over_all_that_came() -> None:
    assert weighed(approval(ONE)).approvals == {"security": 1}
    assert weighed(approval(ONE), approval(TWO, reason="me too")).approvals == {"security": 2}
    assert weighed(approval(ONE, TWO), approval(TWO, THREE, reason="us too")).approvals == {"security": 3}


def test_one_key_counts_once_however_often_it_signs() -> None:
    assert weighed(approval(ONE), approval(ONE, reason="again")).approvals == {"security": 1}


def test_one_key_in_two_groups_is_no_roster() -> None:
    both = {"security": Role(keys=[ONE.public], threshold=1), "board": Role(keys=[ONE.public], threshold=1)}
    with refuses("bad_key"):
        msgspec.structs.replace(LAB.roster, approvers=both)


def test_a_group_that_nobody_could_satisfy_is_no_roster() -> None:
    with refuses("roster_unsound"):
        msgspec.structs.replace(LAB.roster, approvers={"security": Role(keys=[ONE.public], threshold=2)})


def test_fewer_than_the_groups_threshold_count_for_nothing_and_are_not_used_up() -> None:
    alone = approval(LAB.board[0], group="board")
    assert weighed(alone) == NOTHING
    assert weighed(alone, approval()).ids == [envelope.identify(approval())[1]]


@pytest.mark.parametrize("keys", [(), (secret("stranger"),), (ONE, secret("stranger")), (LAB.board[0],), (LAB.revoker,)], ids=str)
def test_a_strangers_signature_spoils_an_approval(keys: tuple[SecretKey, ...]) -> None:
    draft = envelope.draft(envelope.read(Approval, approval()).claims)
    with refuses("bad_signature"):
        weighed(sign_draft(draft, *keys))


def test_a_signature_for_something_else_is_none() -> None:
    said = envelope.read(Approval, approval(ONE))
    forged = envelope.assemble("application/vnd.govmesh.approval.v1+json", said.payload, {ONE.public: ONE.sign(b"something else")})
    with refuses("bad_signature"):
        weighed(forged)


def test_a_group_that_the_roster_does_not_have_approves_nothing() -> None:
    with refuses("approver_unknown"):
        weighed(approval(group="friends"))
    with refuses("approver_unknown"):
        weighed(LAB.grant(group="friends"))


def test_approvals_of_another_mesh_are_refused() -> None:
    with refuses("wrong_mesh"):
        weighed(approval(mesh="other"))
    with refuses("wrong_mesh"):
        weighed(LAB.grant(mesh="other"))


def test_the_same_approval_twice_is_refused_because_only_one_copy_could_be_recorded() -> None:
    with refuses("approval_mismatch"):
        weighed(approval(ONE), approval(TWO))


def test_only_approvals_and_grants_are_taken() -> None:
    with refuses("wrong_kind"):
        weighed(asked())


# ------------------------------------------------------------------------------------------------------------------- times


def test_an_approval_counts_from_its_beginning_to_before_its_end() -> None:
    said = approval(not_before_ms=T0 + 1_000, expires_ms=T0 + 2_000)
    assert weighed(said, at_ms=T0 + 1_000 - SKEW_MS).approvals
    assert weighed(said, at_ms=T0 + 1_999).approvals
    for at_ms in (T0 + 1_000 - SKEW_MS - 1, T0 + 2_000):
        with refuses("approval_expired"):
            weighed(said, at_ms=at_ms)


@pytest.mark.parametrize(("make", "most"), [(approval, APPROVAL_LIFE_MS_MAX), (LAB.grant, GRANT_LIFE_MS_MAX)])
def test_what_asks_for_a_longer_life_than_it_may_have_is_refused(make: Any, most: int) -> None:
    assert weighed(make(expires_ms=T0 + most)).said
    with refuses("approval_too_long"):
        weighed(make(expires_ms=T0 + most + 1))


# ------------------------------------------------------------------------------------------------------------------ grants


def test_a_grant_takes_its_groups_threshold() -> None:
    assert weighed(LAB.grant()).breakglass
    with refuses("threshold_not_met"):
        weighed(LAB.grant(LAB.board[0]))
    with refuses("bad_signature"):
        weighed(LAB.grant(LAB.board[0], secret("stranger")))


@pytest.mark.parametrize(
    "changed", [{"domain": "ops"}, {"subject": "spiffe://lab/agent/bert"}, {"actions": ["refund", "sending"]}], ids=str
)
def test_a_grant_is_for_one_workload_one_domain_and_the_actions_it_names(changed: dict[str, Any]) -> None:
    with refuses("approval_mismatch"):
        weighed(LAB.grant(**changed))


def test_a_grant_approves_nothing_and_an_approval_breaks_no_glass() -> None:
    assert weighed(LAB.grant()).approvals == {}
    assert not weighed(approval()).breakglass


def test_a_grant_without_a_reason_is_none() -> None:
    with refuses("malformed"):
        weighed(LAB.grant(reason=""))


# ------------------------------------------------------------------------------------------------------------------ limits


def test_not_more_approvals_are_weighed_than_may_come() -> None:
    many = [approval(ONE, reason=str(number)) for number in range(APPROVALS_MAX + 1)]
    assert len(weighed(*many[:-1]).said) == APPROVALS_MAX
    with refuses("too_large"):
        weighed(*many)


def test_not_more_bytes_are_weighed_than_a_record_has_room_for() -> None:
    signed = sum(map(len, [approval()]))
    assert signed < APPROVALS_BYTES_MAX
    with refuses("too_large"):
        weighed(b" " * (APPROVALS_BYTES_MAX + 1))
    with refuses("malformed"):
        weighed(b" " * APPROVALS_BYTES_MAX)


def test_the_longest_words_fit_an_approval_and_a_grant() -> None:
    reason, subject = "\x01" * 200, "spiffe://m/" + "s" * 170
    assert len(canonical.encode(envelope.read(Approval, approval(reason=reason)).claims)) <= APPROVAL_BYTES_MAX
    longest = LAB.grant(reason=reason, subject=subject, actions=["a" * 64] * GRANT_ACTIONS_MAX)
    assert len(envelope.read_any((Approval, type(read_said(longest).claims)), longest).payload) <= APPROVAL_BYTES_MAX


@pytest.mark.parametrize("uses", [0, APPROVAL_USES_MAX + 1])
def test_uses_are_counted_in_small_numbers(uses: int) -> None:
    assert weighed(approval(uses=APPROVAL_USES_MAX)).uses[0][1] == APPROVAL_USES_MAX
    with refuses("malformed"):
        weighed(approval(uses=uses))


def test_a_grant_names_a_few_actions() -> None:
    names = ["send", *(f"other-{number}" for number in range(GRANT_ACTIONS_MAX))]
    assert weighed(LAB.grant(actions=names[:-1])).breakglass
    for actions in (names, []):
        with refuses("malformed"):
            weighed(LAB.grant(actions=actions))


# ----------------------------------------------------------------------------------------------------------------- demands


def test_a_demand_is_spelled_as_people_say_it() -> None:
    assert list(map(str, demands("2 of security, 1 of finance"))) == ["2 of security", "1 of finance"]


@pytest.mark.parametrize(
    "text", ["", "security", "0 of security", "02 of security", "two of security", "2 of Security", "100 of security", "2  of security",
             "2 of security,", "2 of security; 1 of board", "1 of security, 2 of security", "2 of security\n",
             "1 of a, 1 of b, 1 of c, 1 of d, 1 of e"],
)  # fmt: skip
def test_a_malformed_demand_is_refused(text: str) -> None:
    with refuses("policy_invalid"):
        demands(text)


def test_what_is_unmet_is_named_once_for_each_group() -> None:
    wanted = [*demands("2 of security, 1 of board"), *demands("3 of security")]
    assert unmet(wanted, {"security": 2}) == ["1 of board", "3 of security"]
    assert unmet(wanted, {"security": 3, "board": 1}) == []


# ------------------------------------------------------------------------------------------------------------------- paper


def test_whoever_signs_next_reads_exactly_what_is_approved() -> None:
    effect = Effect.of(envelope.read(Intent, asked()).claims)
    said = read_said(approval(ONE))
    data = fold(said, effect)
    assert unfold(data) == (said, effect, [])
    assert statement_in(data) == statement_in(said.envelope) == said.envelope
    grant = read_said(LAB.grant())
    assert unfold(fold(grant, None, ["2 of board"])) == (grant, None, ["2 of board"])


def test_a_paper_that_shows_something_else_than_is_approved_is_refused() -> None:
    effect = Effect.of(envelope.read(Intent, asked(params={"amount": 1})).claims)
    for shown in (effect, None):
        with refuses("approval_mismatch"):
            unfold(fold(read_said(approval()), shown))
    with refuses("approval_mismatch"):
        unfold(fold(read_said(LAB.grant()), effect))
