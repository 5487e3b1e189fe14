"""Secure kernels, a module per family of operations; importing the package registers all of them."""

import pkgutil
from importlib import import_module

from pi_sim.mpc.kernels.registry import KERNELS, Domain, Kernel, check_kernel_table, kernel_for, kernel_names

__all__ = ["KERNELS", "Domain", "Kernel", "check_kernel_table", "kernel_for", "kernel_names"]

for module in pkgutil.iter_modules(__path__, f"{__name__}."):
    import_module(module.name)
