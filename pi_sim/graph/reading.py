"""What depends on what in an exported program."""

from collections import defaultdict

import torch

from pi_sim.graph.aten.registry import aten_name


def find_embedding_index_nodes(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """Every node from which the indices of some embedding are computed: an input among them may be tokens."""
    found: set[torch.fx.Node] = set()
    waiting = [node.args[1] for node in graph.nodes if aten_name(node) == "embedding"]
    while waiting:
        node = waiting.pop()
        if isinstance(node, torch.fx.Node) and node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def find_last_uses(graph: torch.fx.Graph) -> dict[torch.fx.Node, list[torch.fx.Node]]:
    """For each node what nothing after it reads, so that large masks do not pile up."""
    last = {read: node for node in graph.nodes for read in node.all_input_nodes}
    found: dict[torch.fx.Node, list[torch.fx.Node]] = defaultdict(list)
    for read, node in last.items():
        found[node].append(read)
    return found
