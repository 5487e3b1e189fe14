"""Where a party computes: on the processor, or on a GPU that multiplies integers by limbs."""

from contextlib import AbstractContextManager, nullcontext

import torch

from pi_sim.errors import UsageError
from pi_sim.mpc.primitives.ring import LimbMatmulMode

CPU = "cpu"


def require_device(name: str) -> None:
    """A `UsageError` where this machine has no such device."""
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA GPU on this machine; use --device cpu.")


def device_context(name: str) -> AbstractContextManager[object]:
    """A context in which every kernel, CrypTen's too, can compute on tensors that lie there."""
    return nullcontext() if name == CPU else LimbMatmulMode(torch.device(name))
