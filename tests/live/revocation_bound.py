"""How late an enforcer can still start work of a subject that is revoked, over links that delay, hold back, swallow and cut.

``python -m tests.live.revocation_bound --rounds 8 --seed 1`` starts a nats-server and four governors, each behind a proxy of its
own, and an enforcer behind another. In each round another workload asks and starts as fast as it can, links break at random, and
its subject is revoked at one governor. *Acknowledged* is the moment at which k members have signed heartbeats that cover the
revocation, by their signed times. What counts is the last start after that moment, never later than Δ, and when work that was
running is ended, never later than Δ and its lease.

The same host's clock is read for all of it; a start is noted when the enforcer lets the body in.
"""

import argparse
import asyncio
import os
import random
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from mesh.adapters import signer
from mesh.adapters.bus import Bus, Message
from mesh.adapters.bus_table import bus_options
from mesh.adapters.trustfiles import load_trust
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.roster import Roster
from mesh.core.messages import Offer, Offered, Sync, SyncAnswer, pack, unpack
from mesh.core.run.intent import EntityRef
from mesh.core.run.outcome import Finished
from mesh.deploy.devmesh import DevMeshFiles, Principal, create, point_at
from mesh.dev.cluster import Cluster
from mesh.dev.link import Fault, Link
from mesh.errors import MeshError
from mesh.gate.connect import open_core
from mesh.gate.context import load_context
from mesh.gate.core import Core, Wish
from tests.live.kit import GATE, POLICIES

__all__ = ["Round", "measure"]

T = TypeVar("T")

TOLERANCE_MS: Final = 250
"""For scheduling: two cores are shared by eleven processes, and a start is noted after the check that allowed it."""
_QUIET_S: Final = 1.0
_TROUBLE_S: Final = 4.5
_ACKNOWLEDGE_S: Final = 30.0
_FAULTS: Final[tuple[Fault, ...]] = ("delay", "hold", "swallow", "cut")


class Round(NamedTuple):
    """One revocation."""

    plan: str
    starts: int
    """Of the subject, before and after."""
    acknowledged_ms: int
    """From the first offer to k heartbeats that cover it."""
    last_ms: int | None
    """The last start after acknowledgement, from there; None if nothing started any more."""
    ended_ms: int | None
    """When the work that was running was ended, from acknowledgement."""


class _Observer:
    """Hears every heartbeat beside the proxies, and asks for more."""

    def __init__(self, bus: Bus, roster: Roster) -> None:
        self.bus = bus
        self.roster = roster
        self.covered: dict[str, dict[int, int]] = {}
        """Member to number of the revocation to the signed time of its first heartbeat that covers it."""
        self.stream = ""

    async def follow(self) -> None:
        await self.bus.subscribe(subjects.hb(subjects.ANY), lambda message: self.hear(message.data))

    def hear(self, data: bytes) -> None:
        statement = envelope.read(Heartbeat, data)
        beat = statement.verify(self.roster.member(statement.claims.member).decision_key)
        held = next((head.sequence for head in beat.frontier if head.stream == self.stream), 0)
        seen = self.covered.setdefault(beat.member, {})
        for number in range(1, held + 1):
            seen[number] = min(seen.get(number, beat.signed_ms), beat.signed_ms)

    def acknowledged_ms(self, number: int) -> int | None:
        """When the k-th member covered it."""
        times = sorted(seen[number] for seen in self.covered.values() if number in seen)
        return times[self.roster.k - 1] if len(times) >= self.roster.k else None

    async def offer(self, data: bytes, members: Sequence[str]) -> None:
        """To one after the other, until one says that it is held."""
        while True:
            for member in members:
                with suppress(MeshError):
                    question = pack(Offer(statements=[msgspec.Raw(data)]))
                    answer: Message = await self.bus.request(subjects.sync(member), question, timeout_ms=500)
                    if "" in unpack(Offered, answer.data).results.values():
                        return

    async def until_acknowledged(self, number: int) -> int:
        async with asyncio.timeout(_ACKNOWLEDGE_S):
            while (at_ms := self.acknowledged_ms(number)) is None:
                await asyncio.gather(*(self._sync(member.name) for member in self.roster.members))
                await asyncio.sleep(0.02)
        return at_ms

    async def _sync(self, member: str) -> None:
        with suppress(MeshError):
            answer: Message = await self.bus.request(subjects.sync(member), pack(Sync(nonce=secrets.token_hex(32))), timeout_ms=300)
            self.hear(bytes(unpack(SyncAnswer, answer.data).heartbeat))


class _Worker:
    """A workload that starts whatever it is let."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.starts_ms = list[int]()
        self.ended_ms: int | None = None

    async def run(self) -> None:
        """Ask and start for ever; one at a time is under way."""
        while True:
            with suppress(MeshError):
                work = await self.core.begin(_wish(), lambda: None)
                self.starts_ms.append(_now_ms())
                await self.core.end(work, Finished(status=0, outputs=[], duration_ms=0))
            await asyncio.sleep(0.005)

    async def hold(self) -> None:
        """Start one piece of work that lasts until it is ended."""
        while True:
            with suppress(MeshError):
                await self.core.begin(_wish(), self._stopped)
                return
            await asyncio.sleep(0.02)

    def _stopped(self) -> None:
        self.ended_ms = _now_ms()


class Bounds(NamedTuple):
    """What is promised, in ms after acknowledgement."""

    start_ms: int
    """Δ: nothing starts later."""
    end_ms: int
    """Δ and the lease: nothing runs on later."""

    def kept(self, item: Round) -> bool:
        """Whether a round is within them, with the tolerance."""
        started = (item.last_ms or 0) <= self.start_ms + TOLERANCE_MS
        return started and item.ended_ms is not None and item.ended_ms <= self.end_ms + TOLERANCE_MS


def measure(folder: Path, *, rounds: int, seed: int) -> tuple[list[Round], Bounds]:
    """The rounds, and what they are held to. Called from the main thread: children live as long as the thread that started them.

    The loop has a thread of its own, because the proxies must serve while the nodes start.
    """
    names = [f"agent-{number}" for number in range(rounds)]
    files = create(
        folder,
        policies=[POLICIES / "payments"],
        principals=[Principal(name=name, subject=f"spiffe://dev/{name}", groups=["payers"]) for name in names],
        enforcer=GATE,
        nodes=4,
        random=secrets.token_bytes,
        now_ms=_now_ms(),
    )
    with Cluster(files) as cluster, _loop() as run:
        cluster.start_bus()
        run(cluster.provision())
        port = urlsplit(cluster.url).port or 0
        links = {name: Link(name, port) for name in (*files.nodes, "enforcer")}
        for name, link in links.items():
            run(link.open())
            if name != "enforcer":
                point_at(files, [link.url], node=name)
        cluster.start()
        try:
            return run(_measured(files, links, names, random.Random(seed)))
        finally:
            for link in links.values():
                run(link.close())


@contextmanager
def _loop() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """Runs coroutines on a loop in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxies")
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        yield run
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _measured(files: DevMeshFiles, links: dict[str, Link], names: Sequence[str], chance: random.Random) -> tuple[list[Round], Bounds]:
    direct = load_context(str(files.context))
    context = msgspec.structs.replace(direct, bus=msgspec.structs.replace(direct.bus, servers=[links["enforcer"].url]))
    governance = load_trust(direct.trust, direct.path("."))
    terms = governance.active(_wish().domain, "eu", _now_ms()).manifest.terms(_wish().action)
    bus = await Bus.connect(bus_options(direct.bus, name="observer", base=direct.path(".")))
    observer = _Observer(bus, governance.roster)
    found, before = list[Round](), ""
    try:
        await observer.follow()
        for number, name in enumerate(names, start=1):
            core = await open_core(context, name)
            try:
                done, before = await _round(core, observer, links, files, (number, name, before), chance)
                found.append(done)
            finally:
                for link in links.values():
                    await link.become("pass", "pass")
                await core.close(wait_ms=1_000)
        stale_ms = governance.roster.bounds.stale_ms
        return found, Bounds(stale_ms, stale_ms + terms.lease_ms)
    finally:
        await observer.bus.close()


async def _round(
    core: Core, observer: _Observer, links: dict[str, Link], files: DevMeshFiles, which: tuple[int, str, str], chance: random.Random
) -> tuple[Round, str]:
    number, name, before = which
    worker = _Worker(core)
    async with asyncio.timeout(30):
        await worker.hold()
    runs = [asyncio.create_task(worker.run()) for _ in range(2)]
    try:
        await asyncio.sleep(_QUIET_S)
        plan = await _trouble(links, chance)
        key = signer.load(files.folder / "people" / "revoker.key").key
        observer.stream = stream_of(key.public)
        draft = envelope.draft(
            Revocation(
                mesh=files.mesh,
                revoker=key.public,
                sequence=number,
                previous=before,
                since="",
                target=Target(type="subject", value=f"spiffe://dev/{name}"),
                spares=[],
                reason="measured",
                issued_ms=_now_ms(),
            )
        )
        data = envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message)})
        offered_ms = _now_ms()
        healing = asyncio.create_task(_heal(links, chance))
        await observer.offer(data, chance.sample(files.nodes, len(files.nodes)))
        at_ms = await observer.until_acknowledged(number)
        await healing
        await asyncio.sleep(observer.roster.bounds.stale_ms / 1_000 + _QUIET_S)
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
    later = [start_ms - at_ms for start_ms in worker.starts_ms if start_ms > at_ms]
    ended_ms = worker.ended_ms - at_ms if worker.ended_ms is not None else None
    return Round(plan, len(worker.starts_ms), at_ms - offered_ms, max(later, default=None), ended_ms), draft.id


async def _trouble(links: dict[str, Link], chance: random.Random) -> str:
    """Break up to three links in some way, the enforcer's more often than not."""
    chosen = chance.sample([name for name in links if name != "enforcer"], chance.randint(0, 2))
    chosen += ["enforcer"] if chance.random() < 0.7 else []
    said = list[str]()
    for name in chosen:
        fault = chance.choice(_FAULTS)
        up, down = chance.choice([(fault, fault), (fault, "pass"), ("pass", fault)])
        await links[name].become(up, down)
        said.append(f"{name} {up}/{down}")
    return ", ".join(said) or "calm"


async def _heal(links: dict[str, Link], chance: random.Random) -> None:
    """Mend them one by one, at times of their own."""

    async def mend(link: Link, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await link.become("pass", "pass")

    await asyncio.gather(*(mend(link, chance.uniform(0.2, _TROUBLE_S)) for link in links.values()))


def _wish() -> Wish:
    account = EntityRef(type="Account", id="acct:acme-supplies")
    return Wish(
        domain="payments",
        action="send",
        resource=account,
        params={"to": account.id, "amount_cents": 100},
        committed={},
        purpose="",
        assurance="local",
        measure=tuple,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 0 if every round kept the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found, bounds = measure(Path(folder), rounds=wanted.rounds, seed=wanted.seed)
    _say(f"start bound {bounds.start_ms} ms, end bound {bounds.end_ms} ms, tolerance {TOLERANCE_MS} ms")
    _say(f"{'starts':>7} {'acknowledged':>13} {'last start':>11} {'work ended':>11}  links (up/down)")
    for item in found:
        last, ended = ("-" if value is None else f"{value} ms" for value in (item.last_ms, item.ended_ms))
        _say(f"{item.starts:>7} {item.acknowledged_ms:>10} ms {last:>11} {ended:>11}  {item.plan}")
    late = [item for item in found if not bounds.kept(item)]
    _say(f"{len(late)} of {len(found)} later than promised")
    return 1 if late else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))
    sys.exit(main(sys.argv[1:]))
