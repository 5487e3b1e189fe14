"""What two parties make sure of before any share moves: that they are about to compute the same thing."""

# MERGED: How two parties meet, and what they make sure of before any share moves.
# MERGED: The client's text, shared with the server at the price of a seed.

import hashlib
import socket
import struct
from collections.abc import Iterator, Mapping

from torch import Tensor

from pi_sim.errors import RunError
from pi_sim.graph.bundle import one_hot
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlations import TensorSpec
from pi_sim.mpc.dealer.dealers import DEALING_NUMBER_BYTES, Dealer
from pi_sim.mpc.dealer.prg import SEED_BYTES, AesCtrPrg, new_seed
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.transport import wire

DIGEST_BYTES = hashlib.sha256().digest_size


def check_agreement(connection: wire.Connection, terms: Mapping[str, str]) -> None:
    """Compare digests of the terms, which both parties name in the same order; a `RunError` names those that differ."""
    mine = [hashlib.sha256(value.encode()).digest() for value in terms.values()]
    wire.send_all(connection, b"".join(mine))
    theirs = bytes(wire.receive_exactly(connection, bytearray(DIGEST_BYTES * len(mine))))
    pieces = [theirs[start : start + DIGEST_BYTES] for start in range(0, len(theirs), DIGEST_BYTES)]
    differing = [name for name, one, other in zip(terms, mine, pieces, strict=True) if one != other]
    if differing:
        raise RunError(f"the parties differ in {' and '.join(differing)}; start both with the same.")


HANDSHAKE = struct.Struct(f"<{DEALING_NUMBER_BYTES}s{SEED_BYTES}s{SEED_BYTES}s")


def connect(listener: int | None, port: int, timeout: float) -> socket.socket:
    """Party 0 waits for the other on its listening socket, party 1 calls it; both wait `timeout` seconds at most.

    `listener` is the descriptor of party 0's socket, None at party 1.
    """
    try:
        if listener is None:
            return socket.create_connection(("127.0.0.1", port), timeout=timeout)
        with socket.socket(fileno=listener) as waiting:
            waiting.settimeout(timeout)
            connection = waiting.accept()[0]
            connection.settimeout(timeout)
            return connection
    except OSError:
        raise RunError(f"the other party could not be reached within {timeout:g} seconds.") from None


def handshake(connection: wire.Connection, dealer: Dealer, terms: Mapping[str, str]) -> Source:
    """Agree on the terms and the dealer, then exchange seeds: of CrypTen's sharings of zero, and of a first party.

    Both parties must have the same dealing; an unused file is marked as used when all this is sure.
    """
    check_agreement(connection, {**terms, "dealer": dealer.kind})
    zeros = new_seed()
    wire.send_all(connection, HANDSHAKE.pack(dealer.number, zeros, dealer.seed_offer()))
    number, previous, offered = HANDSHAKE.unpack(wire.receive_exactly(connection, bytearray(HANDSHAKE.size)))
    if number != dealer.number:
        raise RunError("the parties' files are of different dealings; give both what one `pi-sim deal` wrote.")
    backend.set_zero_prgs(previous_prg=AesCtrPrg(previous), next_prg=AesCtrPrg(zeros), local_prg=AesCtrPrg(new_seed()))
    return dealer.open_source(offered)


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
