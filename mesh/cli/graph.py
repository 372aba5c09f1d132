"""`mesh lineage graph`: what an execution runs within, what it comes after, and what came of it, as far as records say.

Rules
-----
1. Every node but those marked ``not held`` is a record that some member gave with its place; whether it is final was checked here.
2. Upwards the papers in a record name its parents; downwards members are asked which decisions name one as theirs, and the record's
   own papers say whether that is true. Nobody can add a parent or a child that no record has; who hides one shows as a gap.
3. It ends at the depth asked for, and at :data:`NODES_MAX`; then it says that there is more.

Not here: `mesh why`, which tells of one execution everything.
"""

import json
from typing import Final, Literal, get_args

import click
import msgspec

from mesh.cli import client
from mesh.cli.output import Cli, format_option, one_line, pass_cli
from mesh.core.bytes import envelope
from mesh.core.log.record import DecisionMade, OutcomeRecorded
from mesh.core.messages import Proved
from mesh.core.run.intent import Intent
from mesh.core.run.kin import below
from mesh.errors import MeshError, Refused
from mesh.limits import ANCESTORS_MAX
from mesh.protocol.belonging import belongs
from mesh.protocol.proving import bodies_of, record_of

__all__ = ["NODES_MAX", "Edge", "Graph", "Node", "dot", "graph", "mermaid"]

NODES_MAX: Final = 256
"""More are not looked at by anybody on one page."""
_Format = Literal["dot", "mermaid", "json"]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One execution."""

    id: str
    """Statement id of its authorization; of its intent, if it was denied."""
    what: str
    """Who asked for what; empty if it is not held."""
    state: str
    """The last that its enforcer said, or what became of the intent."""
    record: str = ""
    """Where its decision stands."""
    final: bool = False


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """That one names another as its parent."""

    parent: str
    child: str
    kind: Literal["within", "after"]


class Graph(msgspec.Struct):
    """What was found."""

    nodes: dict[str, Node]
    edges: list[Edge]
    more: bool = False
    """Whether it ended before everything was found."""


class _Search:
    """The working copy."""

    def __init__(self, mesh: client.MeshClient) -> None:
        self.mesh = mesh
        self.graph = Graph({}, [])

    async def around(self, name: str, depth: int) -> Graph:
        """Everything up to ``depth`` steps from whatever ``name`` belongs to."""
        decisions, known = await self._known(name)
        if not decisions and self.mesh.pruned:
            raise Refused("record_pruned", next(iter(self.mesh.pruned.values())))
        if not decisions:
            raise Refused("not_found", f"{name[:64]} has no decision: only what was decided has parents or comes of anything")
        up = [known[0]]
        down = [known[0]]
        for _ in range(depth):
            up = [parent for child in up for parent in await self._parents(child)]
            down = [child for parent in down for child in await self._children(parent)]
        self.graph.more |= bool([item for item in up if self._names(item)]) or bool(
            [item for item in down if await self._below(item)]
        )  # fmt: skip
        return self.graph

    async def _known(self, name: str) -> tuple[list[DecisionMade], list[DecisionMade]]:
        answers = await self.mesh.execution(name)
        decisions = [record for record in map(record_of, answers) if isinstance(record, DecisionMade)]
        chosen = [record for record in decisions if record.authorization] or decisions
        if chosen:
            self._add(chosen[0], answers)
        return decisions, chosen

    def _add(self, record: DecisionMade, answers: list[Proved]) -> None:
        bodies = {identity: data for answer in answers for identity, data in bodies_of(answer).items()}
        intent = envelope.read(Intent, bodies[record.intent]).claims if record.intent in bodies else None
        events = [
            found.event for found in map(record_of, answers)
            if isinstance(found, OutcomeRecorded) and found.authorization == record.authorization and belongs(found, bodies)
        ]  # fmt: skip
        decided = next(answer for answer in answers if record_of(answer) == record)
        what = "" if intent is None else f"{intent.subject} {intent.domain}/{intent.action} {intent.resource.type}::{intent.resource.id}"
        self.graph.nodes[_id(record)] = Node(
            id=_id(record),
            what=what,
            state=max(events, key=_ORDER.index, default="authorized" if record.authorization else "denied"),
            record=self.mesh.naming.place(record.origin, record.index),
            final=self.mesh.is_final(decided),
        )

    def _names(self, record: DecisionMade) -> list[tuple[str, Literal["within", "after"]]]:
        """Its parents, by what their papers are of."""
        within = record.attested.delegation_depth > 0
        return [(paper.named[0], "within" if within and at == 0 else "after") for at, paper in enumerate(record.parents)]

    async def _parents(self, child: DecisionMade) -> list[DecisionMade]:
        found = list[DecisionMade]()
        for name, kind in self._names(child):
            self._edge(Edge(parent=name, child=_id(child), kind=kind))
            if name not in self.graph.nodes and not self._full():
                found += await self._held(name)
        return found

    async def _held(self, name: str) -> list[DecisionMade]:
        try:
            _, chosen = await self._known(name)
        except MeshError as error:
            self.graph.nodes[name] = Node(id=name, what="", state=f"not held ({error.code})")
            return []
        if name not in self.graph.nodes:  # records of its outcomes only
            self.graph.nodes[name] = Node(id=name, what="", state="not held")
        return chosen[:1]

    async def _below(self, parent: DecisionMade) -> set[client.Place]:
        key = below(_id(parent))
        return (await self.mesh.find(key)).get(key, set()) if parent.authorization else set()

    async def _children(self, parent: DecisionMade) -> list[DecisionMade]:
        found = list[DecisionMade]()
        for place in sorted(await self._below(parent)):
            try:
                record = record_of(await self.mesh.prove(place))
            except Refused as refusal:
                if refusal.code != "record_pruned":
                    raise
                self.graph.more = True
                continue
            kinds = dict(self._names(record)) if isinstance(record, DecisionMade) and record.authorization else {}
            if not isinstance(record, DecisionMade) or _id(parent) not in kinds:
                continue  # rule 2
            if _id(record) not in self.graph.nodes:
                if self._full():
                    break
                found += await self._held(_id(record))
            self._edge(Edge(parent=_id(parent), child=_id(record), kind=kinds[_id(parent)]))
        return found

    def _edge(self, edge: Edge) -> None:
        if edge not in self.graph.edges:
            self.graph.edges.append(edge)

    def _full(self) -> bool:
        self.graph.more |= len(self.graph.nodes) >= NODES_MAX
        return len(self.graph.nodes) >= NODES_MAX


_ORDER: Final = ("blocked", "started", "unknown", "aborted", "failed", "finished")


def _id(record: DecisionMade) -> str:
    return record.authorization or record.intent


@click.command("graph")
@click.argument("name", metavar="ID")
@click.option("--depth", default=3, show_default=True, type=click.IntRange(1, ANCESTORS_MAX), help="How many steps up and down.")
@click.option("--format", "form", type=click.Choice(get_args(_Format)), default="mermaid", show_default=True, help="In which language.")
@format_option
@pass_cli
def graph(cli: Cli, name: str, *, depth: int, form: _Format) -> None:
    """The executions around ID: within which it ran, what it came after, and what came of it, for Mermaid, Graphviz or programs."""

    async def work(mesh: client.MeshClient, _library: client.Library) -> Graph:
        return await _Search(mesh).around(name, depth)

    found = client.run(cli, work)
    if form == "json" or cli.format != "table":
        cli.format = "json" if cli.format == "table" else cli.format
        nodes, edges = [list(map(msgspec.structs.asdict, items)) for items in (found.nodes.values(), found.edges)]
        cli.value({"nodes": nodes, "edges": edges, "more": found.more})
    else:
        cli.lines(dot(found) if form == "dot" else mermaid(found))
    if found.more:
        cli.say(f"there is more than {depth} steps or {NODES_MAX} executions away")
    cli.next(f"mesh why {name}")


def _label(node: Node) -> str:
    final = "" if node.final or not node.record else ", not final yet"
    return one_line(f"{node.what} {node.id[:12]} {node.state}{final}".strip())


def dot(found: Graph) -> list[str]:
    """For Graphviz."""
    lines = ["digraph lineage {", "  rankdir=TB;", "  node [shape=box];"]
    lines += [f"  {json.dumps(node.id[:16])} [label={json.dumps(_label(node))}];" for node in found.nodes.values()]
    for edge in found.edges:
        ends = f"{json.dumps(edge.parent[:16])} -> {json.dumps(edge.child[:16])}"
        lines.append(f"  {ends} [label={edge.kind}{', style=dashed' if edge.kind == 'after' else ''}];")
    return [*lines, "}"]


def mermaid(found: Graph) -> list[str]:
    """For Mermaid, as Markdown pages show it."""

    def text(node: Node) -> str:
        # What strangers wrote: no mark of the language may come from them.
        return "".join(char if char.isalnum() or char in " /:.,-_()" else f"#{ord(char)};" for char in _label(node))

    lines = ["flowchart TD", *(f'  n{node.id[:16]}["{text(node)}"]' for node in found.nodes.values())]
    arrows = {"within": "-->", "after": "-.->"}
    return [*lines, *(f"  n{edge.parent[:16]} {arrows[edge.kind]}|{edge.kind}| n{edge.child[:16]}" for edge in found.edges)]
