"""Where correlated randomness comes from: CrypTen's tuples, and the correlations of our own kernels."""
