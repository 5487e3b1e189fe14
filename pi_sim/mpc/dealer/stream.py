"""Uniformly random tensors from a seed: AES-128 in counter mode, a cryptographic generator.

Two ends with the same seed expand the same stream, so that of uniformly random shares nothing but a seed must be sent.
"""

import secrets

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from pi_sim.mpc.dealer.correlation import Part

SEED = 16
"""Bytes of a seed."""
BLOCK = 2**20


def seed() -> bytes:
    """A fresh seed from the operating system."""
    return secrets.token_bytes(SEED)


class Stream:
    """One seed's stream; what is drawn is gone."""

    def __init__(self, seed: bytes) -> None:
        self.cipher = Cipher(algorithms.AES128(seed), modes.CTR(bytes(16))).encryptor()

    def draw(self, part: Part) -> Tensor:
        """Every element uniform over the ring, or over the part's bits."""
        buffer = bytearray(part.bytes + SEED)
        view = memoryview(buffer)
        for start in range(0, part.bytes, BLOCK):
            length = min(BLOCK, part.bytes - start)
            self.cipher.update_into(ZEROS[:length], view[start:])
        drawn = torch.frombuffer(buffer, dtype=torch.uint8)[: part.bytes].view(part.dtype).view(part.shape)
        return drawn if part.mask is None else drawn & part.mask


ZEROS = memoryview(bytes(BLOCK))


class Dry:
    """The stream of a phantom: tensors without data."""

    def draw(self, part: Part) -> Tensor:
        return torch.empty(part.shape, dtype=part.dtype, device="meta")
