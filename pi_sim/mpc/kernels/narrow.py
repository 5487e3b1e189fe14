"""Linear maps and products of `lean`: weights of the server, and truncation that communicates only for 64 exact bits.

A local shift by f bits is right modulo 2^(64 - f), so a result of which 32 or 48 low bits are read costs nothing to
truncate. `bits` tells how many are read; the factors of a product must then be right in 16 bits more.
"""

from fractions import Fraction

from torch import Tensor

from pi_sim.graph.ops import Op
from pi_sim.mpc import backend
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import TRUNCATION, Dimensions, KernelCost, factor_bits, result_bits
from pi_sim.mpc.kernels.local import map_share, with_share
from pi_sim.mpc.kernels.registry import PRODUCT_RESULT, Domain, FixedOperandScheme, kernel, magnitude
from pi_sim.mpc.openings import MIDDLE_BITS, WIDE_BITS
from pi_sim.mpc.primitives import beaver, causal
from pi_sim.mpc.primitives.cached import CachedFactor, Visibility, multiply_cached
from pi_sim.mpc.primitives.narrow import lift
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.server_weight import (
    PreparedProduct,
    ServerWeight,
    multiply_prepared,
    open_server_weights,
    prepare_product,
    truncate_exactly,
)
from pi_sim.mpc.primitives.truncation import shift_locally, truncate
from pi_sim.mpc.runtime import Runtime


def truncate_for(rt: Runtime, product: Tensor, bits: int) -> Tensor:
    """Return a product without 16 of its fraction bits, right modulo 2^bits: local for fewer than 64 bits."""
    return truncate(rt, product, FRACTION_BITS) if bits == WIDE_BITS else shift_locally(product, FRACTION_BITS)


def _is_exact(op: Op) -> bool:
    """Return whether the result of a map is truncated with all 64 bits."""
    return result_bits(op) == WIDE_BITS and not op.attribute("client_only")


def _map_bits(op: Op) -> int:
    """Return the low bits that a linear map reads of its input; 48 suffice for results of which 32 are opened."""
    return 48 if op.attribute("client_only") else factor_bits(op)


def _prepare_map(rt: Runtime, op: Op, weight: ServerWeight) -> PreparedProduct:
    return prepare_product(rt, op.shapes[0], weight, "matmul", exact=_is_exact(op))


def _prepare_embedding(rt: Runtime, op: Op, table: ServerWeight) -> PreparedProduct:
    return prepare_product(rt, op.shapes[1], table, "matmul")


def _prepare_factor(rt: Runtime, op: Op, factor: ServerWeight) -> PreparedProduct:
    return prepare_product(rt, op.shapes[1 - op.attribute("weight")], factor, "multiply", exact=_is_exact(op))


def _prepared_cost(d: Dimensions, operand: int, bits: int) -> KernelCost:
    """Return the cost of a product with a weight, and of its truncation."""
    product = KernelCost(rounds=1, bytes=Fraction(bits, 8) * d.operand(operand), offline=8 * d.elements)
    wrap = KernelCost(rounds=1, bytes=Fraction(1, 8), offline=2).parallel(d.elements)
    return product + wrap if _is_exact(d.op) and d.op.name != "embedding" else product


def _finish(rt: Runtime, product: Tensor, prepared: PreparedProduct, op_bits: int) -> Tensor:
    """Return a product with a weight without 16 of its fraction bits."""
    if prepared.wrap and op_bits == WIDE_BITS:
        return truncate_exactly(rt, product, prepared.wrap)
    return shift_locally(product, FRACTION_BITS)


@kernel(
    "linear",
    "server-weight",
    result=(PRODUCT_RESULT,),
    fixed_operand=1,
    fixed_by=FixedOperandScheme(open_server_weights, _prepare_map),
    operand_bits=lambda op: (_map_bits(op), *(64,) * (len(op.shapes) - 1)),
    can_narrow=True,
    cost=lambda d: _prepared_cost(d, 0, _map_bits(d.op)),
)
def linear(
    rt: Runtime,
    x: Shared,
    weight: PreparedProduct,
    bias: Shared = None,
    *,
    client_only: bool = False,
    bits: int = WIDE_BITS,
    tied: bool = False,
) -> Shared:
    """Return x (..., k) @ weight (k, n) + bias (n) for a weight of the server, and any shares of a bias.

    1. The client sends x under its mask (1 round), see `pi_sim.mpc.primitives.server_weight`.
    2. A result of which fewer than 64 bits are read is truncated locally. Otherwise the server sends a bit per element
       for the exact truncation (1 round).

    A result for the client alone keeps its 32 fraction bits; the kernel that opens it rounds it.
    """
    message_bits = 48 if client_only else min(64, bits + FRACTION_BITS)
    product = multiply_prepared(rt, x.share, weight, message_bits)
    if client_only:
        if bias is not None:
            product = product + (bias.share << FRACTION_BITS)
        return backend.fixed_point_tensor(product, precision=2 * FRACTION_BITS)
    mapped = _finish(rt, product, weight, bits)  # the wrap bit that the client sent ahead is that of the product alone
    return with_share(x, mapped if bias is None else mapped + bias.share)


@kernel(
    "embedding",
    "server-weight",
    fixed_operand=0,
    fixed_by=FixedOperandScheme(open_server_weights, _prepare_embedding),
    operand_bits=lambda op: (64, result_bits(op)),
    can_narrow=True,
    cost=lambda d: _prepared_cost(d, 1, result_bits(d.op)),
)
def embedding(rt: Runtime, table: PreparedProduct, onehot: Shared, *, bits: int = WIDE_BITS) -> Shared:
    """Return onehot @ table for a table of the server: the client sends its one-hot vectors under masks (1 round).

    Exact. bits / 8 bytes per entry of the vocabulary and token.
    """
    return backend.fixed_point_tensor(multiply_prepared(rt, onehot.share, table, bits))


def _factor_index(op: Op) -> int | None:
    index = op.attribute("weight")
    return None if index is None else int(index)


def _multiply_cost(d: Dimensions) -> KernelCost:
    """Open both factors, or send the one that is no weight."""
    index = _factor_index(d.op)
    if index is not None:
        return _prepared_cost(d, 1 - index, factor_bits(d.op))
    return _beaver_cost(d, d.operand(0) + d.operand(1))


def _beaver_cost(d: Dimensions, opened: int) -> KernelCost:
    """Return the cost of a product by a triple, and of its truncation."""
    product = KernelCost(rounds=1, bytes=Fraction(factor_bits(d.op), 8) * opened, offline=8 * d.elements)
    return product + TRUNCATION.parallel(d.elements) if result_bits(d.op) == WIDE_BITS else product


@kernel(
    "multiply",
    "narrow",
    result=(PRODUCT_RESULT,),
    fixed_operand=_factor_index,
    fixed_by=FixedOperandScheme(open_server_weights, _prepare_factor),
    operand_bits=lambda op: (factor_bits(op),) * 2,
    can_narrow=True,
    cost=_multiply_cost,
)
def multiply(rt: Runtime, a: Shared, b: Shared, *, bits: int = WIDE_BITS, weight: int | None = None) -> Shared:
    """Return a * b, broadcast; `weight` is the index of a factor that the server has in the clear.

    1. Open both factors, or send the other factor to the server (1 round).
    2. Truncate: locally, or for 64 bits wrap-free (1 round).
    """
    if weight is not None:
        x, prepared = (b, a) if weight == 0 else (a, b)
        product = multiply_prepared(rt, x.share, prepared, min(64, bits + FRACTION_BITS))
        return with_share(x, _finish(rt, product, prepared, bits))
    product = beaver.multiply(rt, a.share, b.share, bits=min(64, bits + FRACTION_BITS))
    return with_share(a, truncate_for(rt, product, bits))


LIFTED_RESULT = Domain("|result|", magnitude, 0, 2.0**14, hard=True)
"""Results that are lifted from 32 to 64 bits."""


def _matmul_bits(op: Op) -> int:
    """Return the low bits that a matrix product needs of its factors: a result of 64 bits is lifted from 32."""
    return 64 if result_bits(op) == 48 else 48


def _matmul_cost(d: Dimensions) -> KernelCost:
    """Open both factors; of causal attention only what is visible is opened or dealt. Lift a result of 64 bits.

    Of a cached factor only the rows are opened that no product has read before.
    """
    opened, dealt = d.operand(0) + d.op.attribute("fresh", d.operand(1)), d.elements
    if d.op.attribute("causal_scores"):
        dealt = d.elements // (d.op.result_shape[-2] * d.cols) * causal.visible_count(d.op.result_shape[-2], d.cols)
    if d.op.attribute("causal_weights"):
        rows, columns = d.op.shapes[0][-2:]
        opened += d.operand(0) // (rows * columns) * causal.visible_count(rows, columns) - d.operand(0)
    product = KernelCost(rounds=1, bytes=Fraction(_matmul_bits(d.op), 8) * opened, offline=8 * dealt)
    return product + KernelCost(1, 4, 12).parallel(d.elements) if result_bits(d.op) == WIDE_BITS else product


@kernel(
    "matmul",
    "narrow",
    result=(LIFTED_RESULT,),
    operand_bits=lambda op: (_matmul_bits(op),) * 2,
    can_narrow=True,
    cost=_matmul_cost,
)
def matmul(
    rt: Runtime,
    a: Shared,
    b: Shared | CachedFactor,
    *,
    bits: int = WIDE_BITS,
    causal_scores: bool = False,
    causal_weights: bool = False,
    fresh: int = 0,
) -> Shared:
    """Return a (..., m, k) @ b (..., k, n) by a Beaver triple (1 round), truncated locally.

    A result of 64 bits is lifted from 32 (1 round). The scores of causal attention are right at visible places alone;
    its weights are not opened at hidden ones. Of a cached b the `fresh` elements alone are opened.
    """
    read_bits = 64 if bits == MIDDLE_BITS else MIDDLE_BITS
    if isinstance(b, CachedFactor):
        product = multiply_cached(rt, a.share, b, read_bits, Visibility(causal_scores, causal_weights))
    elif causal_scores:
        product = causal.multiply_queries(rt, a.share, b.share, read_bits)
    elif causal_weights:
        product = causal.multiply_weights(rt, a.share, b.share, read_bits)
    else:
        product = beaver.multiply(rt, a.share, b.share, "matmul", read_bits)
    words = shift_locally(product, FRACTION_BITS)
    return with_share(a, lift(rt, words) if bits == WIDE_BITS else words)


@kernel(
    "square",
    "narrow",
    result=(PRODUCT_RESULT,),
    operand_bits=lambda op: (factor_bits(op),),
    can_narrow=True,
    cost=lambda d: (
        KernelCost(1, Fraction(factor_bits(d.op), 8), 8).parallel(d.elements)
        + (TRUNCATION.parallel(d.elements) if result_bits(d.op) == WIDE_BITS else KernelCost())
    ),
)
def square(rt: Runtime, x: Shared, *, bits: int = WIDE_BITS) -> Shared:
    """Return x * x by a square pair (1 round), truncated as `multiply` does (1 round)."""
    return map_share(x, lambda share: truncate_for(rt, beaver.square(rt, share, min(64, bits + FRACTION_BITS)), bits))


def _is_integer(op: Op) -> bool:
    return op.name == "scale" and float(op.attribute("factor")).is_integer()


def _scale_bits(op: Op) -> tuple[int, ...]:
    """An integer factor is exact; another one needs bits to truncate."""
    needed = result_bits(op) if _is_integer(op) else factor_bits(op)
    return needed, *(64,) * (len(op.shapes) - 1)


def _scale_cost(d: Dimensions) -> KernelCost:
    is_local = _is_integer(d.op) or result_bits(d.op) < WIDE_BITS
    return KernelCost() if is_local else TRUNCATION.parallel(d.elements)


@kernel("scale", "narrow", result=(PRODUCT_RESULT,), operand_bits=_scale_bits, can_narrow=True, cost=_scale_cost)
def scale(rt: Runtime, x: Shared, *, factor: float, bits: int = WIDE_BITS) -> Shared:
    """Return a public multiple of x; the factor has 16 fraction bits. Local but for an exact truncation (1 round)."""
    if factor.is_integer():
        return map_share(x, lambda share: share * int(factor))
    return map_share(x, lambda share: truncate_for(rt, share * round(factor * 2**FRACTION_BITS), bits))


@kernel("scale_by", "narrow", result=(PRODUCT_RESULT,), operand_bits=_scale_bits, can_narrow=True, cost=_scale_cost)
def scale_by(rt: Runtime, x: Shared, factors: Tensor, *, bits: int = WIDE_BITS) -> Shared:
    """Return the product of x with a public tensor. Local but for an exact truncation (1 round)."""
    encoded = (factors.double() * 2**FRACTION_BITS).round().long()
    return map_share(x, lambda share: truncate_for(rt, share * encoded, bits))
