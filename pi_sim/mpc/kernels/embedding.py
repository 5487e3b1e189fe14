"""Rows of a secret table at secret tokens."""

from pi_sim.mpc import backend
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.registry import kernel
from pi_sim.mpc.primitives import beaver
from pi_sim.mpc.primitives.onehot import one_time_truth_table, rotate_onehot, split_lookup
from pi_sim.mpc.runtime import Runtime


@kernel("embedding", "one-hot")
def embedding_one_hot(rt: Runtime, table: Shared, onehot: Shared) -> Shared:
    """onehot (B, T, V) @ table (V, d): (B, T, d), as CrypTen users do it.

    The one-hot vectors are shared as plain integers, so the product needs no truncation and is exact.
    1 round, 8 (B T V + V d) bytes, 8 B T d offline: the only operation of a block's length that grows with V, besides
    the vocabulary head.
    """
    return onehot.matmul(table)


@kernel("embedding", "fixed-weight", fixed_operand=0)
def embedding_fixed_weight(rt: Runtime, table: beaver.OpenedWeight, onehot: Shared) -> Shared:
    """The same, the table opened under its mask once in a session: 1 round, 8 B T V bytes, 8 B T d offline."""
    return backend.fixed_point_tensor(beaver.multiply_by_weight(rt, onehot.share, table))


@kernel("embedding", "rotated")
def embedding_rotated(rt: Runtime, table: Shared, onehot: Shared) -> Shared:
    """The dealer's one-hot vector, rotated to the token, @ table: what takes tokens that are shared as numbers.

    1. The token's number x is a public linear map of its one-hot vector: local.
    2. Take shares of a random r and of the one-hot vector of r mod 2^k from the dealer, V <= 2^k.
    3. Open x - r (1 round, 8 bytes per token), uniformly random, and rotate the vector by it: local.
    4. Multiply by the table as `one-hot` does (1 round).

    2 rounds, 8 B T (1 + V) + 8 V d bytes, 8 B T (2^k + d) offline: it opens V words again, to multiply by a secret
    table. Source: SHAFT (NDSS 2025) and its code, `module.py`; r of a power of two, which hides x entirely, is ours.
    """
    return backend.fixed_point_tensor(rotate_onehot(rt, onehot.share), precision=0).matmul(table)


@kernel("embedding", "split-lookup", fixed_operand=0)
def embedding_split_lookup(rt: Runtime, table: beaver.OpenedWeight, onehot: Shared) -> Shared:
    """The kept table at tokens in two halves, see `lookup.by_halves`: opens 2 sqrt(V) words for a token, not V.

    1 round, about 16 B T sqrt(V) bytes, 16 B T sqrt(V) d offline. Exact.
    """
    return backend.fixed_point_tensor(split_lookup(rt, onehot.share, table))


@kernel("embedding", "truth-table", fixed_operand=0)
def embedding_truth_table(rt: Runtime, table: beaver.OpenedWeight, onehot: Shared) -> Shared:
    """The kept table, dealt anew for every token and rotated, see `lookup.by_table`: opens one word for a token.

    1 round, 8 B T bytes, 8 B T 2^k d offline with V <= 2^k, which only small tables allow. Exact.
    """
    return backend.fixed_point_tensor(one_time_truth_table(rt, onehot.share, table))
