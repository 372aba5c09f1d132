"""An enforcer starts only what the approvals beside the authorization really approve, now, by keys that nobody revoked."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.halt import Halt
from mesh.core.run.approval import Approval, BreakGlass, Effect
from mesh.errors import Refused
from mesh.protocol.enforcer import Running, recheck, watch
from tests.protocol import enforcerkit as kit
from tests.protocol.enforcerbench import STRANGER, Bench, refused
from tests.protocol.enforcerkit import APPROVERS, NOW_MS, SUBJECT

ONE, TWO, THREE = APPROVERS


def approved(*keys: SecretKey, **changed: Any) -> bytes:
    said = Approval(
        mesh=kit.MESH,
        group="security",
        effect=Effect.of(Bench().documents()[1]).digest,
        uses=2,
        reason="seen",
        not_before_ms=NOW_MS - 1_000,
        expires_ms=NOW_MS + 60_000,
    )
    return kit.sign(msgspec.structs.replace(said, **changed), *(keys or (ONE, TWO)))


def granted(*keys: SecretKey, **changed: Any) -> bytes:
    said = BreakGlass(
        mesh=kit.MESH,
        group="security",
        domain="ops",
        subject=SUBJECT,
        actions=["pay"],
        uses=1,
        reason="fire",
        not_before_ms=NOW_MS - 1_000,
        expires_ms=NOW_MS + 60_000,
    )
    return kit.sign(msgspec.structs.replace(said, **changed), *(keys or (ONE,)))


def _bench(*said: bytes, **authorization: Any) -> Bench:
    bench = Bench()
    bench.approvals = list(said)
    bench.authorization |= authorization
    return bench


def test_what_was_approved_starts_and_each_approval_is_used_once() -> None:
    grant = _bench(approved(), granted()).admit()
    uses = {envelope.identify(approved())[1]: 2, envelope.identify(granted())[1]: 1}
    assert dict(grant.backing.uses) == uses


def test_without_approvals_nothing_is_used() -> None:
    assert Bench().admit().backing.uses == ()


@pytest.mark.parametrize(
    ("said", "named", "code"),
    [
        ([], [approved()], "digest_mismatch"),
        ([approved()], [], "digest_mismatch"),
        ([approved()], [approved(reason="another")], "digest_mismatch"),
        ([approved(effect="ab" * 32)], None, "approval_mismatch"),
        ([granted(actions=["refund"])], None, "approval_mismatch"),
        ([approved(expires_ms=NOW_MS)], None, "approval_expired"),
        ([approved(not_before_ms=NOW_MS + kit.BOUNDS.skew_ms + 1)], None, "approval_expired"),
        ([approved(STRANGER)], None, "bad_signature"),
        ([approved(group="board")], None, "approver_unknown"),
        ([approved(mesh="other")], None, "wrong_mesh"),
    ],
)
def test_what_does_not_carry_the_authorization_starts_nothing(said: list[bytes], named: list[bytes] | None, code: str) -> None:
    ids = {} if named is None else {"approvals": [envelope.identify(one)[1] for one in named]}
    assert refused(_bench(*said, **ids)) == code


def test_no_governor_can_leave_out_what_every_permit_demands() -> None:
    for said, code in ((approved(ONE), "approval_needed"), (granted(), "approval_needed"), (approved(), "")):
        bench = _bench(said)
        bench.manifest["approvals"] = {"security": 2}
        assert (refused(bench) if code else bench.admit().backing.ids and "") == code


def _revoked(kind: str, value: str) -> Callable[[Bench], None]:
    return lambda bench: bench.revoked.append(kit.revocation(kind, value))


def _late(bench: Bench) -> None:
    bench.now_ms = bench.wall_ms = bench.heard_ms = NOW_MS + 5_000


LATER: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "an approver is revoked": ("revoked", _revoked("enrolled", TWO.public)),
    "the approval is revoked": ("revoked", _revoked("document", envelope.identify(approved(expires_ms=NOW_MS + 5_000))[1])),
    "the approval has ended": ("approval_expired", _late),
}


@pytest.mark.parametrize("what", LATER)
def test_what_came_before_the_start_or_while_a_disk_was_waited_for_stops_it(what: str) -> None:
    code, change = LATER[what]
    said = approved(expires_ms=NOW_MS + 5_000)
    grant, later = _bench(said).admit(), _bench(said)
    change(later)
    assert refused(later) == code
    with pytest.raises(Refused) as caught:
        recheck(grant, place=later.place(), view=later.view())
    assert caught.value.code == code


def test_a_revoked_approver_ends_what_runs_and_an_ended_approval_does_not() -> None:
    grant, later = _bench(approved(expires_ms=NOW_MS + 5_000)).admit(), Bench()
    _late(later)
    running = watch(Running(grant), place=later.place(), view=later.view())
    later.revoked.append(kit.revocation("enrolled", ONE.public))
    with pytest.raises(Refused) as caught:
        watch(running, place=later.place(), view=later.view())
    assert caught.value.code == "revoked"


def test_a_grant_opens_no_halted_domain_and_makes_no_stale_view_fresh() -> None:
    bench = _bench(granted())
    bench.vouching = ("anna", "bert")
    assert refused(bench) == "stale"
    bench = _bench(granted())
    bench.revoked.append(Halt(mesh=kit.MESH, domain="ops", sequence=1, previous="", since="", lifts=[], reason="", issued_ms=NOW_MS))
    assert refused(bench) == "halted"
