"""Tasks of models: what their results are, and how an encoder's token vectors become one vector of the whole input."""

import inspect
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pi_sim.errors import UsageError

Task = Literal["causal", "masked", "labels", "token labels", "vectors", "output"]
"""Results of a model: logits of the next token, of the token itself, of labels of an input or of each token; a vector
of an input; or logits of the tokens that an encoder-decoder model puts out."""
TASKS: dict[str, Task] = {
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForSequenceClassification": "labels",
    "ForImageClassification": "labels",
    "ForTokenClassification": "token labels",
    "Model": "vectors",
}
"""Tasks by the ends of transformers' class names; the first that fits counts."""
OUTPUT_CLASSES = ("ForConditionalGeneration", "MTModel")
"""Ends of the class names of encoder-decoder models with a head."""
Pooling = Literal["mean", "cls"]
"""The vector of an input: the mean over its tokens, or that of the first token."""
POOLING_FILE = "1_Pooling/config.json"
"""File of sentence-transformers that tells an encoder's pooling."""
POOLING_KEYS: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def find_task(model: Any) -> Task | None:
    """Return the task of a model by its class, None for another class."""
    name = type(model).__name__
    if reads_pairs(model):
        return "output" if name.endswith(OUTPUT_CLASSES) else None
    return next((task for ending, task in TASKS.items() if name.endswith(ending)), None)


def task_of(model: Any) -> Task:
    """Return the task of a model; a `UsageError` for one whose results have no meaning here."""
    task = find_task(model)
    if task is None:
        raise UsageError(
            f"{type(model).__name__} is of no known task; run and export take language models, classifiers, encoders "
            "and encoder-decoder models."
        )
    return task


def output_start(model: Any) -> int | None:
    """Return the token from which a decoder puts out its first one, None for models without an encoder.

    Raises `UsageError` if the config does not tell it.
    """
    if task_of(model) != "output":
        return None
    start = model.config.decoder_start_token_id
    if start is None:
        raise UsageError("the model's config.json names no decoder_start_token_id; add it.")
    return int(start)


def label_names(model: Any) -> list[str]:
    """Return the names of a classifier's labels in order, none for other models."""
    labels = model.config.id2label or {}
    return [str(labels[number]) for number in sorted(labels)] if "labels" in task_of(model) else []


def reads_images(model: Any) -> bool:
    """Return whether a model reads images."""
    return getattr(model, "main_input_name", "") == "pixel_values"


def reads_pairs(model: Any) -> bool:
    """Return whether a model has a decoder that reads a text of its own and attends to the encoder's."""
    return "decoder_input_ids" in inspect.signature(model.forward).parameters


def image_shape(model: Any) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a model reads."""
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return model.config.num_channels, height, width


def read_pooling(folder: Path) -> Pooling:
    """Return the pooling that a folder of sentence-transformers tells, by default the mean; a `UsageError` for others.

    Several poolings at once, maxima and weighted means are not supported.
    """
    path = folder / POOLING_FILE
    if not path.is_file():
        return "mean"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        chosen = [key for key, value in table.items() if key.startswith("pooling_mode_") and value]
    except (ValueError, AttributeError):
        raise UsageError(f"{path} is no table of JSON; copy it again.") from None
    if len(chosen) != 1 or chosen[0] not in POOLING_KEYS:
        raise UsageError(
            f"{path} pools by {', '.join(chosen) or 'nothing'}; {' and '.join(POOLING_KEYS)} are supported."
        )
    return POOLING_KEYS[chosen[0]]


def pooling_of(model: Any) -> Pooling:
    """Return the pooling of an encoder, which the loader of its folder stores in it."""
    pooling: Pooling = getattr(model, "pooling", "mean")
    return pooling


def mean_weights(is_token: Tensor) -> Tensor:
    """Return the weights (..., 1, T) of a mean over the tokens of texts (..., T), zeros at padding."""
    return (is_token / is_token.sum(-1, keepdim=True)).unsqueeze(-2)


def pool(hidden: Tensor, pooling: Pooling, weights: Tensor | None = None) -> Tensor:
    """Return the vectors (B, d) of token vectors (B, T, d); `weights` (B, 1, T) are those of a mean, None if equal."""
    if pooling == "cls":
        return hidden[:, 0]
    return hidden.mean(1) if weights is None else torch.matmul(weights, hidden).flatten(1)
