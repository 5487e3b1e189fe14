"""Texts are taken to have no padding: positions are public then, for no token needs to be looked at."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

POSITION_IDS_METHOD = "create_position_ids_from_input_ids"
"""RoBERTa's method that counts those tokens which are not padding."""


@contextmanager
def assume_no_padding(model: nn.Module) -> Iterator[None]:
    """Let modules that derive positions from token ids take every token for a text's."""
    looking = [module for module in model.modules() if hasattr(module, POSITION_IDS_METHOD)]
    for module in looking:
        setattr(module, POSITION_IDS_METHOD, _position_ids)
    try:
        yield
    finally:
        for module in looking:
            delattr(module, POSITION_IDS_METHOD)


def _position_ids(tokens: Tensor, padding: int, past: int = 0) -> Tensor:
    """They start behind the padding token's number, which stands for no position."""
    first = padding + 1 + past
    return torch.arange(first, first + tokens.shape[1], device=tokens.device).expand(tokens.shape)
