"""Models described by a Hugging Face config: those of `models/configs` by name, checkpoint folders, and files."""

# MERGED: Which models there are: cards, sizes, and the trained weights that ship. Reads text only, never torch.
# MERGED: What operations a question to a model takes, counted by module: a graph without its data, small enough to keep.  # noqa: E501

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.specs import toml
from pi_sim.zoo import source

OFFSET_POSITION_FAMILIES = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "camembert",
    "data2vec-text",
)
"""Families whose positions start behind the padding token's number, which shortens their context."""


def list_configs() -> list[str]:
    """The configs that are known by name."""
    return sorted(path.stem for path in (toml.data_root() / "models" / "configs").glob("*.json"))


def config_path(model: str) -> Path | None:
    """The config that `--model` means; None for a card, whose name comes before a folder's and a known config's."""
    if model in toml.list_names("models"):
        return None
    if model.endswith(".json"):
        if not Path(model).is_file():
            raise UsageError(f"there is no file {model}.")
        return Path(model)
    own = Path(model) / "config.json"
    return (
        toml.data_root() / "models" / "configs" / f"{model}.json"
        if model in list_configs() and not own.is_file()
        else own
    )


def config_text(model: str) -> str | None:
    """The config's text; None for a card, and where there is no such file."""
    found = config_path(model)
    try:
        return found.read_text(encoding="utf-8") if found else None
    except UnicodeDecodeError:
        raise UsageError(f"{found} is not a text file in UTF-8.") from None
    except OSError:
        return None


def config_context(config: Mapping[str, Any]) -> int | None:
    """The most tokens that a model reads, all those of an image and its class token; None where it has no limit."""
    if "image_size" in config and "patch_size" in config:
        return _patch_count(config["image_size"], config["patch_size"]) + 1
    positions = config.get("n_positions") or config.get("max_position_embeddings")
    if positions is None:
        return None
    taken = config["pad_token_id"] + 1 if config.get("model_type") in OFFSET_POSITION_FAMILIES else 0
    return int(positions) - int(taken)


def _patch_count(image: Any, patch: Any) -> int:
    """How many patches cover an image; either size may be one number, or height and width."""
    (height, width), (high, wide) = ((size, size) if isinstance(size, int) else size for size in (image, patch))
    return int(height // high) * int(width // wide)


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
    public = f"public models, to be estimated: {', '.join(list_configs())}"
    return "\n".join(line.rstrip() for line in (*padded, "", sizes, public))


def heldout_quality(folder: Path) -> TableRow:
    """What the record beside the weights says; dashes where none ship."""
    path = folder / records.RECORD_FILE
    if not path.is_file():
        return "-", "-"
    held_out = records.load(path, records.TrainingRecord).held_out
    if held_out is None or held_out.perplexity is None or held_out.bits_per_byte is None:
        raise UsageError(f"{path} does not tell the perplexity and bits_per_byte of held_out text.")
    return f"{held_out.perplexity:.2f}", f"{held_out.bits_per_byte:.3f}"


def model_context(model: str, size: str) -> int:
    """The longest sequence that the model was made for."""
    config = source.config_text(model)
    if config is None:
        return specs.load_size(size).context
    with suppress(ValueError, AttributeError, KeyError, TypeError, ZeroDivisionError):
        if known := source.config_context(json.loads(config)):
            return known
    raise UsageError(f"{source.config_path(model)} does not tell the model's context; give --seq-len.")


def size_label(model: str, size: str) -> str:
    """What a record calls the size: a model with a config has its own."""
    return size if source.config_text(model) is None else "own"


def model_identity(model: str, size: str) -> Any:
    """What the graph depends on: the card and the size, or the config."""
    return source.config_text(model) or [specs.load_model_card(model).model_dump(), specs.load_size(size).model_dump()]
