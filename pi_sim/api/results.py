"""Results of the Python interface: comparisons, sweeps, the choice of a design, and lists of what exists."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from pi_sim.cost.estimate import SCENARIO_KEYS, Estimate, describe_tokens
from pi_sim.cost.rows import View
from pi_sim.errors import UsageError
from pi_sim.grid.table import comparable_seconds
from pi_sim.report.tables import format_perplexity
from pi_sim.report.terminal import list_counts
from pi_sim.results import Result, html_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pi_sim.grid.table import SweepRow
    from pi_sim.records import Answer, Perplexity, RunRecord


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Two or more estimates side by side; A is the first."""

    estimates: list[Estimate]

    @property
    def title(self) -> str:
        """The subjects."""
        return " | ".join(f"{item.model} ({item.size}), protocol {item.protocol}" for item in self.estimates)

    def frame(self, by: View | None = None) -> "pd.DataFrame":
        """Return a row for each estimate, or rows by op, layer or module with columns as in `pi-sim compare`'s CSV."""
        import pandas as pd

        from pi_sim.report.estimates import comparison_table

        if by is None:
            heads = [{key: getattr(item, key) for key in SCENARIO_KEYS} for item in self.estimates]
            numbers = [item.numbers(item.overall) for item in self.estimates]
            return pd.DataFrame([head | line for head, line in zip(heads, numbers, strict=True)])
        table = comparison_table(self.estimates, by, everything=True)
        return pd.DataFrame(table.rows or table.totals, columns=[column.key for column in table.columns])


@dataclass(frozen=True, repr=False)
class PrivateRun(Result):
    """A run between two parties on this machine: its record, and the results that the client got."""

    record: "RunRecord"
    outputs: "np.ndarray" = field(compare=False)
    """Private logits (n, ..., C) or vectors (n, d) of the inputs."""

    @property
    def answers(self) -> "tuple[Answer, ...]":
        """What the results say: the most probable next tokens or labels, with private and plain probabilities."""
        return self.record.answers

    @property
    def text(self) -> str | None:
        """Continuation of the prompt; None where nothing was generated."""
        return self.record.generation.text if self.record.generation else None

    @property
    def perplexity(self) -> "Perplexity | None":
        """Plain and private perplexity on the same tokens; None for a prompt, and without a next token."""
        return self.record.perplexity

    @property
    def title(self) -> str:
        """The model and the protocol, with the seconds of one sequence and the quality."""
        record, answer = self.record, next(iter(self.answers), None)
        scenario = f"{record.model} ({record.size}), protocol {record.protocol}"
        tokens = f"{len(self.outputs)} x {record.seq_len:,} tokens"
        unit = "sequence" if record.batch == 1 else "batch"
        quality = f", first answer {answer.text!r}" if answer else ""
        if self.text is not None:
            quality = f", continued by {self.text!r}"
        if self.perplexity:
            plain, private = map(format_perplexity, (self.perplexity.plain, self.perplexity.private))
            quality = f", perplexity {plain} plain, {private} private"
        return f"{scenario}, {tokens}: {record.measured.seconds:,.3g} s a {unit}{quality}"

    def frame(self) -> "pd.DataFrame":
        """Return what was predicted of one sequence beside what was measured: rounds, bytes and seconds."""
        import pandas as pd

        measured = self.record.measured
        seconds = [
            ("seconds", None, measured.seconds),
            ("communication seconds", measured.predicted_communication_seconds, measured.communication_seconds),
            ("compute seconds", measured.predicted_compute_seconds, measured.compute_seconds),
        ]
        counts = [(row["title"], row["predicted"], row["measured"]) for row in list_counts(self.record)]
        return pd.DataFrame([*counts, *seconds], columns=["quantity", "predicted", "measured"], dtype=object)

    def _repr_html_(self) -> str:
        import pandas as pd

        answers = pd.DataFrame([answer.model_dump() for answer in self.answers])
        return super()._repr_html_() + ("" if answers.empty else html_table("answers", answers))


@dataclass(frozen=True, repr=False)
class Listing(Result, Sequence[str]):
    """Names, with what is known of each in a row."""

    subject: str
    rows: list[dict[str, Any]]

    @property
    def names(self) -> list[str]:
        """The names in the order of the rows."""
        return [row["name"] for row in self.rows]

    @property
    def title(self) -> str:
        """What it lists, and the first names."""
        return f"{self.subject}: {shorten(', '.join(self.names), 80, placeholder=' ...')}"

    def frame(self) -> "pd.DataFrame":
        """Return a row for each name."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.names[index]

    def _repr_html_(self) -> str:
        return html_table(self.subject, self.frame())


@dataclass(frozen=True, repr=False)
class SweepResult(Result):
    """Rows of a sweep, with the perplexities of the designs that were trained."""

    rows: "list[SweepRow]"

    @property
    def title(self) -> str:
        """Numbers of estimates, models, protocols and networks."""
        lacking = sum(row.reason is not None for row in self.rows)
        axes = {name: len(_values(self.rows, name)) for name in ("model", "protocol", "network")}
        counts = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in axes.items()]
        return f"{len(self.rows):,} estimates of {', '.join(counts)}; {lacking:,} without a price"

    def frame(self) -> "pd.DataFrame":
        """Return a row for each combination, with the columns of `pi-sim sweep`."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.rows[0]._fields) if self.rows else None)

    def best(self, max_perplexity: float | None = None, network: str | None = None, **columns: Any) -> "DesignChoice":
        """Return the fastest row on a network whose design has a perplexity of at most `max_perplexity`.

        `columns` restrict the rows further, such as seq_len=128 or protocol="lean". Without a limit, designs that were
        not trained count too. Seconds include computing if that is known of all these rows. Raises `UsageError` where
        rows of several networks, lengths or batches remain, which cannot be compared, and where no row meets the limit.
        """
        if not isinstance(max_perplexity, int | float | None):
            raise UsageError(f"max_perplexity is {max_perplexity!r}; give a number.")
        rows = self.rows
        for name, value in {**({"network": network} if network else {}), **columns}.items():
            rows = _rows_with(rows, name, value)
        for name in ("network", "seq_len", "batch", "past", "only_inner"):
            if len(_values(rows, name)) > 1:
                raise UsageError(f"the sweep has several values of {name}: {_list(rows, name)}; give best one of them.")
        priced = [row for row in rows if row.reason is None]
        if not priced:
            raise UsageError(f"no row has a price: {rows[0].reason}")
        if max_perplexity is not None:
            priced = self._limit(priced, max_perplexity)
        seconds, index = min((seconds, index) for index, seconds in enumerate(comparable_seconds(priced)))
        return DesignChoice(priced[index], seconds)

    def _limit(self, rows: "list[SweepRow]", limit: float) -> "list[SweepRow]":
        """Return the rows up to a perplexity; a `UsageError` that names the lowest if there are none."""
        trained = [(row.perplexity, row) for row in rows if row.perplexity is not None]
        rows_within = [row for perplexity, row in trained if perplexity <= limit]
        if rows_within:
            return rows_within
        if not trained:
            raise UsageError("no design has a known perplexity; give sweep the folder of its training as records.")
        least, row = min(trained, key=lambda pair: pair[0])
        lowest = f"the lowest is {least:.2f}, of {row.model} ({row.size})"
        raise UsageError(f"no design has a perplexity of at most {limit:g}; {lowest}; allow a larger one.")


def _rows_with(rows: "list[SweepRow]", name: str, value: Any) -> "list[SweepRow]":
    """Return the rows with a value in a column; a `UsageError` if there are none."""
    if name not in rows[0]._fields:
        raise UsageError(f"the sweep has no column {name}; choose one of {', '.join(rows[0]._fields)}.")
    selection = [row for row in rows if getattr(row, name) == value]
    if not selection:
        raise UsageError(f"the sweep has no {name} {value!r}; choose one of {_list(rows, name)}.")
    return selection


def _values(rows: "list[SweepRow]", name: str) -> list[Any]:
    """Return the values of a column, each once."""
    return list(dict.fromkeys(getattr(row, name) for row in rows))


def _list(rows: "list[SweepRow]", name: str) -> str:
    return ", ".join(str(value) for value in _values(rows, name))


@dataclass(frozen=True, repr=False)
class DesignChoice(Result):
    """The row of a sweep that was chosen, and its seconds, by which it was."""

    row: "SweepRow"
    seconds: float

    @property
    def model(self) -> str:
        """The design."""
        return self.row.model

    @property
    def protocol(self) -> str:
        """The protocol."""
        return self.row.protocol

    @property
    def perplexity(self) -> float | None:
        """Perplexity of the design, None if it is not known."""
        return self.row.perplexity

    @property
    def title(self) -> str:
        """The design and the protocol, with seconds and perplexity."""
        row = self.row
        scenario = f"{row.model} ({row.size}), protocol {row.protocol}"
        tokens = describe_tokens(row.seq_len, row.batch, row.past)
        quality = "" if self.perplexity is None else f", perplexity {self.perplexity:.2f}"
        return f"{scenario}, {tokens}: {row.network} {self.seconds:,.3g} s{quality}"

    def frame(self) -> "pd.DataFrame":
        """Return the row."""
        import pandas as pd

        return pd.DataFrame([self.row._asdict()])
