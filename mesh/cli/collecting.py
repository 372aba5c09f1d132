"""From a record's place to its proof bundle, judged here before anybody gets it: for one record, or for many one after the other.

Not here: what becomes of it (:mod:`mesh.cli.proofs`, :mod:`mesh.cli.exporting`).
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from mesh.cli import client, epochs
from mesh.cli.output import Cli
from mesh.core.log.bundle import ProofBundle
from mesh.core.log.record import DecisionMade, OutcomeRecorded
from mesh.core.messages import Proved
from mesh.errors import Refused
from mesh.protocol.belonging import belongs
from mesh.protocol.proving import bodies_of, gather, record_of
from mesh.verify import Report

__all__ = ["Collected", "Collector", "check_handed_out", "whole_file"]


class Collected(msgspec.Struct, frozen=True):
    """A proof that was put together, and is not judged yet."""

    bundle: ProofBundle
    main: Proved
    outcomes: int
    left_out: int
    """Outcomes that are not final yet."""


class Collector:
    """Puts proofs together; what members showed of policies for one of them is there for the next."""

    def __init__(self, cli: Cli, mesh: client.MeshClient, library: client.Library) -> None:
        self._cli, self._mesh = cli, mesh
        self.library = library

    async def collect(self, main: Proved) -> Collected:
        """The proof of that record, with the final outcomes of it if it is a permit.

        Raises:
            Refused: as :func:`mesh.protocol.proving.gather`.
            Unavailable: ``unreachable``.
        """
        record = record_of(main)
        outcomes: list[Proved] = []
        if isinstance(record, DecisionMade) and record.authorization:
            said = await self._mesh.execution(record.intent)
            outcomes = [answer for answer in said if _of(answer, record.authorization, bodies_of(main))]
        final = [answer for answer in outcomes if self._mesh.is_final(answer)]
        self.library = await epochs.knowing(self._cli, self._mesh, self.library, [record])
        known = self.library
        bundle = gather(main, final, manifests=known.manifests, bundles=known.bundles, activations=known.activations, rosters=known.chain)
        return Collected(bundle, main, len(final), len(outcomes) - len(final))


def check_handed_out(report: Report) -> None:
    """That nothing is wrong with a proof that was put together of what nodes answered.

    Raises:
        Refused: the code of the first check that failed.
    """
    failed = next((check for check in report.checks if check.result == "failed"), None)
    if failed is not None:
        raise Refused(failed.code, f"what the nodes answered is no proof: {failed.name}: {failed.detail}")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that stands at ``path`` only once the block has ended without an error.

    Raises:
        Refused: ``config_invalid`` if it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:  # noqa: PTH123 -- a descriptor
            yield file
        fresh.replace(path)
    except OSError as error:
        raise Refused("config_invalid", f"{path}: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)


def _of(answer: Proved, authorization: str, bodies: Mapping[str, bytes]) -> bool:
    """Whether it is about that authorization: what others than its audience say of it is no outcome of it."""
    record = record_of(answer)
    if not isinstance(record, OutcomeRecorded) or record.authorization != authorization:
        return False
    return belongs(record, {**bodies, **bodies_of(answer)})
