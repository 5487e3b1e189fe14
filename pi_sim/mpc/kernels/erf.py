"""The error function, by which Derf takes the place of a norm."""

import math
from typing import Any

from pi_sim.mpc.kernels.registry import Domain, kernel, magnitude


@kernel("erf", "taylor", Domain("|input|", magnitude, 0, 0.6))
def taylor(x: Any) -> Any:
    """Stock CrypTen: the Taylor series of `functions.erf_iterations` terms, its odd powers miscomputed (see `gelu`).

    34 rounds, 376 bytes and 272 offline per element. Right to 0.015 for |x| up to 0.6, off by 177 at 2.
    """
    return x.erf()


@kernel("erf", "tanh-form", Domain("|input|", magnitude, 0, 13))
def tanh_form(x: Any) -> Any:
    """tanh(2 / sqrt(pi) (x + 0.08943 x^3)), the approximation that GELU's tanh form is made of.

    25 rounds, 400 bytes and 248 offline per element: the square, one product, and `tanh`. Right to 0.006 for |x| up to
    13, where the tanh's own domain ends; the approximation itself is right to 0.0004.
    """
    cubic = x * x.square()
    return ((x + cubic * 0.08943) * (2 / math.sqrt(math.pi))).tanh()
