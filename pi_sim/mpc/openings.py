"""Openings: shares packed into 64-bit words for a message, and the values that two parties' words combine to.

Several openings share a message. Only the bits that a value needs are sent: the low 32 or 48 bits of an additive share,
or a few bits of an XOR share. Packed words would carry into one another if they were added up, so the parties exchange
their words, and each combines them by itself.
"""

from dataclasses import dataclass
from functools import reduce
from operator import or_

import torch
from torch import Tensor
from torch.nn import functional

from pi_sim.mpc.primitives.ring import WORD_BYTES

NARROW_BITS, MIDDLE_BITS, WIDE_BITS = 32, 48, 64
"""Low bits of a word that an additive opening may send."""
SHORTS_PER_WORD = 4


@dataclass(frozen=True)
class AdditiveOpening:
    """Opening of an additive share modulo 2^bits, bits 32, 48 or 64: bits / 8 bytes per element, padded to words.

    The value is right modulo 2^bits: of type int32 for 32 bits, int64 otherwise, with arbitrary higher bits.
    """

    share: Tensor
    bits: int = WIDE_BITS

    def pack(self) -> Tensor:
        """Return the words to send."""
        return pack_low_bits(self.share, self.bits)

    def combine(self, own_words: Tensor, peer_words: Tensor) -> Tensor:
        """Return the value of both parties' words."""
        own_share = self.share.to(torch.int32) if self.bits == NARROW_BITS else self.share
        return own_share + unpack_low_bits(peer_words, self.bits, own_share)


@dataclass(frozen=True)
class XorOpening:
    """Opening of an XOR share of the lowest `bits` bits of bytes: `bits` bits per element, padded to words.

    As many elements are packed into a byte as fit.
    """

    share: Tensor
    bits: int

    def pack(self) -> Tensor:
        """Return the words to send."""
        per_byte, flat = 8 // self.bits, self.share.reshape(-1)
        rows = functional.pad(flat, (0, -len(flat) % (WORD_BYTES * per_byte))).view(per_byte, -1)
        return _pad_to_words(reduce(or_, (row << self.bits * index for index, row in enumerate(rows))))

    def combine(self, own_words: Tensor, peer_words: Tensor) -> Tensor:
        """Return the value of both parties' words."""
        per_byte, values = 8 // self.bits, (own_words ^ peer_words).view(torch.uint8)
        if per_byte > 1:
            values = torch.cat([(values >> self.bits * index) & (2**self.bits - 1) for index in range(per_byte)])
        return values[: self.share.numel()].view(self.share.shape)


Opening = AdditiveOpening | XorOpening


def pack_low_bits(words: Tensor, bits: int) -> Tensor:
    """Return the low `bits` bits (32, 48 or 64) of every element, packed into 64-bit words (n)."""
    flat = words.reshape(-1)
    if bits == WIDE_BITS:
        return flat
    if bits == NARROW_BITS:
        return _pad_to_words(flat.to(torch.int32))
    shorts = flat.contiguous().view(torch.int16).view(-1, SHORTS_PER_WORD)[:, : bits // 16]
    return _pad_to_words(shorts.reshape(-1))


def packed_length(elements: int, bits: int) -> int:
    """Return the number of words into which `pack_low_bits` packs elements."""
    return -(-elements * bits // WIDE_BITS)


def unpack_low_bits(packed: Tensor, bits: int, like: Tensor) -> Tensor:
    """Return the elements that `pack_low_bits` packed, in the shape of `like`: int32 for 32 bits, else int64."""
    if bits == WIDE_BITS:
        return packed.view(like.shape)
    if bits == NARROW_BITS:
        return packed.view(torch.int32)[: like.numel()].view(like.shape)
    words = packed.new_zeros(like.numel())
    shorts, count = words.view(torch.int16).view(-1, SHORTS_PER_WORD), bits // 16
    shorts[:, :count] = packed.view(torch.int16)[: count * like.numel()].view(-1, count)
    return words.view(like.shape)


def _pad_to_words(flat: Tensor) -> Tensor:
    """Return a tensor (n) of shorter words, padded with zeros, as 64-bit words."""
    per_word = WORD_BYTES // flat.dtype.itemsize
    padding = -len(flat) % per_word
    return (functional.pad(flat, (0, padding)) if padding else flat.contiguous()).view(torch.int64)
