"""x Phi(x), Phi the normal distribution function. CrypTen has no GELU; both forms here are built of its functions."""

import math
from typing import Any

from torch import Tensor
from torch.nn import functional

from pi_sim.mpc.kernels.fourier import relu_plus_series
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import FITS_32_BIT, Domain, kernel, magnitude
from pi_sim.mpc.primitives import polynomials
from pi_sim.mpc.primitives.function import FourierSeries, Linear, Piecewise
from pi_sim.mpc.primitives.piecewise import evaluate
from pi_sim.mpc.primitives.polynomials import Polynomial

GELU_SERIES = FourierSeries(
    period_bits=20,
    fraction_bits=28,
    basis_bits=13,
    low=-1.0,
    constant=1.9308244,
    slope=0.5,
    cosines=(-1.6254896, -0.0343421, -0.2469439, 0.0594693, -0.0950566, 0.0248517, -0.0132231),
)
"""x Phi(x) on [-4, 4], of period 16: x/2 and an even function, to 0.0001."""
GELU = Piecewise(thresholds=(-4.0, 4.0), pieces=(Linear(), GELU_SERIES, Linear(slope=1)))

GELU_MINUS_RELU_SERIES = FourierSeries(
    period_bits=19,
    fraction_bits=32,
    basis_bits=16,
    low=-1.0,
    sines=(-0.0817909, -0.0809227, -0.0424174, -0.0175986, -0.0079443, -0.004257, -0.0025985, -0.001694),
)
"""|x| (Phi(|x|) - 1), by which GELU is below ReLU, on [-4, 4], of period 8: the plain Fourier series, to 0.0045."""

GELU_POLYNOMIALS: tuple[Polynomial, ...] = (
    {},
    {0: -0.5054031200, 1: -0.4222658115, 2: -0.1180761295, 3: -0.0110341340},
    {0: 0.0085263215, 1: 0.5, 2: 0.3603292693, 4: -0.0376882004, 6: 0.0018067463},
    {1: 1.0},
)
"""PUMA's F0 and F1."""


def _distance_from_gelu(x: Tensor) -> Tensor:
    return (0.125 * x.square() + 0.25 * x + 0.5 - functional.gelu(x)).abs()


@kernel("gelu", "erf-taylor", Domain("|input|", magnitude, 0, 1))
def gelu_erf_taylor(x: Any, *, approximate: str) -> Any:
    """x/2 (1 + erf(x / sqrt 2)), erf by CrypTen's Taylor series of `functions.erf_iterations` terms.

    Right to 0.02 for |x| up to 1 and useless beyond 2: CrypTen 0.4.1 raises to an odd power by cubing first, so that
    the series' x^5 comes out as x^6, x^7 as x^9, and so on; the correct series of 8 terms would hold to 2.8.
    35 rounds, 392 bytes per element. Serves both of torch's forms, which differ by less than 0.0005.
    """
    return (x * 0.5) * ((x * math.sqrt(0.5)).erf() + 1)


@kernel("gelu", "tanh-form", Domain("|input|", magnitude, 0, 18))
def gelu_tanh_form(x: Any, *, approximate: str) -> Any:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), tanh by CrypTen's reciprocal of 1 + exp(-2|x|).

    Right to 0.01 for |x| up to 18; beyond 19 the tanh's exponential leaves its own domain and comes back huge.
    26 rounds, 416 bytes per element. Serves both of torch's forms, which differ by less than 0.0005.
    """
    cubic = x * x.square()
    return (x * 0.5) * (((x + cubic * 0.044715) * math.sqrt(2 / math.pi)).tanh() + 1)


@kernel("gelu", "fourier", FITS_32_BIT)
def gelu_fourier(x: Any, *, approximate: str) -> Any:
    """0, x/2 plus a cosine series, or x, see `pi_sim.mpc.primitives.piecewise`: right to 0.0003 everywhere.

    5 rounds, 16 3/4 bytes and 183 offline per element. Serves both of torch's forms, which differ by less than 0.0005.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(share, GELU))


@kernel("gelu", "fourier-shaft")
def gelu_fourier_shaft(x: Any, *, approximate: str) -> Any:
    """relu(x) and, for |x| < 4, a series of |x| of 8 terms, see `fourier.beside_relu`: right to 0.005 everywhere.

    19 rounds, 472 bytes and 368 offline per element. Serves both of torch's forms.
    Source: SHAFT (NDSS 2025) and its code, `approximations.py`, which prints the coefficients to four digits.
    """
    return relu_plus_series(x, GELU_MINUS_RELU_SERIES)


@kernel("gelu", "quad", Domain("distance of Quad from GELU", _distance_from_gelu, 0, 0.05))
def gelu_quad(x: Any, *, approximate: str) -> Any:
    """0.125 x^2 + 0.25 x + 0.5: another function than GELU, for models that were distilled to it.

    1 round, 16 bytes and 8 offline per element: x x by a product, as in MPCFormer's code, where a square would take
    half. It is 0.5 at zero, where GELU is 0, and comes near GELU for x of 0.9 to 1.3 alone.
    Source: MPCFormer (ICLR 2023), section 3.1; its benchmark has the last two coefficients exchanged.
    """
    return (x * 0.125) * x + x * 0.25 + 0.5


@kernel("gelu", "poly", FITS_32_BIT)
def gelu_poly(x: Any, *, approximate: str) -> Any:
    """PUMA's polynomials of degree 3 and 6 between -4, -1.95 and 3: right to 0.02, worst just below 3.

    12 rounds, 143 bytes and 206 offline per element, see `primitives.polynomials`. Serves both of torch's forms.
    Source: PUMA (arXiv 2307.12533), section 4.2; comparison and selection are ours.
    """
    return map_share(x, lambda share: polynomials.evaluate_polynomials(share, (-4.0, -1.95, 3.0), GELU_POLYNOMIALS))
