"""Planted bugs: each is a plausible slip in one place of the protocol, and each must be found by the worlds.

``MUTANTS`` maps a name to how it is planted and which promises may be the ones that break.
"""

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, cast

import msgspec
import pytest

from mesh.core.law import activation, fold, governance
from mesh.core.law.fold import extend
from mesh.core.law.halt import in_force
from mesh.core.law.heartbeat import covers
from mesh.core.law.streams import Chain
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.run import kin
from mesh.core.run.authorization import Ancestor, authorization_of
from mesh.protocol import (
    attester,
    barrier,
    begin,
    examine,
    freshness,
    gossip,
    governor,
    holding,
    intake,
    lineage,
    mirror,
    step,
)
from mesh.protocol.freshness import Freshness
from mesh.protocol.step import Commit, Head, InsertOnce, Sending, SetMeta, Step
from mesh.protocol.stored import INCARNATION
from mesh.testing.world import clients, steps
from mesh.testing.world import governor as shell
from tests.world.mutants import catching, changing, erasing, pruning, rotting, seeking, using

__all__ = ["MUTANTS", "Mutant"]

Plant = Callable[[pytest.MonkeyPatch], None]


class Mutant(NamedTuple):
    """One planted bug."""

    plant: Plant
    promises: frozenset[str]
    """The promises of which one breaks."""
    nodes: int | None
    trouble: tuple[str, ...]
    """Where to look, so that few worlds are enough."""
    since: int = 0
    """From which seed on: a bug that one world in ten shows may be in none of the first thirty."""


def _signs_before_it_persists(patch: pytest.MonkeyPatch) -> None:
    def phases(made: Step[Any], **callables: Any) -> Generator[Commit | Sending, None, Any]:
        runner = step.phases(msgspec.structs.replace(made, effects=_unpersisted(made)), **callables)
        sending = next(runner, None)
        persists = tuple(effect for effect in made.effects if effect not in _unpersisted(made))
        if persists:
            yield Commit(persists)  # type: ignore[arg-type]  # what is left are the persists
        if sending is not None:
            yield sending
        return made.state

    patch.setattr(steps, "phases", phases)


def _unpersisted(made: Step[Any]) -> tuple[Any, ...]:
    return tuple(effect for effect in made.effects if isinstance(effect, step.Sign | step.Send | step.Announce | step.Ask))


def _majority_certifies(patch: pytest.MonkeyPatch) -> None:
    real = lineage.certify

    def certify(state: Any, roster: Any, me: Any, **named: Any) -> Any:
        return real(state, cast("Any", _Fewer(roster)), me, **named)

    patch.setattr(lineage, "certify", certify)


class _Fewer:
    """A roster that takes a bare majority for enough."""

    def __init__(self, roster: Any) -> None:
        self._roster = roster
        self.k = roster.k - 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._roster, name)


def _staging_without_root_check(patch: pytest.MonkeyPatch) -> None:
    """Records that do not lead to the signed root are taken for those that do."""

    def believe(state: Any, context: Any) -> Any:
        base = state.frontier.size
        size = min(size for size in state.signed if size > base)
        if size > base + len(state.staged):
            return state, []
        return mirror._take_in(state, state.frontier.extend(item.hash for item in state.staged[: size - base]), context)

    patch.setattr(mirror, "_astray", believe)


def _freshness_by_arrival(patch: pytest.MonkeyPatch) -> None:
    real = freshness.hear

    def hear(state: Any, beat: Any, beat_id: str, *, now_ms: int, bounds: Any, own: bool = False) -> Freshness:
        return real(state, msgspec.structs.replace(beat, signed_ms=now_ms), beat_id, now_ms=now_ms, bounds=bounds, own=own)

    for module in (governor, "mesh.protocol.enforcer"):
        patch.setattr(f"{module}.hear" if isinstance(module, str) else f"{module.__name__}.hear", hear)


def _no_boot_echo(patch: pytest.MonkeyPatch) -> None:
    real = freshness.hear

    def hear(state: Any, beat: Any, beat_id: str, *, now_ms: int, bounds: Any, own: bool = False) -> Freshness:
        return real(state, msgspec.structs.replace(beat, echo=[state.boot]), beat_id, now_ms=now_ms, bounds=bounds, own=own)

    for module in ("mesh.protocol.governor", "mesh.protocol.enforcer"):
        patch.setattr(f"{module}.hear", hear)


def _one_ahead_stops_all(patch: pytest.MonkeyPatch) -> None:
    def vouchers(state: Any, frontier: Any, *, now_ms: int, bounds: Any, **_: Any) -> dict[str, str]:
        newest = {member: kept[-1] for member, kept in state.heard.items() if kept}
        alive = {member: item for member, item in newest.items() if freshness.counts(item.signed_ms, now_ms, bounds)}
        if any(not covers(list(frontier), list(item.frontier)) for item in alive.values()):
            return {}
        return {member: item.id for member, item in alive.items()}

    patch.setattr(freshness, "vouchers", vouchers)


def _forgets_the_law(patch: pytest.MonkeyPatch) -> None:
    """What was taken in is believed and advertised, and not kept."""
    real = extend

    def take(*arguments: Any) -> Any:
        return msgspec.structs.replace(real(*arguments), new=())

    patch.setattr(gossip, "extend", take)


def _never_asks_for_law(patch: pytest.MonkeyPatch) -> None:
    """It relies on what is published."""
    patch.setattr(gossip.Gossip, "due", lambda *_, **__: [])


def _resumes_by_a_loose_word(patch: pytest.MonkeyPatch) -> None:
    """A resume counts before what stands between it and the chain is held."""

    def found(said: Any, stream: Any, settled: Any = ()) -> Any:
        loose = tuple(link.id for link in stream.loose.values()) if isinstance(stream, Chain) else ()
        return in_force(said, Chain((*stream.ids, *loose)), settled)

    patch.setattr(fold, "in_force", found)


def _forgets_what_stands_aside(patch: pytest.MonkeyPatch) -> None:
    """Of a resolved stream only the history that was chosen is looked at."""

    def found(said: Any, stream: Any, settled: Any = ()) -> Any:
        return in_force({identity: lifts for identity, lifts in said.items() if not settled or identity in settled}, stream, settled)

    patch.setattr(fold, "in_force", found)


def _never_opens_again(patch: pytest.MonkeyPatch) -> None:
    """A fork stays a fork, whoever resolves it."""
    patch.setattr(fold, "settle", lambda _fork, _head: ())


def _accuses_by_number(patch: pytest.MonkeyPatch) -> None:
    """What follows another in its chain is taken for what contradicts it."""

    def clash(fork: Any, new: Any) -> tuple[str, str]:
        return next((link.previous, link.id) for link in sorted(fork.whole.values(), key=lambda link: -link.sequence))

    patch.setattr(gossip, "clash", clash)


def _ignores_halts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(governance.Governance, "check_open", lambda _self, _domain: None)


def _replays_by_its_own_news(patch: pytest.MonkeyPatch) -> None:
    """Whoever replays a decision asks which policy is in force by what it holds itself, not by what the decision rested on."""
    real = examine.question
    patch.setattr(attester, "question", lambda *arguments, **named: real(*arguments, **{**named, "basis": None}))


def _never_activates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(activation.Rollout, "begun", lambda _self, _region, _at_ms: None)


def _forgets_what_it_admitted(patch: pytest.MonkeyPatch) -> None:
    """A policy that is heard is never checked, so nobody can decide by it."""
    patch.setattr(shell.Governor, "_judge", lambda _self: None)


def _attests_what_is_wrong(patch: pytest.MonkeyPatch) -> None:
    def examine(*arguments: Any, **named: Any) -> Any:
        found = attester.examine_records(*arguments, **named)
        return [msgspec.structs.replace(item, code="") if item.code == "replay_mismatch" else item for item in found]

    patch.setattr(holding, "examine_records", examine)


def _spoilt_is_wrong(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attester, "_MANGLED", frozenset())


def _forgets_its_incarnation(patch: pytest.MonkeyPatch) -> None:
    """It remembers none, and asks nobody."""
    real = begin.begin

    def forgetful(machine: Any, stored: Any, **named: Any) -> Any:
        made = steps.unasked(real(machine, stored, **named), stored.incarnation + 1)
        return msgspec.structs.replace(made, effects=tuple(effect for effect in made.effects if not isinstance(effect, SetMeta)))

    patch.setattr(shell, "begin", forgetful)


def _decides_again(patch: pytest.MonkeyPatch) -> None:
    """A repeated intent is decided afresh: the key that must be new is left out."""
    real = governor._Work.finish

    def finish(self: Any) -> Any:
        made = real(self)
        return msgspec.structs.replace(made, effects=tuple(effect for effect in made.effects if not isinstance(effect, InsertOnce)))

    patch.setattr(governor._Work, "finish", finish)


def _answers_with_another_time(patch: pytest.MonkeyPatch) -> None:
    """A cosignature is made anew for each answer, instead of as it was persisted."""
    real = holding.my_lines

    def lines(state: Any, checkpoint: Any, context: Any) -> Any:
        now_s = context.now_ms // 1000
        heads = {
            name: msgspec.structs.replace(head, time_s=max(now_s, head.time_s)) if head is not None else None
            for name, head in (("witnessed", state.witnessed), ("attested", state.attested))
        }
        return real(msgspec.structs.replace(state, **heads), checkpoint, context)

    patch.setattr(mirror, "my_lines", lines)


def _drops_doubles(patch: pytest.MonkeyPatch) -> None:
    """Whoever asks twice at once is not answered the second time."""
    real = intake.Intake.take

    def take(self: Any, events: Any, stale: Any) -> None:
        real(self, list({event.data: event for event in reversed(events)}.values()), stale)

    patch.setattr(intake.Intake, "take", take)


def _keeps_every_line(patch: pytest.MonkeyPatch) -> None:
    """A note is kept with whatever lines it came with."""
    real = mirror._believed

    def believed(state: Any, note: bytes, context: Any) -> Any:
        return note, real(state, note, context)[1]

    patch.setattr(mirror, "_believed", believed)


def _time_may_go_back(patch: pytest.MonkeyPatch) -> None:
    """A restarted log does not know under which time it signed last. What is signed only while the clock is trusted hardly ever goes
    back, so that is taken away, too."""
    patch.setattr(governor._Work, "_unsure", lambda _: False)
    real = lineage.checkpoint_due

    def due(state: Any, *arguments: Any, **named: Any) -> Any:
        return real(msgspec.structs.replace(state, signed_s=0), *arguments, **named)

    patch.setattr(lineage, "checkpoint_due", due)


def _witness_follows_any_root(patch: pytest.MonkeyPatch) -> None:
    """Whoever shows another root at a size already cosigned gets a line on that one too."""

    def follow(state: Any, note: bytes, context: Any) -> Any:
        checkpoint = read_checkpoint(note)
        if state.witnessed is None or checkpoint.size != state.witnessed.size:
            return state, []
        head = Head(checkpoint.size, checkpoint.root, state.witnessed.time_s)
        changed = msgspec.structs.replace(state, witnessed=head, attested=head)
        return changed, holding.my_lines(changed, checkpoint, context)

    patch.setattr(mirror, "_two_roots", follow)


def _ignores_the_barrier(patch: pytest.MonkeyPatch) -> None:
    """It starts from what its storage holds, whatever others know."""
    real = begin.begin

    def hasty(machine: Any, stored: Any, **named: Any) -> Any:
        return steps.unasked(real(machine, stored, **named), stored.incarnation + 1)

    patch.setattr(shell, "begin", hasty)


def _believes_its_own_incarnation(patch: pytest.MonkeyPatch) -> None:
    """It hears what others know, and counts on from what its storage says."""
    real = barrier.passed

    def through(state: Any) -> Any:
        made, incarnation = real(state), state.stored.incarnation + 1
        kept = [SetMeta(INCARNATION, incarnation), *(effect for effect in made.effects if not isinstance(effect, SetMeta))]
        return msgspec.structs.replace(made, incarnation=incarnation, effects=tuple(kept))

    patch.setattr(barrier, "passed", through)


def _speaks_before_it_holds_the_law(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(barrier, "wanted", lambda *_: {})


def _signs_its_own_log_anew(patch: pytest.MonkeyPatch) -> None:
    """What others hold of its log is not fetched back."""
    real = barrier.take_answer

    def take(*arguments: Any) -> Any:
        state = real(*arguments)
        shown = {
            name: msgspec.structs.replace(item, marks=tuple(mark for mark in item.marks if mark.origin != state.origin))
            for name, item in state.answers.items()
        }
        return msgspec.structs.replace(state, answers=shown)

    patch.setattr(barrier, "take_answer", take)


def _says_it_too_soon(patch: pytest.MonkeyPatch) -> None:
    """What was heard is said at once, and acted by a little later."""
    real = clients.Enforcer._law

    def law(self: clients.Enforcer, data: bytes, node: str) -> None:
        acting = self.governance
        real(self, data, node)
        heard, self.governance = self.governance, acting
        if heard is not acting:
            with pytest.MonkeyPatch.context() as saying:
                saying.setattr(self, "governance", heard)
                self.speak()
            self._later(1_500_000, partial(real, self, data, node))

    patch.setattr(clients.Enforcer, "_law", law)


def _cuts_the_line(patch: pytest.MonkeyPatch) -> None:
    """An authorization names the parent only."""
    real = authorization_of

    def cut(*args: Any, ancestors: list[Any], **named: Any) -> Any:
        return real(*args, ancestors=ancestors[:1], **named)

    patch.setattr("mesh.protocol.examine.authorization_of", cut)


def _forgives_ancestors(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks whether what it runs within is revoked."""
    patch.setattr(Ancestor, "links", lambda *_, **__: ())
    patch.setattr(kin.Kin, "chain", ())


def _mutant(plant: Plant, *promises: str, nodes: int | None = 4, trouble: tuple[str, ...] = (), since: int = 0) -> Mutant:
    return Mutant(plant, frozenset(promises), nodes, trouble, since)


MUTANTS: Final[Mapping[str, Mutant]] = {
    "signs before it persists": _mutant(_signs_before_it_persists, "I7"),
    "a majority certifies": _mutant(_majority_certifies, "I3", nodes=5, trouble=("twins",)),
    "staging is stored without looking at the root": _mutant(_staging_without_root_check, "I3", "I8", "I10", trouble=("weather",) * 4),
    "freshness by arrival": _mutant(_freshness_by_arrival, "I1", "I2", trouble=("old news",) * 7),
    "no boot echo": _mutant(_no_boot_echo, "I1", trouble=("old news",) * 7),
    "one member that is ahead stops all": _mutant(_one_ahead_stops_all, "I10", trouble=("braggart",)),
    "advertises law that it does not keep": _mutant(_forgets_the_law, "I9", "I10", trouble=("revocation", "reload", "reload")),
    "never asks for law that it lacks": _mutant(_never_asks_for_law, "I10", trouble=("revocation", "partition", "hold")),
    "resumes by what does not follow yet": _mutant(_resumes_by_a_loose_word, "I2", trouble=("halt", "halt")),
    "forgets what stands aside": _mutant(_forgets_what_stands_aside, "I2", trouble=("resolve", "resolve")),
    "never opens again what was resolved": _mutant(_never_opens_again, "I10", trouble=("resolve", "resolve")),
    "accuses with two statements that can both be": _mutant(_accuses_by_number, "I8", trouble=("resolve", "resolve")),
    "ignores halts": _mutant(_ignores_halts, "I2", trouble=("halt", "halt")),
    "says that it has heard before it acts by it": _mutant(
        _says_it_too_soon, "I2", trouble=("halt", "halt", "hold", "isolate", "partition"), since=30
    ),
    "replays by its own newest policy": _mutant(_replays_by_its_own_news, "I8", "I10", "I11", trouble=("policy", "policy")),
    "goes on by the old policy": _mutant(_never_activates, "I2", "I8", "I10", trouble=("policy",)),
    "never admits a policy": _mutant(_forgets_what_it_admitted, "I10", trouble=("policy",)),
    "attests what it would not have decided": _mutant(_attests_what_is_wrong, "I11", trouble=("turncoat",)),
    "takes a spoilt statement for a wrong record": _mutant(_spoilt_is_wrong, "I8"),
    "forgets its incarnation": _mutant(_forgets_its_incarnation, "I5"),
    "decides a repeated intent again": _mutant(_decides_again, "I7"),
    "answers with another time": _mutant(_answers_with_another_time, "I7"),
    "leaves a doubled request unanswered": _mutant(_drops_doubles, "I12", trouble=("pause", "storm") * 3),
    "keeps lines that nobody verified": _mutant(_keeps_every_line, "I3", "I10", trouble=("weather",) * 4),
    "lets its times go back": _mutant(_time_may_go_back, "I7", trouble=("mended clock",) * 8),
    "ignores the barrier": _mutant(_ignores_the_barrier, "I5", "I7", "I8", "I9", "I10", "I12", trouble=("restore", "restore")),
    "counts its incarnations alone": _mutant(_believes_its_own_incarnation, "I5", trouble=("restore", "crash", "restore")),
    "speaks before it holds the law": _mutant(_speaks_before_it_holds_the_law, "I9", trouble=("revocation",) * 2 + ("restore",) * 2),
    "signs its own log anew": _mutant(_signs_its_own_log_anew, "I7", "I8", "I10", "I12", trouble=("restore", "restore")),
    "goes over at the time": _mutant(changing.goes_over_by_the_clock, "I13", trouble=("roster",)),
    "acts under the former roster until it goes over": _mutant(changing.goes_on_under_the_former, "I13", trouble=("roster",)),
    "takes the word of removed members along": _mutant(changing.takes_all_words_along, "I1", "I13", trouble=("roster",)),
    "counts who holds another roster": _mutant(changing.counts_any_holder, "I13", trouble=("roster",)),
    "judges what was decided by the newest roster": _mutant(changing.judges_by_the_newest_roster, "I8", "I10", "I11", trouble=("roster",)),
    "never goes over": _mutant(changing.stays_where_it_is, "I10", trouble=("roster",)),
    "forgets that it went over": _mutant(changing.forgets_where_it_went, "I10", "I13", trouble=("roster",)),
    "heeds former signers": _mutant(changing.heeds_former_signers, "I10", trouble=("roster",)),
    "never asks for what was handed over": _mutant(
        changing.never_asks_for_what_was_handed_over, "I10", trouble=("roster", "hold", "partition", "isolate")
    ),
    "names the parent only": _mutant(_cuts_the_line, "I1"),
    "ancestors not checked": _mutant(_forgives_ancestors, "I2", trouble=("revocation",) * 6),
    "cosigns a second history": _mutant(_witness_follows_any_root, "I7", trouble=("twins",)),
    "freezes without verifying": _mutant(catching.believes_any_proof, "I8", trouble=("slanderer",)),
    "names whose trees it never compared": _mutant(catching.never_compares_the_trees, "I8", trouble=("slanderer",)),
    "freezes by f refusals": _mutant(catching.freezes_by_f_refusals, "I8", trouble=("slanderer",)),
    "counts one member twice": _mutant(catching.counts_one_member_twice, "I8", trouble=("slanderer",)),
    "counts lines of who is caught": _mutant(catching.counts_lines_of_who_is_caught, "I14", trouble=("twins",)),
    "counts heartbeats of who is caught": _mutant(catching.counts_heartbeats_of_who_is_caught, "I14", trouble=("twins",)),
    "starts on the word of who is caught": _mutant(catching.starts_on_the_word_of_who_is_caught, "I14", trouble=("twins",)),
    "never asks for proofs": _mutant(catching.never_asks_for_proofs, "I10", trouble=("twins", "hold", "partition", "isolate")),
    "former certificate by removed keys believed": _mutant(changing.believes_removed_keys, "I3", nodes=1, trouble=("roster",)),
    "a newcomer counts at once": _mutant(
        changing.counts_at_once, "I10", "I15", nodes=1, trouble=("roster", "weather", "weather", "isolate")
    ),
    "stores by the owner's lone word below the goal": _mutant(
        seeking.believes_the_owner_below_the_goal, "I3", "I7", "I10", "I15", trouble=("roster", "twins")
    ),
    "waits for openings that were erased": _mutant(erasing.waits_for_what_was_erased, "I10", trouble=("erase", "erase", "restore")),
    "aims at nothing where openings were erased": _mutant(
        erasing.aims_at_nothing_where_it_stops, "I10", trouble=(*["erase"] * 8, *["isolate"] * 3, "partition", "pause")
    ),
    "counts before it holds the goal's root": _mutant(seeking.counts_before_the_goal, "I15", trouble=("roster", "weather", "weather")),
    "nobody certifies the logs of who has left": _mutant(changing.leaves_the_logs_of_who_left, "I10", trouble=("roster",)),
    "attests what it does not keep": _mutant(using.attests_what_it_does_not_keep, "I4"),
    "runs what is meant for another": _mutant(using.runs_what_is_meant_for_another, "I6"),
    "prunes what is not final": _mutant(pruning.prunes_what_is_not_final, "I17", trouble=(*["prune"] * 6, *["isolate"] * 5, "partition")),
    "looks at nothing that it reads": _mutant(rotting.looks_at_nothing_it_reads, "I12", "I16", trouble=("bit flip", "bit flip")),
    "never walks over its disk": _mutant(rotting.never_walks, "I16", trouble=("bit flip", "bit flip")),
    "goes on with what it found rotten": _mutant(rotting.goes_on_with_what_it_found, "I12", "I16", trouble=("bit flip", "bit flip")),
    "puts back whatever it is given": _mutant(
        rotting.puts_back_whatever_it_is_given, "I16", trouble=("bit flip", "bit flip", "bit flip", "twins"), since=12
    ),
}
