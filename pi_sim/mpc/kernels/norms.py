"""LayerNorm and RMSNorm over the last dimension d.

LayerNorm is (x - mean) / sqrt(variance + eps) * gamma + beta, RMSNorm is x / sqrt(mean square + eps) * gamma.
"""

from collections.abc import Callable
from fractions import Fraction
from math import inf

from torch import Tensor

from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import SQUARE, TRUNCATION, Dimensions, KernelCost, inv_sqrt_cost
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.primitives.rows import apply_affine, divide_by_rms, subtract_mean
from pi_sim.mpc.runtime import Runtime

NORMALISED_INVERSE_ROOT = KernelCost(rounds=9, bytes=Fraction(1149, 8), offline=Fraction(1109, 2))
"""Cost of `pi_sim.mpc.primitives.rows.inverse_root` of one number."""


def _newton_cost(d: Dimensions) -> KernelCost:
    """Square, inverse square root per row, product by it, and by gamma if there is one."""
    root = SQUARE.parallel(d.elements) + inv_sqrt_cost(d).parallel(d.rows) + _broadcast_product_cost(d, d.rows)
    return root + _broadcast_product_cost(d, d.operand(1)) if d.operand(1) else root


def _normalised_cost(d: Dimensions) -> KernelCost:
    """Square, sum and inverse square root per row, product by it, and by gamma if there is one; all truncated."""
    n = d.elements
    root = SQUARE.parallel(n) + (TRUNCATION + NORMALISED_INVERSE_ROOT).parallel(d.rows)
    normalised = root + _broadcast_product_cost(d, d.rows) + TRUNCATION.parallel(n)
    return (
        normalised + _broadcast_product_cost(d, d.operand(1)) + TRUNCATION.parallel(n) if d.operand(1) else normalised
    )


def _broadcast_product_cost(d: Dimensions, factors: int) -> KernelCost:
    """Return the cost of the product of all elements and so many factors, which are broadcast."""
    return KernelCost(rounds=1, bytes=8 * (d.elements + factors), offline=8 * d.elements)


def _variance(x: Tensor, *_: Tensor) -> Tensor:
    """Return the variance of each row."""
    return x.var(-1, unbiased=False)


@kernel("layernorm", "newton", Domain("variance", _variance, 0.1, 150), cost=_newton_cost)
def layernorm_newton(rt: Runtime, x: Shared, gamma: Shared = None, beta: Shared = None, *, eps: float) -> Shared:
    """Return LayerNorm by CrypTen's functions, except for its `var`, which divides by d - 1 where d is meant.

    Rounds are those of the default settings, with gamma.

    1. Subtract the mean: local.
    2. Square and average (1 round).
    3. Inverse square root by 3 Newton steps from a first guess by exp (17 rounds): accurate to within 1% for variances
       of 0.1 to 150, 5% at 0.05 and 170; the sign is wrong from 210 on.
    4. Multiply by it, row by row (1 round), and by gamma, column by column (1 round); add beta.

    Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    normalised = centred * (variance + eps).inv_sqrt()
    if gamma is not None:
        normalised = normalised * gamma
    return normalised if beta is None else normalised + beta


def absolute_mean(x: Tensor, *_: Tensor) -> Tensor:
    """Return |mean| of each row."""
    return x.mean(-1).abs()


def centred_sum_of_squares(x: Tensor, *_: Tensor) -> Tensor:
    """Return the sum of squares of each centred row."""
    return x.shape[-1] * _variance(x)


def sum_of_squares(x: Tensor, *_: Tensor) -> Tensor:
    """Return the sum of squares of each row."""
    return x.square().sum(-1)


def _root_domains(quantity: str, statistic: Callable[..., Tensor]) -> tuple[Domain, Domain]:
    """Return the domains of an inverse root: inexact below, and beyond the ring above."""
    return Domain(quantity, statistic, 0.05, inf), Domain(quantity, statistic, 0, 1e9, hard=True)


CENTRED_SQUARES = _root_domains("sum of squares of a centred row", centred_sum_of_squares)
SQUARES = _root_domains("sum of squares of a row", sum_of_squares)


@kernel(
    "layernorm",
    "normalised",
    *CENTRED_SQUARES,
    Domain("|mean|", absolute_mean, 0, 16_000, hard=True),
    cost=lambda d: TRUNCATION.parallel(d.rows) + _normalised_cost(d),
)
def layernorm_normalised(rt: Runtime, x: Shared, gamma: Shared = None, beta: Shared = None, *, eps: float) -> Shared:
    """Return LayerNorm for the ranges of all networks: a row's sum of squares is brought to [1, 4) first.

    1. Subtract the mean, truncated wrap-free (1 round).
    2. Normalise, see `pi_sim.mpc.primitives.rows.divide_by_rms` (13 rounds).
    3. Multiply by gamma and truncate wrap-free (2 rounds); add beta.

    Source: ours.
    """
    return map_share(x, lambda share: apply_affine(rt, divide_by_rms(rt, subtract_mean(rt, share), eps), gamma, beta))


def _mean_square(x: Tensor, *_: Tensor) -> Tensor:
    """Return the mean square of each row."""
    return x.square().mean(-1)


@kernel("rmsnorm", "newton", Domain("mean square", _mean_square, 0.1, 150), cost=_newton_cost)
def rmsnorm_newton(rt: Runtime, x: Shared, gamma: Shared = None, *, eps: float) -> Shared:
    """Return RMSNorm by CrypTen's functions: the steps of `layernorm_newton` without centring.

    1. Square and average (1 round).
    2. Inverse square root by 3 Newton steps from a first guess by exp (17 rounds), of the same accuracy.
    3. Multiply by it, row by row (1 round), and by gamma, column by column (1 round).

    Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    normalised = x * (x.square().mean(-1, keepdim=True) + eps).inv_sqrt()
    return normalised if gamma is None else normalised * gamma


@kernel("rmsnorm", "normalised", *SQUARES, cost=_normalised_cost)
def rmsnorm_normalised(rt: Runtime, x: Shared, gamma: Shared = None, *, eps: float) -> Shared:
    """Return RMSNorm: the steps of `layernorm_normalised` without centring.

    1. Normalise (13 rounds).
    2. Multiply by gamma and truncate wrap-free (2 rounds).

    Source: ours.
    """
    return map_share(x, lambda share: apply_affine(rt, divide_by_rms(rt, share, eps), gamma))
