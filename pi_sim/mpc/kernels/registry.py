"""The kernels by operation and name, and the domain in which each is right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pi_sim.errors import UnpricedError, UsageError


@dataclass(frozen=True)
class Domain:
    """Where a kernel is right: a quantity of its plain operands that must stay between `low` and `high`."""

    quantity: str
    statistic: Callable[..., Tensor]
    low: float
    high: float


def magnitude(x: Tensor) -> Tensor:
    """What most domains bound."""
    return x.abs()


FITS_32_BIT = Domain("|input|", magnitude, 0, 32_000)
"""What kernels of our own that compare ask for: with its fraction it must fit a word of 32 bits."""


@dataclass(frozen=True)
class Kernel:
    """A secure algorithm for an operation: shares in, shares out, attributes of the operation as keywords."""

    op: str
    name: str
    function: Callable[..., Any]
    domains: tuple[Domain, ...]
    fixed_operand: int | None = None
    """The operand that is a weight and is opened under a mask once in a session, see `primitives.stationary`."""


KERNELS: dict[tuple[str, str], Kernel] = {}

UNIVERSAL = "universal"
"""The kernel of operations that every protocol does alike: none needs to choose it."""


def kernel(
    op: str, name: str, *domains: Domain, fixed_operand: int | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the kernel `name` of the operation `op`, right where all its domains hold."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[op, name] = Kernel(op, name, function, domains, fixed_operand)
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
