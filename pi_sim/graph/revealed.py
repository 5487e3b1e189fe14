"""Linear maps that nothing but an opening reads: the client can round their results, so that no protocol has to."""

from collections import defaultdict
from dataclasses import replace

from pi_sim.graph.ops import STRUCTURAL, Graph, Node

CLIENT_ONLY = ("revealed", True)
"""The attribute of such a map."""


def mark_client_only(graph: Graph) -> Graph:
    """The graph, every linear map marked whose result goes to the client alone, at most rearranged before."""
    readers = _readers_by_value(graph)
    shown = {node.name for node in graph.nodes if node.op.name == "reveal"}
    for node in reversed(graph.nodes):
        if _is_unary_rearrangement(node) and readers[node.name] and readers[node.name] <= shown:
            shown.add(node.name)
    alone = {name for name, found in readers.items() if found and found <= shown}
    graph.nodes = [_mark_node(node) if node.op.name == "linear" and node.name in alone else node for node in graph.nodes]
    return graph


def _readers_by_value(graph: Graph) -> dict[str, set[str]]:
    """Who reads each value, by name; nobody reads a result that is in the graph for nothing."""
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.nodes:
        for name in node.inputs:
            readers[name].add(node.name)
    return readers


def _is_unary_rearrangement(node: Node) -> bool:
    """Whether it rearranges one operand; several would have to have the same fraction."""
    return node.op.name in STRUCTURAL and len(node.inputs) == 1


def _mark_node(node: Node) -> Node:
    return replace(node, op=replace(node.op, attributes=tuple(sorted({*node.op.attributes, CLIENT_ONLY}))))
