"""ATen operations on secrets, translated into the graph's vocabulary; importing the package registers them all.

A translator is one short function. Its arguments are the builder, the shape of the result and the arguments of the
call, in which secrets are `Secret` and public values are plain tensors and numbers.
"""

from pi_sim.graph.aten import math, shapes
from pi_sim.graph.aten.registry import translate

__all__ = ["math", "shapes", "translate"]
