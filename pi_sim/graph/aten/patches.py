"""The one kind of convolution that is a linear map: of patches that lie side by side."""

from pi_sim.graph.aten.layers import linear
from pi_sim.graph.aten.registry import require, translates
from pi_sim.graph.aten.shapes import permute, view
from pi_sim.graph.builder import Builder, Secret
from pi_sim.graph.ops import Shape


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
    """x (B, C, H, W), weight (D, C, high, wide) -> (B, D, rows, cols): a patch is a vector of C high wide numbers."""
    batch, channels, height, width = x.shape
    features, _, high, wide = weight.shape
    require(tuple(stride) == (high, wide), "its patches overlap or leave gaps, so it is no linear map of each")
    require(not any(padding) and set(dilation) == {1} and groups == 1, "it pads, dilates or groups")
    require(height % high == width % wide == 0, "its patches do not cover the image")
    rows, cols, patch = height // high, width // wide, channels * high * wide
    cut = view(build, (batch, channels, rows, high, cols, wide), x)
    sorted_by_patch = permute(build, (batch, rows, cols, channels, high, wide), cut, [0, 2, 4, 1, 3, 5])
    patches = view(build, (batch, rows * cols, patch), sorted_by_patch)
    flat = view(build, (features, patch), weight)
    mapped = linear(build, (batch, rows * cols, features), patches, flat, bias)
    return view(build, shape, permute(build, (batch, features, rows * cols), mapped, [0, 2, 1]))
