"""Rows of a secret table at secret tokens."""

from typing import Any

from pi_sim.mpc import backend
from pi_sim.mpc.kernels.registry import kernel
from pi_sim.mpc.primitives import stationary


@kernel("embedding", "one-hot")
def embedding(table: Any, onehot: Any) -> Any:
    """onehot (B, T, V) @ table (V, d): (B, T, d), as CrypTen users do it.

    The one-hot vectors are shared as plain integers, so the product needs no truncation and is exact.
    1 round, 8 (B T V + V d) bytes, 8 B T d offline: the only operation of a block's length that grows with V, besides
    the vocabulary head.
    """
    return onehot.matmul(table)


@kernel("embedding", "stationary", stationary=0)
def stationary_one_hot(table: stationary.Weight, onehot: Any) -> Any:
    """The same, the table opened under its mask once in a session: 1 round, 8 B T V bytes, 8 B T d offline."""
    return backend.shares(stationary.product(onehot.share, table))
