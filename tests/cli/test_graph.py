"""A graph shows what records say, in languages that no name in it can break out of; `mesh revoke` knows ancestors."""

import pytest

from mesh.cli.graph import Edge, Graph, Node, dot, mermaid
from mesh.cli.revoke import parse_target
from mesh.core.law.revocation import needs_threshold
from mesh.errors import Refused

ONE, TWO = "a1" * 32, "b2" * 32
NODES = {
    ONE: Node(id=ONE, what='spiffe://lab/agent/anna ops/run Host::x"];evil', state="started", record="eu-1/4", final=True),
    TWO: Node(id=TWO, what="", state="not held (unreachable)"),
}
GRAPH = Graph(NODES, [Edge(parent=TWO, child=ONE, kind="within"), Edge(parent=TWO, child=ONE, kind="after")])


def test_graphviz_is_shown_boxes_and_arrows_by_their_kind() -> None:
    lines = dot(GRAPH)
    assert (lines[0], lines[-1]) == ("digraph lineage {", "}")
    assert '  "b2b2b2b2b2b2b2b2" -> "a1a1a1a1a1a1a1a1" [label=within];' in lines
    assert '  "b2b2b2b2b2b2b2b2" -> "a1a1a1a1a1a1a1a1" [label=after, style=dashed];' in lines
    assert '\\"];evil' in lines[3], "a quote of a name does not end the label"


def test_mermaid_is_shown_the_same_and_no_mark_of_a_name() -> None:
    lines = mermaid(GRAPH)
    assert lines[0] == "flowchart TD"
    assert "  nb2b2b2b2b2b2b2b2 -->|within| na1a1a1a1a1a1a1a1" in lines
    assert "  nb2b2b2b2b2b2b2b2 -.->|after| na1a1a1a1a1a1a1a1" in lines
    assert "x#34;#93;#59;evil" in lines[1]
    assert lines[1].count('"') == 2


def test_what_is_not_final_says_so() -> None:
    early = Graph({ONE: Node(id=ONE, what="x", state="started", record="eu-1/4")}, [])
    assert "not final yet" in mermaid(early)[1]
    assert "not final yet" not in mermaid(GRAPH)[1] + mermaid(GRAPH)[2]


def test_an_ancestor_is_revoked_by_its_whole_id_and_by_one_revoker() -> None:
    target = parse_target(f"ancestor:{ONE}")
    assert (target.type, target.value, needs_threshold(target)) == ("ancestor", ONE, False)
    with pytest.raises(Refused, match="usage"):
        parse_target(f"ancestor:{ONE[:12]}")
