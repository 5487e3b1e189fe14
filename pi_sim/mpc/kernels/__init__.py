"""Secure algorithms, one file per operation; importing the package registers them all."""

from pi_sim.mpc.kernels import (
    clamp,
    embedding,
    erf,
    gelu,
    layernorm,
    local,
    matmul,
    reciprocal,
    relu,
    reveal,
    rmsnorm,
    scale,
    silu,
    softmax,
    tanh,
)
from pi_sim.mpc.kernels.registry import KERNELS, Domain, Kernel, check, choose

__all__ = [
    "KERNELS",
    "Domain",
    "Kernel",
    "check",
    "choose",
    "clamp",
    "embedding",
    "erf",
    "gelu",
    "layernorm",
    "local",
    "matmul",
    "reciprocal",
    "relu",
    "reveal",
    "rmsnorm",
    "scale",
    "silu",
    "softmax",
    "tanh",
]
