"""Ragged rows stored back to back: the attention scores that a causal mask leaves, and no others."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.mpc.primitives.piecewise import RELU, evaluate
from pi_sim.mpc.runtime import Runtime


@dataclass(frozen=True)
class CausalRows:
    """The visible elements of matrices (rows, width): the first `lengths[j]`, at least one, of row j.

    Ragged tensors (..., elements) hold the visible elements of all rows back to back.
    """

    lengths: Tensor
    width: int

    def gather(self, x: Tensor) -> Tensor:
        """Return the visible elements of matrices (..., rows, width): (..., elements)."""
        return _take(x.flatten(-2), self._flat_positions())

    def scatter(self, values: Tensor) -> Tensor:
        """Return matrices (..., rows, width) from a ragged tensor, exact zeros at hidden elements."""
        matrices = values.new_zeros((*values.shape[:-1], len(self.lengths) * self.width))
        matrices[..., self._flat_positions().to(values.device)] = values
        return matrices.reshape(*values.shape[:-1], len(self.lengths), self.width)

    def broadcast(self, row_values: Tensor) -> Tensor:
        """Return each row's value (..., rows) at every visible element of the row: (..., elements)."""
        return _take(row_values, _row_index(self.lengths))

    def row_sums(self, values: Tensor) -> Tensor:
        """Return the sum of each row: (..., rows)."""
        return self.scatter(values).sum(-1)

    def row_maxima(self, rt: Runtime, values: Tensor) -> Tensor:
        """Return the maximum of each row (..., rows), by a tournament of max(a, b) = b + relu(a - b).

        4 rounds per halving of the longest row; 10 3/8 bytes per visible element but one in each row.
        """
        lengths = self.lengths
        while int(lengths.max()) > 1:
            pairs, odd = lengths // 2, lengths % 2
            left = _row_start(lengths).repeat_interleave(pairs) + 2 * _position_in_row(pairs)
            last = (_row_start(lengths) + lengths - 1)[odd == 1]
            winners = _take(values, left + 1) + evaluate(rt, _take(values, left) - _take(values, left + 1), RELU)
            order = torch.cat([_row_index(pairs), _row_index(odd)]).argsort(stable=True)
            values = _take(torch.cat([winners, _take(values, last)], -1), order)
            lengths = pairs + odd
        return values

    def _flat_positions(self) -> Tensor:
        return _row_index(self.lengths) * self.width + _position_in_row(self.lengths)


def _take(values: Tensor, indices: Tensor) -> Tensor:
    return values[..., indices.to(values.device)]


def _row_index(lengths: Tensor) -> Tensor:
    """Return the row number of every element."""
    return torch.arange(len(lengths)).repeat_interleave(lengths)


def _row_start(lengths: Tensor) -> Tensor:
    """Return the index of each row's first element."""
    return lengths.cumsum(0) - lengths


def _position_in_row(lengths: Tensor) -> Tensor:
    """Return the position of every element within its row."""
    return torch.arange(int(lengths.sum())) - _row_start(lengths).repeat_interleave(lengths)
