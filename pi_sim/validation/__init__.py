"""Prices held against the published record: the same operations and models, the same counting, row by row."""
