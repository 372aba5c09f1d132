"""A mesh of its own beside the story's, in which one governor lies: f liars are all that a mesh bears, and what is caught stays caught.

Not here: the lies (:mod:`mesh.testing.liar`, a process of its own that nothing in production leads to).
"""

import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from mesh.core.bytes import envelope
from mesh.core.run.authorization import Authorization
from mesh.dev.cluster import Cluster
from mesh.dev.making import made
from mesh.dev.stage import Stage, wish
from mesh.errors import MeshError, Unavailable
from mesh.gate.core import Asked, Wish
from mesh.gate.errors import Denied

__all__ = ["Judged", "afterwards", "apart", "fresh", "frozen_by_all", "judged", "lie"]

_NODES: Final = 4
_LIAR: Final = ("mesh.testing.liar",)


class Judged(NamedTuple):
    """What somebody who has nothing but the roster makes of the proof against a member."""

    kind: str
    verdict: str
    size: int
    """Of the file, in bytes."""
    held_by: int
    """Other members that sign that they hold it."""
    codes: list[str]
    """Of the checks that failed, where a decision is the matter."""


@asynccontextmanager
async def apart(stage: Stage) -> AsyncIterator[Stage]:
    """Another stage, on a mesh that ends with it, once all of its nodes are fresh. On the main thread."""
    folder = stage.folder / f"apart-{secrets.token_hex(4)}"
    with Cluster(made(folder, nodes=_NODES, spares=0)) as cluster:
        cluster.start_bus()
        await cluster.provision()
        cluster.start()
        other = type(stage)(cluster, folder / "story")
        await other.open()
        try:
            await other.until("every node to be fresh", lambda: fresh(other, *other.nodes))
            other.patience_s = stage.patience_s
            yield other
        finally:
            await other.close()
            for name in filter(cluster.alive, cluster.files.nodes):  # nobody waits for what it still has to say
                cluster.kill(name)
    shutil.rmtree(folder, ignore_errors=True)


async def lie(stage: Stage, name: str, what: str) -> None:
    """Put a liar in the place of that governor: its keys, its disk, its configuration."""
    stage.cluster.kill(name)
    stage.cluster.start([name], env={"MESH_LIE": what}, program=_LIAR)


async def frozen_by_all(stage: Stage, name: str) -> float:
    """How many seconds it takes until every other governor has frozen it."""
    others = [node for node in stage.nodes if node != name]

    async def frozen() -> bool:
        return all([name in (await stage.status(other)).frozen for other in others])

    return await stage.until(f"all to freeze {name}", frozen)


async def afterwards(stage: Stage, liar: str, region: str, wanted: Wish, asked: Asked) -> tuple[str, bool]:
    """What an enforcer says to what the frozen governor of that region has authorized, and whether the others, and they alone, go on."""
    try:
        await (await stage.core("billing", region=region)).present(wanted, asked, lambda: None)
        word = "started"
    except Denied as refusal:
        word = refusal.code
    paid = wish("payments/send", ("Account", "acct:acme-supplies"), {"to": "acct:acme-supplies", "amount_cents": 500})

    async def issuer(place: str) -> str:
        try:
            answer = (await (await stage.core("billing", region=place)).request(paid)).answer
        except MeshError:
            return ""
        return envelope.read(Authorization, bytes(answer.authorization)).claims.issuer

    async def apart_from_it() -> bool:
        issuers = {place: await issuer(place) for place in stage.cluster.files.regions}
        return liar not in issuers.values() and all(name for place, name in issuers.items() if place != region)

    try:
        await stage.until("all others to go on", apart_from_it)
    except Unavailable:
        return word, False
    return word, True


async def judged(stage: Stage, name: str) -> Judged:
    """List the proof, fetch it, and have it judged in an empty folder, without context and network."""
    context, proof = str(stage.cluster.files.context), stage.folder / "proof.json"
    rows = _said((await stage.command("--context", context, "-o", "json", "fraud", "ls")).out)
    await stage.command("--context", context, "fraud", "show", name, "-o", str(proof))
    elsewhere = stage.folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    env = {"HOME": str(elsewhere), **{key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}}
    arguments = "-o", "json", "fraud", "verify", str(proof), "--trust", str(stage.cluster.files.roster), "--pin", stage.cluster.files.pin
    verdict = _said((await stage.command(*arguments, cwd=elsewhere, env=env)).out)
    (row,), (said,) = rows, verdict
    return Judged(
        row["kind"], said["verdict"], proof.stat().st_size, sum(holder != name for holder in row["held_by"]), list(row.get("codes", ()))
    )


def _said(out: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(out)
    except ValueError:
        rows = []
    if len(rows) != 1:
        raise Unavailable("unavailable", f"not one proof: {out[-200:]!r}")
    return rows


async def fresh(stage: Stage, *names: str) -> bool:
    """Whether these nodes are."""
    return all([(await stage.status(name)).fresh for name in names])
