"""Trust from files: roster, manifests, bundles and other statements that a configuration names, each verified before use.

Not here: gossip. Whoever can change these files can deny, and nothing else: every one of them is signed, and the roster is
pinned.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import admit_governance
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Manifest
from mesh.core.law.roster import Roster
from mesh.core.law.travel import Said, read_law
from mesh.errors import Refused
from mesh.limits import BUNDLE_BYTES_MAX, ENVELOPE_BYTES_MAX

__all__ = ["Trust", "about", "load_said", "load_trust", "read_bounded"]


class Trust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[trust]`` table of a configuration. Paths are relative to the file they stand in."""

    roster: str
    """Envelope of the roster."""
    pin: str
    """Its statement id, lowercase hex."""
    policy: list[str]
    """Envelopes of the manifests to begin with, of each domain without gaps. What comes later is heard."""
    bundles: list[str] = []
    """Bundles that the manifests name; nodes need them, enforcers do not."""
    statements: list[str] = []
    """Envelopes of what else governs: activations, revocations, halts."""


def load_trust(trust: Trust, base: Path) -> Governance:
    """The governance state that these files make.

    Raises:
        Refused: ``config_invalid`` for a file that cannot be read, otherwise what is wrong with the first that is.
    """
    return admit_governance(
        envelope.read(Roster, read_bounded(base / trust.roster, ENVELOPE_BYTES_MAX)),
        pin=trust.pin,
        manifests=[envelope.read(Manifest, read_bounded(base / name, ENVELOPE_BYTES_MAX)) for name in trust.policy],
        bundles=[read_bounded(base / name, BUNDLE_BYTES_MAX) for name in trust.bundles],
        said=[read_law(read_bounded(base / name, ENVELOPE_BYTES_MAX)) for name in trust.statements],
    )


def load_said(trust: Trust, base: Path) -> list[Statement[Said]]:
    """Everything among these files that travels, as it is read; :func:`load_trust` believes it or refuses.

    Raises:
        Refused: ``config_invalid``, the codec's codes.
    """
    return [read_law(read_bounded(base / name, ENVELOPE_BYTES_MAX)) for name in (*trust.policy, *trust.statements)]


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Name ``path`` in whatever is refused within: of several files it is this one that is not as it should be."""
    try:
        yield
    except Refused as refusal:
        named = refusal.detail if refusal.detail.startswith(f"{path}") else f"{path}: {refusal.detail}"
        raise Refused(refusal.code, named) from None


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """The file's bytes, of which there may be at most ``bytes_max``.

    Raises:
        Refused: ``config_invalid``, ``too_large``.
    """
    try:
        # O_NONBLOCK: a pipe in the place of the file must be refused, not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 -- a descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("config_invalid", f"{path}: not a regular file")
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise Refused("config_invalid", f"{path}: {error.strerror}") from None
    if len(data) > bytes_max:
        raise Refused("too_large", f"{path}: more than {bytes_max} bytes")
    return data
