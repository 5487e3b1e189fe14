"""Functions of values that are right in their low 32 bits alone: one opening of 4 bytes serves all that they need.

A *lift* returns to 64 bits. The dealer draws r, and shares its value R and its top bit T in longer words. The opened
m = x + offset + r, modulo 2^32, wrapped around exactly if its top bit is clear where r's is set:

    x = m - offset - R + (1 - top(m)) T 2^32

so x is linear in what the dealer shares, with public factors. So are its products with a bit p or a number s that the
dealer knows, if it also shares p R and p T, or s R and s T: a function by pieces, and a product with a row's scalar,
need no further opening of x.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.openings import NARROW_BITS, AdditiveOpening
from pi_sim.mpc.primitives import comparison
from pi_sim.mpc.primitives.comparison import NARROW, locate
from pi_sim.mpc.primitives.fourier import FourierSeries, basis, combine_basis
from pi_sim.mpc.primitives.piecewise import Linear, Piecewise
from pi_sim.mpc.primitives.ring import FRACTION_BITS, blockwise
from pi_sim.mpc.primitives.truncation import logical_shift
from pi_sim.mpc.runtime import Runtime

LIFT_OFFSET = 2**30
"""Added to lifted values, |x| < 2^30 units, to make them positive."""
TOP_ONLY = torch.int32
"""Words of a top bit's shares that are only used times 2^32."""


@dataclass(frozen=True)
class LiftedWord:
    """A masked word of 32 bits as it was opened, for x >> `fraction`; x + `offset` must lie in [0, 2^31).

    `public` is the public part of x, `wrap` the public factor of the mask's top bit, both in words of `dtype`.
    """

    public: Tensor
    wrap: Tensor

    @classmethod
    def of(cls, m: Tensor, offset: int, fraction: int = 0, dtype: torch.dtype = torch.int64) -> "LiftedWord":
        """Return the public parts of the opened m (int32)."""
        word = m.to(dtype) & (2**NARROW_BITS - 1) if dtype == torch.int64 else m
        public = logical_shift(word, fraction) - (offset >> fraction)
        step = NARROW_BITS - fraction
        wrap = (m >= 0).to(dtype)
        return cls(public, wrap << step if step < 8 * dtype.itemsize else torch.zeros_like(wrap))

    def share(self, rt: Runtime, shifted: Tensor, top: Tensor | None) -> Tensor:
        """Return a share of x, given shares of the mask's value and top bit (None if it does not matter)."""
        share = -shifted if rt.rank else self.public - shifted
        return share if top is None else torch.addcmul(share, self.wrap, top.to(share.dtype))

    def product(self, factor: Tensor, shifted: Tensor, top: Tensor | None) -> Tensor:
        """Return a share of s x, given shares of s, and of the products of s with the mask's value and top bit."""
        share = self.public * factor - shifted
        return share if top is None else torch.addcmul(share, self.wrap, top.to(share.dtype))


def lift_specs(length: int, fraction: int = 0, word: torch.dtype = torch.int64) -> tuple[TensorSpec, ...]:
    """Return the dependent parts of a lift to words of a type, R and T; without T if it does not matter."""
    if not fraction:
        tops = (TensorSpec((length,), dtype=TOP_ONLY),) if word == torch.int64 else ()
        return TensorSpec((length,), dtype=word), *tops
    return TensorSpec((length,), dtype=word), TensorSpec((length,), dtype=word)


def lift_values(r: Tensor, specs: tuple[TensorSpec, ...], fraction: int = 0) -> tuple[Tensor, ...]:
    """Return the values of these parts for a mask r (int32)."""
    values = ((r.to(torch.int64) & (2**NARROW_BITS - 1)) >> fraction, r < 0)
    return tuple(value.to(spec.dtype) for value, spec in zip(values, specs, strict=False))


def lift_mask(length: int, bits: int) -> Correlation:
    """Return the correlation of a mask r (length) of 32 bits, its low `bits` bits, and the highest of them."""
    top_word = TOP_ONLY if bits == NARROW_BITS else torch.int64

    def derive(r: Tensor) -> tuple[Tensor, ...]:
        low = r.to(torch.int64) & ((1 << bits) - 1)
        return low, logical_shift(low, bits - 1).to(top_word)

    specs = TensorSpec((length,)), TensorSpec((length,), dtype=top_word)
    return Correlation((TensorSpec((length,), dtype=NARROW),), specs, derive)


def lift(rt: Runtime, share: Tensor, bits: int = NARROW_BITS, lowest: int = -LIFT_OFFSET) -> Tensor:
    """Return exact 64-bit shares of values that are right modulo 2^bits, lowest <= x < lowest + 2^(bits - 1).

    1 round; 4 bytes per element, and offline 12 from 32 bits, 16 from fewer.
    """
    flat = share.reshape(-1)
    r, low, top = rt.correlated(lift_mask(len(flat), bits))
    m = rt.reveal_u32(flat.to(NARROW) + r - (lowest if rt.rank == 0 else 0))

    def unmask(m: Tensor, low: Tensor, top: Tensor) -> tuple[Tensor]:
        word = m.to(torch.int64) & ((1 << bits) - 1)
        wraps = (word >> (bits - 1) == 0).to(torch.int64) << bits
        secret = wraps * top - low
        return (secret + word + lowest if rt.rank == 0 else secret,)

    return blockwise(unmask, m, low, top)[0].view(share.shape)


def result_word(bits: int) -> torch.dtype:
    """Return the words in which a result is computed of which `bits` low bits are read."""
    return NARROW if bits == NARROW_BITS else torch.int64


@dataclass(frozen=True)
class SelectionMasks:
    """Masks for a function by pieces: specs and values of all that the dealer shares."""

    length: int
    function: Piecewise
    word: torch.dtype

    @property
    def has_slope(self) -> bool:
        return any(isinstance(piece, Linear) and piece.slope for piece in self.function.pieces)

    @property
    def fraction(self) -> int:
        """Bits that the lift of the series removes."""
        series = self.function.series
        return series.fraction_bits - FRACTION_BITS if series else 0

    @property
    def value_specs(self) -> tuple[TensorSpec, ...]:
        """Parts of the lift of x."""
        return lift_specs(self.length, word=self.word) if self.has_slope else ()

    @property
    def series_specs(self) -> tuple[TensorSpec, ...]:
        """Parts of the lift of the series."""
        return lift_specs(self.length, self.fraction, self.word) if self.function.series else ()

    def product_specs(self, piece: Linear | FourierSeries) -> tuple[TensorSpec, ...]:
        """Parts of the lift that a piece selects, each times the piece's bit."""
        if isinstance(piece, FourierSeries):
            return self.series_specs
        return self.value_specs if piece.slope else ()

    @property
    def pieces(self) -> list[Linear | FourierSeries]:
        """The pieces that are not zero."""
        return [self.function.pieces[number] for number in self.function.nonzero_intervals]

    def correlation(self) -> Correlation:
        """Return the correlation: a mask of x, one of the series, and a bit per piece; then what follows from them."""
        words, series = TensorSpec((self.length,), dtype=NARROW), self.function.series
        bits = TensorSpec((len(self.pieces), self.length), 1, torch.uint8)
        basis_specs = (TensorSpec((2 * series.harmonics, self.length), dtype=NARROW),) if series else ()
        bit_spec = TensorSpec((self.length,), dtype=self.word)
        products = [spec for piece in self.pieces for spec in (bit_spec, *self.product_specs(piece))]
        tables = comparison.digit_table_specs(self.length, NARROW)
        dependent = (*tables, *self.value_specs, *basis_specs, *self.series_specs, *products)
        return Correlation((words, *((words,) if series else ()), bits), dependent, self._derive)

    def _derive(self, r: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        series_mask, bits = (rest[0], rest[1]) if self.function.series else (None, rest[0])
        values = lift_values(r, self.value_specs)
        series_values = () if series_mask is None else lift_values(series_mask, self.series_specs, self.fraction)
        basis_values = blockwise(self._basis, r) if self.function.series else ()
        products = (
            value
            for pair in zip(bits, self.pieces, strict=True)
            for value in self._products(*pair, values, series_values)
        )
        return *comparison.build_digit_tables(r, NARROW), *values, *basis_values, *series_values, *products

    def _basis(self, r: Tensor) -> tuple[Tensor]:
        assert self.function.series
        return (basis(self.function.series, r),)

    def _products(
        self, bit: Tensor, piece: Linear | FourierSeries, values: tuple[Tensor, ...], series: tuple[Tensor, ...]
    ) -> Iterator[Tensor]:
        """Yield the piece's bit, and its products with the lift that the piece selects."""
        yield bit.to(self.word)
        chosen = series if isinstance(piece, FourierSeries) else values[: len(self.product_specs(piece))]
        yield from (bit.to(value.dtype) * value for value in chosen)


def evaluate(rt: Runtime, share: Tensor, function: Piecewise, bits: int) -> Tensor:
    """Return the function of values that are right modulo 2^32, |x| < 2^30 units; the result is right modulo 2^bits.

    1. Open m = x + 2^30 + r (1 round, 4 bytes).
    2. Compare x with all thresholds at once (`comparison`: 2 rounds, 2 bytes per threshold). Meanwhile evaluate the
       series of every x, wherever it lies, and open it under a mask of its own in the first of these rounds (4 bytes).
    3. Open z = i ^ p, i the indicator of x in an interval (1 round, 1/8 byte per interval).
    4. i u = z u + (1 - 2 z) p u for x and for the series u, both lifted: local.

    4 rounds. Outside its interval the series may leave its words: times i = 0 it vanishes all the same.
    Sources: comparison and selection are ours; the masked series is SHAFT's (NDSS 2025).
    """
    flat, masks = share.reshape(-1).to(NARROW), SelectionMasks(share.numel(), function, result_word(bits))
    r, *random = rt.correlated(masks.correlation())
    series_mask, p = (random[0], random[1]) if function.series else (None, random[0])
    table, top, *dependent = random[2:] if function.series else random[1:]
    m = rt.reveal_u32(flat + r + (LIFT_OFFSET if rt.rank == 0 else 0))
    centred = m - LIFT_OFFSET
    count = len(masks.value_specs)
    value_parts, dependent = dependent[:count], dependent[count:]
    beside: list[AdditiveOpening] = []
    if function.series and series_mask is not None:
        basis_share, *dependent = dependent
        total = _evaluate_series(rt, function.series, centred, flat, basis_share) + series_mask
        beside = [AdditiveOpening(total, NARROW_BITS)]
    ends = [round(threshold * 2**FRACTION_BITS) for threshold in function.thresholds]
    inside, opened = locate(rt, centred, table, top, ends, beside)
    z = rt.reveal_bits(inside[list(function.nonzero_intervals)] ^ p, 1)
    words = (m, *opened)

    def select(z: Tensor, *tensors: Tensor) -> tuple[Tensor]:
        return (_select(rt, masks, z, tensors[: len(words)], iter(tensors[len(words) :])),)

    return blockwise(select, z, *words, *value_parts, *dependent)[0].to(torch.int64).view(share.shape)


def _evaluate_series(rt: Runtime, series: FourierSeries, m: Tensor, share: Tensor, basis_share: Tensor) -> Tensor:
    """Return shares of the series plus its offset, for m - r and shares of r's basis: local."""
    lowest = round(series.low * series.encoded_one) if rt.rank == 0 else 0

    def combine(m: Tensor, share: Tensor, basis_share: Tensor) -> tuple[Tensor]:
        total = combine_basis(rt, series, m, basis_share) - lowest
        return (total + share * series.encoded_slope if series.slope else total,)

    return blockwise(combine, m, share, basis_share)[0]


def _select(
    rt: Runtime, masks: SelectionMasks, z: Tensor, words: tuple[Tensor, ...], parts: Iterator[Tensor]
) -> Tensor:
    """Return the sum of the selected pieces: local."""
    series, word = masks.function.series, masks.word
    value = LiftedWord.of(words[0], LIFT_OFFSET, dtype=word)
    value_share = value.share(rt, *_take(parts, masks.value_specs)) if masks.has_slope else None
    if series:
        curve = LiftedWord.of(words[1], -round(series.low * series.encoded_one), masks.fraction, word)
        curve_share = curve.share(rt, *_take(parts, masks.series_specs))
    total = torch.zeros_like(value.public)
    for bit, piece in zip(z, masks.pieces, strict=True):
        p = next(parts)
        if isinstance(piece, FourierSeries):
            total += choose(bit, curve_share, curve.product(p, *_take(parts, masks.series_specs)))
            continue
        if piece.slope and value_share is not None:
            line = choose(bit, value_share, value.product(p, *_take(parts, masks.value_specs)))
            total += line * piece.slope if piece.slope != 1 else line
        if piece.constant:
            one = round(piece.constant * piece.encoded_one)
            total += choose(bit, torch.full_like(p, one if rt.rank == 0 else 0), p * one)
    return total


def _take(parts: Iterator[Tensor], specs: tuple[TensorSpec, ...]) -> tuple[Tensor, Tensor | None]:
    """Return the next lift's parts."""
    shifted = next(parts)
    return shifted, next(parts) if len(specs) > 1 else None


def choose(z: Tensor, share: Tensor, product: Tensor) -> Tensor:
    """Return a share of i u = z u + (1 - 2 z) p u, for shares of u and of p u."""
    return torch.where(z.bool(), share - product, product)
