"""One decoding step: a new token for each sequence, after others whose keys and values are in a cache.

The cached keys and values are secret inputs, as the parties' shares of them are; what the step adds to the cache stays
shared, and only the new token's logits are opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError


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
