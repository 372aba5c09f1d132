"""`mesh status`, `mesh lineage`, `mesh log`, `mesh why`: what the nodes hold, with what of it is final checked here."""

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

import click
import msgspec

from mesh.cli import client, epochs, telling
from mesh.cli.answering import Answer, answer_all
from mesh.cli.erasing import erase
from mesh.cli.graph import graph
from mesh.cli.listing import ls
from mesh.cli.opening import open_
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.cli.pruning import prune
from mesh.cli.reaching import attesters, reach_of
from mesh.cli.tailing import tail
from mesh.cli.tilefolder import archive
from mesh.cli.ways import way_of
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import NodeStatus, PolicyStatus
from mesh.errors import MeshError, Refused
from mesh.protocol.proving import record_of

__all__ = ["lag_of", "lineage", "log", "sizes_of", "status", "why"]

_STALE: Final = 4


@click.command()
@format_option
@pass_cli
def status(cli: Cli) -> int:
    """How the nodes are. Ends with 4 when fewer than k of them are fresh."""

    async def work(mesh: client.MeshClient, _library: client.Library) -> tuple[dict[str, NodeStatus | MeshError], int]:
        return await mesh.status(), mesh.roster.k

    answers, k = client.run(cli, work)
    frontiers = Counter(answer.frontier for answer in answers.values() if isinstance(answer, NodeStatus))
    usual = next((digest for digest, _ in frontiers.most_common(1)), "")
    sizes = sizes_of(answers.values())
    frozen = {member for answer in answers.values() if isinstance(answer, NodeStatus) for member in answer.frozen}
    rows = [_node_row(name, answer, usual, sizes, frozen) for name, answer in answers.items()]
    cli.rows(("node", "region", "state", "roster_epoch", "policies", "frontier", "log", "final", "lag", "mirrors", "vouched", "up"), rows)
    fresh = sum(isinstance(answer, NodeStatus) and answer.fresh for answer in answers.values())
    cli.say(f"{fresh} of {len(answers)} fresh, {k} needed")
    for domain in sorted({domain for answer in answers.values() if isinstance(answer, NodeStatus) for domain in answer.halted}):
        says = [name for name, answer in answers.items() if isinstance(answer, NodeStatus) and domain in answer.halted]
        cli.say(f"{domain} is halted, say {', '.join(says)}: nothing starts there until it is resumed")
    if forked := {name: answer.conflicts for name, answer in answers.items() if isinstance(answer, NodeStatus) and answer.conflicts}:
        cli.say(
            f"forked streams: {max(forked.values())}, say {', '.join(forked)}. `mesh fraud ls` shows whose keys said both; the root keys"
            " end it: `mesh resolve`"
        )
    caught = {name: answer.frozen for name, answer in answers.items() if isinstance(answer, NodeStatus) and answer.frozen}
    for member in sorted(frozen):
        who = ", ".join(name for name, names in caught.items() if member in names)
        cli.say(f"{member} is frozen, say {who}: a proof is held against a key of it. `mesh fraud ls` has the proof")
        cli.say(f"take it out, or give it other keys: `mesh roster remove {member}`")
    if len(frontiers) > 1:
        others = ", ".join(row["node"] for row in rows if row.get("differs"))
        cli.say(
            f"not all hold the same roster, policies, revocations and halts: {others} differ from most; what is missing is pulled at once"
        )
    cli.next("mesh lineage ls")
    return 0 if fresh >= k else _STALE


def _node_row(
    name: str, answer: NodeStatus | MeshError, usual: str, sizes: Mapping[str, tuple[str, int]], frozen: Container[str]
) -> dict[str, Any]:
    if isinstance(answer, MeshError):
        return {"node": name, "state": answer.code, "detail": answer.detail}
    trouble = [telling.node_of(mirror.origin) for mirror in answer.mirrors if mirror.refused or mirror.conflicted]
    held = sum(mirror.certified for mirror in answer.mirrors)
    own, others = _lags(answer, sizes)
    return {
        "node": name,
        "region": answer.region,
        "state": "frozen" if name in frozen else "fresh" if answer.fresh else answer.code,
        "frontier": answer.frontier[:12] + (" differs" if answer.frontier != usual else ""),
        "log": answer.size,
        "final": answer.certified,
        "lag": lag_of(answer, sizes),
        "lag_own": own,
        "lag_others": others,
        "mirrors": f"{len(answer.mirrors)} logs, {held} final" + (f", refuses {', '.join(trouble)}" if trouble else ""),
        "vouched": answer.vouchers,
        "policies": [_told_policy(policy) + (" halted" if policy.domain in answer.halted else "") for policy in answer.policies],
        "halted": answer.halted,
        "conflicts": answer.conflicts,
        "frozen": answer.frozen,
        "up": f"{answer.uptime_ms // 1000} s",
        "incarnation": answer.incarnation,
        "roster_epoch": answer.roster_epoch,
        "frontier_digest": answer.frontier,
        "differs": answer.frontier != usual,
        "counters": answer.counters,
    }


def _lags(answer: NodeStatus, sizes: Mapping[str, tuple[str, int]]) -> tuple[int, int]:
    """Records of its own log that are not final, and of the others' that it has not attested."""
    others = sum(sizes.get(mirror.origin, ("", 0))[1] - mirror.attested for mirror in answer.mirrors)
    return answer.size - answer.certified, others


def lag_of(answer: NodeStatus, sizes: Mapping[str, tuple[str, int]]) -> str:
    """How far a node is behind, in words."""
    own, others = _lags(answer, sizes)
    return ", ".join(f"{count} {what}" for count, what in ((own, "not final"), (others, "not attested")) if count) or "none"


def _told_policy(policy: PolicyStatus) -> str:
    told = f"{policy.domain}@{policy.active}"
    if policy.held > policy.active:
        told += f" ({policy.held} {'admitted' if policy.admitted == policy.held else 'held'})"
    return told + (f" {policy.code}" if policy.code else "")


@click.group()
def lineage() -> None:
    """Records of all logs."""


lineage.add_command(graph)
lineage.add_command(ls)
lineage.add_command(erase)
lineage.add_command(archive)
lineage.add_command(prune)
lineage.add_command(open_)
lineage.add_command(tail)


def sizes_of(answers: Iterable[NodeStatus | MeshError]) -> dict[str, tuple[str, int]]:
    """Per log who holds most of it, and how much."""
    sizes: dict[str, tuple[str, int]] = {}
    held = [answer for answer in answers if isinstance(answer, NodeStatus)]
    for answer in held:
        for origin, size in ((answer.origin, answer.size), *((mirror.origin, mirror.size) for mirror in answer.mirrors)):
            if size > sizes.get(origin, ("", 0))[1]:
                sizes[origin] = (answer.node, size)
    return sizes


@lineage.command("show")
@click.argument("name", metavar="ID|NODE/INDEX")
@format_option
@pass_cli
def show(cli: Cli, name: str) -> None:
    """Everything about the records of an intent, authorization or outcome, or about one record.

    Also how far each has come: final is proved here, recorded and witnessed are the word of the nodes.
    """

    async def work(mesh: client.MeshClient, _library: client.Library) -> list[dict[str, Any]]:
        answers = await mesh.prove_all(await mesh.locate(name))
        said = {} if all(mesh.is_final(answer) for answer in answers) else await mesh.status()
        return [
            {
                "record": json.loads(bytes(answer.batch.records[0])),
                **way_of(mesh, answer, said),
                "attested_by": attesters(mesh, answer),
                "statements": telling.statements(answer),
                "sealed": telling.sealed(answer),
            }
            for answer in answers
        ]

    values = client.run(cli, work)
    cli.format = "json" if cli.format == "table" else cli.format  # nested values have no columns
    cli.rows((), values)
    cli.next(f"mesh prove {name}")


@click.command()
@click.argument("name", metavar="ID")
@format_option
@pass_cli
def why(cli: Cli, name: str) -> None:
    """What happened to the intent that ID belongs to, in all logs, and by what right.

    First the seven questions, each with what its answer rests on; then its life, stage by stage.
    """

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[dict[str, Answer], telling.Story]:
        answers = await mesh.execution(name)
        known = await epochs.knowing(cli, mesh, library, map(record_of, answers))
        reach = await reach_of(mesh, answers)
        return answer_all(answers, reach, known.governance), telling.Story(answers, reach, known.governance)

    questions, story = client.run(cli, work)
    if cli.format == "table":
        cli.lines([*(line for answer in questions.values() for line in answer.lines()), *([""] if questions else []), *story.lines()])
    else:
        cli.value({"questions": {key: msgspec.to_builtins(answer) for key, answer in questions.items()}, "stages": story.stages})
    cli.next(f"mesh prove {name} --out proof.json")


@click.group()
def log() -> None:
    """Checkpoints of a node's log."""


@log.command("checkpoint")
@click.argument("node")
@format_option
@pass_cli
def checkpoint(cli: Cli, node: str) -> None:
    """The newest certificate of NODE's log, as any C2SP tool reads it."""

    async def work(mesh: client.MeshClient, _library: client.Library) -> dict[str, Any]:
        origin = mesh.roster.origin(mesh.member(node))
        size = max((_certified(answer, origin) for answer in (await mesh.status()).values()), default=0)
        if size == 0:
            raise Refused("not_final", f"no certificate of {origin} is known to whoever answers")
        answer = await mesh.prove(client.Place(origin, size - 1))
        attested = mesh.attested(answer)
        return {
            "origin": origin,
            "size": attested.checkpoint.size,
            "root": attested.checkpoint.root.hex(),
            "attested_by": [telling.node_of(signed.verifier.name) for signed in attested.attestations],
            "note": TlogProof.parse(answer.proof.encode()).note.decode(),
        }

    found = client.run(cli, work)
    if cli.format == "table":
        cli.text(found["note"])
    else:
        cli.value(found)
    cli.next(f"mesh prove {node}/{found['size'] - 1} --format tlog-proof")


def _certified(answer: NodeStatus | MeshError, origin: str) -> int:
    if isinstance(answer, MeshError):
        return 0
    known = {answer.origin: answer.certified, **{mirror.origin: mirror.certified for mirror in answer.mirrors}}
    return known.get(origin, 0)
