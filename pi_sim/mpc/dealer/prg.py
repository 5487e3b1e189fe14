"""Uniformly random tensors from a seed: AES-128 in counter mode, a cryptographic PRG.

Two parties with the same seed expand the same stream, so a seed is all that must be sent of uniformly random shares.
Every share, mask and tuple of a run comes from such a PRG. It runs on the CPU, whatever device computes: torch's own
generators, the Mersenne Twister and on CUDA Philox, are not cryptographic.
"""

import secrets
from abc import ABC, abstractmethod

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from pi_sim.mpc.dealer.correlations import TensorSpec

SEED_BYTES = 16
BLOCK_BYTES = 16
"""Bytes of a block of the cipher, which also needs as many behind its output."""
ZERO_BYTES = memoryview(bytes(2**18))
"""Plaintext of the keystream: short enough to stay in the CPU's cache."""


def new_seed() -> bytes:
    """Return a fresh seed from the operating system."""
    return secrets.token_bytes(SEED_BYTES)


class Prg(ABC):
    """A stream to draw tensors from, with a count of draws and of bytes drawn."""

    draws = bytes = 0

    def draw(self, *parts: TensorSpec, device: torch.device | None = None) -> list[Tensor]:
        """Return a tensor per part, uniform over the ring or over the part's bits; drawn on the CPU, then moved."""
        self.draws += 1
        self.bytes += sum(part.bytes for part in parts)
        return [self._draw_part(part, device) for part in parts]

    @abstractmethod
    def _draw_part(self, part: TensorSpec, device: torch.device | None) -> Tensor:
        """Return the next tensor of the stream."""


class AesCtrPrg(Prg):
    """The stream of one seed. No byte is drawn twice; each part begins with a new block of the cipher."""

    def __init__(self, seed: bytes) -> None:
        self.cipher = Cipher(algorithms.AES128(seed), modes.CTR(bytes(BLOCK_BYTES))).encryptor()

    def _draw_part(self, part: TensorSpec, device: torch.device | None) -> Tensor:
        """Return a part as a view of the bytes drawn for it, masked in place."""
        memory = self._keystream(-(-part.bytes // BLOCK_BYTES) * BLOCK_BYTES)
        tensor = memory[: part.bytes].view(part.dtype).view(part.shape)
        if part.mask is not None:
            words = tensor.numpy()
            words &= words.dtype.type(part.mask)
        return tensor.to(device)

    def _keystream(self, length: int) -> Tensor:
        """Return the next `length` bytes, whole blocks, in memory of their own: reused memory would be cleared anew."""
        memory = torch.empty(length + BLOCK_BYTES, dtype=torch.uint8)
        view = memory.numpy().data
        for start in range(0, length, len(ZERO_BYTES)):
            self.cipher.update_into(ZERO_BYTES[: length - start], view[start:])
        return memory


class ShapePrg(Prg):
    """The stream of a dry run: tensors without data."""

    def _draw_part(self, part: TensorSpec, device: torch.device | None) -> Tensor:
        """Return an empty tensor on the meta device, or on CrypTen's when it draws a tensor of no elements."""
        return torch.empty(part.shape, dtype=part.dtype, device=device or "meta")
