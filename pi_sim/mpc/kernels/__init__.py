"""Secure algorithms, one file per operation; importing the package registers them all."""

from pi_sim.mpc.kernels.registry import KERNELS, Domain, Kernel, check_kernel_table, kernel_for

__all__ = [
    "KERNELS",
    "Domain",
    "Kernel",
    "check_kernel_table",
    "kernel_for",
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
    "softmax_max",
    "softmax_ode",
    "softmax_share",
    "tanh",
]
