"""Savings: what each pass of a protocol's rewriting takes off the cost of a graph."""

from dataclasses import asdict, dataclass
from typing import Any

from pi_sim.cost.census import Census, cached_json, capture_graph
from pi_sim.cost.cost import ZERO_COST, Cost
from pi_sim.cost.pricing import price_census
from pi_sim.errors import UsageError
from pi_sim.graph.ops import Graph
from pi_sim.specs import ExecutableProtocol
from pi_sim.zoo.source import ModelSource


@dataclass(frozen=True)
class Saving:
    """One pass: where it changed the graph, and the cost that the graph had more before it.

    A negative number is a cost that the pass adds. `bytes` are those of the busier party.
    """

    name: str
    description: str
    places: int
    rounds: int
    bytes: int
    both_ways: int
    offline_bytes: int


def explain_rewriting(
    source: ModelSource,
    protocol: ExecutableProtocol,
    seq_len: int | None,
    batch: int = 1,
    past: int | None = None,
    inner: bool = False,
) -> list[Saving]:
    """Return the saving of every pass, in order, for one inference of a model.

    Raises `UsageError` for a protocol that computes graphs as they are captured.
    """
    if not protocol.rewrites:
        raise UsageError(f"protocol {protocol.name} rewrites no graph; --explain has nothing to tell.")
    length = 1 if past is not None else seq_len or source.default_length

    def derive() -> list[dict[str, Any]]:
        graph = capture_graph(source, length, batch, past)
        return [asdict(saving) for saving in _price_steps(graph, protocol, inner)]

    key = [source.identity, length, batch, past, inner, protocol.rewriting_digest]
    return [Saving(**saving) for saving in cached_json("savings", key, derive)]


def _price_steps(graph: Graph, protocol: ExecutableProtocol, inner: bool) -> list[Saving]:
    from pi_sim.mpc.rewriting import rewrite_graph

    savings, before = list[Saving](), _price_graph(graph, protocol, inner)
    for step in rewrite_graph(graph, protocol).steps:
        after = _price_graph(step.graph, protocol, inner)
        savings.append(
            Saving(
                name=step.name,
                description=step.description,
                places=step.count,
                rounds=before.rounds - after.rounds,
                bytes=before.bytes - after.bytes,
                both_ways=sum(before.sent) - sum(after.sent),
                offline_bytes=before.offline - after.offline,
            )
        )
        before = after
    return savings


def _price_graph(graph: Graph, protocol: ExecutableProtocol, inner: bool) -> Cost:
    census = Census.from_graph(graph)
    rows = price_census(census, protocol)
    return sum((row.cost for row in rows if not (inner and row.module in census.embedding_and_head)), ZERO_COST)
