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


def kernel_for(op: str, chosen: Mapping[str, str], protocol: str) -> Kernel:
    """The kernel that a protocol's `[kernels]` table names for an operation."""
    if (op, UNIVERSAL) in KERNELS:
        return KERNELS[op, UNIVERSAL]
    if op not in chosen:
        raise UnpricedError(f"protocol {protocol} has no kernel for {op}; name one in the [kernels] of its TOML.")
    if (op, chosen[op]) not in KERNELS:
        known = ", ".join(name for known_op, name in KERNELS if known_op == op) or "none"
        raise UsageError(f"protocol {protocol}: there is no kernel {chosen[op]!r} for {op}; known: {known}.")
    return KERNELS[op, chosen[op]]


def check_kernel_table(chosen: Mapping[str, str], protocol: str) -> None:
    """A `UsageError` for a `[kernels]` entry that means nothing: a typing mistake would otherwise go unnoticed."""
    for op in chosen:
        if (op, UNIVERSAL) in KERNELS or op not in {known for known, _ in KERNELS}:
            names = ", ".join(sorted({known for known, name in KERNELS if name != UNIVERSAL}))
            raise UsageError(f"protocol {protocol}: [kernels] cannot choose {op!r}; it may choose {names}.")
        kernel_for(op, chosen, protocol)
