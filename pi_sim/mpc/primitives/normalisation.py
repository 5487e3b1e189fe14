"""1 / v and 1 / sqrt(v) of one number v per row, and products of 32-bit rows with such a number.

v is opened once under a mask. The dealer shares the products of its random bits with the mask, so that v is brought to
[1, 2] or [1, 4) by what a masked comparison opens, without a product. A short series follows; the dealer shares the
bits' products with its basis too, so that the result is scaled back without a product either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.openings import NARROW_BITS, AdditiveOpening, Opening
from pi_sim.mpc.primitives import comparison
from pi_sim.mpc.primitives.comparison import NARROW, locate
from pi_sim.mpc.primitives.fourier import FourierSeries, basis, public_coefficients
from pi_sim.mpc.primitives.narrow import LIFT_OFFSET, LiftedWord, choose, lift_values
from pi_sim.mpc.primitives.ring import FRACTION_BITS, blockwise
from pi_sim.mpc.primitives.truncation import shift_locally
from pi_sim.mpc.runtime import Runtime


@dataclass(frozen=True)
class Normalisation:
    """A function of v as a series on one interval, scaled by powers on all others.

    In the interval between `thresholds` j - 1 and j (ring units of v), t = v `weights`[j] / 2^`shift` is the input of
    the series, and the result is the series times `scales`[j].
    """

    series: FourierSeries
    thresholds: tuple[int, ...]
    weights: tuple[int, ...]
    shift: int
    scales: tuple[int, ...]
    word: torch.dtype

    @property
    def intervals(self) -> int:
        return len(self.weights)

    def correlation(self, rows: int) -> Correlation:
        """Return the masks r of v and s of t, and bits p; then tables of r, p, p r, the basis of s and p times it.

        All products are shared in 64-bit words.
        """
        count, harmonics = self.intervals, 2 * self.series.harmonics
        bits = TensorSpec((count, rows), 1, torch.uint8)
        words = TensorSpec((count, rows))
        random = TensorSpec((rows,)), TensorSpec((rows,), dtype=NARROW), bits
        basis_specs = TensorSpec((harmonics, rows)), TensorSpec((count, harmonics, rows))
        tables = comparison.digit_table_specs(rows, self.word)
        return Correlation(random, (*tables, words, words, *basis_specs), self._derive)

    def _derive(self, r: Tensor, s: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        bits, basis_values = p.to(torch.int64), basis(self.series, s).to(torch.int64)
        products = bits.unsqueeze(1) * basis_values
        return *comparison.build_digit_tables(r, self.word), bits, bits * r, basis_values, products


def normalise(
    rt: Runtime, v: Tensor, form: Normalisation, beside: Sequence[Opening] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Return the function of every v (rows), with the fraction bits of the series and of the scales together.

    1. Open m = v + r (1 round, 8 bytes); the openings `beside` join this round, and their values are returned too.
    2. Compare v with all thresholds at once (2 rounds; 2 bytes per threshold in 32-bit words, 4 1/4 in 64-bit words).
    3. Open z = i ^ p, i the indicator of v in an interval (1 round, 1/8 byte per interval).
    4. t = sum_j i_j weights_j v, where i v = z v + (1 - 2 z) (p m - p r); shifted by each party alone: local. Only a
       period of the series matters of t, whose bits are right.
    5. Open t + s (1 round, 4 bytes); the series and its product with the scale are linear in what is shared: local.

    5 rounds.
    """
    r, s, p, table, top, bits, masked, basis_share, products = rt.correlated(form.correlation(len(v)))
    m, *opened = rt.open(AdditiveOpening(v + r), *beside)
    inside, _ = locate(rt, m.to(form.word), table, top, form.thresholds)
    z = rt.reveal_bits(inside ^ p, 1)
    selected = choose(z, v, m * bits - masked)
    weights = torch.tensor(form.weights, device=v.device).view(-1, 1)
    t = shift_locally((selected * weights).sum(0), form.shift)
    n = rt.reveal_u32(t.to(NARROW) + s)
    coefficients = torch.stack(list(public_coefficients(form.series, n))).to(torch.int64)
    constant = round(form.series.constant * form.series.encoded_one)
    value = (coefficients * basis_share).sum(0) + (constant if rt.rank == 0 else 0)
    product = (coefficients * products).sum(1) + constant * bits
    scales = torch.tensor(form.scales, device=v.device).view(-1, 1)
    return (choose(z, value, product) * scales).sum(0), opened


def inverse_root_form(series: FourierSeries, powers: range, fraction: int) -> Normalisation:
    """Return 1 / sqrt(v) for v of `fraction` fraction bits between powers of 4; the scales have `powers[-1]` bits.

    The series is that of 1 / sqrt on [1, 4).
    """
    top = powers[-1]
    return Normalisation(
        series,
        thresholds=tuple(4**power << fraction if power >= 0 else (1 << fraction) // 4**-power for power in powers[1:]),
        weights=tuple(4 ** (top - power) for power in powers),
        shift=fraction + 2 * top - FRACTION_BITS,
        scales=tuple(2 ** (top - power) for power in powers),
        word=comparison.WIDE,
    )


def reciprocal_form(series: FourierSeries, powers: range, fraction: int, word: torch.dtype) -> Normalisation:
    """Return 1 / v for v of `fraction` fraction bits between powers of 2; the scales have `powers[-1]` bits.

    The series is that of 1 / t on [1, 2].
    """
    top = powers[-1]
    return Normalisation(
        series,
        thresholds=tuple((1 << fraction + power) if power >= -fraction else 0 for power in powers[1:]),
        weights=tuple(2 ** (top - power) for power in powers),
        shift=fraction + top - FRACTION_BITS,
        scales=tuple(2 ** (top - power) for power in powers),
        word=word,
    )


Expand = Callable[[Tensor], Tensor]
"""Function from a value per row to one per element of the rows."""


def row_masks(shape: Shape, rows: int, expand: Expand, squares: bool) -> Correlation:
    """Return the correlation of a mask r of 32 bits and a number s per row.

    Of r in 64-bit words: its value R, its top bit T, s R and s T; with `squares` also R T, and the sum of R^2 over each
    row of r, which has two dimensions.
    """
    words, tops = TensorSpec(shape), TensorSpec(shape, dtype=NARROW)

    def derive(r: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        value, top = lift_values(r, (words, tops))
        factor = expand(s)
        parts = value, top, value * factor, (top * factor).to(NARROW)
        return (*parts, (value * top).to(NARROW), (value * value).sum(-1)) if squares else parts

    square_specs = (tops, TensorSpec((rows,))) if squares else ()
    return Correlation((tops, TensorSpec((rows,))), (words, tops, words, tops, *square_specs), derive)


class RowWords:
    """Rows of 32-bit words, |x| < 2^30 units, opened once; their squares and a product with a row's number follow.

    4 bytes per element; 24 bytes offline per element and, for squares, 4 more and 8 per row. `opening` must be opened
    before anything else, beside other openings: its value is `m`.
    """

    m: Tensor

    def __init__(self, rt: Runtime, share: Tensor, rows: int, expand: Expand, squares: bool = False) -> None:
        self.rt, self.expand = rt, expand
        r, self.mask, self.value, self.top, self.value_s, self.top_s, *self.square_parts = rt.correlated(
            row_masks(tuple(share.shape), rows, expand, squares)
        )
        self.opening = AdditiveOpening(share.to(NARROW) + r + (LIFT_OFFSET if rt.rank == 0 else 0), NARROW_BITS)

    def square_sums(self) -> Tensor:
        """Return shares of the sum of x^2 over each row (rows), with the fraction bits of both factors: local.

        x = P - R + w T for public P and w, w = 0 or 2^32: x^2 = P^2 - 2 P R + R^2 + 2 w (P T - R T), modulo 2^64.
        """
        value_top, squares = self.square_parts

        def terms(m: Tensor, value: Tensor, top: Tensor, value_top: Tensor) -> tuple[Tensor]:
            word = LiftedWord.of(m, LIFT_OFFSET)
            public = word.public
            cross = 2 * word.wrap * (public * top - value_top)
            own = public * (public - 2 * value) if self.rt.rank == 0 else -2 * public * value
            return (cross + own,)

        (sums,) = blockwise(terms, self.m, self.value, self.top, value_top)
        return sums.sum(-1) + squares

    def multiply(self, factor: Tensor) -> Tensor:
        """Return shares of x times a number per row (rows): 1 round, 8 bytes per row."""
        (opened,) = self.rt.reveal(factor - self.mask)
        factors, masks = self.expand(opened), self.expand(self.mask)
        word = LiftedWord.of(self.m, LIFT_OFFSET)
        share = word.share(self.rt, self.value, self.top).mul_(factors)
        share.addcmul_(word.public, masks).sub_(self.value_s)
        return share.addcmul_(word.wrap, self.top_s.to(torch.int64))
