"""Truncation: the product of two fixed-point numbers back to the fraction of one.

`truncate` is faithful: wrap-free, within one unit of the last place, for 1 round. `truncate_locally` is stock CrypTen's
probabilistic truncation, without communication and with rare, ruinous errors.
"""

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.primitives.ring import blockwise
from pi_sim.mpc.runtime import Runtime

OFFSET = 2**62
"""Added to numbers of magnitude below 2^62 to make them positive."""


def shifted_mask(length: int, fraction: int, word: torch.dtype) -> Correlation:
    """Return the correlation of a random word r, r shifted right by `fraction` bits, and r's top bit.

    The latter two are shared in 64-bit words.
    """

    def derive(r: Tensor) -> tuple[Tensor, ...]:
        return logical_shift(r, fraction).to(torch.int64), (r < 0).to(torch.int64)

    random_part = TensorSpec((length,), dtype=word)
    return Correlation((random_part,), (TensorSpec((length,)),) * 2, lambda r: blockwise(derive, r))


def truncate(rt: Runtime, share: Tensor, fraction: int) -> Tensor:
    """Return x / 2^fraction, rounded down or up, for every |x| < 2^62: no rare errors of local truncation.

    1. Take shares of a random r, of R = r >> fraction and of its top bit T from the dealer.
    2. Open m = x + 2^62 + r.
    3. The sum wrapped around exactly if m's top bit is clear where r's is set:
       y = (m >> fraction) - 2^(62 - fraction) - R + (1 - top(m)) T 2^(64 - fraction).

    1 round, 8 bytes and 16 offline per element. The result is floor(x / 2^fraction) or one more.
    """
    flat = share.reshape(-1)
    r, shifted, top = rt.correlated(shifted_mask(len(flat), fraction, torch.int64))
    (m,) = rt.reveal(flat + r + (OFFSET if rt.rank == 0 else 0))
    return _unmask(rt, fraction, OFFSET, m, shifted, top).view(share.shape)


def lift_u32_to_u64(rt: Runtime, share: Tensor, fraction: int, lowest: int) -> Tensor:
    """Return x / 2^fraction in 64-bit words for x (n) in 32-bit words, lowest <= x < lowest + 2^31.

    The steps of `truncate`; `lowest` is a multiple of 2^fraction. 1 round, 4 bytes and 16 offline per element.
    """
    r, shifted, top = rt.correlated(shifted_mask(len(share), fraction, torch.int32))
    m = rt.reveal_u32(share + r - (lowest if rt.rank == 0 else 0))
    return _unmask(rt, fraction, -lowest, m, shifted, top)


def truncate_locally(share: Tensor, fraction: int) -> Tensor:
    """Return x / 2^fraction within one unit, unless the shares' sum wraps around: each party shifts its own share.

    Nothing is sent. With probability |x| / 2^64 the result is off by 2^(64 - fraction).
    """
    return torch.div(share, 1 << fraction, rounding_mode="trunc")


def shift_locally(share: Tensor, fraction: int) -> Tensor:
    """Return x / 2^fraction within one unit, right modulo 2^(64 - fraction): each party rounds its own share.

    Nothing is sent, and nothing fails where no more bits are read.
    """
    return (share + (1 << fraction - 1)) >> fraction


def logical_shift(word: Tensor, bits: int) -> Tensor:
    """Return the word shifted right with zeros coming in at the left; torch's own shift copies the sign."""
    return (word >> bits) & ((1 << 8 * word.dtype.itemsize - bits) - 1)


def _unmask(rt: Runtime, fraction: int, offset: int, m: Tensor, shifted: Tensor, top: Tensor) -> Tensor:
    """Step 3 of `truncate`, on words of either length: local."""
    wrap = 1 << 8 * m.dtype.itemsize - fraction

    def unmask(m: Tensor, shifted: Tensor, top: Tensor) -> tuple[Tensor]:
        secret = (m >= 0) * top * wrap - shifted
        public = logical_shift(m, fraction).to(torch.int64) - (offset >> fraction)
        return (secret + public if rt.rank == 0 else secret,)

    return blockwise(unmask, m, shifted, top)[0]
