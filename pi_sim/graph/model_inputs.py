"""What a Hugging Face model is asked: which inputs it reads, and how many tokens of them it can."""

# MERGED: One decoding step: a new token for each sequence, after others whose keys and values are in a cache. The cached keys and values are secret inputs, as the parties' shares of them are; what the step adds to the cache stays shared, and only the new token's logits are opened.  # noqa: E501

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.zoo.source import config_context

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


def decode_inputs(model: Any, batch: int, past: int) -> tuple[Tensor, ...]:
    """The new tokens (batch, 1), and each layer's cached keys and values (batch, heads, past, width of a head)."""
    token = torch.zeros(batch, 1, dtype=torch.long)
    return (token, *(each.expand(-1, -1, past, -1) for layer in _cache_entries(model, token) for each in layer))


@contextmanager
def decode_step_forward(model: Any) -> Iterator[None]:
    """Let the model read a token and cached keys and values, and answer with logits alone."""
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
    """What the model keeps of one token, layer by layer: it tells the shapes."""
    first = type(model).forward
    with torch.no_grad():
        kept = first(model, token.to(model.device), use_cache=True, return_dict=True).past_key_values
    if kept is None:
        raise UsageError(f"{type(model).__name__} keeps no keys and values of earlier tokens; leave --past out.")
    return [(layer.keys, layer.values) for layer in kept.layers]
