"""Inputs of a Hugging Face model: texts, images and decoding steps, and the lengths that it can read.

A decoding step is one new token for each sequence, after tokens whose keys and values are in a cache. The parties hold
shares of the cached keys and values, which are secret inputs of the graph. Keys and values of the new token stay
shared; only its logits are opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.zoo.source import config_context

MAX_LENGTH = 16_384
"""Tokens. The attention mask, a number for each pair of them, has to fit into 4 GB with everything else."""


def example_inputs(model: Any, length: int, batch: int) -> tuple[Tensor, ...]:
    """Return token ids (batch, length), or images (batch, channels, height, width), all zero."""
    if not _reads_images(model):
        return (torch.zeros(batch, length, dtype=torch.long),)
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return (torch.zeros(batch, model.config.num_channels, height, width),)


def forward_kwargs(model: Any) -> dict[str, bool]:
    """Return the options of `forward` for a structured output, without a cache for further tokens."""
    return {"return_dict": True} | ({"use_cache": False} if hasattr(model.config, "use_cache") else {})


def check_length(model: Any, length: int, past: int | None) -> None:
    """Raise `UsageError` for a length that the model cannot read, or a decoding step that it does not have."""
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
    """Return whether the model reads images."""
    return getattr(model, "main_input_name", "") == "pixel_values"


def decode_inputs(model: Any, batch: int, past: int) -> tuple[Tensor, ...]:
    """Return the new tokens (batch, 1), and the cached keys and values (batch, heads, past, head width) by layer."""
    token = torch.zeros(batch, 1, dtype=torch.long)
    cached = (tensor for layer in _cache_entries(model, token) for tensor in layer)
    return (token, *(tensor.expand(-1, -1, past, -1) for tensor in cached))


@contextmanager
def decode_step_forward(model: Any) -> Iterator[None]:
    """Let `forward` take a token and cached keys and values, and return the logits alone."""
    from transformers import DynamicCache

    forward = model.forward

    def step(token: Tensor, *cached: Tensor) -> Tensor:
        cache = DynamicCache(zip(cached[::2], cached[1::2], strict=True), config=model.config)
        return forward(token, past_key_values=cache, use_cache=True).logits  # type: ignore[no-any-return]

    model.forward = step
    try:
        yield
    finally:
        del model.forward


def _cache_entries(model: Any, token: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the keys and values that the model caches for one token, by layer: their shapes are needed."""
    forward = type(model).forward
    with torch.no_grad():
        cache = forward(model, token.to(model.device), use_cache=True, return_dict=True).past_key_values
    if cache is None:
        raise UsageError(f"{type(model).__name__} keeps no keys and values of earlier tokens; leave --past out.")
    return [(layer.keys, layer.values) for layer in cache.layers]
