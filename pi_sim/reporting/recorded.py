"""What a record tells: a private run, or a training."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.records import Record

COUNTS = ("rounds", "bytes", "offline_bytes")
PARTS = ("seconds", "compute_seconds", "communication_seconds", "setup_seconds")
NEEDED = {
    "run": (
        *("model", "size", "protocol", "seq_len", "sequences", "network", "rows", "agreement"),
        *(f"{sums}.{key}" for sums in ("total", "without_embedding_and_head") for key in (*COUNTS, "seconds")),
        *(f"measured.{key}" for key in (*COUNTS, *PARTS)),
        *("perplexity.plain", "perplexity.private"),
    ),
    "training": (
        *("card", "size", "seed", "parameters", "loss_curve", "held_out"),
        *(f"recipe.{key}" for key in ("init_std", "embedding_scale", "logit_scale")),
        *(f"architecture.{key}" for key in ("norm", "final_norm", "activation")),
        *(f"dimensions.{key}" for key in ("layers", "heads", "width", "context", "vocabulary")),
        *(f"corpus.{key}" for key in ("name", "sha256", "tokens_seen")),
    ),
}
"""What the page reads of a record, by its kind; records of other kinds are not for this page."""
SCHEMAS: dict[str, type[specs.Spec]] = {"architecture": specs.Architecture, "recipe": specs.Recipe}
PLAN = ("card", "size", "architecture", "dimensions", "recipe", "seed", "corpus")
RARE = 0.05
"""Up to this share of destroyed places is put down to rare events, more to a kernel that is wrong."""
FAR = 1.1
"""A private perplexity beyond this multiple of the plain one is a wrong result."""


@dataclass(frozen=True)
class Run:
    """What a private run found, and the file that tells it."""

    path: Path
    record: Record

    @property
    def model(self) -> str:
        return str(self.record["model"])

    @property
    def protocol(self) -> str:
        return str(self.record["protocol"])

    @property
    def length(self) -> int:
        return int(self.record["seq_len"])

    @property
    def destroyed(self) -> int:
        """At how many places the logits are off by more than approximation can explain."""
        return int((self.record["agreement"] or {}).get("destroyed", 0))

    @property
    def compared(self) -> tuple[float | None, float | None]:
        """Plain and private perplexity, without destroyed places where these are rare."""
        found, places = self.record["perplexity"], self.record["sequences"] * self.record["seq_len"]
        chosen = found["elsewhere"] if 0 < self.destroyed < RARE * places else found
        return chosen["plain"], chosen["private"]

    @property
    def wrong(self) -> bool:
        """Whether the private result is another than the plain one, not at rare places but throughout."""
        plain, private = self.compared
        return plain is not None and (private is None or not math.isfinite(private) or private > FAR * plain)

    def by_operation(self) -> dict[str, Record]:
        """Rounds and bytes by operation, for those that cost something."""
        sums: dict[str, Record] = {}
        for row in self.record["rows"]:
            known = sums.setdefault(row["op"], {"rounds": 0, "bytes": 0})
            known["rounds"] += row["rounds"]
            known["bytes"] += row["bytes"]
        return {op: sum_ for op, sum_ in sums.items() if sum_["rounds"] or sum_["bytes"]}


@dataclass(frozen=True)
class Training:
    """What a training found; `shipped` if its weights lie in models/weights."""

    path: Path
    record: Record
    shipped: bool

    @property
    def model(self) -> str:
        return str(self.record["card"])

    @property
    def perplexity(self) -> float:
        """Beyond all numbers where a training diverged: JSON has no infinity."""
        found = (self.record["held_out"] or {}).get("perplexity")
        return math.inf if found is None else float(found)

    @property
    def diverged(self) -> bool:
        """Whether the training ended without a model."""
        return math.isinf(self.perplexity)

    @property
    def plan(self) -> Record:
        """All that decides the result; of a corpus, which text and how much of it."""
        corpus = {key: self.record["corpus"][key] for key in ("sha256", "tokens_seen")}
        return {**{key: self.record[key] for key in PLAN}, "corpus": corpus}

    def same(self, other: "Training", *but: str) -> bool:
        """Whether two trainings differ in nothing but what is named."""
        return all(self.plan[key] == other.plan[key] for key in PLAN if key not in but)


def read(path: Path) -> Record:
    """A record that is complete for its kind; switches that are younger than it have their defaults."""
    record = records.load(path)
    for name in NEEDED.get(record["kind"], ()):
        if not _holds(record, name.split(".")):
            raise UsageError(f"{path} has no {name}; make this record anew or remove it.")
    schemas = SCHEMAS if record["kind"] == "training" else {}
    return {
        **record,
        **{key: specs.check(schema, record[key], str(path)).model_dump() for key, schema in schemas.items()},
    }


def _holds(value: Any, keys: list[str]) -> bool:
    """Whether a record has a value under nested keys."""
    return not keys or (isinstance(value, dict) and keys[0] in value and _holds(value[keys[0]], keys[1:]))
