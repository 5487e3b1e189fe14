"""Sources of models: `--model` and `--size`, resolved once into a card, a public config or a checkpoint.

Importing this module needs no torch; `ModelSource.meta` and `ModelSource.load` import it when they are called.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from pi_sim import specs
from pi_sim.errors import UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

OWN_SIZE = "own"
"""Label of the size of every model that a config describes."""
MAX_LENGTH = 16_384
"""Tokens. The attention mask, a number for each pair of them, has to fit into 4 GB with everything else."""
MODERATE_LENGTH = 2_048
"""Tokens at which a model is priced by default if its context is longer than `MAX_LENGTH`."""
OFFSET_POSITION_FAMILIES = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "camembert",
    "data2vec-text",
)
"""Families whose positions start behind the padding token's number, which shortens their context."""


@dataclass(frozen=True)
class ModelSource(ABC):
    """A model that a command names: its name, its dimensions, and how to build it."""

    name: str
    """The text of `--model`, which records repeat."""

    @staticmethod
    def parse(name: str, size: str) -> "ModelSource":
        """Resolve `--model` and `--size`; a model with a config ignores the size.

        A card's name comes before a folder, and a folder with a config.json before a public model. A name such as
        org/name, which is no path here, is one of the Hugging Face Hub. Raises `UsageError` for a name, a path or a
        size that does not exist.
        """
        if name in specs.list_names("models"):
            return CardModel.parse(name, size)
        if name.endswith(".json"):
            return ConfigModel.read(name, Path(name))
        if (Path(name) / CONFIG_FILE).is_file():
            return Checkpoint.read(name, Path(name) / CONFIG_FILE)
        if file := find_gguf(Path(name)):
            return Checkpoint.read(name, unpack_gguf(file) / CONFIG_FILE)
        if name in list_configs():
            return ConfigModel.read(name, configs_folder() / f"{name}.json")
        if Path(name).is_dir():
            raise UsageError(
                f"{name} has no config.json and no single .gguf file; give a folder saved by pi-sim or save_pretrained."
            )
        if HUB_NAME.fullmatch(name) and not Path(name).exists():
            return HubModel.read(name, download_from_hub(name, [CONFIG_FILE]) / CONFIG_FILE)
        return CardModel.parse(name, size)

    @property
    @abstractmethod
    def label(self) -> str:
        """The size's name in records."""

    @property
    @abstractmethod
    def context(self) -> int:
        """The longest sequence that the model reads, in tokens; a `UsageError` if a config does not state it."""

    @property
    def default_length(self) -> int:
        """The tokens that are priced unless others are named: the context, or a moderate length if that is too long."""
        return self.context if self.context <= MAX_LENGTH else MODERATE_LENGTH

    @property
    @abstractmethod
    def identity(self) -> Any:
        """Everything that the model's graph depends on, as JSON: part of the key of a cached census."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The folder of the trained weights; a `UsageError` if there are none."""

    @abstractmethod
    def meta(self) -> "PreTrainedModel":
        """Build the model on the meta device: shapes without data, in evaluation mode."""

    @abstractmethod
    def load(self) -> "PreTrainedModel":
        """Load the trained model, float32 and in evaluation mode; a `UsageError` if its weights do not fit."""


@dataclass(frozen=True)
class CardModel(ModelSource):
    """A model card at a size; for some of them trained weights ship."""

    size_name: str
    """The text of `--size`."""
    card: specs.ModelCard
    size: specs.Size

    @classmethod
    def parse(cls, name: str, size: str) -> "CardModel":
        """Read the card and the size, each a name or the path of a TOML file."""
        return cls(name, size, specs.load_model_card(name), specs.load_size(size))

    @property
    def label(self) -> str:
        return self.size_name

    @property
    def context(self) -> int:
        return self.size.context

    @property
    def identity(self) -> Any:
        return [self.card.model_dump(), self.size.model_dump()]

    @property
    def folder(self) -> Path:
        path = weights_folder(self.card.name, self.size.name)
        if not path.is_dir():
            raise UsageError(f"no trained weights of {self.name} at size {self.label} are shipped; {self._remedy}")
        return path

    def meta(self) -> "PreTrainedModel":
        from pi_sim.zoo import build

        return build.build_meta_model(self.card, self.size)

    def load(self) -> "PreTrainedModel":
        from pi_sim.zoo import build

        folder = self.folder
        for key, expected, shipped in build.design_differences(folder, self.card, self.size):
            raise UsageError(
                f"{self.name} at size {self.label} is not the model of the weights shipped as {folder.name}: {key} is "
                f"{expected!r} here and {shipped!r} there; {self._remedy}"
            )
        return build.load_checkpoint(folder)

    @property
    def _remedy(self) -> str:
        train = f"pi-sim train --model {self.name} --size {self.label} --out DIR"
        return f"train it with `{train}`, then use --model DIR."


@dataclass(frozen=True)
class ConfigModel(ModelSource):
    """A Hugging Face config without weights: a public model by name, or a .json file."""

    path: Path
    text: str

    @classmethod
    def read(cls, name: str, path: Path) -> Self:
        """Read the text of the config; a `UsageError` if there is no such file or it is no text."""
        return cls(name, path, _read_config(path))

    @property
    def label(self) -> str:
        return OWN_SIZE

    @property
    def context(self) -> int:
        with suppress(ValueError, AttributeError, KeyError, TypeError, ZeroDivisionError):
            if context := config_context(json.loads(self.text)):
                return context
        raise UsageError(f"{self.path} does not state the model's context; give --seq-len.")

    @property
    def identity(self) -> Any:
        return self.text

    @property
    def folder(self) -> Path:
        raise UsageError(
            f"{self.name} is a config without weights: it can be estimated; to run it, give a folder with weights."
        )

    def meta(self) -> "PreTrainedModel":
        from pi_sim.zoo import build

        return build.build_config_model(self.path)

    def load(self) -> "PreTrainedModel":
        from pi_sim.zoo import build

        return build.load_checkpoint(self.folder)


@dataclass(frozen=True)
class Checkpoint(ConfigModel):
    """A folder with a config.json and weights, saved by pi-sim or by save_pretrained."""

    @property
    def folder(self) -> Path:
        return self.path.parent


@dataclass(frozen=True)
class ConfigObject(ConfigModel):
    """A config of transformers that a program made: it is read as its file would be."""

    @classmethod
    def of(cls, config: "PretrainedConfig") -> Self:
        """Take the values of a config; its name is that of its checkpoint, or of its class."""
        name = config.name_or_path or type(config).__name__
        return cls(name, Path(name), config.to_json_string(use_diff=False))

    def meta(self) -> "PreTrainedModel":
        with TemporaryDirectory(prefix="pi-sim-") as folder:
            (Path(folder) / CONFIG_FILE).write_text(self.text, encoding="utf-8")
            return ConfigModel.read(self.name, Path(folder) / CONFIG_FILE).meta()


@dataclass(frozen=True)
class HubModel(Checkpoint):
    """A model of the Hugging Face Hub, whose weights are downloaded once they are needed, or come from its cache."""

    @property
    def folder(self) -> Path:
        return download_from_hub(self.name, HUB_FILES)


CONFIG_FILE = "config.json"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9](?:[\w.-]*[\w])?(?<!\.toml)(?<!\.json)")
"""Names of the Hub: an organisation and a model; cards and configs by their paths end otherwise."""
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "pytorch_model*.bin"]
"""Files of a model of the Hub: configs, weights and tokenizers."""


def find_gguf(path: Path) -> Path | None:
    """Return a path that is a GGUF file's, or the only such file of a folder."""
    if path.suffix == ".gguf":
        return path
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    return files[0] if len(files) == 1 else None


def unpack_gguf(path: Path) -> Path:
    """Return the folder into which a GGUF file is unpacked."""
    from pi_sim.zoo import build

    return build.unpack_gguf(path)


def download_from_hub(name: str, files: list[str]) -> Path:
    """Return the folder of a Hub model's files in huggingface_hub's cache; a `UsageError` where it has none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except HfHubHTTPError as error:  # an OSError too
        reason = f"is no folder here, and the Hugging Face Hub refuses it ({str(error).splitlines()[0]})"
    except (LocalEntryNotFoundError, OSError):
        reason = "is no folder here, and not in the cache of the Hugging Face Hub, which cannot be reached"
    raise UsageError(f"{name} {reason}; give a path, or download it on a machine with a connection.")


def _read_config(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file in UTF-8.") from None
    except OSError:
        raise UsageError(f"there is no file {path}.") from None


def list_configs() -> list[str]:
    """Return the names of the public models whose configs ship."""
    return sorted(path.stem for path in configs_folder().glob("*.json"))


def configs_folder() -> Path:
    """Return the folder of the configs of public models."""
    return specs.data_root() / "models" / "configs"


RELATIVE_CONTEXT = 512
"""Tokens on which T5 was trained; its relative positions set no limit (arXiv 1910.10683)."""


def config_context(config: Mapping[str, Any]) -> int | None:
    """Return the longest sequence of a config, for images all patches and the class token; None without a limit."""
    if "image_size" in config and "patch_size" in config:
        return _patch_count(config["image_size"], config["patch_size"]) + 1
    positions = config.get("n_positions") or config.get("max_position_embeddings")
    if positions is None:
        return RELATIVE_CONTEXT if "relative_attention_num_buckets" in config else None
    offset = config["pad_token_id"] + 1 if config.get("model_type") in OFFSET_POSITION_FAMILIES else 0
    return int(positions) - int(offset)


def _patch_count(image: Any, patch: Any) -> int:
    """Return the patches that cover an image; either size is one number, or height and width."""
    (height, width), (patch_height, patch_width) = (
        (size, size) if isinstance(size, int) else size for size in (image, patch)
    )
    return int(height // patch_height) * int(width // patch_width)


def weights_folder(card: str, size: str) -> Path:
    """Return the folder of a card's shipped weights at a size, which need not exist."""
    return specs.data_root() / "models" / "weights" / f"{card}-{size}"
