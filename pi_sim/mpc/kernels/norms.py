"""(x - mean) / sqrt(variance + eps) * gamma + beta over the last dimension."""

# MERGED: x / sqrt(mean of squares + eps) * gamma over the last dimension.

from torch import Tensor

from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.primitives.inverse import apply_affine, divide_by_rms, subtract_mean
from pi_sim.mpc.runtime import Runtime


def _variance(x: Tensor, *_: Tensor) -> Tensor:
    return x.var(-1, unbiased=False)


@kernel("layernorm", "newton", Domain("variance", _variance, 0.1, 150))
def layernorm_newton(rt: Runtime, x: Shared, gamma: Shared = None, beta: Shared = None, *, eps: float) -> Shared:
    """Built of CrypTen's functions, its `var` aside, which divides by d - 1 where d is asked for.

    1. Subtract the mean: local.
    2. Square and average (1 round).
    3. Inverse square root by 3 Newton steps from a first guess by exp (17 rounds): right to 1% for variances of 0.1 to
       150, to 5% at 0.05 and 170, and with the wrong sign from 210.
    4. Multiply by it, row by row (1 round), and by gamma, column by column (1 round); add beta.

    20 rounds; 24 bytes per element, 192 per row and 8 per column. Without gamma one round, 8 bytes per element
    and those per column less. Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    normalised = centred * (variance + eps).inv_sqrt()
    if gamma is not None:
        normalised = normalised * gamma
    return normalised if beta is None else normalised + beta


def _absolute_mean(x: Tensor, *_: Tensor) -> Tensor:
    return x.mean(-1).abs()


def _centred_sum_of_squares(x: Tensor, *_: Tensor) -> Tensor:
    return x.shape[-1] * _variance(x)


@kernel(
    "layernorm",
    "normalised",
    Domain("sum of squares of a centred row", _centred_sum_of_squares, 0.05, 1e9),
    Domain("|mean|", _absolute_mean, 0, 16_000),
)
def layernorm_normalised(rt: Runtime, x: Shared, gamma: Shared = None, beta: Shared = None, *, eps: float) -> Shared:
    """For all that networks have: a row's sum of squares is brought to [1, 4) first, see `primitives.norms`.

    1. Subtract the mean, truncated faithfully (1 round for each row).
    2. Normalise (13 rounds).
    3. Multiply by gamma (1 round) and truncate (1 round); add beta.

    16 rounds; 40 bytes per element. Without gamma 2 rounds and 16 bytes per element less.
    """
    return map_share(x, lambda share: apply_affine(rt, divide_by_rms(rt, subtract_mean(rt, share), eps), gamma, beta))


def _mean_square(x: Tensor, *_: Tensor) -> Tensor:
    return x.square().mean(-1)


@kernel("rmsnorm", "newton", Domain("mean square", _mean_square, 0.1, 150))
def rmsnorm_newton(rt: Runtime, x: Shared, gamma: Shared = None, *, eps: float) -> Shared:
    """Built of CrypTen's functions: the steps of `layernorm` that do not centre.

    1. Square and average (1 round).
    2. Inverse square root by 3 Newton steps from a first guess by exp (17 rounds): right to 1% for mean squares of 0.1
       to 150, to 5% at 0.05 and 170, and with the wrong sign from 210.
    3. Multiply by it, row by row (1 round), and by gamma, column by column (1 round).

    20 rounds; 24 bytes per element, 192 per row and 8 per column; 24, 136 and 0 offline. Without gamma one round,
    8 bytes per element and those per column less. Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    normalised = x * (x.square().mean(-1, keepdim=True) + eps).inv_sqrt()
    return normalised if gamma is None else normalised * gamma


def _sum_of_squares(x: Tensor, *_: Tensor) -> Tensor:
    return x.square().sum(-1)


@kernel("rmsnorm", "normalised", Domain("sum of squares of a row", _sum_of_squares, 0.05, 1e9))
def rmsnorm_normalised(rt: Runtime, x: Shared, gamma: Shared = None, *, eps: float) -> Shared:
    """For all that networks have: the steps of `layernorm` that do not centre.

    15 rounds; 40 bytes per element. Without gamma 2 rounds and 16 bytes per element less.
    """
    return map_share(x, lambda share: apply_affine(rt, divide_by_rms(rt, share, eps), gamma))
