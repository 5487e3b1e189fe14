"""What torch keeps whole: look-ups, linear maps, softmax and norms."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.aten.registry import UnsupportedError, require, translates
from pi_sim.graph.aten.shapes import transpose
from pi_sim.graph.builder import Builder, Secret, Tokens
from pi_sim.graph.ops import Shape


@translates("embedding")
def embedding(build: Builder, shape: Shape, table: Secret, indices: Secret | Tensor, *_: Any) -> Secret:
    """Secret indices are the tokens, shared as one-hot vectors; public ones are positions."""
    if isinstance(indices, Tensor):
        return build.emit("lookup", [table, indices], shape)
    if not isinstance(indices, Tokens):
        raise UnsupportedError("its secret indices are not the tokens")
    onehot = build.one_hot(indices, table.shape[0])
    if onehot is None:
        raise UnsupportedError("the same tokens are read from a table of another size too")
    return build.emit("embedding", [table, onehot], shape)


@translates("addmm")
def addmm(
    build: Builder, shape: Shape, bias: Secret, x: Secret, weight: Secret, *, beta: float = 1, alpha: float = 1
) -> Secret:
    require(beta == alpha == 1, "it scales its summands")
    return build.emit("linear", [x, weight, bias], shape)


@translates("linear")
def linear(build: Builder, shape: Shape, x: Secret, weight: Secret, bias: Secret | None = None) -> Secret:
    """torch keeps the weight as (n, k)."""
    turned = transpose(build, (weight.shape[1], weight.shape[0]), weight)
    return build.emit("linear", [x, turned, *([bias] if bias else [])], shape)


@translates("matmul", "bmm", "mm")
def matmul(build: Builder, shape: Shape, a: Secret, b: Secret) -> Secret:
    require(isinstance(a, Secret) and isinstance(b, Secret), "one factor is public")
    return build.emit("matmul", [a, b], shape)


@translates("layer_norm")
def layernorm(
    build: Builder,
    shape: Shape,
    x: Secret,
    dims: list[int],
    gamma: Secret | None = None,
    beta: Secret | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Secret:
    require(len(dims) == 1, "it normalises more than the last dimension")
    affine = [weight for weight in (gamma, beta) if weight is not None]
    return build.emit("layernorm", [x, *affine], shape, eps=eps)


@translates("rms_norm")
def rmsnorm(
    build: Builder, shape: Shape, x: Secret, dims: list[int], gamma: Secret | None = None, eps: float | None = None
) -> Secret:
    """Without an eps of its own torch takes the type's."""
    require(len(dims) == 1, "it normalises more than the last dimension")
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    return build.emit("rmsnorm", [x, *([gamma] if gamma else [])], shape, eps=eps)
