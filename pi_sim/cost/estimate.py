"""Estimate: census x price, the cost of a model under a protocol by operation, layer and module."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pi_sim.cost import pricing
from pi_sim.cost.census import Census, scenario_censuses
from pi_sim.cost.cost import Cost, Machine
from pi_sim.cost.pricing import PricedProtocol, price_sequence
from pi_sim.cost.rows import VIEW_KEYS, Row, Subtotal, View, join_rows
from pi_sim.errors import UsageError
from pi_sim.network import Network
from pi_sim.results import Result, html_table
from pi_sim.zoo.source import ModelSource

if TYPE_CHECKING:
    import pandas as pd

SECONDS_WITHOUT_COMPUTE = (
    "seconds are the network's alone, rounds x latency + bytes of the busier direction of each round / bandwidth, "
    "without computing"
)
SECONDS_WITH_COMPUTE = (
    "seconds are rounds x latency + bytes of the busier direction of each round / bandwidth + computing on {}, without "
    "overlap"
)
"""Meaning of seconds without the profile of a machine, and with one."""
LENGTH = "{0} reads up to {1:,} tokens; without --seq-len it is priced at {2:,}"
"""Where the default length is not the context."""
CONVENTIONS = [
    "bytes are payload bytes that the busier party sends once the input is there, or an even share where a declared "
    "protocol's source states a sum alone; links are full duplex",
    "a round is one exchange that cannot start before the previous one has arrived; it costs one one-way latency",
    "offline bytes are correlated randomness that must reach a party, its shares expanded from seeds where they can be",
    SECONDS_WITHOUT_COMPUTE,
    "weights and one-hot tokens are already shared when counting starts; the logits are opened to the client",
    "1 MB = 1e6 bytes, 1 GB = 1e9 bytes",
]
"""Printed under every table: each of them changes published numbers by a factor of two or more."""
SCENARIO_KEYS = ("model", "size", "protocol", "seq_len", "batch", "past", "generate", "only_inner")
ROW_KEYS = ("module", "op", "shapes", "count", "provenance")
"""Attributes of an estimate and of its rows that are keys of its record."""
OTHER_ROWS = "others"
"""Label of the sum of all rows below the `top` most expensive ones."""


@dataclass(frozen=True, repr=False)
class Estimate(Result):
    """Cost of one inference: rows, and views and sums of them.

    It reads `seq_len` tokens of each sequence of a batch, after `past` tokens in a KV cache. With `only_inner` the rows
    lack embedding and head: the private look-up, the vocabulary head and the opening of the logits.
    """

    model: str
    size: str
    protocol: str
    seq_len: int
    rows: list[Row]
    embedding_and_head: frozenset[str]
    networks: list[Network]
    batch: int = 1
    past: int | None = None
    generate: int | None = None
    """Tokens that follow a prompt of `seq_len`; the costs are those of all of them together."""
    only_inner: bool = False
    machine: Machine | None = None
    offline_known: bool = True
    """False if the protocol's sources do not state offline bytes; a zero then means unknown."""
    longer_context: int | None = None
    """The model's context, if it is too long to be priced whole and no length was named."""

    @cached_property
    def overall(self) -> Subtotal:
        """Subtotal of all rows."""
        return Subtotal.sum_of(self.rows)

    @cached_property
    def body(self) -> Subtotal:
        """Subtotal without the private look-up, the vocabulary head and the opening of the logits."""
        return Subtotal.sum_of(row for row in self.rows if row.module not in self.embedding_and_head)

    @property
    def total(self) -> Cost:
        """Cost of all rows."""
        return self.overall.cost

    @property
    def session_bytes(self) -> int:
        """Bytes that one party sends once in a session, all in one round, before the first inference."""
        return self.total.session_bytes

    @property
    def title(self) -> str:
        """The scenario, with rounds, bytes and seconds."""
        seconds = "".join(f", {name} {number:,.3g} s" for name, number in self.seconds(self.overall).items())
        scenario = f"{self.model} ({self.size}), protocol {self.protocol}"
        tokens = describe_tokens(self.seq_len, self.batch, self.past, self.generate) + (
            ", inner" if self.only_inner else ""
        )
        return f"{scenario}, {tokens}: {self.total.rounds:,} rounds, {self.total.bytes:,} bytes{seconds}"

    def group_by(self, view: View) -> dict[str, Subtotal]:
        """Return subtotals by operation, layer or module, or the total, in order of first occurrence."""
        if view not in VIEW_KEYS:
            raise UsageError(f"there are no rows by {view!r}; choose {', '.join(VIEW_KEYS)}.")
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(VIEW_KEYS[view](row), []).append(row)
        return {key: Subtotal.sum_of(group) for key, group in groups.items()}

    def top_groups(self, parts: dict[str, Subtotal], top: int) -> dict[str, Subtotal]:
        """Return the `top` parts that take longest on the first network, and the sum of the remaining ones."""
        ranked = sorted(parts.items(), key=lambda item: self._ranking_key(item[1]), reverse=True)
        rest = [part for _, part in ranked[top:]]
        return dict(ranked[:top]) | ({OTHER_ROWS: Subtotal.sum_of(rest)} if rest else {})

    def seconds(self, part: Subtotal) -> dict[str, float]:
        """Return seconds by network, including those of computing if they are known."""
        computing, cost = self.compute_seconds(part) or 0.0, part.cost
        return {network.name: network.seconds(cost.rounds, cost.serial) + computing for network in self.networks}

    def first_query_seconds(self, part: Subtotal) -> dict[str, float]:
        """Return seconds by network of the first query of a session: what precedes the input is not done yet."""
        computing, seconds = self.ahead_compute_seconds(part) or 0.0, self.seconds(part)
        return {
            network.name: seconds[network.name] + part.cost.seconds_before(network) + computing
            for network in self.networks
        }

    def ahead_compute_seconds(self, part: Subtotal) -> float | None:
        """Return the client's seconds of computing before the input; None where `compute_seconds` is."""
        if self.machine is None or part.ahead_work is None:
            return None
        return self.machine.seconds(part.ahead_work, 0)

    def compute_seconds(self, part: Subtotal) -> float | None:
        """Return the seconds of computing; None without a machine's profile or for a declared protocol."""
        if self.machine is None or part.work is None:
            return None
        return self.machine.seconds(part.work, part.cost.rounds)

    @property
    def conventions(self) -> list[str]:
        """Sentences that define the quantities, and the length if it is not the model's context."""
        length = [LENGTH.format(self.model, self.longer_context, self.seq_len)] if self.longer_context else []
        if self.machine is None or self.compute_seconds(self.overall) is None:
            return length + CONVENTIONS
        return length + [
            SECONDS_WITH_COMPUTE.format(self.machine.name) if sentence == SECONDS_WITHOUT_COMPUTE else sentence
            for sentence in CONVENTIONS
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the record, whose keys `pi_sim.cli.json_help` explains."""
        return {
            **{name: getattr(self, name) for name in SCENARIO_KEYS},
            "total": self._total_fields(self.overall),
            "without_embedding_and_head": self._total_fields(self.body),
            "session_bytes": self.session_bytes,
            "rows": [
                {name: getattr(row, name) for name in ROW_KEYS} | self._cost_fields(row.cost) for row in self.rows
            ],
            "conventions": self.conventions,
        }

    def numbers(self, part: Subtotal) -> dict[str, float | None]:
        """Return rounds, bytes and seconds of a part under the names of columns; None where one is unknown."""
        cost = part.cost
        return {
            "rounds": cost.rounds,
            "bytes": cost.bytes,
            "server_bytes": cost.sent[0],
            "client_bytes": cost.sent[1],
            "ahead_bytes": cost.ahead_bytes,
            "session_bytes": cost.session_bytes,
            "offline_bytes": cost.offline if self.offline_known else None,
            "compute_seconds": self.compute_seconds(part),
            **{f"seconds_{name}": seconds for name, seconds in self.seconds(part).items()},
            **{f"first_query_seconds_{name}": seconds for name, seconds in self.first_query_seconds(part).items()},
        }

    def frame(self, by: View | None = None) -> "pd.DataFrame":
        """Return a row for each shape in each module, or sums by op, layer or module, or the total.

        The columns are rounds, bytes, and seconds by network, as in the CSV of `pi-sim estimate`.
        """
        import pandas as pd

        if by is not None:
            parts = self.group_by(by)
            return pd.DataFrame([{by: key, "count": part.count, **self.numbers(part)} for key, part in parts.items()])
        heads = [{name: getattr(row, name) for name in ROW_KEYS} for row in self.rows]
        return pd.DataFrame(
            [head | self.numbers(Subtotal.sum_of([row])) for head, row in zip(heads, self.rows, strict=True)]
        )

    def _repr_html_(self) -> str:
        return html_table(self.title, self.frame("op"))

    def _total_fields(self, part: Subtotal) -> dict[str, Any]:
        return {
            **self._cost_fields(part.cost),
            "seconds": self.seconds(part),
            "compute_seconds": self.compute_seconds(part),
            "ahead_compute_seconds": self.ahead_compute_seconds(part),
            "first_query_seconds": self.first_query_seconds(part),
        }

    def _cost_fields(self, cost: Cost) -> dict[str, Any]:
        return {**cost_fields(cost), **({} if self.offline_known else {"offline_bytes": None})}

    def _ranking_key(self, part: Subtotal) -> float:
        return next(iter(self.seconds(part).values()), part.cost.bytes)


def describe_tokens(seq_len: int, batch: int, past: int | None, generate: int | None = None) -> str:
    """Return the tokens: "128 tokens", "8 sequences of 128 tokens each", "1 token after 511", and so on."""
    if generate:
        return f"{seq_len:,} token{'s' if seq_len > 1 else ''} and {generate:,} generated ones"
    tokens = f"{seq_len:,} token{'s' if seq_len > 1 else ''}" + ("" if past is None else f" after {past:,}")
    return tokens if batch == 1 else f"{batch:,} sequences of {tokens} each"


def cost_fields(cost: Cost) -> dict[str, Any]:
    """Return a cost under the keys of records."""
    return {
        "rounds": cost.rounds,
        "bytes": cost.bytes,
        "bytes_by_party": list(cost.sent),
        "ahead_bytes": cost.ahead_bytes,
        "session_bytes": cost.session_bytes,
        "offline_bytes": cost.offline,
    }


def estimate_model(
    source: ModelSource,
    protocol: PricedProtocol,
    seq_len: int | None,
    networks: list[Network],
    *,
    batch: int = 1,
    past: int | None = None,
    inner: bool = False,
    machine: Machine | None = None,
    prompt_len: int | None = None,
    generate: int | None = None,
) -> Estimate:
    """Price one inference of a model under a protocol.

    `seq_len` is the model's context by default, or less where that is too long to be priced; with `past` the inference
    is one decode step after that many tokens in a KV cache, with `generate` a prompt of `prompt_len` and so many tokens
    behind it. `inner` leaves out embedding and head, for which not every protocol has a price. Torch is imported only
    for what no earlier estimate has derived.
    """
    executable = pricing.executable_or_none(protocol)
    length, censuses = scenario_censuses(source, seq_len, batch, past, inner, executable, prompt_len, generate)
    is_shortened = seq_len is past is generate is None and length < source.context
    return estimate_censuses(
        censuses,
        protocol,
        networks,
        machine,
        longer_context=source.context if is_shortened else None,
        model=source.name,
        size=source.label,
        seq_len=length,
        batch=batch,
        past=past,
        generate=generate,
        only_inner=inner,
    )


def estimate_censuses(
    censuses: Sequence[Census],
    protocol: PricedProtocol,
    networks: list[Network],
    machine: Machine | None,
    **scenario: Any,
) -> Estimate:
    """Price the censuses of a sequence under a protocol; `scenario` are the fields that say what was counted."""
    return Estimate(
        protocol=protocol.name,
        rows=join_rows(price_sequence(censuses, protocol)),
        embedding_and_head=censuses[0].embedding_and_head,
        networks=networks,
        machine=pricing.machine_of(protocol, machine),
        offline_known=pricing.is_offline_known(protocol),
        **scenario,
    )
