"""x / sqrt(mean of squares + eps) * gamma over the last dimension."""

from typing import Any

from torch import Tensor

from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.primitives.norms import apply_affine, divide_by_rms


def _mean_square(x: Tensor, *_: Tensor) -> Tensor:
    return x.square().mean(-1)


@kernel("rmsnorm", "newton", Domain("mean square", _mean_square, 0.1, 150))
def rmsnorm_newton(x: Any, gamma: Any = None, *, eps: float) -> Any:
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
def rmsnorm_normalised(x: Any, gamma: Any = None, *, eps: float) -> Any:
    """For all that networks have: the steps of `layernorm` that do not centre.

    15 rounds; 40 bytes per element. Without gamma 2 rounds and 16 bytes per element less.
    """
    return map_share(x, lambda share: apply_affine(divide_by_rms(share, eps), gamma))
