"""The operations of a model at a sequence length, counted by module: a graph without its data, small enough to keep."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pi_sim import specs
from pi_sim.cost.memo import remember
from pi_sim.errors import UsageError
from pi_sim.graph.ops import Graph, Op


@dataclass(frozen=True)
class Census:
    """How often each operation occurs in each module, and which modules' cost grows with the vocabulary."""

    counts: dict[tuple[str, Op], int]
    boundary: frozenset[str]

    @classmethod
    def of(cls, graph: Graph) -> "Census":
        """Count a graph, in execution order of first occurrence."""
        return cls(dict(Counter(graph.census())), frozenset(graph.boundary()))


def census(model: str, size: str, length: int) -> Census:
    """The census of a model card at a size, or of a folder with a config.json; captured the first time."""

    def derive() -> dict[str, Any]:
        from pi_sim.graph.capture import capture
        from pi_sim.zoo.build import meta_model

        counted = Census.of(capture(meta_model(model, size), length))
        rows = [[module, op.to_json(), count] for (module, op), count in counted.counts.items()]
        return {"rows": rows, "boundary": sorted(counted.boundary)}

    stored = remember("census", [_identity(model, size), length], derive)
    counts = {(module, Op.from_json(op)): count for module, op, count in stored["rows"]}
    return Census(counts, frozenset(stored["boundary"]))


def context(model: str, size: str) -> int:
    """The longest sequence that the model was made for."""
    config = _config(model)
    if config is None:
        return specs.size(size).context
    try:
        known = json.loads(config)
        return int(known.get("n_positions") or known["max_position_embeddings"])
    except (ValueError, AttributeError, KeyError, TypeError):
        raise UsageError(f"{model}/config.json does not tell the model's context; give --seq-len.") from None


def label(model: str, size: str) -> str:
    """What a record calls the size: a checkpoint folder has its own."""
    return size if _config(model) is None else "own"


def _identity(model: str, size: str) -> Any:
    """What the graph depends on: the card and the size, or the folder's config."""
    return _config(model) or [specs.model_card(model).model_dump(), specs.size(size).model_dump()]


def _config(model: str) -> str | None:
    """The config.json of a checkpoint folder; None for a card."""
    if model in specs.names("models"):
        return None
    try:
        return (Path(model) / "config.json").read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{model}/config.json is not a text file in UTF-8.") from None
    except OSError:
        return None
