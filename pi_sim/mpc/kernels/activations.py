"""max(x, 0)."""

# MERGED: min(max(x, low), high), by which DyT with hardtanh takes the place of a norm.
# MERGED: SHAFT's activations: a Fourier series of |x|, which a stock comparison keeps within half the period, and a ReLU.  # noqa: E501
# MERGED: x Phi(x), Phi the normal distribution function. CrypTen has no GELU; both forms here are built of its functions.  # noqa: E501
# MERGED: x / (1 + exp(-x)).
# MERGED: The hyperbolic tangent, by which DyT takes the place of a norm.
# MERGED: The error function, by which Derf takes the place of a norm.

import math

from torch import Tensor
from torch.nn import functional

from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import FITS_32_BIT, Domain, kernel, magnitude
from pi_sim.mpc.primitives import fourier, piecewise
from pi_sim.mpc.primitives.fourier import FourierSeries
from pi_sim.mpc.primitives.piecewise import RELU, Linear, Piecewise, Polynomial, evaluate
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.runtime import Runtime


@kernel("relu", "kogge-stone")
def relu_kogge_stone(rt: Runtime, x: Shared) -> Shared:
    """x * (x >= 0), stock CrypTen.

    1. Turn the arithmetic shares into exclusive-or shares: a 64-bit addition of the two parties' shares by a
       Kogge-Stone adder of one AND and six levels of two ANDs each (7 rounds, 26 words).
    2. Turn the sign bit back: open it under a random bit that the dealer gave in both sharings (1 round, 1 word).
    3. Multiply (1 round, 2 words).

    9 rounds, 232 bytes and 120 offline per element. Source: CrypTen (arXiv 2109.00984), section 4.2 and appendix B.
    """
    return x.relu()


@kernel("relu", "masked", FITS_32_BIT)
def relu_masked(rt: Runtime, x: Shared) -> Shared:
    """max(x, 0) by one masked opening, see `pi_sim.mpc.primitives.piecewise`: exact.

    4 rounds, 10 3/8 bytes and 40 offline per element.
    Source: ours; its parts are a dealer's tables and Beaver's products.
    """
    return map_share(x, lambda share: evaluate(rt, share, RELU))


@kernel("clamp", "kogge-stone")
def clamp_kogge_stone(rt: Runtime, x: Shared, *, low: float, high: float) -> Shared:
    """low + relu(x - low) - relu(x - high), stock CrypTen: both ReLUs at once, see `relu`.

    9 rounds, 464 bytes and 240 offline per element. Exact. Source: CrypTen (arXiv 2109.00984), section 4.2.
    """
    return x.hardtanh(low, high)


@kernel("clamp", "masked", FITS_32_BIT)
def clamp_masked(rt: Runtime, x: Shared, *, low: float, high: float) -> Shared:
    """Both ends compared with at once, see `pi_sim.mpc.primitives.piecewise`: exact.

    4 rounds, 12 7/8 bytes and 63 offline per element.
    """
    ends = Piecewise((low, high), (Linear(low), Linear(slope=1), Linear(high)))
    return map_share(x, lambda share: evaluate(rt, share, ends))


def relu_plus_series(rt: Runtime, x: Shared, series: FourierSeries) -> Shared:
    """relu(x) plus a sine series of |x|, where |x| is within half the period.

    1. relu(x), see `relu` (9 rounds, 232 bytes); |x| = 2 relu(x) - x.
    2. Compare |x| with half the period (8 rounds, 216 bytes).
    3. The series of |x|, see `primitives.bounded` (1 round, 8 bytes).
    4. Multiply both (1 round, 16 bytes).

    19 rounds, 472 bytes per element. Source: SHAFT (NDSS 2025) and its code, `approximations.py`.
    """
    rectified = x.relu()
    size = map_share(rectified, lambda share: 2 * share - x.share)
    within = size < 2 ** (series.period_bits - FRACTION_BITS - 1)
    return rectified + within * map_share(size, lambda share: fourier.evaluate_local_truncation(rt, share, series))


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
def gelu_erf_taylor(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """x/2 (1 + erf(x / sqrt 2)), erf by CrypTen's Taylor series of `functions.erf_iterations` terms.

    Right to 0.02 for |x| up to 1 and useless beyond 2: CrypTen 0.4.1 raises to an odd power by cubing first, so that
    the series' x^5 comes out as x^6, x^7 as x^9, and so on; the correct series of 8 terms would hold to 2.8.
    35 rounds, 392 bytes per element. Serves both of torch's forms, which differ by less than 0.0005.
    """
    return (x * 0.5) * ((x * math.sqrt(0.5)).erf() + 1)


@kernel("gelu", "tanh-form", Domain("|input|", magnitude, 0, 18))
def gelu_tanh_form(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), tanh by CrypTen's reciprocal of 1 + exp(-2|x|).

    Right to 0.01 for |x| up to 18; beyond 19 the tanh's exponential leaves its own domain and comes back huge.
    26 rounds, 416 bytes per element. Serves both of torch's forms, which differ by less than 0.0005.
    """
    cubic = x * x.square()
    return (x * 0.5) * (((x + cubic * 0.044715) * math.sqrt(2 / math.pi)).tanh() + 1)


@kernel("gelu", "fourier", FITS_32_BIT)
def gelu_fourier(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """0, x/2 plus a cosine series, or x, see `pi_sim.mpc.primitives.piecewise`: right to 0.0003 everywhere.

    5 rounds, 16 3/4 bytes and 183 offline per element. Serves both of torch's forms, which differ by less than 0.0005.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(rt, share, GELU))


@kernel("gelu", "fourier-shaft")
def gelu_fourier_shaft(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """relu(x) and, for |x| < 4, a series of |x| of 8 terms, see `fourier.beside_relu`: right to 0.005 everywhere.

    19 rounds, 472 bytes and 368 offline per element. Serves both of torch's forms.
    Source: SHAFT (NDSS 2025) and its code, `approximations.py`, which prints the coefficients to four digits.
    """
    return relu_plus_series(rt, x, GELU_MINUS_RELU_SERIES)


@kernel("gelu", "quad", Domain("distance of Quad from GELU", _distance_from_gelu, 0, 0.05))
def gelu_quad(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """0.125 x^2 + 0.25 x + 0.5: another function than GELU, for models that were distilled to it.

    1 round, 16 bytes and 8 offline per element: x x by a product, as in MPCFormer's code, where a square would take
    half. It is 0.5 at zero, where GELU is 0, and comes near GELU for x of 0.9 to 1.3 alone.
    Source: MPCFormer (ICLR 2023), section 3.1; its benchmark has the last two coefficients exchanged.
    """
    return (x * 0.125) * x + x * 0.25 + 0.5


@kernel("gelu", "poly", FITS_32_BIT)
def gelu_poly(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """PUMA's polynomials of degree 3 and 6 between -4, -1.95 and 3: right to 0.02, worst just below 3.

    12 rounds, 143 bytes and 206 offline per element, see `primitives.polynomials`. Serves both of torch's forms.
    Source: PUMA (arXiv 2307.12533), section 4.2; comparison and selection are ours.
    """
    return map_share(x, lambda share: piecewise.evaluate_polynomials(rt, share, (-4.0, -1.95, 3.0), GELU_POLYNOMIALS))


SILU_SERIES = FourierSeries(
    period_bits=21,
    fraction_bits=27,
    basis_bits=13,
    low=-1.0,
    constant=2.9838583,
    slope=0.5,
    cosines=(
        *(-1.5941958, -1.3214075, 0.3369536, -0.346773, 0.0627332, -0.1773483),
        *(0.1915682, -0.2286616, 0.1659224, -0.1001885, 0.037766, -0.0100509),
    ),
)
"""x sigmoid(x) on [-9, 9], of period 32: x/2 and an even function, to 0.0002."""
SILU = Piecewise(thresholds=(-9.0, 9.0), pieces=(Linear(), SILU_SERIES, Linear(slope=1)))
SILU_MINUS_RELU_SERIES = FourierSeries(
    period_bits=20,
    fraction_bits=32,
    basis_bits=16,
    low=-1.0,
    sines=(
        *(-0.1299222, -0.1219513, -0.0743456, -0.039412, -0.0216205, -0.0117684),
        *(-0.0074477, -0.004438, -0.0033278, -0.0020776, -0.0018038, -0.0011212),
    ),
)
"""|x| (sigmoid(|x|) - 1), by which SiLU is below ReLU, on [-8, 8], of period 16: plain Fourier series, to 0.0053."""


@kernel("silu", "sigmoid", Domain("|input|", magnitude, 0, 490))
def silu_sigmoid(rt: Runtime, x: Shared) -> Shared:
    """x sigmoid(x), the sigmoid as in `tanh` (23 rounds), then one product.

    24 rounds, 392 bytes and 240 offline per element. Right to 0.008 for |x| up to 490: to 0.004 below 100; from 510 on
    the sigmoid's exponential leaves its own domain. Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    return x * x.sigmoid()


@kernel("silu", "fourier", FITS_32_BIT)
def silu_fourier(rt: Runtime, x: Shared) -> Shared:
    """0, x/2 plus a cosine series, or x, see `pi_sim.mpc.primitives.piecewise`: right to 0.0012 everywhere.

    5 rounds, 16 3/4 bytes and 263 offline per element.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(rt, share, SILU))


@kernel("silu", "fourier-shaft")
def silu_fourier_shaft(rt: Runtime, x: Shared) -> Shared:
    """relu(x) and, for |x| < 8, a series of |x| of 12 terms, see `fourier.beside_relu`: right to 0.006 everywhere.

    19 rounds, 472 bytes and 432 offline per element.
    Source: SHAFT (NDSS 2025) and its code, `approximations.py`, which prints the coefficients to four digits.
    """
    return relu_plus_series(rt, x, SILU_MINUS_RELU_SERIES)


TANH_SERIES = FourierSeries(
    period_bits=20,
    fraction_bits=29,
    basis_bits=14,
    low=-2.0,
    sines=(
        *(1.3161306, -0.1004501, 0.1523934, 0.4015562, -0.5858833, 0.7577069),
        *(-0.6600161, 0.4924206, -0.280205, 0.1302678, -0.0415708, 0.0088742),
    ),
)
"""tanh(x) on [-4.6, 4.6], of period 16, to 0.0001."""
TANH = Piecewise(thresholds=(-4.6, 4.6), pieces=(Linear(-1.0), TANH_SERIES, Linear(1.0)))


@kernel("tanh", "sigmoid", Domain("|input|", magnitude, 0, 245))
def tanh_sigmoid(rt: Runtime, x: Shared) -> Shared:
    """2 sigmoid(2 x) - 1, stock CrypTen.

    1. Take the sign of 2 x (8 rounds) and multiply by it (1 round): |2 x|.
    2. exp(-|2 x|) = (1 - |2 x| / 256)^256 by 8 squarings (8 rounds).
    3. Reciprocal of 1 + exp(-|2 x|) by 3 Newton steps from 0.75: the first is local, the others take a square and a
       product each (4 rounds).
    4. Choose it or one minus it by the sign, in two products (2 rounds).

    23 rounds, 376 bytes and 232 offline per element. Right to 0.006, worst near zero, for |x| up to 245; from 256 on
    the exponential leaves its own domain and comes back huge. Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    return x.tanh()


@kernel("tanh", "fourier", FITS_32_BIT)
def tanh_fourier(rt: Runtime, x: Shared) -> Shared:
    """-1, a sine series, or 1, see `pi_sim.mpc.primitives.piecewise`: right to 0.0004 everywhere.

    5 rounds, 16 7/8 bytes and 259 offline per element.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(rt, share, TANH))


@kernel("tanh", "fourier-bounded", Domain("|input|", magnitude, 0, 4.6))
def tanh_fourier_bounded(rt: Runtime, x: Shared) -> Shared:
    """The sine series of `fourier` alone, one masked opening, see `bounded`: right to 0.0004 for |x| up to 4.6.

    1 round, 8 bytes and 192 offline per element. Nothing keeps x within the domain: beyond, it swings to the other
    sign. Source: SHAFT (NDSS 2025); the coefficients are ours.
    """
    return map_share(x, lambda share: fourier.evaluate_local_truncation(rt, share, TANH_SERIES))


ERF_SERIES = FourierSeries(
    period_bits=20,
    fraction_bits=29,
    basis_bits=14,
    low=-2.0,
    sines=(
        *(0.5602878, 0.661829, 0.1566934, -0.2083753, 0.1680019),
        *(0.2592944, -0.3635013, 0.2791872, -0.1076403, 0.023671),
    ),
)
"""erf(x) on [-3, 3], of period 16, to 0.00001."""
ERF = Piecewise(thresholds=(-3.0, 3.0), pieces=(Linear(-1.0), ERF_SERIES, Linear(1.0)))


@kernel("erf", "taylor", Domain("|input|", magnitude, 0, 0.6))
def erf_taylor(rt: Runtime, x: Shared) -> Shared:
    """Stock CrypTen: the Taylor series of `functions.erf_iterations` terms, its odd powers miscomputed (see `gelu`).

    34 rounds, 376 bytes and 272 offline per element. Right to 0.015 for |x| up to 0.6, off by 177 at 2.
    """
    return x.erf()


@kernel("erf", "tanh-form", Domain("|input|", magnitude, 0, 13))
def erf_tanh_form(rt: Runtime, x: Shared) -> Shared:
    """tanh(2 / sqrt(pi) (x + 0.08943 x^3)), the approximation that GELU's tanh form is made of.

    25 rounds, 400 bytes and 248 offline per element: the square, one product, and `tanh`. Right to 0.006 for |x| up to
    13, where the tanh's own domain ends; the approximation itself is right to 0.0004.
    """
    cubic = x * x.square()
    return ((x + cubic * 0.08943) * (2 / math.sqrt(math.pi))).tanh()


@kernel("erf", "fourier", FITS_32_BIT)
def erf_fourier(rt: Runtime, x: Shared) -> Shared:
    """-1, a sine series, or 1, see `pi_sim.mpc.primitives.piecewise`: right to 0.0002 everywhere.

    5 rounds, 16 7/8 bytes and 227 offline per element.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(rt, share, ERF))


@kernel("erf", "fourier-bounded", Domain("|input|", magnitude, 0, 3))
def erf_fourier_bounded(rt: Runtime, x: Shared) -> Shared:
    """The sine series of `fourier` alone, one masked opening, see `bounded`: right to 0.0002 for |x| up to 3.

    1 round, 8 bytes and 160 offline per element. Nothing keeps x within the domain: beyond, it swings to the other
    sign. Source: SHAFT (NDSS 2025); the coefficients are ours.
    SHAFT itself takes the first five terms of the plain series of erf on [-8, 8], which are off by up to 0.07 below 5.
    """
    return map_share(x, lambda share: fourier.evaluate_local_truncation(rt, share, ERF_SERIES))
