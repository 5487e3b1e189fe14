"""Correlated randomness from a dealer: CrypTen's tuples, and the correlations of our own kernels."""
