"""What kernels of our own are built of: truncation, comparison, products, and functions by pieces."""
