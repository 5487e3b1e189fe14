"""Python interface: the commands of pi-sim as functions, whose results have data frames and show in notebooks.

Importing this module needs neither torch nor pandas. Arguments have the names of the command line's options, in the
plural where several values may be given. What the command line refuses raises a `UsageError` with its sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from pi_sim.cost.estimate import DETAILS, SCENARIO_KEYS, Estimate, estimate_model
from pi_sim.cost.rows import View
from pi_sim.errors import UsageError
from pi_sim.resolution import (
    DEFAULT_MODEL,
    check_counts,
    is_module,
    resolve_machine,
    resolve_models,
    resolve_networks,
    resolve_protocols,
)
from pi_sim.results import Result, html_table

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from pi_sim.cost.cost import Machine
    from pi_sim.cost.modules import ExampleInputs
    from pi_sim.resolution import ModelName, NetworkName, OneOrMany, ProtocolName


def estimate(
    model: "ModelName | nn.Module" = DEFAULT_MODEL,
    example_inputs: "ExampleInputs | None" = None,
    protocol: "ProtocolName" = "crypten",
    networks: "OneOrMany[NetworkName]" = ("lan", "wan"),
    *,
    size: str | Path = "tiny",
    seq_len: int | None = None,
    batch: int = 1,
    past: int | None = None,
    inner: bool = False,
    machine: "str | Path | Machine | None" = None,
) -> Estimate:
    """Price one inference of a model under a protocol: rounds, bytes and seconds, without running it.

    `model` is a card's or a public model's name, the path of a card, a config or a checkpoint, a config of
    transformers, or a torch module, which may live on the meta device. A module that is not of transformers needs
    `example_inputs`: a tensor, a tuple of positional arguments or a dict of named ones. Its weights, real numbers and
    integers that an embedding looks up are secret, of which only shapes are read; other integers, booleans and buffers
    are public, with their values. Everything that it returns is opened to the client.

    Raises `UsageError`, which names the operation, the module and the file to edit, for what cannot be expressed or has
    no price.

    >>> pi_sim.estimate(torch.nn.Linear(768, 3072), torch.zeros(1, 128, 768)).total
    Cost(rounds=2, sent=(22806528, 19660800), offline=3145728, serial=22806528, ahead=(0, 0), session=(0, 0))
    """
    check_counts(seq_len=seq_len, batch=batch, past=past)
    (card,), links = resolve_protocols([protocol]), resolve_networks(networks)
    scenario: dict[str, Any] = {"seq_len": seq_len, "batch": batch, "past": past, "inner": inner}
    scenario["machine"] = resolve_machine(machine)
    if is_module(model):
        from pi_sim.cost.modules import estimate_module

        return estimate_module(model, example_inputs, card, links, **scenario)
    if example_inputs is not None:
        raise UsageError("example_inputs are those of a torch module; give seq_len and batch for any other model.")
    (source,) = resolve_models([model], [size])
    return estimate_model(source, card, networks=links, **scenario)


def compare(
    *models: "ModelName | Estimate",
    protocols: "OneOrMany[ProtocolName]" = "crypten",
    networks: "OneOrMany[NetworkName]" = "wan",
    size: str | Path = "tiny",
    seq_len: int | None = None,
    batch: int = 1,
    past: int | None = None,
    inner: bool = False,
    machine: "str | Path | Machine | None" = None,
) -> "Comparison":
    """Price models or protocols side by side, with ratios to the first.

    Name two models, or two protocols. An estimate, such as that of a module, may stand in place of a model; it keeps
    its protocol. Raises `UsageError` where lengths differ.
    """
    from pi_sim.report.estimates import check_comparable

    check_counts(seq_len=seq_len, batch=batch, past=past)
    cards, links, profile = resolve_protocols(protocols), resolve_networks(networks), resolve_machine(machine)
    scenario: dict[str, Any] = {"batch": batch, "past": past, "inner": inner, "machine": profile}
    estimates: list[Estimate] = []
    for model in models:
        if isinstance(model, Estimate):
            estimates.append(replace(model, networks=links))
        else:
            sources = resolve_models([model], [size])
            estimates += [
                estimate_model(source, card, seq_len, links, **scenario) for source in sources for card in cards
            ]
    return Comparison(check_comparable(estimates))


def models() -> "Listing":
    """List the models: designs with their norm and activation, the sizes with trained weights, and public models."""
    from pi_sim.report.terminal import list_designs, list_weights
    from pi_sim.zoo.source import list_configs

    designs, weights = list_designs(), list_weights()
    rows: list[dict[str, Any]] = []
    for design in designs:
        trained = [row for row in weights if row["model"] == design["model"]]
        sizes = ", ".join(row["size"] for row in trained)
        perplexity = float(trained[0]["perplexity"]) if trained else None
        rows.append({"name": design.pop("model"), **design, "trained": sizes, "perplexity": perplexity})
    public = [{"name": name} for name in list_configs()]
    return Listing(f"{len(rows)} designs and {len(public)} public models", [*rows, *public])


def protocols() -> "Listing":
    """List the protocols: what they assume, where they come from, and whether prices are derived or declared."""
    from pi_sim.cost.pricing import protocol_names
    from pi_sim.report.terminal import protocol_header

    rows = [protocol_header(protocol) for protocol in resolve_protocols(protocol_names())]
    return Listing(f"{len(rows)} protocols", rows)


def networks() -> "Listing":
    """List the named networks, each with its source."""
    from pi_sim.report.terminal import network_rows

    return Listing(f"{len(rows := network_rows())} networks", rows)


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

    def _repr_html_(self) -> str:
        return html_table(self.title, self.frame(), hidden=DETAILS)


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
