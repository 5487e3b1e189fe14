"""Products with weights that the server has in the clear: one message of the client, one ring product at the server.

Once per session the server sends W - B to the client, for a mask B that the dealer gives to the server alone. For each
sequence the dealer gives the client a mask r, and both parties shares of r B. All that the client computes, its share
of the result, does not depend on the input: it is ready ahead of it.

    y_1 = r (W - B) + [r B]_1            the client's share, ahead of the input
    x_1 - r                              the only message, from the client to the server
    y_0 = (x_0 + x_1 - r) W + [r B]_0    the server's share; y_0 + y_1 = x W

The dealer learns neither W nor x. Source: Beaver (CRYPTO 1991), with one factor known to a party.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.openings import WIDE_BITS, XorOpening, packed_length
from pi_sim.mpc.primitives.ring import Factor
from pi_sim.mpc.primitives.truncation import OFFSET, logical_shift
from pi_sim.mpc.runtime import CLIENT, SERVER, Runtime

ProductName = Literal["matmul", "multiply"]


@dataclass(frozen=True)
class ServerWeight:
    """A weight of the server: W itself there, W - B at the client; and the dealer's number of the mask B."""

    factor: Factor
    mask_id: int
    is_transposed: bool = False

    def transposed(self) -> "ServerWeight":
        """Return the transposed weight, under the transposed mask."""
        return replace(self, factor=Factor(self.factor.words.mT), is_transposed=not self.is_transposed)


def open_server_weights(rt: Runtime, weights: list[Tensor]) -> list[ServerWeight]:
    """Send every W - B to the client: 1 round for all, 8 bytes per element from the server.

    `weights` hold W at the server, and any tensors of their shapes at the client.
    """
    masks = [rt.source.persistent_mask(TensorSpec(tuple(weight.shape), owner=SERVER)) for weight in weights]
    if rt.rank == SERVER:
        rt.send(CLIENT, *(weight - mask for weight, (_, mask) in zip(weights, masks, strict=True)))
        words = weights
    else:
        words = rt.send(CLIENT, *weights)
    return [ServerWeight(Factor(word), mask_id) for word, (mask_id, _) in zip(words, masks, strict=True)]


def multiply_words(x: Tensor, weight: Factor, product: ProductName, bits: int = WIDE_BITS) -> Tensor:
    """Return x @ weight or x * weight, right modulo 2^bits."""
    return weight.multiply(x, bits) if product == "matmul" else x * weight.words


def masked_product(x: Shape, weight: Shape, product: ProductName, is_transposed: bool) -> Correlation:
    """Return the correlation of the client's mask r of shape `x`, and its product with the persistent mask B."""
    result = (*x[:-1], weight[-1]) if product == "matmul" else np.broadcast_shapes(x, weight)

    def derive(r: Tensor, mask: Tensor) -> tuple[Tensor]:
        return (multiply_words(r, Factor(mask.mT if is_transposed else mask), product),)

    return Correlation((TensorSpec(x, owner=CLIENT),), (TensorSpec(result),), derive)


@dataclass(frozen=True)
class PreparedProduct:
    """All of a product that does not depend on the input.

    `mask` is the client's r. `share` is the client's share of the product, and the server's share of r B.
    """

    weight: Factor
    product: ProductName
    mask: Tensor
    share: Tensor
    wrap: "PreparedWrap | None"


def prepare_product(
    rt: Runtime, x: Shape, weight: ServerWeight, product: ProductName, exact: bool = False
) -> PreparedProduct:
    """Prepare the product of an x of a shape and a weight: the client multiplies, nothing is sent.

    With `exact`, prepare its wrap-free truncation too (`truncate_exactly`): the client sends 1 bit per element.
    8 bytes offline per element of the result, and 2 with `exact`.
    """
    correlation = masked_product(x, tuple(weight.factor.words.shape), product, weight.is_transposed)
    mask, share = rt.correlated(correlation, weight.mask_id)
    if rt.rank == CLIENT:
        share = multiply_words(mask, weight.factor, product) + share
    wrap = prepare_wrap(rt, share) if exact else None
    return PreparedProduct(weight.factor, product, mask, share, wrap)


def multiply_prepared(rt: Runtime, x: Tensor, prepared: PreparedProduct, bits: int = WIDE_BITS) -> Tensor:
    """Return shares of the product of x and a weight, right modulo 2^bits for an x that is.

    1 round, bits / 8 bytes per element of x, from the client.
    """
    if rt.rank == CLIENT:
        rt.send(SERVER, x - prepared.mask, bits=bits)
        return prepared.share
    (masked,) = rt.send(SERVER, x, bits=bits)
    return multiply_words(x + masked, prepared.weight, prepared.product, bits) + prepared.share


def private_and(length: int) -> Correlation:
    """Return the correlation of a bit of the server and one of the client, and shares modulo 2^16 of their AND."""

    def derive(server_bit: Tensor, client_bit: Tensor) -> tuple[Tensor]:
        return ((server_bit & client_bit).to(torch.int16),)

    bits = (TensorSpec((length,), 1, torch.uint8, owner=owner) for owner in (SERVER, CLIENT))
    return Correlation(tuple(bits), (TensorSpec((length,), dtype=torch.int16),), derive)


WRAP_FRACTION_BITS = 16
"""Fraction bits that `truncate_exactly` removes: a wrap counts 2^48, so its bit is shared modulo 2^16."""


@dataclass(frozen=True)
class PreparedWrap:
    """The client's half of a product's wrap bit.

    `bit` is the party's random bit, `product` its share of both bits' AND, `client_masked` the client's wrap bit under
    its random one, known to both.
    """

    bit: Tensor
    product: Tensor
    client_masked: Tensor


def prepare_wrap(rt: Runtime, share: Tensor) -> PreparedWrap:
    """Send the client's masked wrap bit: 1 bit per element of its share of a product."""
    length = share.numel()
    server_bit, client_bit, product = rt.correlated(private_and(length))
    if rt.rank == CLIENT:
        masked = (-share.reshape(-1) < 0).to(torch.uint8) ^ client_bit
        rt.send(SERVER, XorOpening(masked, 1).pack())
        return PreparedWrap(client_bit, product, masked)
    (packed,) = rt.send(SERVER, product.new_empty(packed_length(length, 1), dtype=torch.int64))
    return PreparedWrap(server_bit, product, _unpack_bits(packed, length))


def truncate_exactly(rt: Runtime, share: Tensor, wrap: PreparedWrap) -> Tensor:
    """Return y / 2^16 in 64-bit words, rounded down or up, for |y| < 2^62 in shares y_0 and y_1 of one party each.

    1. Let a = 1 - top(y_0 + 2^62), which the server knows, and b = top(-y_1), which the client knows:
       the sum y_0 + 2^62 + y_1 wrapped around exactly if a b = 1.
    2. The client's b under its random bit was sent ahead; the server sends a under its random bit (1 round, 1 bit).
    3. The AND of both, shared modulo 2^16, times 2^48 corrects the sum of the shifted shares.

    1 round; 1 bit per element from the server, and 1 ahead from the client; 2 bytes offline per element.
    """
    flat, length = share.reshape(-1), share.numel()
    if rt.rank == SERVER:
        word = flat + OFFSET
        server_masked = (word >= 0).to(torch.uint8) ^ wrap.bit
        rt.send(CLIENT, XorOpening(server_masked, 1).pack())
        shifted = logical_shift(word, WRAP_FRACTION_BITS) - (OFFSET >> WRAP_FRACTION_BITS)
    else:
        (packed,) = rt.send(CLIENT, flat.new_empty(packed_length(length, 1)))
        server_masked = _unpack_bits(packed, length)
        shifted = -logical_shift(-flat, WRAP_FRACTION_BITS)
    both = _and_share(rt, server_masked, wrap).to(torch.int64)
    return (shifted + (both << WIDE_BITS - WRAP_FRACTION_BITS)).view(share.shape)


def _and_share(rt: Runtime, server_masked: Tensor, wrap: PreparedWrap) -> Tensor:
    """Return a share modulo 2^16 of (d ^ s) (e ^ c) for public d, e and private random bits s, c: local.

    With d ^ s = d + (1 - 2 d) s, it is d e + (1 - 2 d) e s + d (1 - 2 e) c + (1 - 2 d) (1 - 2 e) s c.
    """
    d, e, bit = (value.to(torch.int16) for value in (server_masked, wrap.client_masked, wrap.bit))
    shared = (1 - 2 * d) * (1 - 2 * e) * wrap.product
    if rt.rank == SERVER:
        return shared + d * e + (1 - 2 * d) * e * bit
    return shared + d * (1 - 2 * e) * bit


def _unpack_bits(packed: Tensor, length: int) -> Tensor:
    """Return the bits (length) that `XorOpening` packed."""
    zeros = torch.zeros(length, dtype=torch.uint8, device=packed.device)
    return XorOpening(zeros, 1).combine(torch.zeros_like(packed), packed)
