"""Linear maps and products of secrets by Beaver triples, and products with public numbers.

Stock CrypTen truncates a product locally: each party shifts its own share, which fails with probability |x| / 2^64.
The `faithful` kernels and `fixed-weight` truncate without wraps, accurate to within one unit, in one more round.
"""

from torch import Tensor

from pi_sim.mpc import backend
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import TRUNCATION, Dimensions, KernelCost
from pi_sim.mpc.kernels.local import map_share, with_share
from pi_sim.mpc.kernels.registry import PRODUCT_RESULT, kernel
from pi_sim.mpc.primitives import beaver
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.runtime import Runtime


def product_cost(d: Dimensions) -> KernelCost:
    """Return the cost of a product by a Beaver triple: both factors are opened before they are broadcast."""
    return KernelCost(rounds=1, bytes=8 * (d.operand(0) + d.operand(1)), offline=8 * d.elements)


def faithful_product_cost(d: Dimensions) -> KernelCost:
    """Return the cost of a product that is truncated wrap-free."""
    return product_cost(d) + TRUNCATION.parallel(d.elements)


def _fixed_weight_cost(d: Dimensions) -> KernelCost:
    """Open the input alone; a result for the client is not truncated."""
    product = KernelCost(rounds=1, bytes=8 * d.operand(0), offline=8 * d.elements)
    return product if d.op.attribute("client_only") else product + TRUNCATION.parallel(d.elements)


def _faithful_scale_cost(d: Dimensions) -> KernelCost:
    """Truncate, unless the factor is an integer."""
    return KernelCost() if float(d.op.attribute("factor")).is_integer() else TRUNCATION.parallel(d.elements)


@kernel("matmul", "beaver", result=(PRODUCT_RESULT,), cost=product_cost)
def matmul(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """Return a (..., m, k) @ b (..., k, n), stock CrypTen.

    1. Take shares of random A and B and of A @ B from the dealer.
    2. Open a - A and b - B (1 round).
    3. a @ b = (a - A) @ (b - B) + (a - A) @ B + A @ (b - B) + A @ B; truncate locally.

    Source: CrypTen (arXiv 2109.00984), section 4.1; Beaver (CRYPTO 1991).
    """
    return a.matmul(b)


@kernel("linear", "beaver", result=(PRODUCT_RESULT,), cost=product_cost)
def linear(rt: Runtime, x: Shared, weight: Shared, bias: Shared = None, *, client_only: bool = False) -> Shared:
    """Return x (..., k) @ weight (k, n) + bias (n), stock CrypTen: opens the masked weight at every call."""
    product = x.matmul(weight)
    return product if bias is None else product + bias


@kernel("multiply", "beaver", result=(PRODUCT_RESULT,), cost=product_cost)
def multiply(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """Return a * b elementwise, stock CrypTen; an operand is opened before it is broadcast."""
    return a * b


@kernel("square", "pair", result=(PRODUCT_RESULT,), rounds=1, bytes=8, offline=8)
def square(rt: Runtime, x: Shared) -> Shared:
    """Return x * x elementwise, stock CrypTen.

    1. Take shares of a random R and of R * R from the dealer.
    2. Open x - R, half of what a product sends (1 round).
    3. x * x = (x - R) (x - R) + 2 (x - R) R + R * R; truncate locally.
    """
    return x.square()


@kernel("matmul", "faithful", result=(PRODUCT_RESULT,), cost=faithful_product_cost)
def faithful_matmul(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """Return a (..., m, k) @ b (..., k, n) by a Beaver triple (1 round), truncated wrap-free (1 round)."""
    return map_share(a, lambda share: truncate(rt, beaver.multiply(rt, share, b.share, "matmul"), FRACTION_BITS))


@kernel("linear", "fixed-weight", result=(PRODUCT_RESULT,), fixed_operand=1, cost=_fixed_weight_cost)
def fixed_weight_linear(
    rt: Runtime, x: Shared, weight: beaver.OpenedWeight, bias: Shared = None, *, client_only: bool = False
) -> Shared:
    """Return x (..., k) @ weight (k, n) + bias (n), the weight opened under its mask once per session.

    Open x under a mask (1 round); truncate wrap-free (1 round). A result for the client alone keeps its 32 fractional
    bits, which the client decodes: it saves the truncation, and tells the client its own logits more finely and nothing
    else.
    """
    product = beaver.multiply_by_weight(rt, x.share, weight)
    mapped = product if bias is None else product + (bias.share << FRACTION_BITS)
    if client_only:
        return backend.fixed_point_tensor(mapped, precision=2 * FRACTION_BITS)
    return with_share(x, truncate(rt, mapped, FRACTION_BITS))


@kernel("multiply", "faithful", result=(PRODUCT_RESULT,), cost=faithful_product_cost)
def faithful_multiply(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """Return a * b, broadcast, by a Beaver triple (1 round), truncated wrap-free (1 round)."""
    return map_share(a, lambda share: truncate(rt, beaver.multiply(rt, share, b.share), FRACTION_BITS))


@kernel("square", "faithful", result=(PRODUCT_RESULT,), rounds=2, bytes=16, offline=24)
def faithful_square(rt: Runtime, x: Shared) -> Shared:
    """Return x * x by a square pair (1 round), truncated wrap-free (1 round)."""
    return map_share(x, lambda share: truncate(rt, beaver.square(rt, share), FRACTION_BITS))


@kernel("scale", "local", result=(PRODUCT_RESULT,))
def local_scale(rt: Runtime, x: Shared, *, factor: float) -> Shared:
    """Return a public multiple of x, truncated locally; `protocols/README.md` states the risk."""
    return x * factor


@kernel("scale_by", "local", result=(PRODUCT_RESULT,))
def local_scale_by(rt: Runtime, x: Shared, factors: Tensor) -> Shared:
    """Return the product of x with a public tensor, truncated locally."""
    return x * factors


@kernel("scale", "faithful", result=(PRODUCT_RESULT,), cost=_faithful_scale_cost)
def faithful_scale(rt: Runtime, x: Shared, *, factor: float) -> Shared:
    """Return a public multiple of x, truncated wrap-free; local for an integer factor.

    The factor has 16 fractional bits, as in CrypTen: 0.001 becomes 66 / 65536, 0.7% more.
    """
    if factor.is_integer():
        return map_share(x, lambda share: share * int(factor))
    return map_share(x, lambda share: truncate(rt, share * round(factor * 2**FRACTION_BITS), FRACTION_BITS))


@kernel("scale_by", "faithful", result=(PRODUCT_RESULT,), rounds=1, bytes=8, offline=16)
def faithful_scale_by(rt: Runtime, x: Shared, factors: Tensor) -> Shared:
    """Return the product of x with a public tensor, truncated wrap-free (1 round)."""
    return map_share(
        x, lambda share: truncate(rt, share * (factors.double() * 2**FRACTION_BITS).round().long(), FRACTION_BITS)
    )
