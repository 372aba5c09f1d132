"""A governor that lies, as a process: the real one, with one thing in it changed. ``MESH_LIE`` says which.

``permits``: it permits one amount, whatever policy says. ``swallows``: it gives a receipt for every second outcome of a boot, and
records none of these.
"""

import os
from collections.abc import Sequence
from typing import Any

from mesh.adapters.cedar import CedarEngine
from mesh.cli import main
from mesh.core.run.authorization import RecordRef
from mesh.core.run.decision import EngineRequest, Verdict
from mesh.protocol import outcomes

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
    honest: Any = vars(outcomes)["_record"]

    def record(outcome: Any, writer: Any) -> Any:
        if outcome.claims.sequence % 2 == 0:
            return honest(outcome, writer)
        return RecordRef(origin=writer.origin, index=writer.index, leaf="00" * 32)

    setattr(outcomes, "_record", record)  # noqa: B010 -- as above


if __name__ == "__main__":
    {"permits": _permit, "swallows": _swallow}[os.environ["MESH_LIE"]]()
    main()
