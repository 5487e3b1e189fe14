"""What operations a question to a model takes, counted by module: a graph without its data, small enough to keep."""

# MERGED: census x price: what a model costs under a protocol, by operation, layer and module.
# MERGED: How many operations of which shape one inference takes, whatever the protocol.

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from pi_sim.cost.cache import cached_json
from pi_sim.cost.sheet import PRODUCT_OPS, factor_shapes
from pi_sim.errors import UsageError
from pi_sim.graph.ops import Graph, Op, Shape
from pi_sim.zoo.source import ModelSource


@dataclass(frozen=True)
class Census:
    """How often each operation occurs in each module, and which modules' cost grows with the vocabulary."""

    counts: dict[tuple[str, Op], int]
    embedding_and_head: frozenset[str]

    @classmethod
    def from_graph(cls, graph: Graph) -> "Census":
        """Count a graph, in execution order of first occurrence."""
        return cls(dict(Counter(graph.census())), frozenset(graph.embedding_and_head()))


def capture_census(source: ModelSource, length: int, batch: int = 1, past: int | None = None) -> Census:
    """The census of a card at a size, or of a model with a config, for a batch of texts; captured the first time.

    `length` tokens of each text are read at once, or, with `past`, one token after so many others in a KV cache.
    """

    def derive() -> dict[str, Any]:
        from pi_sim.graph.capture import capture_model

        counted = Census.from_graph(capture_model(source.meta(), length, batch, past))
        rows = [[module, op.to_json(), count] for (module, op), count in counted.counts.items()]
        return {"rows": rows, "boundary": sorted(counted.embedding_and_head)}

    question = [length, batch] if past is None else ["step", past, batch]
    stored = cached_json("census", [source.identity, *question], derive)
    counts = {(module, Op.from_json(op)): count for module, op, count in stored["rows"]}
    return Census(counts, frozenset(stored["boundary"]))


def scenario_census(
    source: ModelSource, seq_len: int | None, batch: int, past: int | None, inner: bool
) -> tuple[int, Census]:
    """The tokens that are read at once, and the operations that this takes."""
    if past is not None and seq_len is not None:
        raise UsageError("--past asks for one step of one token; leave --seq-len out.")
    length = 1 if past is not None else seq_len or source.context
    found = capture_census(source, length, batch, past)
    if not inner:
        return length, found
    within = {key: count for key, count in found.counts.items() if key[0] not in found.embedding_and_head}
    return length, Census(within, found.embedding_and_head)


@dataclass(frozen=True)
class OpCount:
    """So many operations on one shape: what a matrix holds, and for a product the matrices that it multiplies."""

    op: str
    count: int
    shape: str
    multiplications: int | None


@dataclass(frozen=True)
class OpCounts:
    """The operations of one inference as AERO (arXiv 2410.13060, table 4) counts them: softmax 144 x 128x128."""

    model: str
    size: str
    seq_len: int
    batch: int
    past: int | None
    operations: list[OpCount]

    @property
    def multiplications(self) -> int:
        """Those of all matrix products."""
        return sum(each.multiplications or 0 for each in self.operations)

    def to_json(self) -> dict[str, Any]:
        """The record; `pi_sim.cli.json_help` says what its keys mean."""
        return asdict(self)


def op_counts(
    source: ModelSource, seq_len: int | None, *, batch: int = 1, past: int | None = None, inner: bool = False
) -> OpCounts:
    """The operations of what `pi_sim.cost.estimate.estimate` prices, counted by name and shape."""
    length, census = scenario_census(source, seq_len, batch, past, inner)
    return OpCounts(
        model=source.name,
        size=source.label,
        seq_len=length,
        batch=batch,
        past=past,
        operations=count_by_shape(census),
    )


def count_by_shape(census: Census) -> list[OpCount]:
    """Every operation on matrices counts as one for each of them: a softmax of 12 heads is 12 of them."""
    found: Counter[tuple[str, str, int]] = Counter()
    for (_, op), count in census.counts.items():
        found[op.name, _shape_text(op), _multiplication_count(op)] += count * math.prod(op.result_shape[:-2])
    return [OpCount(op, count, shape, count * each if each else None) for (op, shape, each), count in found.items()]


def _shape_text(op: Op) -> str:
    """The last two dimensions, "128x128"; of a product's factors, "128x64 @ 64x128"."""
    if op.name in PRODUCT_OPS:
        return " @ ".join(map(_matrix_text, factor_shapes(op)))
    return _matrix_text(op.result_shape)


def _matrix_text(shape: Shape) -> str:
    return "x".join(map(str, shape[-2:])) or "scalar"


def _multiplication_count(op: Op) -> int:
    """Of one matrix product."""
    return math.prod(op.result_shape[-2:]) * factor_shapes(op)[0][-1] if op.name in PRODUCT_OPS else 0
