"""Rows of a secret table (V, d) at secret tokens, one-hot vectors (B, T, V) -> (B, T, d). All kernels are exact.

One-hot vectors are shared as plain integers, so that a product with them needs no truncation.
"""

import math

from pi_sim.mpc import backend
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import Dimensions, KernelCost
from pi_sim.mpc.kernels.registry import kernel
from pi_sim.mpc.primitives import beaver
from pi_sim.mpc.primitives.onehot import next_power_of_two, one_time_truth_table, rotate_onehot, split_lookup
from pi_sim.mpc.runtime import Runtime


def _rotated_cost(d: Dimensions) -> KernelCost:
    """Open a number per token, then multiply as `one-hot` does."""
    rows, tokens = d.op.shapes[0][0], d.rows
    rotation = KernelCost(rounds=1, bytes=8 * tokens, offline=8 * tokens * next_power_of_two(rows))
    return rotation + KernelCost(rounds=1, bytes=8 * d.operands, offline=8 * d.elements)


def _split_lookup_cost(d: Dimensions) -> KernelCost:
    """Open two halves per token, of about sqrt(V) words each."""
    rows = d.op.shapes[0][0]
    low = math.isqrt(rows - 1) + 1
    high = -(-rows // low)
    return KernelCost(rounds=1, bytes=8 * d.rows * (high + low), offline=8 * d.elements * (high + low + 1))


def _truth_table_cost(d: Dimensions) -> KernelCost:
    """Open a word per token; the dealer sends the padded table."""
    return KernelCost(rounds=1, bytes=8 * d.rows, offline=8 * d.elements * next_power_of_two(d.op.shapes[0][0]))


@kernel("embedding", "one-hot", cost=lambda d: KernelCost(rounds=1, bytes=8 * d.operands, offline=8 * d.elements))
def embedding_one_hot(rt: Runtime, table: Shared, onehot: Shared) -> Shared:
    """Return onehot @ table, as CrypTen's users compute it.

    Both factors are opened under masks (1 round). Besides the vocabulary head, this is the only operation whose cost
    grows with V.
    """
    return onehot.matmul(table)


@kernel(
    "embedding",
    "fixed-weight",
    fixed_operand=0,
    cost=lambda d: KernelCost(rounds=1, bytes=8 * d.operand(1), offline=8 * d.elements),
)
def embedding_fixed_weight(rt: Runtime, table: beaver.OpenedWeight, onehot: Shared) -> Shared:
    """Return onehot @ table, the table opened under its mask once per session (1 round)."""
    return backend.fixed_point_tensor(beaver.multiply_by_weight(rt, onehot.share, table))


@kernel("embedding", "rotated", cost=_rotated_cost)
def embedding_rotated(rt: Runtime, table: Shared, onehot: Shared) -> Shared:
    """Return (the dealer's one-hot vector, rotated to the token) @ table, for tokens that are shared as numbers.

    1. The token id x is a public linear map of its one-hot vector: local.
    2. Take shares of a random r and of the one-hot vector of r mod 2^k from the dealer, V <= 2^k.
    3. Open x - r (1 round), uniformly random, and rotate the vector by it: local.
    4. Multiply by the table as `embedding_one_hot` does (1 round): this opens V words per token again.

    Source: SHAFT (NDSS 2025) and its code, `module.py`; r of a power of two, which hides x entirely, is ours.
    """
    return backend.fixed_point_tensor(rotate_onehot(rt, onehot.share), precision=0).matmul(table)


@kernel("embedding", "split-lookup", fixed_operand=0, cost=_split_lookup_cost)
def embedding_split_lookup(rt: Runtime, table: beaver.OpenedWeight, onehot: Shared) -> Shared:
    """Return the rows by halves of the token id: opens about 2 sqrt(V) words per token instead of V (1 round).

    The table is opened under its mask once per session; see `pi_sim.mpc.primitives.onehot.split_lookup`.
    """
    return backend.fixed_point_tensor(split_lookup(rt, onehot.share, table))


@kernel("embedding", "truth-table", fixed_operand=0, cost=_truth_table_cost)
def embedding_truth_table(rt: Runtime, table: beaver.OpenedWeight, onehot: Shared) -> Shared:
    """Return the rows by a table that the dealer shares anew, rotated, for every token: opens one word (1 round).

    Only small tables allow for its offline bytes; see `pi_sim.mpc.primitives.onehot.one_time_truth_table`.
    """
    return backend.fixed_point_tensor(one_time_truth_table(rt, onehot.share, table))
