"""A file that says what is asked for, as people write it: read by `mesh request`, and by those who approve it beforehand."""

import sys
from pathlib import Path
from typing import Any

import msgspec

from mesh.adapters.trustfiles import read_bounded
from mesh.core.run.intent import Assurance, EntityRef, Measurement
from mesh.errors import Refused
from mesh.limits import INTENT_BYTES_MAX

__all__ = ["Request", "is_request", "read_request"]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands in it, as JSON."""

    action: str
    resource: EntityRef
    params: dict[str, Any] = {}
    committed: dict[str, Any] = {}
    sealed: dict[str, Any] = {}
    measurements: list[Measurement] = []
    purpose: str = ""
    assurance: Assurance = "local"


class _Head(msgspec.Struct, frozen=True):
    action: str


def is_request(data: bytes) -> bool:
    """Whether that is meant to be such a file, right or wrong: what is handed on by signers names no action at its top."""
    try:
        msgspec.json.decode(data, type=_Head)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False
    return True


def read_request(file: Path) -> Request:
    """The request in ``file``; ``-`` is standard input.

    Raises:
        Refused: ``config_invalid``, ``too_large``, ``malformed``.
    """
    data = sys.stdin.buffer.read(INTENT_BYTES_MAX + 1) if str(file) == "-" else read_bounded(file, INTENT_BYTES_MAX)
    if len(data) > INTENT_BYTES_MAX:
        raise Refused("too_large", f"more than {INTENT_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=Request)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise Refused("malformed", f"{file}: {str(error)[:160]}") from None
