"""The page on kernels: what operations and models cost beside one another, and whether the results hold."""
