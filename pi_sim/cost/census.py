"""Census: the operations of one inference, counted by module. A graph without its data, small enough to cache.

The cache on disk also holds derived prices: a repeated estimate needs neither torch nor CrypTen.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pi_sim.cost.sheet import PRODUCT_OPS, factor_shapes
from pi_sim.errors import UsageError
from pi_sim.files import user_folder, write_text
from pi_sim.graph.ops import Graph, Op, Shape
from pi_sim.provenance import code_fingerprint
from pi_sim.specs import ExecutableProtocol
from pi_sim.zoo.source import ModelSource


def cached_json(kind: str, key: Any, derive: Callable[[], Any]) -> Any:
    """Return the JSON value under `key`; it is derived and stored if it is missing or damaged.

    The file's name is a digest of the key, of pi-sim's code and of the versions of the packages that values depend on:
    a change in any of them derives the value again.
    """
    digest = hashlib.sha256(json.dumps([key, code_fingerprint()], sort_keys=True).encode()).hexdigest()
    path = cache_dir() / kind / f"{digest[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = derive()
    with suppress(UsageError):  # a value that cannot be stored only costs time
        write_text(path, json.dumps(value))
    return value


def cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/pi-sim`, by default `~/.cache/pi-sim`; it may be removed at any time."""
    return user_folder("XDG_CACHE_HOME", "~/.cache")


@dataclass(frozen=True)
class Census:
    """Counts of operations by module, the modules whose cost grows with the vocabulary, and the tokens read at once."""

    counts: dict[tuple[str, Op], int]
    embedding_and_head: frozenset[str]
    tokens: int = 0

    @classmethod
    def from_graph(cls, graph: Graph) -> "Census":
        """Count the operations of a graph, in order of first occurrence."""
        return cls(dict(Counter(graph.census())), frozenset(graph.embedding_and_head()), graph.tokens)

    @classmethod
    def joined(cls, censuses: "Sequence[Census]") -> "Census":
        """Return the counts of several graphs of one model together."""
        counts: Counter[tuple[str, Op]] = Counter()
        for census in censuses:
            counts.update(census.counts)
        return cls(dict(counts), frozenset().union(*(census.embedding_and_head for census in censuses)))

    def without_embedding_and_head(self) -> "Census":
        """Return the census of what lies between embedding and head."""
        counts = {key: count for key, count in self.counts.items() if key[0] not in self.embedding_and_head}
        return replace(self, counts=counts)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for `from_json`."""
        rows = [[module, op.to_json(), count] for (module, op), count in self.counts.items()]
        return {"rows": rows, "embedding_and_head": sorted(self.embedding_and_head), "tokens": self.tokens}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Census":
        """Return the census that `to_json` gave."""
        counts = {(module, Op.from_json(op)): count for module, op, count in stored["rows"]}
        return cls(counts, frozenset(stored["embedding_and_head"]), stored["tokens"])


_RECENT_GRAPH: dict[str, Graph] = {}
"""The last captured graph, for the next protocol that rewrites it."""


def capture_graph(source: ModelSource, length: int, batch: int, past: int | None) -> Graph:
    """Return the graph of a scenario."""
    from pi_sim.graph.capture import capture_model

    key = json.dumps([source.identity, length, batch, past], sort_keys=True)
    if key not in _RECENT_GRAPH:
        _RECENT_GRAPH.clear()
        _RECENT_GRAPH[key] = capture_model(source.meta(), length, batch, past)
    return _RECENT_GRAPH[key]


def capture_census(
    source: ModelSource,
    length: int,
    batch: int = 1,
    past: int | None = None,
    protocol: ExecutableProtocol | None = None,
) -> Census:
    """Return the census of a model for a batch of sequences, captured the first time and cached.

    The graph is counted as `protocol` runs it, or as it was captured. `length` tokens of each sequence are read at
    once, or, with `past`, one token after that many in a KV cache.
    """

    def derive() -> dict[str, Any]:
        graph = capture_graph(source, length, batch, past)
        if protocol and protocol.rewrites:
            from pi_sim.mpc.rewriting import rewrite_graph

            graph = rewrite_graph(graph, protocol).graph
        return Census.from_graph(graph).to_json()

    rewriting = protocol.rewriting_digest if protocol else ""
    scenario = [*([length, batch] if past is None else ["step", past, batch]), rewriting]
    return Census.from_json(cached_json("census", [source.identity, *scenario], derive))


def scenario_censuses(
    source: ModelSource,
    seq_len: int | None,
    batch: int,
    past: int | None,
    inner: bool,
    protocol: ExecutableProtocol | None = None,
    prompt_len: int | None = None,
    generate: int | None = None,
) -> tuple[int, list[Census]]:
    """Return the tokens that are read at once, and the census; with `generate` those of a prompt, and of all steps.

    `inner` leaves out embedding and head. An executable protocol may rewrite the graph.
    """
    if prompt_len is None and generate is None:
        length, census = scenario_census(source, seq_len, batch, past, inner, protocol)
        return length, [census]
    if prompt_len is None or generate is None:
        raise UsageError("a generation has a prompt and tokens behind it; give both --prompt-len and --generate.")
    if seq_len or past or batch > 1:
        raise UsageError("--generate continues one prompt; leave --seq-len, --past and --batch out.")
    censuses = capture_generation_censuses(source, prompt_len, generate, protocol)
    return prompt_len, [census.without_embedding_and_head() for census in censuses] if inner else censuses


def capture_generation_censuses(
    source: ModelSource, length: int, tokens: int, protocol: ExecutableProtocol | None = None
) -> list[Census]:
    """Return the censuses of a prompt and of all decoding steps behind it together, see `capture_census`."""

    def derive() -> list[dict[str, Any]]:
        from pi_sim.graph.capture import capture_generation

        graphs = capture_generation(source.meta(), length, tokens)
        if protocol and protocol.rewrites:
            from pi_sim.mpc.rewriting import rewrite_graph

            graphs = [rewrite_graph(graph, protocol).graph for graph in graphs]
        prompt, *steps = map(Census.from_graph, graphs)
        return [census.to_json() for census in (prompt, *([Census.joined(steps)] if steps else []))]

    rewriting = protocol.rewriting_digest if protocol else ""
    stored = cached_json("census", [source.identity, "generation", length, tokens, rewriting], derive)
    return list(map(Census.from_json, stored))


def read_length(source: ModelSource, seq_len: int | None, past: int | None) -> int:
    """Return the tokens of each sequence that are read at once: by default the model's context, with `past` one."""
    if past is not None and seq_len is not None:
        raise UsageError("--past asks for one step of one token; leave --seq-len out.")
    return 1 if past is not None else seq_len or source.default_length


def scenario_census(
    source: ModelSource,
    seq_len: int | None,
    batch: int,
    past: int | None,
    inner: bool,
    protocol: ExecutableProtocol | None = None,
) -> tuple[int, Census]:
    """Return the tokens that are read at once, and the census; `inner` leaves out embedding and head.

    An executable protocol may rewrite the graph.
    """
    length = read_length(source, seq_len, past)
    census = capture_census(source, length, batch, past, protocol)
    if seq_len is not None and seq_len != census.tokens:
        raise UsageError(f"the model reads every input as {census.tokens} tokens; leave --seq-len out.")
    return census.tokens, census.without_embedding_and_head() if inner else census


@dataclass(frozen=True)
class OpCount:
    """Count of an operation on one shape of matrix; the shape of a product is that of both factors."""

    op: str
    count: int
    shape: str
    multiplications: int | None
    """Multiplications of all of them; None for an operation that is no product."""


@dataclass(frozen=True)
class OpCounts:
    """Operations of one inference, counted as in AERO (arXiv 2410.13060, table 4): softmax 144 x 128x128."""

    model: str
    size: str
    seq_len: int
    batch: int
    past: int | None
    operations: list[OpCount]
    generate: int | None = None

    @property
    def multiplications(self) -> int:
        """Multiplications of all matrix products."""
        return sum(count.multiplications or 0 for count in self.operations)

    def to_json(self) -> dict[str, Any]:
        """Return the record, whose keys `pi_sim.cli.json_help` explains."""
        return asdict(self)


def op_counts(
    source: ModelSource,
    seq_len: int | None,
    *,
    batch: int = 1,
    past: int | None = None,
    inner: bool = False,
    prompt_len: int | None = None,
    generate: int | None = None,
) -> OpCounts:
    """Count the operations of a scenario by name and shape, whatever the protocol."""
    length, censuses = scenario_censuses(source, seq_len, batch, past, inner, None, prompt_len, generate)
    operations = count_by_shape(Census.joined(censuses))
    return OpCounts(source.name, source.label, length, batch, past, operations, generate)


def count_by_shape(census: Census) -> list[OpCount]:
    """Count operations by shape, one for each matrix: a softmax of 12 heads counts as 12."""
    counts: Counter[tuple[str, str, int]] = Counter()
    for (_, op), count in census.counts.items():
        counts[op.name, _shape_text(op), _multiplication_count(op)] += count * math.prod(op.result_shape[:-2])
    return [
        OpCount(op, count, shape, count * multiplications if multiplications else None)
        for (op, shape, multiplications), count in counts.items()
    ]


def _shape_text(op: Op) -> str:
    """Return the last two dimensions, "128x128", or those of a product's factors, "128x64 @ 64x128"."""
    if op.name in PRODUCT_OPS:
        return " @ ".join(map(_matrix_text, factor_shapes(op)))
    return _matrix_text(op.result_shape)


def _matrix_text(shape: Shape) -> str:
    return "x".join(map(str, shape[-2:])) or "scalar"


def _multiplication_count(op: Op) -> int:
    """Return the multiplications of one matrix product, 0 for any other operation."""
    return math.prod(op.result_shape[-2:]) * factor_shapes(op)[0][-1] if op.name in PRODUCT_OPS else 0
