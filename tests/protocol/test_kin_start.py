"""An enforcer checks the whole line of ancestors by what the authorization says of them, before the start and while it runs."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.law.halt import Halt
from mesh.core.law.revocation import Revocation
from mesh.core.law.roster import Role
from mesh.core.run.authorization import Ancestor
from mesh.core.run.intent import After
from mesh.errors import Refused
from mesh.protocol.enforcer import Running, recheck, watch
from tests.protocol import enforcerkit as kit
from tests.protocol.enforcerbench import BOOT, STRANGER, Bench, refused
from tests.protocol.enforcerkit import NOW_MS


def ancestor(number: int, domain: str = "ops") -> Ancestor:
    def hex32(what: str) -> str:
        return f"{what[:1].encode().hex()}{number:02x}".ljust(64, "0")

    return Ancestor(
        authorization=hex32("authorization"), intent=hex32("intent"), domain=domain, subject=f"spiffe://mesh/agent/a{number}",
        holder=hex32("holder"), identity=hex32("document"), issuer="bert",
    )  # fmt: skip


PARENT, ROOT = ancestor(1), ancestor(2)
DATA = After(authorization="da" * 32, outcome="0c" * 32)
LINKS = {
    "ancestor": "authorization",
    "key": "holder",
    "subject": "subject",
    "document": "identity",
    "governor": "issuer",
}
"""What ends all below: target type to the part of an ancestor."""
NARROW = {"authorization": "authorization", "intent": "intent"}
"""What lets nothing begin below."""


def _bench(*said: Revocation | Halt) -> Bench:
    bench = Bench()
    bench.intent |= {"within": [PARENT.authorization], "after": [DATA]}
    bench.authorization |= {"ancestors": [PARENT, ROOT]}
    bench.revoked = list(said)
    return bench


def _revoking(kind: str, value: str) -> Revocation:
    return kit.revocation(kind, value)


def _parts(links: dict[str, str]) -> list[Any]:
    return [pytest.param(kind, getattr(one, part), id=f"{kind} {name}") for kind, part in links.items() for name, one in
            (("parent", PARENT), ("root", ROOT))]  # fmt: skip


def _then(said: Revocation | Halt, check: str) -> str:
    """The code with which work that was admitted before ends, or is not begun, once that is heard; empty if it goes on."""
    before, after = _bench(), _bench(said)
    grant = before.admit()
    try:
        if check == "running":
            watch(Running(grant), place=before.place(), view=after.view())
        else:
            recheck(grant, place=before.place(), view=after.view())
    except Refused as refusal:
        return refusal.code
    return ""


def test_a_part_starts_with_the_line_of_its_ancestors() -> None:
    assert _bench().admit().authorization.claims.ancestors == [PARENT, ROOT]


@pytest.mark.parametrize(
    ("ancestors", "within"),
    [([], [PARENT.authorization]), ([ROOT], [PARENT.authorization]), ([PARENT, ROOT], []), ([ROOT, PARENT], [PARENT.authorization])],
)
def test_a_line_that_does_not_begin_with_the_parent_that_the_intent_names_is_refused(ancestors: list[Ancestor], within: list[str]) -> None:
    bench = _bench()
    bench.intent |= {"within": within}
    bench.authorization |= {"ancestors": ancestors}
    assert refused(bench) == "digest_mismatch"


def test_nobody_who_carries_it_can_shorten_the_line() -> None:
    whole = _bench().admit().authorization
    cut = envelope.draft(msgspec.structs.replace(whole.claims, ancestors=[PARENT]))
    spliced = envelope.assemble(cut.payload_type, cut.payload, whole.signatures)
    assert not envelope.read(type(whole.claims), spliced).signed_by(next(iter(whole.signatures)))


@pytest.mark.parametrize(("kind", "value"), _parts(LINKS | NARROW))
def test_whatever_revokes_an_ancestor_lets_nothing_begin_below_it(kind: str, value: str) -> None:
    assert refused(_bench(_revoking(kind, value))) == "revoked"
    assert _then(_revoking(kind, value), "recheck") == "revoked", "also between the decision and the start"


@pytest.mark.parametrize(("kind", "value"), _parts(LINKS))
def test_work_that_runs_ends_with_its_ancestors(kind: str, value: str) -> None:
    assert _then(_revoking(kind, value), "running") == "revoked"


@pytest.mark.parametrize(("kind", "value"), _parts(NARROW))
def test_whoever_revokes_one_execution_as_one_does_not_end_its_parts(kind: str, value: str) -> None:
    assert _then(_revoking(kind, value), "running") == ""


def test_an_execution_is_the_first_of_its_own_descendants() -> None:
    name = _bench().admit().authorization.id
    assert _then(_revoking("ancestor", name), "recheck") == "revoked"
    assert _then(_revoking("ancestor", name), "running") == "revoked"


def test_what_uses_a_result_ends_when_that_is_revoked_with_what_comes_of_it() -> None:
    assert refused(_bench(_revoking("ancestor", DATA.authorization))) == "revoked"
    assert refused(_bench(_revoking("authorization", DATA.authorization))) == "revoked"
    assert _then(_revoking("ancestor", DATA.authorization), "running") == "revoked"
    assert _then(_revoking("authorization", DATA.authorization), "running") == ""


@pytest.mark.parametrize("check", [recheck, watch])
def test_a_part_ends_when_the_domain_of_an_ancestor_is_halted(check: Any) -> None:
    halt = Halt(mesh=kit.MESH, domain="elsewhere", sequence=1, previous="", since="", lifts=[], reason="test", issued_ms=0)
    wide = kit.roster()
    held = kit.governance(
        revoked=(halt,), of=msgspec.structs.replace(wide, policy={**wide.policy, "elsewhere": Role(keys=[STRANGER.public], threshold=1)})
    )
    bench = _bench()
    view = msgspec.structs.replace(bench.view(), governance=held, fresh=kit.fresh_view(held, BOOT, at_ms=NOW_MS))
    watch(Running(bench.admit()), place=bench.place(), view=view)  # it is not the domain of any of them
    bench.authorization |= {"ancestors": [PARENT, ancestor(3, "elsewhere")]}
    grant = bench.admit()
    with pytest.raises(Refused) as caught:
        check(grant if check is recheck else Running(grant), place=bench.place(), view=view)
    assert caught.value.code == "halted"


def test_a_revoked_stranger_is_no_obstacle() -> None:
    for kind, value in (("ancestor", "ee" * 32), ("subject", "spiffe://mesh/agent/zed")):
        _bench(_revoking(kind, value)).admit()
        assert _then(_revoking(kind, value), "running") == ""
