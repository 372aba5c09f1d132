"""A resolve ends a fork for whoever holds all that it chooses between; what stands aside denies as ever, and nobody forgets it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import activate_stream
from mesh.core.law.fold import extend, restore, with_bundle
from mesh.core.law.governance import Basis, Governance
from mesh.core.law.halt import Halt
from mesh.core.law.heartbeat import StreamHead, covers
from mesh.core.law.policy import Manifest, policy_stream
from mesh.core.law.resolve import RESOLVES, Resolve, admit_resolve
from mesh.core.law.streams import Chain, Cursor, Fork
from mesh.core.law.travel import Said, cursor_of, link_of
from mesh.errors import Refused
from mesh.limits import ASIDE_MAX
from mesh.protocol.gossip import wanted
from tests.support import halts, revocations
from tests.support.factory import DOMAIN, T0, secret, sign
from tests.support.resolves import LAB, WORLD, resolve

PLAIN: Final = revocations.governance(LAB)
BARE: Final = PLAIN
NAMES: Final = sorted(WORLD)
HALTS: Final = halts.STREAM
POLICY: Final = policy_stream(DOMAIN)
ACTIVATE: Final = activate_stream(DOMAIN)


def _held(*names: str, of: Governance = PLAIN) -> Governance:
    return _taken([WORLD[name] for name in names], of)


def _taken(said: Sequence[Statement[Said]], of: Governance = PLAIN) -> Governance:
    taken = extend(of, said)
    assert taken.refused == {}
    return taken.governance


def _code(held: Governance) -> str:
    try:
        held.check_open(DOMAIN)
    except Refused as refusal:
        return refusal.code
    return ""


def _state(held: Governance) -> tuple[object, ...]:
    """All that decides anything."""
    laws = {domain: [law.manifest_id for law in laws] for domain, laws in held.laws.items()}
    histories = dict(held.verdicts), dict(held.settled), {name: sorted(ids) for name, ids in held.whole.items()}  # type: ignore[call-overload]
    return held.digest, held.frontier, laws, dict(held.activations), held.rollouts, dict(held.streams), dict(held.halted), histories


# ---------------------------------------------------------------------------------------------------- a function of the set


class _Model:
    """What is in force, from nothing but the set, as the rules of the module say it."""

    def __init__(self, said: Sequence[Statement[Said]]) -> None:
        self.said = {item.id: item for item in said}

    def whole(self, identity: str) -> bool:
        item = self.said.get(identity)
        if item is None:
            return False
        _, number, before = item.claims.link
        return number == 1 or (self.whole(before) and self.said[before].claims.sequence == number - 1)

    def forked(self, stream: str) -> bool:
        places = [(item.claims.sequence, item.id, item.claims.previous) for item in self.of(stream)]
        twice = any(one[0] == two[0] and one[1] != two[1] for one in places for two in places)
        return twice or any(one[0] + 1 == two[0] and two[2] != one[1] for one in places for two in places)

    def of(self, stream: str) -> list[Statement[Said]]:
        return [item for item in self.said.values() if link_of(item)[0] == stream]

    def behind(self, identity: str, before: str) -> bool:
        """Whether ``before`` leads to it."""
        while identity and identity != before:
            identity = self.said[identity].claims.previous if identity in self.said else ""
        return identity == before

    def verdict(self, stream: str) -> Resolve | None:
        if self.forked(RESOLVES):
            return None
        found = [item.claims for item in self.of(RESOLVES) if self.whole(item.id)]
        about = [claims for claims in found if isinstance(claims, Resolve) and claims.stream == stream]
        return max(about, key=lambda claims: claims.sequence, default=None)

    def history(self, stream: str) -> set[str]:
        """Ids of what allows."""
        ids = {item.id for item in self.of(stream) if self.whole(item.id)}
        if not self.forked(stream):
            return ids
        verdict = self.verdict(stream)
        if verdict is None or not {verdict.head, *verdict.aside} <= ids:
            return set()
        found = {identity for identity in ids if self.behind(identity, verdict.head) or self.behind(verdict.head, identity)}
        numbers = [self.said[identity].claims.sequence for identity in found]
        return found if len(set(numbers)) == len(numbers) else set()

    def halted(self) -> set[str]:
        every = [item for item in self.of(HALTS) if isinstance(item.claims, Halt)]
        counts = self.history(HALTS)
        lifted = {lift for item in every if item.id in counts and isinstance(item.claims, Halt) for lift in item.claims.lifts}
        return {item.id for item in every if isinstance(item.claims, Halt) and not item.claims.lifts} - lifted

    def conflict(self) -> bool:
        return any(self.forked(stream) and not self.history(stream) for stream in (POLICY, ACTIVATE))


@given(st.sets(st.sampled_from(NAMES)), st.data())
def test_what_is_in_force_is_a_function_of_the_set_in_any_order_and_batches_and_what_the_rules_say(
    chosen: set[str], data: st.DataObject
) -> None:
    said = [WORLD[name] for name in sorted(chosen)]
    heard = data.draw(st.permutations(said + said[:3]))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(heard)), max_size=4))), len(heard)]
    held = PLAIN
    for first, last in pairwise(cuts):
        held = _taken(heard[first:last], held)
    assert _state(held) == _state(restore(PLAIN, said))
    first_manifest = [WORLD["manifest"]]  # it is configured
    model = _Model([*first_manifest, *said])
    assert set(held.halted.get(DOMAIN, ())) == model.halted()
    for stream in held.streams:
        assert set(held.settled.get(stream, ())) == (model.history(stream) if model.forked(stream) else set()), stream
        assert held.forked(stream) == (model.forked(stream) and not model.history(stream)), stream
    assert _code(held) == ("halted" if model.halted() else "policy_conflict" if model.conflict() else "")
    assert set(held.rollouts[DOMAIN].ids if DOMAIN in held.rollouts else ()) == model.history(ACTIVATE)


SCRIPT = """
from tests.core.test_resolve import PLAIN, WORLD, _state, _taken
held = PLAIN
for name in reversed(WORLD):
    if name != "forked resolve":
        held = _taken([WORLD[name]], held)
print(held.digest, list(held.settled.items()), list(held.verdicts), held.halted, held.frontier)
"""


def test_two_processes_with_other_hash_seeds_are_in_the_same_state() -> None:
    root, said = str(Path(__file__).parents[2]), set[str]()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        said.add(subprocess.run([sys.executable, "-c", SCRIPT], env=env, check=True, capture_output=True, text=True).stdout)
    (out,) = said
    assert out.startswith(_held(*(name for name in NAMES if name != "forked resolve")).digest)


# ------------------------------------------------------------------------------------------------------------ what it ends

FORKED_HALTS: Final = ("first", "second", "lifted", "other", "beside")
FORKED_POLICY: Final = ("manifest", "next", "twin", "behind the twin")


def test_a_resolved_halt_stream_is_lifted_by_its_own_resumes_and_what_stands_aside_is_lifted_by_name_only() -> None:
    held = _held(*FORKED_HALTS)
    assert len(held.halted[DOMAIN]) == 4
    assert _code(_held("choose first", of=held)) == ""
    only = halts.resume(WORLD["first"], WORLD["first"])  # type: ignore[arg-type]  # a halt
    held = _taken([WORLD["first"], WORLD["other"], only, WORLD["choose first"]])
    assert held.halted == {DOMAIN: (WORLD["other"].id,)}
    both = halts.resume(only, WORLD["other"])  # type: ignore[arg-type]  # a halt
    assert _code(_taken([both], held)) == ""


def test_a_resume_that_stands_aside_lifts_nothing() -> None:
    lifting = halts.resume(WORLD["other"], WORLD["other"])  # type: ignore[arg-type]  # a halt
    chosen = resolve(None, WORLD["first"], lifting)
    held = _taken([WORLD["first"], WORLD["other"], lifting, chosen])
    assert held.halted == {DOMAIN: tuple(sorted([WORLD["first"].id, WORLD["other"].id]))}


def test_a_resolved_policy_stream_opens_its_domain_and_decides_by_the_chosen_manifest_only() -> None:
    held = _held(*FORKED_POLICY)
    assert _code(held) == "policy_conflict"
    held = _held("choose first", "choose policy", of=held)
    assert _code(held) == ""
    by_twin = LAB.activation(WORLD["twin"], ([], T0))  # type: ignore[arg-type]  # a manifest
    with pytest.raises(Refused) as caught:
        _taken([by_twin], held).active(DOMAIN, "eu", T0)
    assert caught.value.code == "policy_conflict"
    assert _taken([by_twin], held).active(DOMAIN, "eu", T0, Basis(WORLD["twin"].id, by_twin.id)).manifest_id == WORLD["twin"].id
    assert _held("begins", of=held).active(DOMAIN, "eu", T0 + 1_000).manifest_id == WORLD["next"].id


def test_of_two_first_manifests_the_chosen_one_decides_and_what_was_decided_by_the_other_can_be_repeated() -> None:
    first = WORLD["manifest"]
    twin = envelope.read(Manifest, sign(msgspec.structs.replace(LAB.manifest, reason="another first"), *LAB.signers[:2]))
    for chosen, aside in ((first, twin), (twin, first)):
        held = _taken([first, twin, resolve(None, chosen, aside)])
        assert _code(held) == ""
        assert held.active(DOMAIN, "eu", T0).manifest_id == chosen.id
        assert held.active(DOMAIN, "eu", T0, Basis(aside.id, "")).manifest_id == aside.id


def test_an_epoch_counts_as_admitted_only_under_a_manifest_that_stands() -> None:
    held = with_bundle(_held("manifest", "next", "twin"), WORLD["twin"].id, LAB.bundle)
    assert held.standings("eu", T0)[0].admitted == 2
    held = _held("choose first", "choose policy", of=held)
    assert held.standings("eu", T0)[0].admitted == 1
    assert with_bundle(held, WORLD["next"].id, LAB.bundle).standings("eu", T0)[0].admitted == 2


def test_after_a_conflict_of_activations_the_chosen_one_begins_and_what_rested_on_the_other_can_be_repeated() -> None:
    held = _held("manifest", "next", "begins", "late", "choose first", "choose policy", "choose begins")
    assert _code(held) == ""
    assert held.latest_activation(DOMAIN) == WORLD["begins"].id
    at_ms = T0 + 5_000
    assert held.active(DOMAIN, "eu", at_ms).manifest.epoch == 2
    assert held.active(DOMAIN, "eu", at_ms, Basis(WORLD["manifest"].id, WORLD["late"].id)).manifest.epoch == 1


def test_two_statements_behind_the_chosen_one_are_a_fork_again_until_the_next_resolve() -> None:
    held = _held(*FORKED_HALTS, "choose first", "choose policy", "choose begins", "choose lifted")
    assert not held.forked(HALTS)
    held = _held("again", of=held)
    assert held.halted == {DOMAIN: (WORLD["again"].id,)}
    held = _held("and again", of=held)
    assert held.forked(HALTS)
    assert len(held.halted[DOMAIN]) == 6
    once_more = resolve(WORLD["choose lifted"], WORLD["again"], WORLD["and again"], WORLD["beside"])  # type: ignore[arg-type]
    held = _taken([once_more], held)
    assert set(held.halted[DOMAIN]) == {WORLD["again"].id, WORLD["and again"].id}


@pytest.mark.parametrize("lacking", ["first", "other", "beside"])
def test_a_resolve_has_no_effect_before_all_is_held_that_it_chooses_between(lacking: str) -> None:
    chosen = resolve(None, WORLD["lifted"], WORLD["beside"])
    said = [WORLD[name] for name in FORKED_HALTS]
    assert _code(_taken([*said, chosen])) == ""
    held = _taken([*(item for item in said if item.id != WORLD[lacking].id), chosen])
    assert _code(held) == "halted"
    assert held.settled == {}
    assert _code(_taken([WORLD[lacking]], held)) == ""


def test_a_resolve_of_a_stream_that_is_not_forked_has_no_effect() -> None:
    plain = _held("first", "second")
    held = _taken([resolve(None, WORLD["first"])], plain)
    assert (held.halted, held.settled, held.streams[HALTS]) == (plain.halted, {}, plain.streams[HALTS])
    for stream in ("roster", RESOLVES, "halt/nothing"):
        assert _taken([resolve(None, WORLD["first"], stream=stream)], plain).settled == {}


# ------------------------------------------------------------------------------------------------------------------- hostile

ROOT: Final = LAB.root
STRANGER: Final = secret("mallory")


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("threshold_not_met", resolve(None, WORLD["first"], by=[ROOT[0]])),
        ("bad_signature", resolve(None, WORLD["first"], by=[*ROOT[:2], STRANGER])),
        ("bad_signature", resolve(None, WORLD["first"], by=revocations.REVOKERS[:2])),
        ("bad_signature", resolve(None, WORLD["first"], by=LAB.signers[:2])),
        ("wrong_mesh", resolve(None, WORLD["first"], mesh="other")),
    ],
    ids=["below the threshold", "a stranger's line", "by revokers", "by policy signers", "of another mesh"],
)
def test_a_resolve_that_is_not_the_root_thresholds_word_is_not_believed(code: str, wrong: Statement[Resolve]) -> None:
    with pytest.raises(Refused) as caught:
        admit_resolve(wrong, LAB.roster)
    assert caught.value.code == code
    held = _held(*FORKED_HALTS)
    taken = extend(held, [wrong])
    assert taken.governance is held
    assert {identity: refusal.code for identity, refusal in taken.refused.items()} == {wrong.id: code}


def test_a_resolve_that_names_a_statement_of_another_stream_has_no_effect() -> None:
    for head, stream in ((WORLD["revoked 0"], HALTS), (WORLD["first"], revocations.STREAM)):
        held = _taken([*WORLD.values(), resolve(None, head, stream=stream)][:-1])
        assert held.forked(HALTS)
        wrong = resolve(None, head, stream=stream)
        held = _taken([*(WORLD[name] for name in FORKED_HALTS), WORLD["revoked 0"], WORLD["revoked beside"], WORLD["revoked 1"], wrong])
        assert held.settled == {}


def test_a_fork_of_the_resolves_resolves_nothing() -> None:
    before = _held(*FORKED_HALTS, "choose first")
    assert not before.forked(HALTS)
    held = _taken([resolve(None, WORLD["other"], WORLD["lifted"])], before)
    assert held.forked(HALTS)
    assert _code(held) == "halted"


def test_an_old_resolve_that_comes_late_or_again_changes_nothing() -> None:
    last = _held(*(name for name in NAMES if not name.startswith("choose") and name != "forked resolve"))
    last = _held("choose first", "choose policy", "choose begins", "choose lifted", "choose other", of=last)
    late = _held(*(name for name in NAMES if name not in {"forked resolve", "choose first", "choose revoked"}))
    assert late.settled == {}
    assert _state(_held("choose first", of=late)) == _state(last)
    assert extend(last, [WORLD["choose first"]]).governance is last


def test_a_resolve_names_as_many_histories_as_it_may_and_not_one_more() -> None:
    ids = [f"{number:064x}" for number in range(ASIDE_MAX + 1)]
    most = resolve(None, WORLD["first"], aside=ids[:-1])
    assert len(most.claims.aside) == ASIDE_MAX
    assert envelope.read(Resolve, most.envelope) == most
    with pytest.raises(Refused) as caught:
        resolve(None, WORLD["first"], aside=ids)
    assert caught.value.code == "malformed"


# ----------------------------------------------------------------------------------------------------------- who vouches


def _heads(held: Governance) -> list[StreamHead]:
    return list(held.frontier)


def _covers(mine: Governance, theirs: Governance) -> bool:
    return covers(_heads(mine), _heads(theirs), mine.whole)


FORK: Final = ("first", "other")
RESOLVED: Final = (*FORK, "choose first")
STATES: Final[Mapping[str, tuple[str, ...]]] = {
    "nothing": (),
    "chain": ("first",),
    "longer chain": ("first", "second"),
    "other chain": ("other",),
    "fork": FORK,
    "larger fork": (*FORK, "beside"),
    "resolved": RESOLVED,
    "resolved, more aside": (*RESOLVED, "beside"),
    "resolved, longer": (*RESOLVED, "second"),
    "resolve without the fork": ("first", "choose first"),
    "resolve without what it chose": ("other", "beside", "choose first"),
}
VOUCHES: Final[Mapping[str, str]] = {
    # For me, in the state of the row, a member vouches whose last word came from these states.
    "nothing": "nothing",
    "chain": "nothing; chain",
    "longer chain": "nothing; chain; longer chain; other chain",
    "other chain": "nothing; other chain",
    "fork": "nothing; chain; other chain; fork; larger fork",
    "larger fork": "nothing; chain; other chain; fork; larger fork",
    "resolved": "nothing; chain; other chain; fork; resolved; resolved, more aside; resolve without the fork",
    "resolved, more aside": "nothing; chain; other chain; larger fork; resolved; resolved, more aside; resolve without the fork;"
    " resolve without what it chose",
    "resolved, longer": "nothing; chain; longer chain; other chain; resolved; resolved, more aside; resolved, longer;"
    " resolve without the fork",
    "resolve without the fork": "nothing; chain; resolve without the fork",
    "resolve without what it chose": "nothing; chain; other chain; resolve without the fork; resolve without what it chose",
}


def _vouching(row: str) -> set[str]:
    return {item.strip() for item in VOUCHES[row].split(";")}


@pytest.mark.parametrize("mine", STATES)
def test_who_lacks_the_resolve_or_what_it_leaves_aside_counts_nobody_who_holds_them(mine: str) -> None:
    own = _held(*STATES[mine])
    assert {theirs for theirs in STATES if _covers(own, _held(*STATES[theirs]))} == _vouching(mine)


def test_who_has_seen_the_fork_and_the_resolve_but_not_what_it_leaves_aside_counts_nobody_who_goes_by_it() -> None:
    chosen = resolve(None, WORLD["first"], WORLD["beside"])
    theirs = _taken([WORLD["first"], WORLD["other"], WORLD["beside"], chosen])
    mine = _taken([WORLD["first"], WORLD["other"], chosen])
    assert (theirs.forked(HALTS), mine.forked(HALTS)) == (False, True)
    assert not _covers(mine, theirs)
    assert wanted(mine, theirs.frontier) == {HALTS: Cursor(0)}
    assert _covers(_held("beside", of=mine), theirs)


CHOSEN: Final = st.sets(st.sampled_from(NAMES))


@given(CHOSEN, CHOSEN)
def test_whoever_vouches_by_a_resolved_stream_holds_nothing_of_it_that_i_lack_and_that_was_resolved(
    mine: set[str], theirs: set[str]
) -> None:
    own, other = _held(*sorted(mine)), _held(*sorted(theirs))
    if not _covers(own, other) or own.forked(RESOLVES):
        return
    for stream, history in other.settled.items():
        verdict, held = other.verdicts[stream], own.streams[stream]
        assert isinstance(held, Fork), "who has not seen the fork is not counted"
        assert {*history, *verdict.aside} <= held.whole.keys()
        assert stream in own.verdicts


@given(CHOSEN, CHOSEN)
def test_who_holds_the_same_and_a_resolve_more_counts_who_lacks_it(said: set[str], resolves: set[str]) -> None:
    theirs = {name for name in said if not name.startswith("choose") and name != "forked resolve"}
    more = {name for name in resolves if name.startswith("choose")}
    own, other = _held(*sorted(theirs | more)), _held(*sorted(theirs))
    unmet = {name for name in own.verdicts if isinstance(own.streams.get(name), Fork) and own.whole[name] == ()}
    frontier = [head for head in _heads(other) if head.stream not in unmet]
    assert covers(_heads(own), frontier, own.whole)


@given(CHOSEN, CHOSEN)
def test_what_is_added_beside_a_resolved_history_stops_nobody(said: set[str], more: set[str]) -> None:
    """Whoever has a stolen key may add to what stands aside as often as he likes: old heartbeats count on."""
    held = _held(*sorted({*said, *RESOLVED} - {"forked resolve"}))
    grown = _held(*sorted(more - {"forked resolve"}), of=held)
    kept = [head for head in _heads(held) if head.stream in grown.settled and head.stream in held.settled]
    assert covers(_heads(grown), kept, grown.whole) or any(grown.verdicts[head.stream] is not held.verdicts[head.stream] for head in kept)


# -------------------------------------------------------------------------------------------------------- anti-entropy


class _Holder:
    """What one node holds, and what is stored."""

    def __init__(self, said: Sequence[Statement[Said]]) -> None:
        self.kept = {item.id: item for item in said}
        self.held = _taken(said, BARE)

    def pull(self, other: "_Holder") -> bool:
        """Ask for what the other claims, page by page; whether there was anything to ask for."""
        asked = wanted(self.held, other.held.frontier)
        for stream, after in asked.items():
            at: Cursor = after
            while page := other.page(stream, at):
                self.held = _taken(page, self.held)
                self.kept |= {item.id: item for item in page}
                at = cursor_of(page[-1])
        return bool(asked)

    def page(self, stream: str, after: Cursor) -> list[Statement[Said]]:
        """The next one."""
        of_it = sorted((cursor_of(item), item.id) for item in self.kept.values() if link_of(item)[0] == stream)
        return [self.kept[identity] for cursor, identity in of_it if cursor > after][:1]


@given(st.lists(CHOSEN, min_size=2, max_size=3))
def test_holders_that_ask_each_other_are_in_the_same_state_in_the_end(sets: list[set[str]]) -> None:
    holders = [_Holder([WORLD[name] for name in sorted(chosen)]) for chosen in sets]
    pairs = [(one, two) for one in holders for two in holders if one is not two]
    rounds, asked = 0, 1
    while asked:
        asked = sum(one.pull(two) for one, two in pairs)
        rounds += 1
        assert rounds <= 1 + sum(map(len, sets))
    first = holders[0].held
    for other in holders[1:]:
        assert other.held.frontier == first.frontier
        assert other.held.settled == first.settled
        assert all(_covers(one.held, two.held) for one, two in pairs) or () in first.whole.values()
        forked = [name for name, stream in first.streams.items() if isinstance(stream, Fork)]
        assert all(other.held.streams[name] == first.streams[name] for name in forked)


@given(CHOSEN, st.sampled_from([HALTS, POLICY, RESOLVES]), st.integers(0, 3), st.sampled_from(["", "ab" * 32]), st.booleans())
def test_whatever_a_member_claims_can_be_compared(said: set[str], stream: str, sequence: int, digest: str, forked: Any) -> None:
    held = _held(*sorted(said))
    claim = StreamHead(stream=stream, sequence=sequence, head="cd" * 32, forked=forked, held=digest)
    assert set(wanted(held, [claim])) <= {stream}
    lies = forked or digest or sequence > (len(own.ids) if isinstance(own := held.streams.get(stream, Chain()), Chain) else 0)
    assert stream in wanted(held, [claim]) or not lies
    assert not (lies and not isinstance(held.streams.get(stream), Fork) and covers(_heads(held), [claim], held.whole))
