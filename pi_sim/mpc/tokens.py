"""The client's text, shared with the server at the price of a seed."""

from collections.abc import Iterator

from torch import Tensor

from pi_sim.graph.sharing import one_hot
from pi_sim.mpc import wire
from pi_sim.mpc.dealer.correlation import TensorSpec
from pi_sim.mpc.dealer.stream import SEED_BYTES, AesCtrPrg, new_seed


def share_tokens(connection: wire.Connection, tokens: Tensor, vocabulary: int) -> Iterator[Tensor]:
    """The client's shares (B, T, V) of token ids (N, B, T), one sequence after another.

    The server expands its own from the seed that is sent: uniformly random, and drawn before any token was looked at.
    """
    chosen = new_seed()
    wire.send_all(connection, chosen)
    stream = AesCtrPrg(chosen)
    return (one_hot(ids, vocabulary) - stream.draw(TensorSpec((*ids.shape, vocabulary)))[0] for ids in tokens)


def expand_token_shares(connection: wire.Connection, sequences: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """The server's shares, of the same shape (B, T, V) in every sequence."""
    stream = AesCtrPrg(bytes(wire.receive_exactly(connection, bytearray(SEED_BYTES))))
    return (stream.draw(TensorSpec(shape))[0] for _ in range(sequences))
