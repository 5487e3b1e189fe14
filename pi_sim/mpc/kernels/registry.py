"""Registry of kernels by operation and name, each with the domain in which it is accurate and its declared cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from inspect import signature
from typing import Any

from torch import Tensor

from pi_sim.errors import UnpricedError, UsageError
from pi_sim.graph.ops import EXECUTION_ATTRIBUTES, Op
from pi_sim.mpc.kernels.costs import Dimensions, KernelCost


@dataclass(frozen=True)
class Domain:
    """Condition under which a kernel is accurate: a quantity of plaintext values between `low` and `high`.

    Beyond a `hard` domain a number does not fit its words: results are garbage, not merely inexact.
    """

    quantity: str
    statistic: Callable[..., Tensor]
    low: float
    high: float
    hard: bool = False


def magnitude(x: Tensor, *_: Tensor) -> Tensor:
    """Return |x| of the first operand, the quantity of most domains."""
    return x.abs()


FITS_32_BIT = Domain("|input|", magnitude, 0, 32_000, hard=True)
"""Domain of kernels by masked comparison: with its fraction an input must fit a 32-bit word."""


PRODUCT_RESULT = Domain("|result|", magnitude, 0, 2.0**30, hard=True)
"""A product has 32 bits of fraction before it is truncated: beyond 2^30 it leaves the ring."""


CostFunction = Callable[[Dimensions], KernelCost]
OperandBits = Callable[[Op], tuple[int, ...]]
"""Low bits of each operand's ring words that a kernel needs, 32, 48 or 64, for an operation with its `bits`."""


FixedOperand = int | Callable[[Op], int | None] | None


@dataclass(frozen=True)
class FixedOperandScheme:
    """Steps before a sequence for kernels whose weight the server owns in the clear.

    `open` takes the runtime and the weights, all opened in 1 round once per session, and returns their handles.
    `prepare` takes the runtime, an operation and its weight's handle, and returns what the kernel gets in place of the
    weight: all that does not depend on the input.
    """

    open: Callable[[Any, list[Tensor]], list[Any]]
    prepare: Callable[[Any, Op, Any], Any]


@dataclass(frozen=True)
class Kernel:
    """Secure algorithm for an operation: takes the runtime and shares, and attributes as keywords; returns shares."""

    op: str
    name: str
    function: Callable[..., Any]
    domains: tuple[Domain, ...]
    """Domains of the operands."""
    result_domains: tuple[Domain, ...] = ()
    """Domains of the result: their statistics take the plaintext result."""
    cost: CostFunction | None = None
    """Declared cost; None for a kernel whose cost has no closed form."""
    fixed_operand: FixedOperand = None
    """Index of the operand that is a weight and is opened under a mask once per session, or a function of the op."""
    fixed_by: FixedOperandScheme | None = None
    """How that operand is opened and prepared; None for shared weights, see `primitives.beaver`."""
    operand_bits: OperandBits | None = None
    """None if all bits of all operands are needed."""
    can_narrow: bool = False
    """Whether the kernel takes `bits`: the result need only be right modulo 2^bits."""

    @cached_property
    def parameters(self) -> frozenset[str]:
        """Names of the attributes that the function takes."""
        return frozenset(signature(self.function).parameters)

    def attributes(self, op: Op) -> dict[str, Any]:
        """Return the attributes of an operation for the function.

        Attributes that tell how to compute, and which it does not know, are left out: the result is the same.
        """
        return {
            name: value for name, value in op.attributes if name not in EXECUTION_ATTRIBUTES or name in self.parameters
        }

    def fixed_index(self, op: Op) -> int | None:
        """Return the index of the fixed operand of an operation."""
        return self.fixed_operand(op) if callable(self.fixed_operand) else self.fixed_operand

    def server_operand(self, op: Op) -> int | None:
        """Return the index of the operand that the server has in the clear, if any."""
        return self.fixed_index(op) if self.fixed_by else None


KERNELS: dict[tuple[str, str], Kernel] = {}

UNIVERSAL = "universal"
"""Name of the kernel of an operation that every protocol computes alike: no protocol chooses it."""


def kernel(
    op: str,
    name: str,
    *domains: Domain,
    rounds: int = 0,
    bytes: int | Fraction = 0,
    offline: int | Fraction = 0,
    cost: CostFunction | None = None,
    closed_form: bool = True,
    fixed_operand: FixedOperand = None,
    fixed_by: FixedOperandScheme | None = None,
    operand_bits: OperandBits | None = None,
    can_narrow: bool = False,
    result: tuple[Domain, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the kernel `name` of `op`, accurate where all `domains` hold, with its declared cost.

    `bytes` (of the busier direction) and `offline` are per element of the result; a kernel without numbers is local. A
    kernel whose cost depends on more has a function `cost` instead, or states that there is no closed form. `result`
    has the domains of the result; the other arguments are fields of `Kernel`.
    """
    per_element = KernelCost(rounds, bytes, offline)
    declared = (cost or (lambda d: per_element.parallel(d.elements))) if closed_form else None

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[op, name] = Kernel(
            op, name, function, domains, result, declared, fixed_operand, fixed_by, operand_bits, can_narrow
        )
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
