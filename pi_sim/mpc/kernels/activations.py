"""Elementwise functions: ReLU, clamp, GELU, SiLU, tanh and erf.

The families are stock CrypTen's functions (it has no GELU: both forms here are composed of its erf and tanh), SHAFT's
masked Fourier series beside a stock ReLU, and our functions by pieces of one masked opening
(`pi_sim.mpc.primitives.piecewise`). The kernels of GELU serve both of torch's forms, which differ by less than 0.0005.
"""

import math
from fractions import Fraction

from torch import Tensor
from torch.nn import functional

from pi_sim.errors import UsageError
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import PRODUCT, SQUARE, Dimensions, KernelCost, erf_cost, tanh_cost
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import FITS_32_BIT, Domain, kernel, magnitude
from pi_sim.mpc.primitives import fourier, piecewise
from pi_sim.mpc.primitives.fourier import FourierSeries
from pi_sim.mpc.primitives.piecewise import RELU, Linear, Piecewise, Polynomial, evaluate
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.runtime import Runtime


@kernel("relu", "kogge-stone", rounds=9, bytes=232, offline=120)
def relu_kogge_stone(rt: Runtime, x: Shared) -> Shared:
    """Return x * (x >= 0), stock CrypTen: exact.

    1. Convert additive to XOR shares: add both parties' shares with a Kogge-Stone adder, of one AND and six levels of
       two ANDs each (7 rounds).
    2. Convert the sign bit back: open it under a random bit that the dealer shares in both forms (1 round).
    3. Multiply by it (1 round).

    Source: CrypTen (arXiv 2109.00984), section 4.2 and appendix B.
    """
    return x.relu()


@kernel("relu", "masked", FITS_32_BIT, rounds=4, bytes=Fraction(81, 8), offline=Fraction(309, 8))
def relu_masked(rt: Runtime, x: Shared) -> Shared:
    """Return max(x, 0) by one masked opening: exact. Source: ours, of a dealer's tables and Beaver's products."""
    return map_share(x, lambda share: evaluate(rt, share, RELU))


MAX_END = 2.0**14
"""Limit on inputs and ends of a clamp in 32-bit words, in which their difference is compared."""


@kernel("clamp", "kogge-stone", rounds=9, bytes=464, offline=240)
def clamp_kogge_stone(rt: Runtime, x: Shared, *, low: float, high: float) -> Shared:
    """Return low + relu(x - low) - relu(x - high), both ReLUs in the same rounds, stock CrypTen: exact.

    Source: CrypTen (arXiv 2109.00984), section 4.2.
    """
    return x.hardtanh(low, high)


CLAMPED = Domain("|input|", magnitude, 0, MAX_END, hard=True)


def _clamp_masked_cost(d: Dimensions) -> KernelCost:
    """Return the cost of a comparison and a selection; an end that is 0 needs no table of its own."""
    ends = sum(d.op.attribute(name, 0) != 0 for name in ("low", "high"))
    return KernelCost(rounds=4, bytes=Fraction(97 + ends, 8), offline=Fraction(177, 4) + 8 * ends).parallel(d.elements)


@kernel("clamp", "masked", CLAMPED, cost=_clamp_masked_cost)
def clamp_masked(rt: Runtime, x: Shared, *, low: float, high: float) -> Shared:
    """Return the clamped x, compared with both ends at once by one masked opening: exact. Source: ours."""
    return map_share(x, lambda share: evaluate(rt, share, clamp_pieces(low, high)))


def clamp_pieces(low: float, high: float) -> Piecewise:
    """Return clamp by pieces. Raises `UsageError` for ends whose distance from an input may not fit 32 bits."""
    if max(abs(low), abs(high)) > MAX_END:
        raise UsageError(f"clamp compares in 32-bit words: choose ends of up to {MAX_END:,.0f}, or kernel kogge-stone.")
    return Piecewise((low, high), (Linear(low), Linear(slope=1), Linear(high)))


def relu_plus_series(rt: Runtime, x: Shared, series: FourierSeries) -> Shared:
    """Return relu(x) plus, where |x| is less than half the period, a sine series of |x|.

    1. relu(x), see `relu_kogge_stone` (9 rounds); |x| = 2 relu(x) - x.
    2. Compare |x| with half the period (8 rounds).
    3. Evaluate the series of |x|, see `fourier.evaluate_local_truncation` (1 round).
    4. Multiply both (1 round).

    Source: SHAFT (NDSS 2025) and its code, `approximations.py`, which prints the coefficients to four digits.
    """
    rectified = x.relu()
    size = map_share(rectified, lambda share: 2 * share - x.share)
    in_period = size < 2 ** (series.period_bits - FRACTION_BITS - 1)
    return rectified + in_period * map_share(size, lambda share: fourier.evaluate_local_truncation(rt, share, series))


GELU_SERIES = FourierSeries(
    period_bits=20,
    fraction_bits=28,
    basis_bits=13,
    low=-1.0,
    constant=1.9308244,
    slope=0.5,
    cosines=(-1.6254896, -0.0343421, -0.2469439, 0.0594693, -0.0950566, 0.0248517, -0.0132231),
)
"""GELU on [-4, 4], period 16: x/2 plus an even function; max error 0.0001."""
GELU = Piecewise(thresholds=(-4.0, 4.0), pieces=(Linear(), GELU_SERIES, Linear(slope=1)))
GELU_MINUS_RELU_SERIES = FourierSeries(
    period_bits=19,
    fraction_bits=32,
    basis_bits=16,
    low=-1.0,
    sines=(-0.0817909, -0.0809227, -0.0424174, -0.0175986, -0.0079443, -0.004257, -0.0025985, -0.001694),
)
"""GELU - ReLU on [-4, 4], period 8: the plain Fourier series; max error 0.0045."""
GELU_POLYNOMIALS: tuple[Polynomial, ...] = (
    {},
    {0: -0.5054031200, 1: -0.4222658115, 2: -0.1180761295, 3: -0.0110341340},
    {0: 0.0085263215, 1: 0.5, 2: 0.3603292693, 4: -0.0376882004, 6: 0.0018067463},
    {1: 1.0},
)
"""F0 and F1 of PUMA between zero and the identity."""


def _distance_from_gelu(x: Tensor) -> Tensor:
    """Return |Quad(x) - GELU(x)|."""
    return (0.125 * x.square() + 0.25 * x + 0.5 - functional.gelu(x)).abs()


@kernel(
    "gelu",
    "erf-taylor",
    Domain("|input|", magnitude, 0, 1),
    cost=lambda d: (erf_cost(d) + PRODUCT).parallel(d.elements),
)
def gelu_erf_taylor(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """Return x/2 (1 + erf(x / sqrt 2)), with CrypTen's erf, a Taylor series of `functions.erf_iterations` terms.

    Max error 0.02 for |x| up to 1; useless beyond 2. CrypTen 0.4.1 raises to an odd power by cubing first, so that the
    series' x^5 becomes x^6, x^7 becomes x^9, and so on; the correct series of 8 terms would hold up to 2.8.
    """
    return (x * 0.5) * ((x * math.sqrt(0.5)).erf() + 1)


@kernel(
    "gelu",
    "tanh-form",
    Domain("|input|", magnitude, 0, 18),
    cost=lambda d: (SQUARE + PRODUCT + tanh_cost(d) + PRODUCT).parallel(d.elements),
)
def gelu_tanh_form(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """Return x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), with CrypTen's tanh.

    Max error 0.01 for |x| up to 18; beyond 19 the exponential in tanh leaves its domain, and the result is huge.
    """
    cubic = x * x.square()
    return (x * 0.5) * (((x + cubic * 0.044715) * math.sqrt(2 / math.pi)).tanh() + 1)


@kernel("gelu", "fourier", FITS_32_BIT, rounds=5, bytes=Fraction(65, 4), offline=Fraction(721, 4))
def gelu_fourier(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """Return 0, x/2 plus a cosine series, or x, chosen by one masked opening: max error 0.0003 everywhere.

    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(rt, share, GELU))


@kernel("gelu", "fourier-shaft", rounds=19, bytes=472, offline=368)
def gelu_fourier_shaft(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """Return relu(x) plus, for |x| < 4, a series of |x| of 8 terms: max error 0.005 everywhere.

    Source: SHAFT (NDSS 2025), see `relu_plus_series`.
    """
    return relu_plus_series(rt, x, GELU_MINUS_RELU_SERIES)


@kernel(
    "gelu", "quad", Domain("distance of Quad from GELU", _distance_from_gelu, 0, 0.05), rounds=1, bytes=16, offline=8
)
def gelu_quad(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """Return 0.125 x^2 + 0.25 x + 0.5, a different function, for models that were distilled to it.

    At zero it is 0.5, where GELU is 0; it is close to GELU only for x of 0.9 to 1.3. x^2 is a product, as in
    MPCFormer's code; a square would send half of it.
    Source: MPCFormer (ICLR 2023), section 3.1; its benchmark exchanges the last two coefficients.
    """
    return (x * 0.125) * x + x * 0.25 + 0.5


@kernel("gelu", "poly", FITS_32_BIT, rounds=12, bytes=Fraction(285, 2), offline=Fraction(1615, 8))
def gelu_poly(rt: Runtime, x: Shared, *, approximate: str) -> Shared:
    """Return PUMA's polynomials of degree 3 and 6 between -4, -1.95 and 3: max error 0.02, just below 3.

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
"""SiLU on [-9, 9], period 32: x/2 plus an even function; max error 0.0002."""
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
"""SiLU - ReLU on [-8, 8], period 16: the plain Fourier series; max error 0.0053."""


@kernel(
    "silu",
    "sigmoid",
    Domain("|input|", magnitude, 0, 490),
    cost=lambda d: (tanh_cost(d) + PRODUCT).parallel(d.elements),
)
def silu_sigmoid(rt: Runtime, x: Shared) -> Shared:
    """Return x sigmoid(x), with CrypTen's sigmoid, see `tanh_sigmoid`.

    Max error 0.008 for |x| up to 490, 0.004 below 100; from 510 on the exponential in the sigmoid leaves its domain.
    Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    return x * x.sigmoid()


@kernel("silu", "fourier", FITS_32_BIT, rounds=5, bytes=Fraction(65, 4), offline=Fraction(1041, 4))
def silu_fourier(rt: Runtime, x: Shared) -> Shared:
    """Return 0, x/2 plus a cosine series, or x, chosen by one masked opening: max error 0.0012 everywhere.

    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(rt, share, SILU))


@kernel("silu", "fourier-shaft", rounds=19, bytes=472, offline=432)
def silu_fourier_shaft(rt: Runtime, x: Shared) -> Shared:
    """Return relu(x) plus, for |x| < 8, a series of |x| of 12 terms: max error 0.006 everywhere.

    Source: SHAFT (NDSS 2025), see `relu_plus_series`.
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
"""tanh on [-4.6, 4.6], period 16; max error 0.0001."""
TANH = Piecewise(thresholds=(-4.6, 4.6), pieces=(Linear(-1.0), TANH_SERIES, Linear(1.0)))


@kernel("tanh", "sigmoid", Domain("|input|", magnitude, 0, 245), cost=lambda d: tanh_cost(d).parallel(d.elements))
def tanh_sigmoid(rt: Runtime, x: Shared) -> Shared:
    """Return 2 sigmoid(2 x) - 1, stock CrypTen; rounds are those of the default settings.

    1. Compare 2 x with 0 (8 rounds) and multiply by the sign (1 round): |2 x|.
    2. exp(-|2 x|) = (1 - |2 x| / 256)^256 by 8 squarings (8 rounds).
    3. Reciprocal of 1 + exp(-|2 x|) by 3 Newton steps from 0.75: the first one is local, the others take a square and a
       product each (4 rounds).
    4. Choose it or one minus it by the sign, in two products (2 rounds).

    Max error 0.006, near zero, for |x| up to 245; from 256 on the exponential leaves its domain and the result is huge.
    Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    return x.tanh()


@kernel("tanh", "fourier", FITS_32_BIT, rounds=5, bytes=Fraction(131, 8), offline=Fraction(1025, 4))
def tanh_fourier(rt: Runtime, x: Shared) -> Shared:
    """Return -1, a sine series, or 1, chosen by one masked opening: max error 0.0004 everywhere.

    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(rt, share, TANH))


@kernel("tanh", "fourier-bounded", Domain("|input|", magnitude, 0, 4.6), rounds=1, bytes=8, offline=192)
def tanh_fourier_bounded(rt: Runtime, x: Shared) -> Shared:
    """Return the sine series of `tanh_fourier` by one masked opening: max error 0.0004 for |x| up to 4.6.

    Nothing keeps x in the domain; beyond, the result swings to the other sign.
    Source: SHAFT (NDSS 2025); the coefficients are ours.
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
"""erf on [-3, 3], period 16; max error 0.00001."""
ERF = Piecewise(thresholds=(-3.0, 3.0), pieces=(Linear(-1.0), ERF_SERIES, Linear(1.0)))


@kernel("erf", "taylor", Domain("|input|", magnitude, 0, 0.6), cost=lambda d: erf_cost(d).parallel(d.elements))
def erf_taylor(rt: Runtime, x: Shared) -> Shared:
    """Return CrypTen's erf: a Taylor series of `functions.erf_iterations` terms, powers wrong as in `gelu_erf_taylor`.

    Max error 0.015 for |x| up to 0.6; at 2 it is off by 177.
    """
    return x.erf()


@kernel(
    "erf",
    "tanh-form",
    Domain("|input|", magnitude, 0, 13),
    cost=lambda d: (SQUARE + PRODUCT + tanh_cost(d)).parallel(d.elements),
)
def erf_tanh_form(rt: Runtime, x: Shared) -> Shared:
    """Return tanh(2 / sqrt(pi) (x + 0.08943 x^3)), the approximation in GELU's tanh form, with CrypTen's tanh.

    Max error 0.006 for |x| up to 13, where the domain of tanh ends; the approximation itself has 0.0004.
    """
    cubic = x * x.square()
    return ((x + cubic * 0.08943) * (2 / math.sqrt(math.pi))).tanh()


@kernel("erf", "fourier", FITS_32_BIT, rounds=5, bytes=Fraction(131, 8), offline=Fraction(897, 4))
def erf_fourier(rt: Runtime, x: Shared) -> Shared:
    """Return -1, a sine series, or 1, chosen by one masked opening: max error 0.0002 everywhere.

    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(rt, share, ERF))


@kernel("erf", "fourier-bounded", Domain("|input|", magnitude, 0, 3), rounds=1, bytes=8, offline=160)
def erf_fourier_bounded(rt: Runtime, x: Shared) -> Shared:
    """Return the sine series of `erf_fourier` by one masked opening: max error 0.0002 for |x| up to 3.

    Nothing keeps x in the domain; beyond, the result swings to the other sign. SHAFT itself takes the first five terms
    of the plain series of erf on [-8, 8], which are off by up to 0.07 below 5.
    Source: SHAFT (NDSS 2025); the coefficients are ours.
    """
    return map_share(x, lambda share: fourier.evaluate_local_truncation(rt, share, ERF_SERIES))
