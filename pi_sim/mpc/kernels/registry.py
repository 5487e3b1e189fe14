"""Registry of kernels by operation and name, each with the domain in which it is accurate and its declared cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from pi_sim.errors import UnpricedError, UsageError
from pi_sim.mpc.kernels.costs import Dimensions, KernelCost


@dataclass(frozen=True)
class Domain:
    """Condition under which a kernel is accurate: a quantity of its plaintext operands between `low` and `high`."""

    quantity: str
    statistic: Callable[..., Tensor]
    low: float
    high: float


def magnitude(x: Tensor) -> Tensor:
    """Return |x|, the quantity of most domains."""
    return x.abs()


FITS_32_BIT = Domain("|input|", magnitude, 0, 32_000)
"""Domain of kernels by masked comparison: with its fraction an input must fit a 32-bit word."""


CostFunction = Callable[[Dimensions], KernelCost]


@dataclass(frozen=True)
class Kernel:
    """Secure algorithm for an operation: takes the runtime and shares, and attributes as keywords; returns shares."""

    op: str
    name: str
    function: Callable[..., Any]
    domains: tuple[Domain, ...]
    cost: CostFunction | None
    """Declared cost; None for a kernel whose cost has no closed form."""
    fixed_operand: int | None = None
    """Index of the operand that is a weight and is opened under a mask once per session."""


KERNELS: dict[tuple[str, str], Kernel] = {}

UNIVERSAL = "universal"
"""Name of the kernel of an operation that every protocol computes alike: no protocol chooses it."""


def kernel(
    op: str,
    name: str,
    *domains: Domain,
    rounds: int = 0,
    bytes: int | Fraction = 0,
    offline: int = 0,
    cost: CostFunction | None = None,
    closed_form: bool = True,
    fixed_operand: int | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the kernel `name` of `op`, accurate where all `domains` hold, with its declared cost.

    `bytes` and `offline` are per element of the result; a kernel without numbers is local. A kernel whose cost depends
    on more has a function `cost` instead, or states that there is no closed form.
    """
    per_element = KernelCost(rounds, bytes, offline)
    declared = (cost or (lambda d: per_element.parallel(d.elements))) if closed_form else None

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[op, name] = Kernel(op, name, function, domains, declared, fixed_operand)
        return function

    return register


def kernel_names(op: str) -> list[str]:
    """Return the names of an operation's kernels."""
    return [name for kernel_op, name in KERNELS if kernel_op == op]


def kernel_for(op: str, chosen: Mapping[str, str], protocol: str) -> Kernel:
    """Return the kernel that a protocol's `[kernels]` table names for an operation, or the only one that there is."""
    names = kernel_names(op)
    name = chosen.get(op, names[0] if len(names) == 1 else None)
    if name is None:
        raise UnpricedError(f"protocol {protocol} has no kernel for {op}; name one in the [kernels] of its TOML.")
    if name not in names:
        raise UsageError(
            f"protocol {protocol}: there is no kernel {name!r} for {op}; known: {', '.join(names) or 'none'}."
        )
    return KERNELS[op, name]


def check_kernel_table(chosen: Mapping[str, str], protocol: str) -> None:
    """Raise a `UsageError` for an entry of `[kernels]` without effect, which could hide a typing mistake."""
    for op in chosen:
        if not kernel_names(op) or (op, UNIVERSAL) in KERNELS:
            names = ", ".join(sorted({kernel_op for kernel_op, name in KERNELS if name != UNIVERSAL}))
            raise UsageError(f"protocol {protocol}: [kernels] cannot choose {op!r}; it may choose {names}.")
        kernel_for(op, chosen, protocol)
