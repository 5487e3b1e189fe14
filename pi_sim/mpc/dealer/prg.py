"""Uniformly random tensors from a seed: AES-128 in counter mode, a cryptographic generator.

Two ends with the same seed expand the same stream, so that of uniformly random shares nothing but a seed must be sent.
Every share, mask and tuple of a run comes from such streams. They are drawn on the processor, whatever device computes:
torch's own generators, the Mersenne Twister and on CUDA Philox, are not made to keep secrets.
"""

import secrets
from typing import Protocol

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from pi_sim.mpc.dealer.correlations import TensorSpec

SEED_BYTES = 16
"""Bytes of a seed."""
BLOCK_BYTES = 16
"""Bytes of the cipher's block, which it also asks for as room behind its output."""
ZERO_BYTES = memoryview(bytes(2**18))
"""What is encrypted: short enough to stay in the processor's cache."""


def new_seed() -> bytes:
    """A fresh seed from the operating system."""
    return secrets.token_bytes(SEED_BYTES)


class Prg(Protocol):
    """Whatever parts can be drawn from; it counts how often that was done, and the bytes of what came."""

    draws: int
    bytes: int

    def draw(self, *parts: TensorSpec, device: torch.device | None = None) -> list[Tensor]: ...


class AesCtrPrg:
    """One seed's stream; what is drawn is gone. Each part begins with a new block of the cipher."""

    def __init__(self, seed: bytes) -> None:
        self.cipher = Cipher(algorithms.AES128(seed), modes.CTR(bytes(BLOCK_BYTES))).encryptor()
        self.draws = self.bytes = 0

    def draw(self, *parts: TensorSpec, device: torch.device | None = None) -> list[Tensor]:
        """Every element uniform over the ring, or over its part's bits; drawn on the processor, then moved."""
        self.draws += 1
        self.bytes += sum(part.bytes for part in parts)
        return [
            _as_tensor(self._keystream(-(-part.bytes // BLOCK_BYTES) * BLOCK_BYTES), part).to(device) for part in parts
        ]

    def _keystream(self, length: int) -> Tensor:
        """So many bytes, whole blocks: parts in memory of their own, for one piece for all would be cleared anew."""
        memory = torch.empty(length + BLOCK_BYTES, dtype=torch.uint8)
        view = memory.numpy().data
        for start in range(0, length, len(ZERO_BYTES)):
            self.cipher.update_into(ZERO_BYTES[: length - start], view[start:])
        return memory


def _as_tensor(memory: Tensor, part: TensorSpec) -> Tensor:
    """A part in the place where it was drawn."""
    drawn = memory[: part.bytes].view(part.dtype).view(part.shape)
    if part.mask is not None:
        numbers = drawn.numpy()
        numbers &= numbers.dtype.type(part.mask)
    return drawn


class ShapePrg:
    """The stream of a phantom: tensors without data."""

    def __init__(self) -> None:
        self.draws = self.bytes = 0

    def draw(self, *parts: TensorSpec, device: torch.device | None = None) -> list[Tensor]:
        """Memory on the meta device, or where CrypTen makes a tensor of no elements."""
        self.draws += 1
        self.bytes += sum(part.bytes for part in parts)
        return [torch.empty(part.shape, dtype=part.dtype, device=device or "meta") for part in parts]
