"""Which models there are: cards, sizes, and the trained weights that ship. Reads text only, never torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pi_sim import records, specs
from pi_sim.errors import UsageError

MODEL_TABLE_HEADER = (
    "model",
    "family",
    "norm",
    "final norm",
    "activation",
    "further switches",
    "weights",
    "perplexity",
    "bits/byte",
)
SWITCH_COLUMNS = ("family", "norm", "final_norm", "activation")
"""The switches that have a column of their own."""
TableRow = tuple[str, ...]


def weights_folder(card: str, size: str) -> Path:
    """Where the shipped checkpoint of a card at a size lies, if there is one."""
    return specs.data_root() / "models" / "weights" / f"{card}-{size}"


def model_rows() -> Iterator[TableRow]:
    """One row for every card, with the held-out quality of the weights that ship, at the size that they have."""
    for name in specs.list_names("models"):
        design = specs.load_model_card(name).architecture
        shipped = [size for size in specs.list_names("models/sizes") if weights_folder(name, size).is_dir()]
        for size in shipped or ["-"]:
            told = (str(getattr(design, column)) for column in SWITCH_COLUMNS)
            yield (name, *told, further_switches(design), size, *heldout_quality(weights_folder(name, size)))


def further_switches(design: specs.Architecture) -> str:
    """What else is switched, as `--set` takes it."""
    plan = {switch: value for switch, value in design.plan().items() if switch not in SWITCH_COLUMNS}
    return " ".join(f"{switch}={_switch_value(value)}" for switch, value in plan.items())


def _switch_value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def model_table() -> str:
    """The rows as text, aligned."""
    lines = [MODEL_TABLE_HEADER, *model_rows()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    sizes = f"sizes: {', '.join(specs.list_names('models/sizes'))}"
    public = f"public models, to be estimated: {', '.join(specs.configs.list_configs())}"
    return "\n".join(line.rstrip() for line in (*padded, "", sizes, public))


def heldout_quality(folder: Path) -> TableRow:
    """What the record beside the weights says; dashes where none ship."""
    path = folder / "record.json"
    if not path.is_file():
        return "-", "-"
    held_out = records.load(path, records.TrainingRecord).held_out
    if held_out is None or held_out.perplexity is None or held_out.bits_per_byte is None:
        raise UsageError(f"{path} does not tell the perplexity and bits_per_byte of held_out text.")
    return f"{held_out.perplexity:.2f}", f"{held_out.bits_per_byte:.3f}"
