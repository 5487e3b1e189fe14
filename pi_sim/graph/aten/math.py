"""ATen arithmetic on secrets: sums and products, activations, linear maps, norms, attention and convolutions.

Either operand of a sum, a product or a quotient may be public. Activations are functions of one number, among them the
replacements of norms in norm-free designs. Look-ups, linear maps, softmax and norms are one operation in torch and one
in the vocabulary. Masks hide attention scores from the softmax over the rest. Only a convolution whose patches lie side
by side can be translated: it is a linear map of each patch.
"""

import math
from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.aten import ONLY_SOFTMAX, UnsupportedError, require, translates
from pi_sim.graph.aten.shapes import expand, permute, transpose, view
from pi_sim.graph.builder import Builder, MaskedScores, Secret, Tokens
from pi_sim.graph.ops import Attribute, Shape

MASKED_BELOW = -1e4
"""Public summands below this mean "hidden": transformers masks with the type's lowest number. No value is as large."""


@translates("add")
def add(build: Builder, shape: Shape, a: Any, b: Any, *, alpha: float = 1) -> Secret | MaskedScores:
    require(alpha == 1, "it scales its summand")
    if isinstance(a, MaskedScores) or isinstance(b, MaskedScores):
        return _combine_masks(build, shape, *((a, b) if isinstance(a, MaskedScores) else (b, a)))
    x, other = (a, b) if isinstance(a, Secret) else (b, a)
    if isinstance(other, Secret):
        return build.emit("add", [x, other], shape)
    is_tensor = isinstance(other, Tensor)
    allowed, rest = build.compute_once(_split_mask, other) if is_tensor else _split_mask(torch.as_tensor(other))
    x = expand(build, shape, x) if rest is None else build.emit("add", [x, rest], shape)
    return x if allowed is None else MaskedScores(x, allowed)


def _split_mask(summand: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return the positions that a summand leaves visible (None: all), and the values it adds there (None: zeros)."""
    allowed = summand > MASKED_BELOW
    rest = summand.float() if bool(allowed.all()) else torch.where(allowed, summand.float(), 0.0)
    return None if bool(allowed.all()) else allowed, rest if bool(rest.any()) else None


def _combine_masks(build: Builder, shape: Shape, x: MaskedScores, other: Any) -> MaskedScores:
    """Apply a further mask to masked scores, or add to those that are visible."""
    require(not isinstance(other, MaskedScores), ONLY_SOFTMAX)
    total = add(build, shape, x.scores, other)
    if isinstance(total, MaskedScores):
        return MaskedScores(total.scores, x.allowed & total.allowed)
    return MaskedScores(total, x.allowed)


@translates("sub")
def subtract(build: Builder, shape: Shape, a: Any, b: Any, *, alpha: float = 1) -> Secret | MaskedScores:
    return add(build, shape, a, build.emit("neg", [b], b.shape) if isinstance(b, Secret) else -b, alpha=alpha)


@translates("rsub")
def subtract_from(build: Builder, shape: Shape, a: Any, b: Any, alpha: float = 1) -> Secret | MaskedScores:
    return subtract(build, shape, b, a, alpha=alpha)


@translates("mul")
def multiply_scores(build: Builder, shape: Shape, a: Any, b: Any) -> Secret | MaskedScores:
    """Multiply; a positive factor leaves hidden scores hidden."""
    x, factor = (a, b) if isinstance(a, MaskedScores) else (b, a)
    if not isinstance(x, MaskedScores):
        return multiply(build, shape, a, b)
    is_public = not isinstance(factor, Secret | MaskedScores)
    require(is_public and bool((torch.as_tensor(factor) > 0).all()), ONLY_SOFTMAX)
    return MaskedScores(multiply(build, shape, x.scores, factor), x.allowed)


def multiply(build: Builder, shape: Shape, a: Any, b: Any) -> Secret:
    """Multiply two values, of which one may be public."""
    if isinstance(a, Secret) and isinstance(b, Secret):
        return build.emit("multiply", [a, b], shape)
    x, factor = (a, b) if isinstance(a, Secret) else (b, a)
    if not isinstance(factor, Tensor) or factor.numel() == 1:
        scaled = x if factor == 1 else build.emit("scale", [x], x.shape, factor=float(factor))
        return expand(build, shape, scaled)
    allowed = factor != 0
    if not torch.equal(allowed.to(factor.dtype), factor):
        return build.emit("scale_by", [x, factor.float()], shape)
    return expand(build, shape, x) if bool(allowed.all()) else build.emit("mask", [x, allowed], shape)


@translates("div")
def divide(build: Builder, shape: Shape, a: Any, b: Any, *, rounding_mode: str | None = None) -> Secret | MaskedScores:
    require(rounding_mode is None, "it rounds")
    if isinstance(b, Secret):
        return multiply(build, shape, a, build.emit("reciprocal", [b], b.shape))
    require(bool(torch.as_tensor(b).all()), "the divisor is zero")
    return multiply_scores(build, shape, a, 1 / b)


@translates("pow")
def power(build: Builder, shape: Shape, x: Secret, exponent: Any) -> Secret:
    require(exponent == 2, "its exponent is not 2")
    return build.emit("square", [x], shape)


@translates("sum")
def sum_over_dim(build: Builder, shape: Shape, x: Secret, dims: list[int], keepdim: bool = False) -> Secret:
    require(len(dims) == 1, "it is not over one dimension")
    dim = dims[0] % len(x.shape)
    return view(build, shape, build.emit("sum", [x], (*x.shape[:dim], 1, *x.shape[dim + 1 :]), dim=dim))


@translates("mean")
def mean(build: Builder, shape: Shape, x: Secret, dims: list[int], keepdim: bool = False) -> Secret:
    return multiply(build, shape, sum_over_dim(build, shape, x, dims, keepdim), 1 / x.shape[dims[0]])


@translates("zeros_like", "new_zeros")
def zeros_like(build: Builder, shape: Shape, x: Secret, *_: Any, dtype: Any = None, **__: Any) -> Tensor:
    """Public zeros: only the shape of the operand is used."""
    return torch.zeros(shape, dtype=dtype or _type_of(x))


@translates("ones_like", "new_ones")
def ones_like(build: Builder, shape: Shape, x: Secret, *_: Any, dtype: Any = None, **__: Any) -> Tensor:
    return torch.ones(shape, dtype=dtype or _type_of(x))


@translates("full_like", "new_full")
def full_like(build: Builder, shape: Shape, x: Secret, *given: Any, dtype: Any = None, **__: Any) -> Tensor:
    return torch.full(shape, given[-1], dtype=dtype or _type_of(x))


def _type_of(x: Secret) -> torch.dtype:
    return torch.long if isinstance(x, Tokens) else torch.float32


@translates("ne")
def differ(build: Builder, shape: Shape, a: Any, b: Any) -> Tensor:
    """Whether tokens are not padding: all of them, as texts are not padded where this is translated."""
    other = b if isinstance(a, Tokens) else a
    require(isinstance(a, Tokens) or isinstance(b, Tokens), "it compares secrets")
    is_padding = build.padding is not None and _is_public_number(other) and int(other) == build.padding
    require(is_padding, "it compares secret tokens with other ids than padding, or texts may be padded")
    return torch.ones(shape, dtype=torch.bool)


@translates("eq")
def equal(build: Builder, shape: Shape, a: Any, b: Any) -> Tensor:
    return ~differ(build, shape, a, b)


@translates("sigmoid")
def sigmoid(build: Builder, shape: Shape, x: Secret) -> Secret:
    """(1 + tanh(x / 2)) / 2, so that every protocol with a tanh can compute it."""
    halved = build.emit("tanh", [multiply(build, shape, x, 0.5)], shape)
    return multiply(build, shape, add(build, shape, halved, 1.0), 0.5)


@translates("gelu")
def gelu(build: Builder, shape: Shape, x: Secret, *, approximate: str = "none") -> Secret:
    return build.emit("gelu", [x], shape, approximate=approximate)


@translates("leaky_relu")
def leaky_relu(build: Builder, shape: Shape, x: Secret, slope: float = 0.01) -> Secret | MaskedScores:
    """slope x + (1 - slope) relu(x): the slope is public, so only the ReLU costs anything."""
    scaled = multiply(build, shape, x, slope)
    return add(build, shape, scaled, multiply(build, shape, build.emit("relu", [x], shape), 1 - slope))


@translates("clamp")
def clamp(build: Builder, shape: Shape, x: Any, low: Any = None, high: Any = None) -> Any:
    """Clamp between two numbers. Bounds that no value reaches, such as those of half precision, are left out."""
    bounds = [float(bound) for bound in (low, high) if _is_public_number(bound)]
    require(len(bounds) == 2 - [low, high].count(None), "its bounds are not two public numbers")
    if all(abs(bound) >= -MASKED_BELOW for bound in bounds) and (low is None or low < 0) and (high is None or high > 0):
        return x
    require(isinstance(x, Secret), ONLY_SOFTMAX)
    require(len(bounds) == 2, "its bounds are not two public numbers")
    return build.emit("clamp", [x], shape, low=bounds[0], high=bounds[1])


def _is_public_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)


@translates("maximum", "clamp_min")
def maximum(build: Builder, shape: Shape, x: Any, low: Any) -> Any:
    """Maximum with a number below all values; any other is refused."""
    x, low = (x, low) if isinstance(x, Secret | MaskedScores) else (low, x)
    return clamp(build, shape, x, low)


@translates("hardtanh")
def hardtanh(build: Builder, shape: Shape, x: Secret, low: float = -1.0, high: float = 1.0) -> Any:
    return clamp(build, shape, x, low, high)


@translates("embedding")
def embedding(build: Builder, shape: Shape, table: Secret, indices: Secret | Tensor, *_: Any) -> Secret:
    """Look rows up: by tokens, which are secret one-hot vectors, or by public indices, which are positions."""
    if isinstance(indices, Tensor):
        return build.emit("lookup", [table, indices], shape)
    if not isinstance(indices, Tokens):
        raise UnsupportedError("its secret indices are not the tokens")
    onehot = build.one_hot(indices, table.shape[0])
    if onehot is None:
        raise UnsupportedError("the same tokens are read from a table of another size too")
    return build.emit("embedding", [table, onehot], shape)


@translates("linear")
def linear(build: Builder, shape: Shape, x: Secret, weight: Secret, bias: Secret | None = None) -> Any:
    """torch keeps the weight as (n, k)."""
    transposed = transpose(build, (weight.shape[1], weight.shape[0]), weight)
    return map_linearly(build, shape, x, transposed, bias)


@translates("matmul", "bmm", "mm")
def matmul(build: Builder, shape: Shape, a: Secret, b: Secret) -> Secret:
    """A product with a weight is a linear map, from whichever side the weight comes."""
    require(isinstance(a, Secret) and isinstance(b, Secret), "one factor is public")
    if (weight := _weight_matrix(build, b)) and len(a.shape) >= len(b.shape):
        return build.emit("linear", [a, weight], shape)
    if (weight := _weight_matrix(build, a)) and len(b.shape) >= max(2, len(a.shape)):
        columns = transpose(build, _swap_last(b.shape), b, -2, -1)
        rows = transpose(build, _swap_last(weight.shape), weight, -2, -1)
        return transpose(build, shape, build.emit("linear", [columns, rows], _swap_last(shape)), -2, -1)
    return build.emit("matmul", [a, b], shape)


def _swap_last(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2])


def _weight_matrix(build: Builder, x: Secret) -> Secret | None:
    """Return the matrix that a factor repeats for a whole batch, if it is a weight; None for an activation."""
    size = x.shape[-2:]
    if x.name not in build.weight_values or len(size) < 2:
        return None
    while math.prod(x.shape[:-2]) > 1 and x.name in build.producers:
        node = build.producers[x.name]
        source = Secret(node.inputs[0], node.op.shapes[0])
        if node.op.name not in ("expand", "view") or source.shape[-2:] != size:
            return None
        x = source
    return view(build, size, x) if math.prod(x.shape[:-2]) == 1 else None


def map_linearly(build: Builder, shape: Shape, x: Secret, factor: Secret, bias: Any = None) -> Any:
    """Return x factor [+ bias]: a linear map with its bias where the factor is a weight."""
    is_affine = isinstance(bias, Secret) and bias.name in build.weight_values and bias.shape == shape[-1:]
    if is_affine and factor.name in build.weight_values and len(factor.shape) == 2:
        return build.emit("linear", [x, factor, bias], shape)
    product = matmul(build, shape, x, factor)
    return product if bias is None else add(build, shape, product, bias)


@translates("addmm", "baddbmm")
def addmm(
    build: Builder, shape: Shape, summand: Any, a: Secret, b: Secret, *, beta: float = 1, alpha: float = 1
) -> Any:
    """beta summand + alpha a b."""
    if alpha == beta == 1:
        return map_linearly(build, shape, a, b, summand)
    product = multiply(build, shape, matmul(build, shape, a, b), alpha)
    if isinstance(summand, Secret):
        return add(build, shape, product, multiply(build, summand.shape, summand, beta))
    return add(build, shape, product, summand * beta)


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
    """RMSNorm; without an eps, torch uses the machine epsilon of the type."""
    require(len(dims) == 1, "it normalises more than the last dimension")
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    return build.emit("rmsnorm", [x, *([gamma] if gamma else [])], shape, eps=eps)


@translates("softmax", "_softmax")
def softmax(build: Builder, shape: Shape, x: Secret | MaskedScores, dim: int, *_: Any) -> Secret:
    require(dim in (-1, len(shape) - 1), "it is not over the last dimension")
    if isinstance(x, Secret):
        return build.emit("softmax", [x], shape)
    attributes: dict[str, Attribute] = {"causal": True} if build.compute_once(is_causal_mask, x.allowed) else {}
    return build.emit("softmax", [x.scores, x.allowed], shape, **attributes)


def is_causal_mask(allowed: Tensor) -> bool:
    """Return whether the last of m rows sees all n positions, and each row before it one less than the next."""
    m, n = allowed.shape[-2:] if allowed.dim() > 1 else (0, 0)
    return 0 < m <= n and bool((allowed == torch.ones(m, n, dtype=torch.bool).tril(n - m)).all())


@translates("where")
def where(build: Builder, shape: Shape, condition: Any, a: Any, b: Any) -> Secret | MaskedScores:
    """Choice by a public condition: the sum of both sides, each zeroed where it is not chosen."""
    require(isinstance(condition, Tensor), "its condition is secret")
    is_hidden = not isinstance(b, Secret | MaskedScores) and bool((torch.as_tensor(b) < MASKED_BELOW).all())
    if isinstance(a, MaskedScores) and is_hidden:
        return MaskedScores(a.scores, a.allowed & condition)
    require(not isinstance(a, MaskedScores) and not isinstance(b, MaskedScores), ONLY_SOFTMAX)
    if isinstance(a, Secret) and is_hidden:
        return mask_scores(build, shape, a, condition)
    chosen_a, chosen_b = (_zero_hidden(build, shape, x, mask) for x, mask in ((a, condition), (b, ~condition)))
    return add(build, shape, chosen_a, chosen_b)


@translates("masked_fill")
def masked_fill(build: Builder, shape: Shape, x: Secret, hidden: Any, value: Any) -> Secret | MaskedScores:
    require(isinstance(hidden, Tensor), "its mask is secret")
    return where(build, shape, ~hidden, x, value)


def mask_scores(build: Builder, shape: Shape, x: Secret, allowed: Tensor) -> Secret | MaskedScores:
    """Mark the scores that softmax may see; without a mask if it may see all."""
    x = expand(build, shape, x)
    return x if bool(allowed.all()) else MaskedScores(x, allowed)


def _zero_hidden(build: Builder, shape: Shape, x: Any, allowed: Tensor) -> Secret | Tensor:
    if isinstance(x, Secret):
        return multiply(build, shape, x, allowed.expand(shape).float())
    return torch.where(allowed, torch.as_tensor(x, dtype=torch.float32), 0.0)


@translates("scaled_dot_product_attention")
def scaled_dot_product_attention(
    build: Builder,
    shape: Shape,
    query: Secret,
    key: Secret,
    value: Secret,
    mask: Any = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Secret:
    """softmax(query key^T / sqrt(width)) value, in single operations."""
    require(not dropout, "the model is in training mode")
    if enable_gqa:
        key, value = (_repeat_heads(build, heads, query.shape[-3]) for heads in (key, value))
    score_shape = (*query.shape[:-1], key.shape[-2])
    transposed = transpose(build, (*key.shape[:-2], key.shape[-1], key.shape[-2]), key, -2, -1)
    products = matmul(build, score_shape, query, transposed)
    scores = multiply(build, score_shape, products, scale or query.shape[-1] ** -0.5)
    if is_causal:
        mask = torch.ones(score_shape[-2:], dtype=torch.bool).tril()
    weights = softmax(build, score_shape, _apply_mask(build, score_shape, scores, mask), -1)
    return matmul(build, shape, weights, value)


def _repeat_heads(build: Builder, x: Secret, heads: int) -> Secret:
    """Repeat keys or values (..., groups, n, width) for the heads of each group: (..., heads, n, width)."""
    *batch, groups, n, width = x.shape
    grouped = view(build, (*batch, groups, 1, n, width), x)
    return view(build, (*batch, heads, n, width), expand(build, (*batch, groups, heads // groups, n, width), grouped))


def _apply_mask(build: Builder, shape: Shape, scores: Secret, mask: Any) -> Secret | MaskedScores:
    """Apply a mask: boolean, true where a score counts, or a summand of the scores, such as a learned bias."""
    if mask is None:
        return scores
    is_boolean = isinstance(mask, Tensor) and mask.dtype == torch.bool
    return mask_scores(build, shape, scores, mask) if is_boolean else add(build, shape, scores, mask)


@translates("conv2d")
def conv2d(
    build: Builder,
    shape: Shape,
    x: Secret,
    weight: Secret,
    bias: Secret | None = None,
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    dilation: tuple[int, ...] = (1, 1),
    groups: int = 1,
) -> Secret:
    """x (B, C, H, W), weight (D, C, h, w) -> (B, D, rows, cols), as a linear map of patches of C h w numbers."""
    batch, channels, height, width = x.shape
    features, _, patch_height, patch_width = weight.shape
    adjacent = tuple(stride) == (patch_height, patch_width)
    require(adjacent, "its patches overlap or leave gaps, so it is no linear map of each")
    require(not any(padding) and set(dilation) == {1} and groups == 1, "it pads, dilates or groups")
    require(height % patch_height == width % patch_width == 0, "its patches do not cover the image")
    rows, cols, patch = height // patch_height, width // patch_width, channels * patch_height * patch_width
    grid = view(build, (batch, channels, rows, patch_height, cols, patch_width), x)
    by_patch = permute(build, (batch, rows, cols, channels, patch_height, patch_width), grid, [0, 2, 4, 1, 3, 5])
    patches = view(build, (batch, rows * cols, patch), by_patch)
    mapped = linear(build, (batch, rows * cols, features), patches, view(build, (features, patch), weight), bias)
    return view(build, shape, permute(build, (batch, features, rows * cols), mapped, [0, 2, 1]))
