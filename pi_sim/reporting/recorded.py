"""What a record tells: a private run, or a training."""

import math
from dataclasses import dataclass
from pathlib import Path

from pi_sim import records
from pi_sim.errors import UsageError
from pi_sim.records import JsonObject

PLAN = ("card", "size", "architecture", "dimensions", "recipe", "seed", "corpus")
RARE = 0.05
"""Up to this share of destroyed places is put down to rare events, more to a kernel that is wrong."""
FAR = 1.1
"""A private perplexity beyond this multiple of the plain one is a wrong result."""


@dataclass(frozen=True)
class Run:
    """What a private run found, and the file that tells it."""

    path: Path
    record: JsonObject

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
        return int((self.record["agreement"] or {}).get("corrupted_positions", 0))

    @property
    def compared(self) -> tuple[float | None, float | None]:
        """Plain and private perplexity, without destroyed places where these are rare."""
        found, places = self.record["perplexity"], self.record["sequences"] * self.record["seq_len"]
        chosen = found["excluding_corrupted"] if 0 < self.destroyed < RARE * places else found
        return chosen["plain"], chosen["private"]

    @property
    def wrong(self) -> bool:
        """Whether the private result is another than the plain one, not at rare places but throughout."""
        plain, private = self.compared
        return plain is not None and (private is None or not math.isfinite(private) or private > FAR * plain)

    def by_operation(self) -> dict[str, JsonObject]:
        """Rounds and bytes by operation, for those that cost something."""
        sums: dict[str, JsonObject] = {}
        for row in self.record["rows"]:
            known = sums.setdefault(row["op"], {"rounds": 0, "bytes": 0})
            known["rounds"] += row["rounds"]
            known["bytes"] += row["bytes"]
        return {op: sum_ for op, sum_ in sums.items() if sum_["rounds"] or sum_["bytes"]}


@dataclass(frozen=True)
class Training:
    """What a training found; `shipped` if its weights lie in models/weights."""

    path: Path
    record: JsonObject
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
    def plan(self) -> JsonObject:
        """All that decides the result; of a corpus, which text and how much of it."""
        corpus = {key: self.record["corpus"][key] for key in ("sha256", "tokens_seen")}
        return {**{key: self.record[key] for key in PLAN}, "corpus": corpus}

    def same(self, other: "Training", *but: str) -> bool:
        """Whether two trainings differ in nothing but what is named."""
        return all(self.plan[key] == other.plan[key] for key in PLAN if key not in but)


def read(path: Path) -> JsonObject:
    """Return a record as a table."""
    record = records.load(path)
    if isinstance(record, records.TrainingRecord) and record.architecture is None:
        raise UsageError(f"{path} has no architecture; make this record anew or remove it.")
    return record.model_dump()
