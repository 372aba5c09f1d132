"""Steps, files and processes for the tests of the stores."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mesh.adapters.store import Store
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.errors import MeshError
from mesh.protocol.step import Append, Head, HeadUse, InsertOnce, Locate, Persist, PutBody, PutLaw, PutNote, PutOpenings, SetHead, SetMeta

__all__ = ["LOG", "NAME", "PEER", "READS", "append", "child", "filled", "frontier_of", "head", "ident", "refused", "tamper"]

LOG = "dev/a/e1"
PEER = "dev/b/e1"
NAME = "node.db"


def ident(number: int) -> str:
    return leaf_hash(number.to_bytes(8, "big")).hex()


def append(origin: str, first: int, count: int, *, size: int = 40) -> Append:
    leaves = tuple(f"{origin} {index} ".encode().ljust(size, b".") for index in range(first, first + count))
    return Append(origin, first, leaves, tuple(leaf_hash(leaf) for leaf in leaves))


def frontier_of(origin: str, size: int) -> Frontier:
    return Frontier.empty().extend(append(origin, 0, size).hashes)


def head(origin: str, size: int, time_s: int = 1, use: HeadUse = "log") -> SetHead:
    return SetHead(use, origin, Head(size, frontier_of(origin, size).root(), time_s))


def _everything() -> list[Persist]:
    return [
        append(LOG, 0, 300),
        append(PEER, 0, 2),
        head(LOG, 300),
        head(PEER, 2, use="witness"),
        PutBody(ident(1), "intent", b"envelope one"),
        PutBody(ident(3), "identity", b"document three"),
        PutLaw("revoke/aa", 1, ident(3), b"revocation one"),
        PutOpenings(ident(1), b"openings one"),
        InsertOnce("intent", ident(1), 7, 299),
        Locate(ident(1), LOG, 299),
        Locate(ident(2), PEER, 1),
        PutNote("checkpoint", LOG, 300, b"checkpoint 300"),
        PutNote("certificate", LOG, 300, b"certificate 300"),
        SetMeta("incarnation", 7),
    ]


async def filled(path: Path) -> Store:
    store = await Store.open(path / NAME, owner="a")
    await store.commit(_everything())
    return store


async def refused(call: Awaitable[object], kind: type[MeshError], code: str) -> MeshError:
    with pytest.raises(kind) as caught:
        await call
    assert caught.value.code == code
    return caught.value


def tamper(path: Path, *statements: str) -> None:
    """Change rows as no code of ours could."""
    connection = sqlite3.connect(path / NAME, isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert connection.execute(statement).rowcount != 0
    connection.close()


def child(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process that can import all of this."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


READS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "records": lambda store: store.records(LOG, 290, 10),
    "frontier": lambda store: store.frontier(LOG),
    "scrub": lambda store: store.scrub(LOG),
    "inclusion": lambda store: store.inclusion_path(LOG, 3, 300),
    "heads": lambda store: store.heads(),
    "bodies": lambda store: store.bodies([ident(1)]),
    "documents": lambda store: store.bodies([ident(3)]),
    "law": lambda store: store.law("revoke/aa", 0, "", 9),
    "all law": lambda store: store.all_law(),
    "openings": lambda store: store.openings([ident(1)]),
    "note": lambda store: store.note("certificate", LOG),
    "meta": lambda store: store.meta("incarnation"),
}
"""Reads that need something of :func:`filled`."""
