"""Hugging Face models from cards, configs and checkpoints: untrained, trained, or shapes on the meta device.

The models of cards start from the same initial scale in every family, with dropout on the embedding alone and with a
tied head, so that designs of different families can be compared.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import safetensors
import safetensors.torch
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.utils import logging

from pi_sim import specs
from pi_sim.errors import MissingDependencyError, UsageError
from pi_sim.files import new_folder, user_folder
from pi_sim.zoo.layers import CONFIG_ACTIVATIONS, FusedFFN
from pi_sim.zoo.surgery import Plan, apply_surgery
from pi_sim.zoo.tasks import read_pooling

WEIGHTS_FILE = "model.safetensors"
NATIVE_NORMS = {"gpt2": "layernorm", "gpt_neox": "layernorm", "opt": "layernorm", "llama": "rmsnorm"}
"""Norm of every family, which needs no surgery."""
DESIGN_KEYS = (
    *("model_type", "num_hidden_layers", "num_attention_heads", "hidden_size", "max_position_embeddings", "vocab_size"),
    *("hidden_act", "activation_function", "pi_sim"),
)
"""Keys of config.json that depend on card and size; the others are equal for all, or serve training only."""


def build_model(card: specs.ModelCard, size: specs.Size) -> PreTrainedModel:
    """Build the card's model at that size, with random weights (without data inside `torch.device("meta")`)."""
    model = AutoModelForCausalLM.from_config(_hf_config(card, size))
    return _equalise_initial_scales(apply_surgery(model, _surgery_plan(card.architecture)))


def _hf_config(card: specs.ModelCard, size: specs.Size) -> PretrainedConfig:
    """Return the Hugging Face config of the card at that size, before any surgery."""
    common = {
        "max_position_embeddings": size.context,  # GPT-2's config maps these names to its own
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "vocab_size": size.vocabulary,
        "initializer_range": size.training.init_std,
        "tie_word_embeddings": True,
        "bos_token_id": 0,  # the end-of-text token is the first of every vocabulary that pi-sim trains
        "eos_token_id": 0,
        "attn_implementation": "eager",
    }
    activation = CONFIG_ACTIVATIONS.get(card.architecture.activation, "gelu")
    return CONFIG_BUILDERS[card.architecture.family](size, activation, common)


def _gpt2_config(size: specs.Size, activation: str, common: dict[str, Any]) -> PretrainedConfig:
    dropout = {"embd_pdrop": size.training.embedding_dropout, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    return transformers.GPT2Config(activation_function=activation, **dropout, **common)


def _gpt_neox_config(size: specs.Size, activation: str, common: dict[str, Any]) -> PretrainedConfig:
    """Config of Pythia: attention and FFN in parallel, rotary positions in a quarter of each head."""
    wide = {"intermediate_size": 4 * size.width, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    return transformers.GPTNeoXConfig(hidden_act=activation, **wide, **common)


def _opt_config(size: specs.Size, activation: str, common: dict[str, Any]) -> PretrainedConfig:
    wide = {"ffn_dim": 4 * size.width, "word_embed_proj_dim": size.width, "dropout": 0.0, "attention_dropout": 0.0}
    return transformers.OPTConfig(activation_function=activation, pad_token_id=None, **wide, **common)


def _llama_config(size: specs.Size, activation: str, common: dict[str, Any]) -> PretrainedConfig:
    """Config of Llama: a gated FFN has three matrices, each two thirds as wide (arXiv 2002.05202, section 2)."""
    return transformers.LlamaConfig(hidden_act=activation, intermediate_size=8 * size.width // 3, **common)


CONFIG_BUILDERS: dict[str, Callable[[specs.Size, str, dict[str, Any]], PretrainedConfig]] = {
    "gpt2": _gpt2_config,
    "gpt_neox": _gpt_neox_config,
    "opt": _opt_config,
    "llama": _llama_config,
}


def _surgery_plan(design: specs.Architecture) -> Plan:
    """Return the surgery that the design needs beyond its family's config."""
    native = dict.fromkeys(("norm", "final_norm"), NATIVE_NORMS[design.family]) | {"family": design.family}
    if design.activation in CONFIG_ACTIVATIONS:
        native["activation"] = design.activation
    return {switch: value for switch, value in design.plan().items() if value != native.get(switch)}


def _equalise_initial_scales(model: PreTrainedModel) -> PreTrainedModel:
    """Draw all matrices from one normal distribution, as in arXiv 2410.09637.

    Hugging Face scales GPT-2's matrices that write to the residual stream by 1/sqrt(2 layers), and a matrix fused from
    two has the scale of their product.
    """
    for path, module in model.named_modules():
        if path.endswith("c_proj") or isinstance(module, FusedFFN):
            torch.nn.init.normal_(module.weight, std=model.config.initializer_range)
    return model


def build_meta_model(card: specs.ModelCard, size: specs.Size) -> PreTrainedModel:
    """Return the card's model at that size on the meta device: shapes without data, in evaluation mode."""
    with torch.device("meta"):
        return build_model(card, size).eval()


def build_config_model(path: Path) -> PreTrainedModel:
    """Return the model of a Hugging Face config file on the meta device, in evaluation mode."""
    with torch.device("meta"):
        return _build_from_config(_read_config_file(path)).eval()


def design_differences(folder: Path, card: specs.ModelCard, size: specs.Size) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, card's value and checkpoint's value where the folder's design differs from the card's at that size."""
    expected, actual = _hf_config(card, size), read_config(folder)
    expected.pi_sim = _surgery_plan(card.architecture)
    for key in DESIGN_KEYS:
        if getattr(actual, key, None) != getattr(expected, key, None):
            yield key, getattr(expected, key, None), getattr(actual, key, None)


def read_config(folder: Path) -> Any:
    """Return the folder's config.json as a Hugging Face config with plain ("eager") attention."""
    return _read_config_file(folder / "config.json")


def _read_config_file(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"{path.parent} has no config.json: give a folder saved by pi-sim or by save_pretrained.")
    try:
        return AutoConfig.from_pretrained(path, attn_implementation="eager", local_files_only=True)
    except Exception as error:  # transformers has no common exception for a config that it cannot read
        raise UsageError(f"{path} cannot be read: {_first_line(error)}") from None


def load_checkpoint(folder: Path) -> PreTrainedModel:
    """Load a checkpoint in float32, in evaluation mode. Raises `UsageError` for a missing or surplus weight."""
    config = read_config(folder)
    read = _load_own_checkpoint if hasattr(config, "pi_sim") else _load_foreign_checkpoint
    try:
        model = read(folder, config).float().eval()
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise UsageError(f"the weights in {folder} do not load: {_first_line(error)}") from None
    _check_finite(model, folder)
    return model


def unpack_gguf(path: Path) -> Path:
    """Return a folder of the user's cache with the float32 weights and the tokenizer of a GGUF file, made once.

    Raises `UsageError` for a file that cannot be read, and `MissingDependencyError` without the package gguf.
    """
    try:
        status = path.stat()
    except OSError:
        raise UsageError(f"there is no file {path}.") from None
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    folder = user_folder("XDG_CACHE_HOME", "~/.cache") / "gguf" / hashlib.sha256(key.encode()).hexdigest()[:32]
    if (folder / "config.json").is_file():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(f"{path} needs the package gguf; run `pip install gguf`.")
    click.echo(f"{path}: unpacked into {folder}, once", err=True)
    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # transformers has no common exception for a file that it cannot read
        raise UsageError(f"{path} cannot be read: {_first_line(error)}") from None
    with new_folder(folder) as staged, quiet_transformers():
        model.config.quantization_config = None  # the weights are plain float32 now
        save_checkpoint(model, staged)
        tokenizer.save_pretrained(staged)
    return folder


def save_checkpoint(model: PreTrainedModel, folder: Path) -> None:
    """Write config.json and model.safetensors for `load_checkpoint`, and, without surgery, for transformers."""
    model.config.architectures = [type(model).__name__]
    model.config.dtype = next(model.parameters()).dtype
    model.config.save_pretrained(folder)
    safetensors.torch.save_model(model, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})


def _build_from_config(config: Any) -> PreTrainedModel:
    """Build the model that a config describes, surgery included."""
    try:
        with quiet_transformers():
            model = model_class(config)._from_config(config, attn_implementation="eager", dtype=torch.float32)
    except UsageError:
        raise
    except Exception as error:  # transformers has no common exception for values that it does not expect
        raise UsageError(f"no model can be built from this config: {_first_line(error)}") from None
    plan = getattr(config, "pi_sim", {})
    if not isinstance(plan, dict):
        raise UsageError(f"config.json names its surgery as {plan!r}; pi_sim must be a table such as {{}}.")
    return apply_surgery(model, plan) if hasattr(config, "pi_sim") else model


def _load_own_checkpoint(folder: Path, config: Any) -> PreTrainedModel:
    """Load a checkpoint of `save_checkpoint`: build the model of its config, then load every weight strictly."""
    model = _build_from_config(config)
    safetensors.torch.load_model(model, folder / WEIGHTS_FILE)
    return model


def _load_foreign_checkpoint(folder: Path, config: Any) -> PreTrainedModel:
    """Load any Hugging Face model that its config names; transformers would fill missing weights at random.

    Tensors that the model does not have, such as another task's head, are left out.
    """
    with quiet_transformers():
        model, info = model_class(config).from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    wrong = [key for kind in ("missing_keys", "mismatched_keys") for key in info[kind]]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are missing or do not fit its config.json, first {wrong[0]}.")
    model.pooling = read_pooling(folder)
    loaded: PreTrainedModel = model
    return loaded


def _check_finite(model: PreTrainedModel, folder: Path) -> None:
    """Raise `UsageError` for a weight that is no number."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise UsageError(f"{name} in {folder} holds NaN or infinite numbers; the checkpoint is damaged.")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers report errors only; pi-sim reports the rest, and progress."""
    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


FALLBACK_MODEL_MAPPINGS = (
    modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
    modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_MAPPING,
)
"""Model classes in order of preference if a config names none; masked models first, as encoders have both."""


def model_class(config: Any) -> Any:
    """Return the class that the config's `architectures` name, or else the usual one of its family."""
    for name in config.architectures or ():
        named = getattr(transformers, str(name), None)
        if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
            return named
    usual = next((mapping[type(config)] for mapping in FALLBACK_MODEL_MAPPINGS if type(config) in mapping), None)
    if usual is None:
        raise UsageError(f"transformers has no model for a config of type {config.model_type!r} alone.")
    return usual[0] if isinstance(usual, tuple) else usual
