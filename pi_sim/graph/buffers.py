"""A model made for its buffers: they hold public numbers, while its weights take no memory."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class RealBuffersOnly(TorchFunctionMode):
    """Within it, uninitialised tensors, as large weights are at first, have no data; computed ones are real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)
