"""A policy that nobody signed yet is asked what was really asked, and every difference is shown as what it is."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.adapters.cedar import PROFILE
from mesh.core.bytes import canonical, envelope
from mesh.core.law.policy import Bundle, Terms, bundle_digest
from mesh.core.log.record import DecisionMade, Denied, read_record
from mesh.core.messages import Openings
from mesh.core.run.decision import EngineRequest, Verdict
from mesh.core.run.intent import Intent
from mesh.limits import REQUEST_BYTES_MAX
from mesh.policy import shadow
from mesh.policy.shadow import Judged, Recorded, Said, Table, candidate, denials, replay, table
from mesh.protocol.documents import Documents
from tests.policy.kit import ready
from tests.support.factory import Lab, secret, sign
from tests.support.littlemesh import LittleMesh

ACTIONS = {"send": Terms(assurance="local", authorization_ms=30_000, lease_ms=10_000, approvals={})}
TILL = ["spiffe://lab/enforcer/till"]
SMALL, LARGE, REFUSED, FROZEN = range(4)
AMOUNTS = (10, 60, 150, 10)


class Past:
    """Four decisions, recorded by real governors: two permits, the first with a memo, a default deny, a forbid; and a denial without."""

    def __init__(self) -> None:
        self.lab = Lab()
        mesh = LittleMesh(self.lab)
        asked = [(10, "acme", "rent", "send"), (60, "acme", None, "send"), (150, "acme", None, "send"), (10, "frozen", None, "send")]
        for number, (amount, account, memo, action) in enumerate([*asked, (10, "acme", None, "steal")]):
            _, intent, openings = self.lab.intent(number, amount=amount, account=account, memo=memo, action=action, at_ms=mesh.now_ms)
            mesh.request("eu-1", self.lab.request(intent, openings))
        node = mesh.nodes["eu-1"]
        records = [read_record(leaf) for leaf in node.logs[node.origin]]
        opened = {name: canonical.decode(Openings, data, bytes_max=REQUEST_BYTES_MAX).openings for name, data in node.openings.items()}
        decisions = [record for record in records if isinstance(record, DecisionMade)]
        self.recorded = [Recorded(record, node.bodies, opened.get(record.intent, ())) for record in decisions]
        self.denied = [(record, node.bodies) for record in records if isinstance(record, Denied)]


@cache
def past() -> Past:
    return Past()


def rewritten(old: str, new: str) -> Bundle:
    """The bundle that decided, with other words in its policies."""
    made = past().lab.bundle
    policies = [msgspec.structs.replace(policy, json=policy.json.replace(old, new)) for policy in made.policies]
    assert policies != made.policies
    return msgspec.structs.replace(made, policies=policies)


def limited(limit: int) -> Bundle:
    return rewritten('{"Value":100}', f'{{"Value":{limit}}}') if limit != 100 else past().lab.bundle


def judged(
    bundle: Bundle, recorded: Sequence[Recorded] | None = None, *, actions: Mapping[str, Terms] = ACTIONS, enforcers: Sequence[str] = TILL
) -> list[Judged]:
    digest = bundle_digest(canonical.encode(bundle))
    made = candidate(past().lab.governance, bundle, digest, actions=actions, enforcers=enforcers)
    with ready() as engine:
        engine.load(bundle, digest)
        return replay(past().recorded if recorded is None else recorded, made, documents=Documents(), engine=engine)


def kinds(rows: Sequence[Judged]) -> list[str]:
    return [row.kind for row in rows]


# --------------------------------------------------------------------------------------------------------- what is a difference


def test_the_policy_that_decided_flips_and_changes_nothing() -> None:
    assert [item.record.decision.effect for item in past().recorded] == ["permit", "permit", "deny", "deny"]
    rows = judged(past().lab.bundle)
    assert kinds(rows) == ["same"] * 4
    assert table(rows) == Table(same=4)


def test_a_lower_limit_turns_permits_into_denials() -> None:
    rows = judged(limited(50))
    assert kinds(rows) == ["same", "flip", "same", "same"]
    row, record = rows[LARGE], past().recorded[LARGE].record
    assert row == Judged(
        kind="flip",
        origin=record.origin,
        index=record.index,
        at_ms=record.at_ms,
        recorded=Said("permit", ("small-payments",), (), ("receipt",), "local"),
        now=Said("deny", (), (), (), "local"),
        changed=("effect", "determining", "obligations"),
        subject="spiffe://lab/agent/anna",
        action="payments/send",
        resource='Account::"acme"',
    )


def test_a_higher_limit_turns_denials_into_permits() -> None:
    rows = judged(limited(200))
    assert kinds(rows) == ["same", "same", "flip", "same"]
    now = rows[REFUSED].now
    assert rows[REFUSED].recorded == Said("deny", (), (), (), "local")
    assert now == Said("permit", ("small-payments",), (), ("receipt",), "local")


def test_another_determining_policy_is_a_change_and_no_flip() -> None:
    made = past().lab.bundle
    policies = [msgspec.structs.replace(policy, id=f"{policy.id}-2") for policy in made.policies]
    rows = judged(msgspec.structs.replace(made, policies=policies))
    assert kinds(rows) == ["change", "change", "same", "change"]
    assert {row.changed for row in rows} == {("determining",), ()}
    assert [row.now.determining for row in rows if row.now] == [("small-payments-2",), ("small-payments-2",), (), ("never-frozen-2",)]


def test_other_obligations_are_a_change() -> None:
    made = past().lab.bundle
    policies = [msgspec.structs.replace(policy, annotations={"obligation": "receipt, call"}) for policy in made.policies]
    rows = judged(msgspec.structs.replace(made, policies=policies))
    assert kinds(rows) == ["change", "change", "same", "same"]
    assert {row.changed for row in rows[:2]} == {("obligations",)}
    assert rows[SMALL].now == Said("permit", ("small-payments",), (), ("call", "receipt"), "local")


def test_another_assurance_is_a_change() -> None:
    rows = judged(past().lab.bundle, actions={"send": msgspec.structs.replace(ACTIONS["send"], assurance="observe")})
    assert [(row.kind, row.changed) for row in rows] == [("change", ("assurance",))] * 4


def test_an_error_is_a_change_where_it_was_a_denial_and_a_flip_where_it_was_a_permit() -> None:
    class Erring:
        profile: str = PROFILE
        build: str = "erring/1"

        def evaluate(self, bundle_digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
            assert bundle_digest
            return [Verdict(allow=False, determining=(), errors=("never-frozen: overflow",)) for _ in requests]

    lab = past().lab
    made = candidate(lab.governance, lab.bundle, lab.manifest.digest, actions=ACTIONS, enforcers=TILL)
    rows = replay(past().recorded, made, documents=Documents(), engine=Erring())
    assert kinds(rows) == ["flip", "flip", "change", "change"]
    assert rows[REFUSED].changed == ("errors",)


@settings(max_examples=25, deadline=None)
@given(limit=st.integers(0, 200))
def test_exactly_the_permits_above_a_new_limit_and_the_denials_below_it_flip(limit: int) -> None:
    rows = judged(limited(limit))
    expected = [item != FROZEN and (AMOUNTS[item] <= 100) != (AMOUNTS[item] <= limit) for item in range(4)]
    assert [row.kind == "flip" for row in rows] == expected


# ------------------------------------------------------------------------------------------- what cannot be asked any more


def _without_action(made: Bundle) -> Bundle:
    return msgspec.structs.replace(made, actions=[msgspec.structs.replace(made.actions[0], name="pay")])


def _with_param(made: Bundle, **changes: Any) -> Bundle:
    action = made.actions[0]
    params = [msgspec.structs.replace(param, **changes) if param.name == "memo" else param for param in action.params]
    return msgspec.structs.replace(made, actions=[msgspec.structs.replace(action, params=params)])


@pytest.mark.parametrize(
    ("code", "change", "which"),
    [
        ("action_unknown", _without_action, [0, 1, 2, 3]),
        ("params_mismatch", lambda made: _with_param(made, privacy="public"), [SMALL]),
        ("params_mismatch", lambda made: _with_param(made, type="int"), [SMALL]),
        ("params_mismatch", lambda made: _with_param(made, required=True), [LARGE, REFUSED, FROZEN]),
        ("entity_missing", lambda made: msgspec.structs.replace(made, entities=[]), [0, 1, 2, 3]),
        (
            "entity_missing",
            lambda made: msgspec.structs.replace(made, types=[msgspec.structs.replace(made.types[0], closed=True)]),
            [0, 1, 2, 3],
        ),
    ],
)
def test_what_cannot_be_asked_any_more_is_counted_with_its_code(code: str, change: Callable[[Bundle], Bundle], which: list[int]) -> None:
    bundle = change(past().lab.bundle)
    rows = judged(bundle, actions={action.name: ACTIONS["send"] for action in bundle.actions})
    assert [at for at, row in enumerate(rows) if (row.kind, row.code) == ("unanswerable", code)] == which
    assert all(row.kind == "same" for at, row in enumerate(rows) if at not in which)
    assert all(row.now is None and row.detail and row.subject for row in (rows[at] for at in which))


def test_an_enforcer_that_is_not_listed_and_an_assurance_that_nobody_gives_make_a_decision_unanswerable() -> None:
    assert {row.code for row in judged(past().lab.bundle, enforcers=["spiffe://lab/enforcer/other"])} == {"audience_unknown"}
    stricter = {"send": msgspec.structs.replace(ACTIONS["send"], assurance="quorum")}
    rows = judged(past().lab.bundle, actions=stricter)
    assert {(row.kind, row.code) for row in rows} == {("unanswerable", "assurance_unavailable")}


def test_where_the_engine_has_no_answer_the_decision_is_unanswerable() -> None:
    lab = past().lab
    made = candidate(lab.governance, lab.bundle, lab.manifest.digest, actions=ACTIONS, enforcers=TILL)
    with ready() as empty:
        rows = replay(past().recorded, made, documents=Documents(), engine=empty)
    assert {(row.kind, row.code) for row in rows} == {("unanswerable", "engine_unavailable")}


# --------------------------------------------------------------------------------------------------------- what is skipped


def test_without_its_openings_a_decision_is_skipped() -> None:
    erased = [msgspec.structs.replace(item, openings=()) for item in past().recorded]
    rows = judged(limited(50), erased)
    assert kinds(rows) == ["skipped", "flip", "same", "same"]
    assert (rows[SMALL].code, rows[SMALL].detail) == ("opening_mismatch", "no opening for memo")
    public = judged(_with_param(past().lab.bundle, privacy="public"), erased)
    assert (public[SMALL].kind, public[SMALL].code) == ("unanswerable", "params_mismatch")  # whatever was in it


def test_openings_of_something_else_are_none() -> None:
    other = [msgspec.structs.replace(opening, value="for the yacht") for opening in past().recorded[SMALL].openings]
    rows = judged(limited(50), [msgspec.structs.replace(past().recorded[SMALL], openings=other)])
    assert [(row.kind, row.code) for row in rows] == [("skipped", "opening_mismatch")]


@pytest.mark.parametrize("name", ["intent", "identity", "enforcer"])
def test_without_a_statement_that_it_names_a_decision_is_skipped(name: str) -> None:
    item = past().recorded[LARGE]
    held = {key: data for key, data in item.bodies.items() if key != getattr(item.record, name)}
    (row,) = judged(limited(50), [msgspec.structs.replace(item, bodies=held)])
    assert (row.kind, row.code, row.now) == ("skipped", "body_missing", None)
    assert bool(row.subject) == (name != "intent")


def test_statements_with_spoilt_signatures_are_no_evidence() -> None:
    item, record = past().recorded[LARGE], past().recorded[LARGE].record
    forger = secret("forger")
    intent = sign(envelope.read(Intent, item.bodies[record.intent]).claims, forger)
    place = sign(past().lab.place, forger)
    for name, data, code in ((record.intent, intent, "unauthenticated"), (record.enforcer, place, "identity_unknown")):
        assert envelope.identify(data)[1] == name
        (row,) = judged(limited(50), [msgspec.structs.replace(item, bodies={**item.bodies, name: data})])
        assert (row.kind, row.code) == ("skipped", code)


def test_a_decision_after_its_documents_ended_is_skipped_not_blamed_on_the_policy() -> None:
    item = past().recorded[LARGE]
    late = msgspec.structs.replace(item.record, at_ms=item.record.at_ms + 10 * 86_400_000)
    (row,) = judged(limited(50), [msgspec.structs.replace(item, record=late)])
    assert (row.kind, row.code) == ("skipped", "identity_expired")


def test_decisions_of_other_domains_are_not_counted() -> None:
    lab = past().lab
    other = msgspec.structs.replace(lab.bundle, domain="loans")
    rows = judged(other)
    assert kinds(rows) == ["elsewhere"] * 4
    bare = [msgspec.structs.replace(item, bodies={}) for item in past().recorded]
    assert kinds(judged(other, bare)) == ["elsewhere"] * 4  # known by the manifest that they name
    assert table(rows).decisions == 0


def test_denials_without_a_decision_are_counted_for_the_domain() -> None:
    lab, denied = past().lab, past().denied
    digest = lab.manifest.digest
    mine = candidate(lab.governance, lab.bundle, digest, actions=ACTIONS, enforcers=TILL)
    other = candidate(lab.governance, msgspec.structs.replace(lab.bundle, domain="loans"), digest, actions=ACTIONS, enforcers=TILL)
    assert denials(denied, mine) == {"action_unknown": 1}
    assert denials(denied, other) == {}
    assert denials([(record, {}) for record, _ in denied], other) == {"action_unknown": 1}


# ------------------------------------------------------------------------------------------------------------------ tables


def _row(number: int, *, policy: str = "p", kind: shadow.Kind = "flip") -> Judged:
    before, now = Said("permit", (policy,), (), (), "local"), Said("deny", (), (), (), "local")
    return Judged(kind=kind, origin="o", index=number, at_ms=number, recorded=before, now=now, changed=("effect", "determining"))


KINDS: Sequence[shadow.Kind] = ("same", "flip", "change", "unanswerable", "skipped", "elsewhere")


@given(
    rows=st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("abc")), max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=4),
)
def test_however_records_are_cut_into_pages_the_table_is_the_same(rows: list[tuple[shadow.Kind, str]], cuts: list[int]) -> None:
    made = [_row(number, policy=policy, kind=kind) for number, (kind, policy) in enumerate(rows)]
    whole, parts, start = table(made), Table(), 0
    for end in [*sorted(cuts), len(made)]:
        parts = parts.merge(table(made[start:end]))
        start = max(start, end)
    assert parts == whole
    assert whole.decisions + whole.elsewhere == len(rows)
    assert sum(whole.flips.groups.values()) == whole.flips.count == len(whole.flips.rows)


def test_a_table_keeps_so_many_rows_and_groups_and_counts_the_others() -> None:
    rows_max, groups_max = shadow.ROWS_MAX, shadow.GROUPS_MAX
    full = table([_row(number, policy=f"p{number % groups_max}") for number in range(rows_max)])
    assert (full.flips.count, len(full.flips.rows), len(full.flips.groups)) == (rows_max, rows_max, groups_max)
    for more in (table([_row(number, policy=f"p{number}") for number in range(rows_max + 1)]), full.merge(table([_row(0, policy="new")]))):
        assert (more.flips.count, len(more.flips.rows), len(more.flips.groups)) == (rows_max + 1, rows_max, groups_max)
        assert more.flips.rows[-1].index == rows_max - 1


def test_a_candidate_is_the_next_epoch_everywhere_and_always() -> None:
    lab = past().lab
    made = candidate(lab.governance, lab.bundle, lab.manifest.digest, actions=ACTIONS, enforcers=TILL)
    for region, at_ms in (("eu", 0), ("us", lab.manifest.expires_ms + 1)):
        law = made.governance.active("payments", region, at_ms)
        assert (law.manifest.epoch, law.manifest_id) == (2, made.law.manifest_id)
