"""Graphs of decoding steps between a first and a last one, of which the integers of the traced programs are linear.

Tracing takes seconds for a model of 30 layers, lowering a tenth of one. Two programs of the same operations, whose
integer arguments are lengths or positions, tell those of all steps between them; public values, such as rotations by
position, are computed anew for each.
"""

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.lowering import Lowering, Tracing
from pi_sim.graph.ops import Graph, Shape


class NotLinearError(Exception):
    """Two programs of which no third one follows."""


def interpolate_graph(model: torch.nn.Module, first: Tracing, last: Tracing, position: Fraction, inputs: Any) -> Graph:
    """Return the graph of the step at a position between the first (0) and the last one (1), for example inputs.

    Raises `NotLinearError` where the programs differ in more than integers, or these are none at that position.
    """
    return _InterpolatedLowering(model, first, last, position, list(inputs)).lower()


class _InterpolatedLowering(Lowering):
    """Lowering of the first program with arguments between those of both."""

    def __init__(
        self, model: torch.nn.Module, first: Tracing, last: Tracing, position: Fraction, inputs: list[Any]
    ) -> None:
        nodes, others = (list(tracing.program.graph.nodes) for tracing in (first, last))
        if [(node.op, node.name, node.target) for node in nodes] != [
            (node.op, node.name, node.target) for node in others
        ]:
            raise NotLinearError
        _check_constants(first.program.constants, last.program.constants)
        super().__init__(model, first.program, inputs, first.cached)
        self.position, self.counterparts = position, dict(zip(nodes, others, strict=True))

    def arguments(self, node: torch.fx.Node) -> tuple[Any, dict[str, Any]]:
        other = self.counterparts[node]
        args, kwargs = self._between(node.args, other.args), self._between(dict(node.kwargs), dict(other.kwargs))
        return args, kwargs

    def result_shape(self, node: torch.fx.Node) -> Shape:
        first, last = super().result_shape(node), super().result_shape(self.counterparts[node])
        shape: Shape = self._between(first, last)
        return shape

    def _between(self, first: Any, last: Any) -> Any:
        """Return an argument at this position."""
        if type(first) is not type(last):
            raise NotLinearError
        if isinstance(first, torch.fx.Node):
            if first.name != last.name:
                raise NotLinearError
            return first
        if isinstance(first, dict):
            return {key: self._between(value, last[key]) for key, value in first.items()}
        if isinstance(first, list | tuple):
            if len(first) != len(last):
                raise NotLinearError
            return type(first)(map(self._between, first, last))
        if isinstance(first, int) and not isinstance(first, bool):
            value = first + self.position * (last - first)
            if value.denominator != 1:
                raise NotLinearError
            return int(value)
        if first != last:
            raise NotLinearError
        return first


def _check_constants(first: dict[str, Any], last: dict[str, Any]) -> None:
    """Raise `NotLinearError` if programs hold different tensors."""
    for name, value in first.items():
        other = last.get(name)
        if not isinstance(value, Tensor) or not isinstance(other, Tensor):
            continue
        if value.is_meta != other.is_meta or value.shape != other.shape:
            raise NotLinearError
        if not value.is_meta and not torch.equal(value, other):
            raise NotLinearError
