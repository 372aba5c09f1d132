"""`mesh fraud push`: whoever has a proof against a member hands it to the others, who freeze that member by it.

Not here: what such a proof is (:mod:`mesh.core.law.proofs`), finding one (:mod:`mesh.cli.conflicts`, :mod:`mesh.protocol.audit`).
"""

from pathlib import Path
from typing import Any, Final

import click

from mesh.adapters.trustfiles import about, read_bounded
from mesh.cli import caught, client
from mesh.cli.output import Cli, fail, format_option, pass_cli
from mesh.cli.spreading import Spread
from mesh.core.bytes.envelope import Statement
from mesh.core.law.proofs import AnyProof, judge_proof, read_proof
from mesh.errors import Unavailable
from mesh.limits import UNLAWFUL_BYTES_MAX

__all__ = ["push"]

_WAIT_S: Final = 15.0


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--wait", default=_WAIT_S, show_default=True, type=click.FloatRange(0.1, 600), metavar="SECONDS", help="For k members.")
@format_option
@pass_cli
def push(cli: Cli, files: tuple[Path, ...], wait: float) -> int:
    """Judge proofs against members by the roster, offer each to every member, and wait until k hold it by their signed word.

    What proves nothing is offered to nobody. A fork of a stream needs no pushing: who holds both halves shows them.
    """
    proofs = [_read(path) for path in files]
    values, k = client.run(cli, lambda mesh, library: _push(mesh, library, proofs, wait))
    cli.rows(("member", "kind", "held", "answers"), values)
    lacking = next((value for value in values if len(value["held_by"]) < k), None)
    if lacking is not None:
        return fail(cli, Unavailable("not_acknowledged", f"{len(lacking['held_by'])} of {k} hold that against {lacking['member']}"))
    cli.next("mesh fraud ls")
    return 0


def _read(path: Path) -> Statement[AnyProof]:
    with about(path):
        return read_proof(read_bounded(path, UNLAWFUL_BYTES_MAX))


async def _push(
    mesh: client.MeshClient, library: client.Library, proofs: list[Statement[AnyProof]], wait_s: float
) -> tuple[list[dict[str, Any]], int]:
    """What became of each; and k."""
    judged = [judge_proof(proof, library.governance.rosters) for proof in proofs]
    values = list[dict[str, Any]]()
    for proof, found in zip(proofs, judged, strict=True):
        going = Spread(mesh, proof, [proof], lambda _: None)
        await going.run(watch_s=wait_s)
        held = sorted(going.covered_ms)
        values.append(
            {
                **caught.facts(found, proof.claims.mesh),
                "held": f"{len(held)} of {len(mesh.roster.members)}",
                "held_by": held,
                "answers": ", ".join(f"{name}: {answer}" for name, answer in sorted(going.answers.items())),
            }
        )
    return values, mesh.roster.k
