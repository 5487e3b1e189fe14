"""What a row is about: the model, the protocol, and where the runs differ in them, the length and the network."""

from collections.abc import Sequence

from pi_sim.reporting.recorded import Run
from pi_sim.reporting.tables import Cell, Column
from pi_sim.reporting.units import COUNT

PRICED = ("seq_len",)
"""What a price depends on, beside the model and the protocol."""
MEASURED = ("seq_len", "network")
"""What a measurement depends on, beside them."""
VARIABLE = {"seq_len": Column("seq_len", "length", COUNT), "network": Column("network", "network")}


def columns(runs: list[Run], keys: Sequence[str] = PRICED) -> list[Column]:
    """The columns that tell these runs apart."""
    return [Column("model", "model"), Column("protocol", "protocol"), *(VARIABLE[key] for key in _varied(runs, keys))]


def cells(runs: list[Run], run: Run, keys: Sequence[str] = PRICED) -> list[Cell]:
    """What tells this run from the others."""
    return [run.model, run.protocol, *(run.record[key] for key in _varied(runs, keys))]


def lead(runs: list[Run]) -> str:
    """The length and the network of every row, said once where they are the same for all."""
    varied = _varied(runs, MEASURED)
    tokens = "of the length in its row" if "seq_len" in varied else f"of {runs[0].length:,} tokens"
    network = "on the imitated network in its row" if "network" in varied else _imitated(runs[0].record["network"])
    return f"Costs are those of one sequence {tokens}, measured between two processes on one machine {network}."


def _imitated(network: str) -> str:
    return "without an imitated network" if network == "none" else f"on the imitated network `{network}`"


def _varied(runs: list[Run], keys: Sequence[str]) -> list[str]:
    """The settings that these runs do not share."""
    return [key for key in keys if len({run.record[key] for run in runs}) > 1]
