"""A governor that lies, as a process: ``python -m mesh.testing.liar CONFIG`` is the real one, with one thing in it changed.

``MESH_LIE`` says which. ``permits``: it permits one amount, whatever policy says. ``swallows``: it gives a receipt for every second outcome
of a boot, and records none of these. ``forks``: each checkpoint that it announces, it announces once more, with another root.

Nothing else in the package leads here: no configuration, no option and no variable makes a governor lie.
"""

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mesh.adapters.cedar import CedarEngine
from mesh.core import subjects
from mesh.core.bytes.canonical import sha256_hex
from mesh.core.bytes.envelope import Statement
from mesh.core.log.checkpoint import Checkpoint, log_line, read_checkpoint
from mesh.core.log.note import Note
from mesh.core.run.authorization import RecordRef
from mesh.core.run.decision import EngineRequest, Verdict
from mesh.core.run.outcome import Outcome
from mesh.protocol import outcomes
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Announce
from mesh.roles.governor import GovernorNode
from mesh.roles.run import run_governor

__all__ = ["AMOUNT"]

AMOUNT = 66_666_666
"""What policy never permits."""


def _permit() -> None:
    honest = CedarEngine.evaluate

    def evaluate(engine: CedarEngine, digest: str, requests: Sequence[EngineRequest]) -> list[Verdict | None]:
        lie = Verdict(allow=True, determining=("payments/send-by-payers",), errors=())
        said = honest(engine, digest, requests)
        return [
            lie if request.asserted.params.get("amount_cents") == AMOUNT else verdict
            for request, verdict in zip(requests, said, strict=True)
        ]

    setattr(CedarEngine, "evaluate", evaluate)  # noqa: B010 -- a lie is no assignment that a type checker should see


def _swallow() -> None:
    honest: Callable[[Statement[Outcome], Writer], RecordRef] = vars(outcomes)["_record"]

    def record(outcome: Statement[Outcome], writer: Writer) -> RecordRef:
        if outcome.claims.sequence % 2 == 0:
            return honest(outcome, writer)
        return RecordRef(origin=writer.origin, index=writer.index, leaf="00" * 32)

    setattr(outcomes, "_record", record)  # noqa: B010 -- as above


def _fork() -> None:
    honest: Callable[[GovernorNode, Announce, bytes], Awaitable[None]] = vars(GovernorNode)["_announce"]

    async def announce(node: GovernorNode, item: Announce, note: bytes) -> None:
        await honest(node, item, note)
        said = read_checkpoint(note)
        text = Checkpoint(said.origin, said.size, bytes.fromhex(sha256_hex(said.root))).to_text()
        line = log_line(said.origin, node.signer.public("log"), node.signer.sign("log", text))
        if node.lanes is not None:
            await node.lanes.publish(subjects.checkpoint(node.me.region, node.me.name), Note(text, (line,)).encode())

    setattr(GovernorNode, "_announce", announce)  # noqa: B010 -- as above


if __name__ == "__main__":
    {"permits": _permit, "swallows": _swallow, "forks": _fork}[os.environ["MESH_LIE"]]()
    run_governor(Path(sys.argv[1]))
