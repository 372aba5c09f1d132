"""What a key has signed last in a stream lies beside the key, so that it never signs a second statement under one number.

Rules
-----
1. A statement is in the file, and the file and its name are synced, before anybody else sees it.
2. It stays there until it is known that an honest member holds it: what one member said it holds may be lost with that member,
   and every later statement of the stream would wait for it in vain. It is for whoever calls :func:`keep` to know that.
3. One command at a time signs with a key: a lock file beside it.

The file is ``<key file>.signed``, and ``<key file>.<stream>.signed`` for a stream in which several keys sign, such as
``halt-payments`` or ``policy-payments``. It is JSON: the statements with number and id, oldest first. It holds nothing secret.

Not here: what the mesh holds (:mod:`mesh.cli.gathering`).
"""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec

from mesh.adapters.durable import replace_file
from mesh.adapters.store import hold
from mesh.adapters.trustfiles import read_bounded
from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Count, Hex32, Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.travel import Said, link_of, read_law
from mesh.errors import Refused, Unavailable
from mesh.limits import BATCH_EVENTS_MAX, MESSAGE_BYTES_MAX

__all__ = ["keep", "kept", "locked", "path_of", "since_path"]


class _Entry(Payload):
    sequence: Count
    id: Hex32
    envelope: msgspec.Raw


class _File(Payload):
    signed: Annotated[list[_Entry], msgspec.Meta(max_length=BATCH_EVENTS_MAX)]


def path_of(key_file: Path, shared: str = "") -> Path:
    """Where it is kept what the key in that file has signed, in its own stream or in a ``shared`` one.

    Beside the file itself, not beside a link to it.
    """
    real = key_file.resolve()
    return real.with_name(f"{real.name}.{shared.replace('/', '-')}.signed" if shared else f"{real.name}.signed")


def since_path(path: Path, since: str) -> Path:
    """Where it is kept what the key has signed since a roster of that id gave the stream new signers; ``path`` for the first ones."""
    return path.with_name(f"{path.name.removesuffix('.signed')}.since-{since[:16]}.signed") if since else path


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Nobody else signs with this key meanwhile (rule 3).

    Raises:
        Unavailable: ``unavailable`` if somebody does, ``storage_failed``.
    """
    descriptor = hold(path.with_name(f"{path.name}.lock"))
    if descriptor is None:
        raise Unavailable("unavailable", f"another command is signing with {path.name.removesuffix('.signed')}; wait until it is done")
    try:
        yield
    finally:
        os.close(descriptor)


def kept(path: Path, *, stream: str, key: str, mesh: str) -> list[Statement[Said]]:
    """What ``key`` (hex) signed last in ``stream`` of ``mesh``, oldest first; nothing if it never did.

    Raises:
        Refused: ``wrong_mesh``; ``config_invalid`` for a file that this module did not write.
    """
    if not path.exists():
        return []
    try:
        entries = canonical.decode(_File, read_bounded(path, MESSAGE_BYTES_MAX), bytes_max=MESSAGE_BYTES_MAX).signed
        found = [(entry, read_law(bytes(entry.envelope))) for entry in entries]
    except Refused as refusal:
        raise _spoilt(path, refusal.detail or refusal.code) from None
    former = 0
    for entry, statement in found:
        claims = statement.claims
        if claims.mesh != mesh:
            raise Refused("wrong_mesh", f"{path} is about {claims.mesh}: a key signs in one mesh only")
        place = link_of(statement)[0], claims.sequence, statement.id
        if place != (stream, entry.sequence, entry.id) or not statement.signed_by(key):
            raise _spoilt(path, f"number {entry.sequence} is not signed by this key")
        if entry.sequence <= former:
            raise _spoilt(path, f"number {entry.sequence} stands after {former}")
        former = entry.sequence
    return [statement for _, statement in found]


def keep(path: Path, statements: Sequence[Statement[Said]]) -> None:
    """Replace the file (rule 1).

    Raises:
        Unavailable: ``storage_failed``.
    """
    entries = [_Entry(sequence=item.claims.sequence, id=item.id, envelope=msgspec.Raw(item.envelope)) for item in statements]
    data = canonical.encode(_File(signed=entries))
    try:
        replace_file(path, data)
    except Unavailable as error:
        raise Unavailable(error.code, f"{error.detail}; nothing was sent") from None


def _spoilt(path: Path, why: str) -> Refused:
    return Refused("config_invalid", f"{path}: {why}. If the mesh shows all that this key has signed, move the file away")
