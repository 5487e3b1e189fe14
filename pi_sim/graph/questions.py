"""What a Hugging Face model is asked: which inputs it reads, and how many tokens of them it can."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.specs.configs import config_context

MAX_LENGTH = 16_384
"""Tokens whose mask of attention, a number for each pair, still fits beside everything else into 4 GB."""


def example_inputs(model: Any, length: int, batch: int) -> tuple[Tensor, ...]:
    """Token ids (batch, length), or images (batch, channels, height, width)."""
    if not _reads_images(model):
        return (torch.zeros(batch, length, dtype=torch.long),)
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return (torch.zeros(batch, model.config.num_channels, height, width),)


def forward_kwargs(model: Any) -> dict[str, bool]:
    """A structured answer, without a cache for further tokens where there could be one."""
    return {"return_dict": True} | ({"use_cache": False} if hasattr(model.config, "use_cache") else {})


def check_length(model: Any, length: int, past: int | None) -> None:
    """A `UsageError` for a length that the model cannot read, and for a step that it does not have."""
    longest = config_context(model.config.to_dict())
    if _reads_images(model):
        _check_image(length, past, longest)
    elif past is not None:
        _check_step(model, past, longest)
    elif not 1 <= length <= (longest or length):
        raise UsageError(f"the model's context is {longest} tokens; choose --seq-len between 1 and {longest}.")
    elif length > MAX_LENGTH:
        raise UsageError(f"a mask of {length:,} x {length:,} is too large; choose --seq-len up to {MAX_LENGTH:,}.")


def _check_image(length: int, past: int | None, tokens: int | None) -> None:
    if past is not None:
        raise UsageError("an image model has no decoding step; leave --past out.")
    if tokens is not None and length != tokens:
        raise UsageError(f"the model reads every image as {tokens} tokens; leave --seq-len out.")


def _check_step(model: Any, past: int, longest: int | None) -> None:
    if not getattr(model, "can_generate", lambda: False)():
        raise UsageError(f"{type(model).__name__} has no decoding step, only causal models do; leave --past out.")
    if not 1 <= past < (longest or past + 1):
        raise UsageError(f"the model's context is {longest} tokens; choose --past between 1 and {(longest or 0) - 1}.")


def _reads_images(model: Any) -> bool:
    """Whether the model reads images."""
    return getattr(model, "main_input_name", "") == "pixel_values"
