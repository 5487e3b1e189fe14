"""What operations a question to a model takes, counted by module: a graph without its data, small enough to keep."""

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pi_sim import specs
from pi_sim.cost.memo import cached_json
from pi_sim.errors import UsageError
from pi_sim.graph.ops import Graph, Op
from pi_sim.specs import configs


@dataclass(frozen=True)
class Census:
    """How often each operation occurs in each module, and which modules' cost grows with the vocabulary."""

    counts: dict[tuple[str, Op], int]
    embedding_and_head: frozenset[str]

    @classmethod
    def from_graph(cls, graph: Graph) -> "Census":
        """Count a graph, in execution order of first occurrence."""
        return cls(dict(Counter(graph.census())), frozenset(graph.embedding_and_head()))


def capture_census(model: str, size: str, length: int, batch: int = 1, past: int | None = None) -> Census:
    """The census of a card at a size, or of a model with a config, for a batch of texts; captured the first time.

    `length` tokens of each text are read at once, or, with `past`, one token after so many others in a KV cache.
    """

    def derive() -> dict[str, Any]:
        from pi_sim.graph.capture import capture_model
        from pi_sim.zoo.build import build_meta_model

        counted = Census.from_graph(capture_model(build_meta_model(model, size), length, batch, past))
        rows = [[module, op.to_json(), count] for (module, op), count in counted.counts.items()]
        return {"rows": rows, "boundary": sorted(counted.embedding_and_head)}

    question = [length, batch] if past is None else ["step", past, batch]
    stored = cached_json("census", [model_identity(model, size), *question], derive)
    counts = {(module, Op.from_json(op)): count for module, op, count in stored["rows"]}
    return Census(counts, frozenset(stored["boundary"]))


def model_context(model: str, size: str) -> int:
    """The longest sequence that the model was made for."""
    config = configs.config_text(model)
    if config is None:
        return specs.load_size(size).context
    with suppress(ValueError, AttributeError, KeyError, TypeError, ZeroDivisionError):
        if known := configs.config_context(json.loads(config)):
            return known
    raise UsageError(f"{configs.config_path(model)} does not tell the model's context; give --seq-len.")


def size_label(model: str, size: str) -> str:
    """What a record calls the size: a model with a config has its own."""
    return size if configs.config_text(model) is None else "own"


def model_identity(model: str, size: str) -> Any:
    """What the graph depends on: the card and the size, or the config."""
    return configs.config_text(model) or [specs.load_model_card(model).model_dump(), specs.load_size(size).model_dump()]
