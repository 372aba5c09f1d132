"""A node that has lost its log takes back what others keep of it, hashes where that is all, below a floor only."""

from mesh.core.log.merkle import leaf_hash
from mesh.core.messages import pack
from mesh.protocol.events import BarrierArrived, LineageArrived, Tick
from mesh.protocol.serving import pull_answer
from mesh.protocol.step import Append, AppendHashes, Ask
from tests.protocol.machines import LAB, ME, batch, checkpoint, only, told
from tests.protocol.startkit import NEW, OTHERS, Start
from tests.protocol.test_barrier import ORIGIN, _written
from tests.support.retains import retaining


def test_a_lost_log_comes_back_as_hashes_where_nobody_keeps_more_of_it_and_goes_on() -> None:
    owner = _written(4)
    note = checkpoint(owner.leaves, ME, owner=ME)
    final = checkpoint(owner.leaves[:3], *(LAB.roster.member(name) for name in OTHERS), owner=ME)
    pruned = pull_answer(ORIGIN, 0, [], {}, {}, final, pruned=[leaf_hash(leaf) for leaf in owner.leaves[:3]])
    for below, came in ((2, 0), (3, 3)):
        start = Start(NEW, governance=retaining(LAB, {ORIGIN: below}))
        heads = start.state.governance.frontier
        start.take(BarrierArrived(told(OTHERS[0], note, frontier=heads)), BarrierArrived(told(OTHERS[1], frontier=heads)), Tick())
        start.now_ms += 60_000
        effects = start.take(LineageArrived(pruned, pulled=True, node=OTHERS[0]), Tick())
        assert sum(len(append.hashes) for append in only(AppendHashes, effects)) == came
    start = Start(NEW, governance=retaining(LAB, {ORIGIN: 3}))
    start.take(BarrierArrived(told(OTHERS[0], note, frontier=heads)), BarrierArrived(told(OTHERS[1], frontier=heads)), Tick())
    start.take(LineageArrived(pruned, pulled=True, node=OTHERS[0]), Tick())
    start.now_ms += 60_000
    effects = start.take(LineageArrived(pack(batch(owner, 3, note=note)), pulled=True, node=OTHERS[0]), Tick())
    assert [(append.first, len(append.leaves)) for append in only(Append, effects)] == [(3, 1)]
    start.hear(told(OTHERS[2], frontier=heads))
    assert (start.state.barrier, start.state.log.frontier) == (None, owner.log.frontier)


def test_one_record_that_somebody_sends_first_keeps_no_log_from_coming_back_as_hashes() -> None:
    owner = _written(4)
    note = checkpoint(owner.leaves, ME, owner=ME)
    final = checkpoint(owner.leaves[:3], *(LAB.roster.member(name) for name in OTHERS), owner=ME)
    start = Start(NEW, governance=retaining(LAB, {ORIGIN: 3}))
    heads = start.state.governance.frontier
    start.take(BarrierArrived(told(OTHERS[0], note, frontier=heads)), BarrierArrived(told(OTHERS[1], frontier=heads)), Tick())
    came, first = list[AppendHashes](), pack(batch(owner, 0, 1))
    for _ in range(6):
        start.now_ms += 60_000
        effects = start.take(LineageArrived(first, pulled=True, node=OTHERS[0])) if first else []
        first = b""
        for ask in only(Ask, [*effects, *start.take(Tick())]):
            gone = pull_answer(ORIGIN, ask.first, [], {}, {}, final, pruned=[leaf_hash(leaf) for leaf in owner.leaves[ask.first : 3]])
            answer = gone if ask.first < 3 else pack(batch(owner, 3, note=note))
            came += only(AppendHashes, start.take(LineageArrived(answer, pulled=True, node=ask.member)))
    assert [(append.first, len(append.hashes)) for append in came] == [(0, 3)]
    start.hear(told(OTHERS[2], frontier=heads))
    assert (start.state.barrier, start.state.log.frontier) == (None, owner.log.frontier)
