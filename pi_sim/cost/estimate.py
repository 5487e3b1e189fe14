"""census x price: what a model costs under a protocol, by operation, layer and module."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pi_sim import specs
from pi_sim.cost.census import Census, census, context, label
from pi_sim.cost.cost import ZERO, Cost
from pi_sim.cost.prices import price
from pi_sim.network import Network

if TYPE_CHECKING:
    import pandas as pd

View = Literal["op", "layer", "module", "total"]

CONVENTIONS = [
    "bytes are payload bytes that one party sends, the larger of the two; links are full duplex",
    "a round is one exchange that cannot start before the previous one has arrived; it costs one one-way latency",
    "offline bytes are correlated randomness that must reach a party, its shares expanded from seeds where they can be",
    "seconds are the network's alone, rounds x latency + bytes / bandwidth, without computing",
    "weights and one-hot tokens are already shared when counting starts; the logits are opened to the client",
    "1 MB = 1e6 bytes, 1 GB = 1e9 bytes",
]
"""Printed under every table: each of them changes published numbers by a factor of two or more."""

LAYER = re.compile(r"(.*?\.\d+)(\.|$)")


@dataclass(frozen=True)
class Row:
    """An operation in a module: how often it occurs, and what all its occurrences cost together."""

    module: str
    op: str
    shapes: str
    count: int
    cost: Cost

    @property
    def layer(self) -> str:
        """The numbered block that the module belongs to, or the module itself."""
        found = LAYER.match(self.module)
        return found[1] if found else self.module


@dataclass(frozen=True)
class Estimate:
    """What one inference costs: the rows, and views and sums of them."""

    model: str
    size: str
    protocol: str
    seq_len: int
    rows: list[Row]
    boundary: frozenset[str]
    networks: list[Network]

    @property
    def total(self) -> Cost:
        """The whole inference."""
        return _sum(self.rows)

    @property
    def inner(self) -> Cost:
        """Without the private look-up, the vocabulary head and the opening of the logits."""
        return _sum(row for row in self.rows if row.module not in self.boundary)

    def by(self, view: View) -> dict[str, tuple[int, Cost]]:
        """(count, cost) by operation, layer, module or in total, in order of first occurrence."""
        keys: dict[View, Callable[[Row], str]] = {
            "op": lambda row: row.op,
            "layer": lambda row: row.layer,
            "module": lambda row: row.module,
            "total": lambda row: "total",
        }
        groups: dict[str, tuple[int, Cost]] = {}
        for row in self.rows:
            count, cost = groups.get(keys[view](row), (0, ZERO))
            groups[keys[view](row)] = (count + row.count, cost + row.cost)
        return groups

    def seconds(self, cost: Cost) -> dict[str, float]:
        """Network seconds by network."""
        return {network.name: network.seconds(cost.rounds, cost.bytes) for network in self.networks}

    def to_json(self) -> dict[str, Any]:
        """The record: keys are documented in the README."""
        return {
            "model": self.model,
            "size": self.size,
            "protocol": self.protocol,
            "seq_len": self.seq_len,
            "total": self._totals(self.total),
            "without_embedding_and_head": self._totals(self.inner),
            "rows": [
                {
                    "module": row.module,
                    "op": row.op,
                    "shapes": row.shapes,
                    "count": row.count,
                    **numbers(row.cost),
                }
                for row in self.rows
            ],
            "conventions": CONVENTIONS,
        }

    def frame(self) -> "pd.DataFrame":
        """One line per row, for pandas."""
        import pandas as pd

        return pd.DataFrame(self.to_json()["rows"])

    def _totals(self, cost: Cost) -> dict[str, Any]:
        return {**numbers(cost), "seconds": self.seconds(cost)}


def numbers(cost: Cost) -> dict[str, int]:
    """A cost under the names that records use."""
    return {"rounds": cost.rounds, "bytes": cost.bytes, "offline_bytes": cost.offline}


def estimate(model: str, size: str, protocol: str, seq_len: int | None, networks: list[Network]) -> Estimate:
    """What a model card at a size, or a folder with a config.json, costs under a protocol.

    `seq_len` is the model's context by default. Torch is imported only for what no earlier estimate has derived.
    """
    length = seq_len or context(model, size)
    card = specs.protocol(protocol)
    counted = census(model, size, length)
    return Estimate(model, label(model, size), card.name, length, priced(counted, card), counted.boundary, networks)


def priced(counted: Census, protocol: specs.ProtocolCard | specs.Sheet) -> list[Row]:
    """A row for every entry of a census."""
    return [
        Row(module, op.name, str(op).removeprefix(op.name), count, count * price(op, protocol))
        for (module, op), count in counted.counts.items()
    ]


def _sum(rows: Iterable[Row]) -> Cost:
    return sum((row.cost for row in rows), ZERO)
