"""Secure algorithms, one file per operation; importing the package registers them all."""

from pi_sim.mpc.kernels import embedding, gelu, layernorm, local, matmul, relu, reveal, softmax
from pi_sim.mpc.kernels.registry import KERNELS, Domain, Kernel, check, choose

__all__ = [
    "KERNELS",
    "Domain",
    "Kernel",
    "check",
    "choose",
    "embedding",
    "gelu",
    "layernorm",
    "local",
    "matmul",
    "relu",
    "reveal",
    "softmax",
]
