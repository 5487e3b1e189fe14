"""Lookups at secret positions: one-hot vectors and rows of a secret table from one short opening.

A fixed table W (V, d) is opened under a mask once: W - B is public, and the one-hot vector e is shared, so that
e (W - B) is local. The cost lies in the row of the random B, which neither party knows. What is not opened has to be
dealt: for every value that the opened words may take, the dealer must share the matching correlation.

    primitive               words opened        words dealt, per lookup
    multiply_by_weight      V                   d
    split_lookup            about 2 sqrt(V)     about 2 sqrt(V) d
    one_time_truth_table    1                   V d, rounded up to a power of two
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.primitives.beaver import OpenedWeight
from pi_sim.mpc.runtime import Runtime


def onehot_mask(shape: Shape, size: int) -> Correlation:
    """Return the correlation of a mask r, and the one-hot vector of r mod `size`.

    `size` is a power of two: only then do shares add up modulo it.
    """

    def derive(r: Tensor) -> tuple[Tensor]:
        return ((torch.arange(size, device=r.device) == (r & (size - 1)).unsqueeze(-1)).long(),)

    return Correlation((TensorSpec(shape),), (TensorSpec((*shape, size)),), derive)


def onehot_indices(onehot: Tensor) -> Tensor:
    """Return shares of the indices (...) of the ones in one-hot vectors (..., V): a public linear map, local."""
    return (onehot * torch.arange(onehot.shape[-1], device=onehot.device)).sum(-1)


def next_power_of_two(length: int) -> int:
    """Return the least power of two that is not below `length`."""
    return 1 << (length - 1).bit_length()


def rotate_onehot(rt: Runtime, onehot: Tensor) -> Tensor:
    """Return fresh shares of one-hot vectors (..., V), made from shares of the indices of their ones.

    1. Take shares of a random r and of the one-hot vector of r mod 2^k from the dealer, V <= 2^k.
    2. Open x - r (1 round, 8 bytes per vector), x the index; its last k bits are the distance from r to x.
    3. Entry j is the dealer's entry j - (x - r) mod 2^k: local.

    8 2^k bytes offline per vector.
    """
    x, length = onehot_indices(onehot), onehot.shape[-1]
    size = next_power_of_two(length)
    r, vectors = rt.correlated(onehot_mask(tuple(x.shape), size))
    (distance,) = rt.reveal(x - r)
    indices = torch.arange(length, device=onehot.device) - distance.unsqueeze(-1)
    return vectors.gather(-1, indices & (size - 1))


def split_products(shape: Shape, high: int, low: int, columns: int) -> Correlation:
    """Return the correlation of random a and b, and products of a persistent mask B (V, columns).

    The products are with a, with b, and with both.
    """

    def derive(a: Tensor, b: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        with_a = _contract_high(a, table, low)
        return with_a, _contract_low(b, table, high), b.unsqueeze(-2) @ with_a

    products = tuple(TensorSpec((*shape, rows, columns)) for rows in (low, high, 1))
    return Correlation((TensorSpec((*shape, high)), TensorSpec((*shape, low))), products, derive)


def split_lookup(rt: Runtime, onehot: Tensor, table: OpenedWeight) -> Tensor:
    """Return e @ W (..., d) for shares of one-hot vectors e (..., V) and a fixed table W (V, d).

    1. Split the index of the one, x = low h + l: the one-hot vectors of h and l are sums of e's entries, local.
    2. Take shares of random a and b, of a B, b B and (a x b) B from the dealer.
    3. Open h - a and l - b, as vectors (1 round, 8 (high + low) bytes per lookup).
    4. (h x l) B = (h - a) x (l - b) B + (h - a) x b B + a x (l - b) B + (a x b) B, and add e (W - B): local.

    8 (high + low + 1) d bytes offline per lookup; high and low are about sqrt(V). Source: ours, a product of three
    factors after Beaver (CRYPTO 1991).
    """
    length, columns = table.masked.shape
    low = math.isqrt(length - 1) + 1
    high = -(-length // low)
    grid = functional.pad(onehot, (0, high * low - length)).view(*onehot.shape[:-1], high, low)
    correlation = split_products(tuple(onehot.shape[:-1]), high, low, columns)
    a, b, with_a, with_b, with_both = rt.correlated(correlation, table.mask_id)
    masked_high, masked_low = rt.reveal(grid.sum(-1) - a, grid.sum(-2) - b)
    with_high = with_a + _contract_high(masked_high, _mask_share(rt, table), low)
    mask_row = masked_low.unsqueeze(-2) @ with_high + masked_high.unsqueeze(-2) @ with_b + with_both
    return onehot @ table.masked + mask_row.squeeze(-2)


def rotated_table(shape: Shape, size: int, columns: int) -> Correlation:
    """Return the correlation of a mask r, and a persistent mask B (V, columns) rotated by r.

    B is padded to `size` rows, a power of two.
    """

    def derive(r: Tensor, table: Tensor) -> tuple[Tensor]:
        rows = torch.arange(size, device=r.device) + r.unsqueeze(-1)
        return (_pad_rows(table, size)[rows & (size - 1)],)

    return Correlation((TensorSpec(shape),), (TensorSpec((*shape, size, columns)),), derive)


def one_time_truth_table(rt: Runtime, onehot: Tensor, table: OpenedWeight) -> Tensor:
    """Return e @ W (..., d) for shares of one-hot vectors e (..., V) and a fixed table W (V, d).

    1. Take shares of a random r and of B's rows r, r + 1, ... mod 2^k from the dealer, V <= 2^k.
    2. Open x - r (1 round, 8 bytes per lookup), x the index of the one, and take that row.
    3. Add e (W - B): local.

    8 2^k d bytes offline per lookup. Source: one-time truth tables, Ishai et al. (TCC 2013).
    """
    length, columns = table.masked.shape
    x, size = onehot_indices(onehot), next_power_of_two(length)
    r, rotated = rt.correlated(rotated_table(tuple(x.shape), size, columns), table.mask_id)
    (distance,) = rt.reveal(x - r)
    row = (distance & (size - 1))[..., None, None].expand(*x.shape, 1, columns)
    return onehot @ table.masked + rotated.gather(-2, row).squeeze(-2)


def _contract_high(vectors: Tensor, table: Tensor, low: int) -> Tensor:
    """Contract vectors (..., high) with a table (high low, d): (..., low, d)."""
    high, columns = vectors.shape[-1], table.shape[-1]
    rows = vectors @ _pad_rows(table, high * low).view(high, low * columns)
    return rows.view(*vectors.shape[:-1], low, columns)


def _contract_low(vectors: Tensor, table: Tensor, high: int) -> Tensor:
    """Contract vectors (..., low) with a table (high low, d): (..., high, d)."""
    low, columns = vectors.shape[-1], table.shape[-1]
    transposed = _pad_rows(table, high * low).view(high, low, columns).transpose(0, 1).reshape(low, high * columns)
    return (vectors @ transposed).view(*vectors.shape[:-1], high, columns)


def _mask_share(rt: Runtime, table: OpenedWeight) -> Tensor:
    """Return this party's share of the mask B: local."""
    return table.share - table.masked if rt.rank == 0 else table.share


def _pad_rows(table: Tensor, rows: int) -> Tensor:
    """Return the table padded to `rows` rows with zeros."""
    return functional.pad(table, (0, 0, 0, rows - len(table)))
