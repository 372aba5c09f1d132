"""The way of one record: each stage that it has come to, by whom and when, as far as anybody signed when.

Not here: which stages there are (:mod:`mesh.cli.reaching`), the same of all records as it happens (:mod:`mesh.cli.tailing`).
"""

from typing import Any

from mesh.cli import client
from mesh.cli.naming import node_of
from mesh.cli.reaching import Said, witnesses
from mesh.cli.telling import when
from mesh.core.log.note import Signed
from mesh.core.messages import Proved
from mesh.errors import Refused
from mesh.protocol.proving import record_of

__all__ = ["way_of"]


def way_of(mesh: client.MeshClient, answer: Proved, said: Said) -> dict[str, Any]:
    """The last stage of a record, whether that is proved, and of each stage by whom and when, as far as anybody signed when.

    What is not final has the members' own word, ``said``.
    """
    record = record_of(answer)
    owner = mesh.owner(record.origin).name
    way: dict[str, Any] = {"recorded": {"by": [owner], "at": when(record.at_ms)}}
    try:
        lines = sorted(mesh.attested(answer).attestations, key=lambda line: (line.time_s, line.verifier.name))
    except Refused:
        if by := witnesses(said, record.origin, record.index):
            way["witnessed"] = {"by": by, "at": ""}
        return {"state": [*way][-1], "proved": False, "way": way}
    if others := [line for line in lines if node_of(line.verifier.name) != owner]:
        way["witnessed"] = _signed(others[:1])
    return {"state": "final", "proved": True, "way": {**way, "final": _signed(lines)}}


def _signed(lines: list[Signed]) -> dict[str, Any]:
    """By whom, and when the last of them did; they come in order of time."""
    return {"by": [node_of(line.verifier.name) for line in lines], "at": when(1_000 * lines[-1].time_s)}
