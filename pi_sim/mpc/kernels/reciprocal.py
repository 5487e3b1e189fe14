"""1 / x for positive x."""

from fractions import Fraction

from torch import Tensor

from pi_sim.mpc import backend
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import reciprocal_cost
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.primitives import rows
from pi_sim.mpc.runtime import Runtime

MIN_POWER_OF_2, MAX_POWER_OF_2 = -8, 14
"""Powers of 2 between which `reciprocal_normalised` is accurate."""


def _identity(x: Tensor) -> Tensor:
    """Return x, the quantity of both domains."""
    return x


@kernel(
    "reciprocal",
    "newton",
    Domain("input", _identity, 0.005, 50),
    cost=lambda d: reciprocal_cost(d).parallel(d.elements),
)
def reciprocal_newton(rt: Runtime, x: Shared) -> Shared:
    """Return 1 / x, stock CrypTen; x is declared positive, which saves a comparison.

    Rounds are those of the default settings.

    1. First guess 3 exp(1 - 2 x) + 0.003, with exp by 8 squarings (8 rounds).
    2. Ten Newton steps y := 2 y - x y^2, a square and a product each (20 rounds).

    Accurate to within 0.2% for x up to 10, 1.5% at 30, 4% at 50 and 27% at 128; from 180 on, where y^2 has no bits
    left, the result is huge. For small x it is y^2 that is huge: at 0.005 a truncation fails once in some 30,000 times.
    Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    with backend.override_settings({"functions.reciprocal_all_pos": True}):
        return x.reciprocal()


@kernel(
    "reciprocal",
    "normalised",
    Domain("input", _identity, 2.0**MIN_POWER_OF_2, 2.0**MAX_POWER_OF_2),
    rounds=10,
    bytes=Fraction(435, 4),
    offline=Fraction(3257, 8),
)
def reciprocal_normalised(rt: Runtime, x: Shared) -> Shared:
    """Return 1 / x, its range brought to [1, 2] first, see `pi_sim.mpc.primitives.rows.reciprocal`.

    Max error 2^-15, or 0.0002 of the result where that is more. Source: ours.
    """
    return map_share(x, lambda share: rows.reciprocal(rt, share, MAX_POWER_OF_2, MIN_POWER_OF_2))
