"""Secure algorithms, a module for each family of operations; importing the package registers them all."""

from pi_sim.mpc.kernels import activations, embedding, linear, local, norms, reciprocal, softmax
from pi_sim.mpc.kernels.registry import KERNELS, Domain, Kernel, check_kernel_table, kernel_for

__all__ = [
    "KERNELS",
    "Domain",
    "Kernel",
    "activations",
    "check_kernel_table",
    "embedding",
    "kernel_for",
    "linear",
    "local",
    "norms",
    "reciprocal",
    "softmax",
]
