"""Rows of different lengths, one after another: what a causal mask leaves of attention scores, and no more."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.mpc.primitives.piecewise import RELU, evaluate
from pi_sim.mpc.runtime import Runtime


@dataclass(frozen=True)
class CausalRows:
    """The places that count in matrices (m, n): of each row the first so many, one at least."""

    lengths: Tensor
    width: int

    def gather(self, x: Tensor) -> Tensor:
        """The places that count: (..., m, n) becomes (..., places)."""
        return _take(x.flatten(-2), self._flat_positions())

    def scatter(self, values: Tensor) -> Tensor:
        """Back to (..., m, n), exact zeros elsewhere."""
        whole = values.new_zeros((*values.shape[:-1], len(self.lengths) * self.width))
        whole[..., self._flat_positions().to(values.device)] = values
        return whole.reshape(*values.shape[:-1], len(self.lengths), self.width)

    def broadcast(self, rows: Tensor) -> Tensor:
        """One value for each row (..., m) becomes one for each place."""
        return _take(rows, _row_index(self.lengths))

    def row_sums(self, values: Tensor) -> Tensor:
        """The sum of each row: (..., m)."""
        return self.scatter(values).sum(-1)

    def row_maxima(self, rt: Runtime, values: Tensor) -> Tensor:
        """The largest of each row (..., m), by a tournament of max(a, b) = b + relu(a - b).

        4 rounds for each halving of the longest row, 10 3/8 bytes for each place but one in a row.
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


def _take(values: Tensor, places: Tensor) -> Tensor:
    return values[..., places.to(values.device)]


def _row_index(lengths: Tensor) -> Tensor:
    """For every place the number of its row."""
    return torch.arange(len(lengths)).repeat_interleave(lengths)


def _row_start(lengths: Tensor) -> Tensor:
    """Each row's first place."""
    return lengths.cumsum(0) - lengths


def _position_in_row(lengths: Tensor) -> Tensor:
    """For every place its number within its row."""
    return torch.arange(int(lengths.sum())) - _row_start(lengths).repeat_interleave(lengths)
