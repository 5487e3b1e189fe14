"""Activations by the names that cards use."""

from collections.abc import Callable

import torch
from torch import nn

from pi_sim.specs import Surgery
from pi_sim.zoo.layers import LearnableLeakyReLU, Quad

CONFIG_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}
"""Those that a config can name by itself."""

FIXED_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "quad": Quad,
    "identity": nn.Identity,
}


def activation_factory(switches: Surgery) -> Callable[[], nn.Module]:
    """A function that makes the activation, called once for each layer."""
    if switches.activation == "leaky_relu":
        return lambda: nn.LeakyReLU(switches.slope)
    if switches.activation == "learnable_lrelu":
        return _learnable_lrelu_factory(switches)
    return FIXED_ACTIVATIONS[str(switches.activation)]


def _learnable_lrelu_factory(switches: Surgery) -> Callable[[], nn.Module]:
    """A slope for each layer, or one that all share."""

    def slope() -> nn.Parameter:
        return nn.Parameter(torch.full((1,), switches.slope))

    shared = slope()
    return lambda: LearnableLeakyReLU(shared if switches.slopes == "global" else slope())
