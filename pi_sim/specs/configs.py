"""Models described by a Hugging Face config: those of `models/configs` by name, checkpoint folders, and files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pi_sim.errors import UsageError
from pi_sim.specs import files

OFFSET_POSITION_FAMILIES = ("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "data2vec-text")
"""Families whose positions start behind the padding token's number, which shortens their context."""


def list_configs() -> list[str]:
    """The configs that are known by name."""
    return sorted(path.stem for path in (files.data_root() / "models" / "configs").glob("*.json"))


def config_path(model: str) -> Path | None:
    """The config that `--model` means; None for a card, whose name comes before a folder's and a known config's."""
    if model in files.list_names("models"):
        return None
    if model.endswith(".json"):
        if not Path(model).is_file():
            raise UsageError(f"there is no file {model}.")
        return Path(model)
    own = Path(model) / "config.json"
    return files.data_root() / "models" / "configs" / f"{model}.json" if model in list_configs() and not own.is_file() else own


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
