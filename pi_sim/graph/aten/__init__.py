"""ATen operations on secrets, translated into the graph's vocabulary; importing the package registers them all.

A translator is one short function. It gets the builder, the result's shape and the call's arguments, in which secrets
are `Secret` and public values are plain tensors and numbers.
"""

from pi_sim.graph.aten import math, shapes
from pi_sim.graph.aten.registry import translate

__all__ = ["math", "shapes", "translate"]
