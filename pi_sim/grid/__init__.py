"""Sweeps: one estimate for every design, size, length, protocol and network, kept in a file as it grows."""
