"""Which models there are: cards, sizes, and the trained weights that ship. Reads text only, never torch."""

from collections.abc import Iterator
from pathlib import Path

from pi_sim import records, specs
from pi_sim.errors import UsageError

HEADER = ("model", "size", "norm", "final norm", "activation", "weights", "perplexity", "bits/byte")
Row = tuple[str, ...]


def weights_folder(card: str, size: str) -> Path:
    """Where the shipped checkpoint of a card at a size lies, if there is one."""
    return specs.facts() / "models" / "weights" / f"{card}-{size}"


def rows() -> Iterator[Row]:
    """One row for every card at every size, with the held-out quality of the weights that ship."""
    for name in specs.names("models"):
        design = specs.model_card(name).architecture
        for size in specs.names("models/sizes"):
            found = quality(weights_folder(name, size))
            yield (name, size, design.norm, design.final_norm, design.activation, *found)


def table() -> str:
    """The rows as text, aligned."""
    lines = [HEADER, *rows()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def quality(folder: Path) -> Row:
    """What the record beside the weights says; dashes where none ship."""
    path = folder / "record.json"
    if not path.is_file():
        return "-", "-", "-"
    try:
        held_out = records.load(path)["held_out"]
        return "shipped", f"{held_out['perplexity']:.2f}", f"{held_out['bits_per_byte']:.3f}"
    except (KeyError, TypeError):
        raise UsageError(f"{path} does not tell the perplexity and bits_per_byte of held_out text.") from None
