"""Layers by which designs for private inference replace a transformer's, activations by name, and attention.

x is a tensor (..., d) of activations; every layer returns the shape of its input. Learned numbers have shape (1,).
Division by a secret is expensive, so divisors of the papers are stored as reciprocals.

Attention without an exponential, or with a learned temperature, serves all families: transformers looks it up by name,
so the config alone selects it. Scores are (B, H, T, T); a mask holds 0 where a query may see a key and a very negative
number where it may not.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import repeat_kv

from pi_sim.errors import UsageError
from pi_sim.specs import Surgery


class DyT(nn.Module):
    """gamma * tanh(alpha x) + beta: Dynamic Tanh, which replaces a norm (arXiv 2503.10622, section 4).

    alpha is one learned number, gamma and beta are (d,). Without a bias in the norm, as in Llama, there is no beta.
    """

    squash: Callable[[Tensor], Tensor] = staticmethod(torch.tanh)
    slope_at_zero = 1.0
    """Slope of `squash` at zero."""

    def __init__(self, width: int, alpha: float, bias: bool = True) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        scaled = self.weight * self.squash(self.squash_input(x))
        return scaled if self.bias is None else scaled + self.bias

    def squash_input(self, x: Tensor) -> Tensor:
        """Return the argument of `squash`."""
        return self.alpha * x


class HardDyT(DyT):
    """DyT with max(-1, min(1, y)) for tanh (arXiv 2503.10622, table 7): two comparisons instead of a division."""

    squash = staticmethod(F.hardtanh)


class Derf(DyT):
    """gamma * erf(alpha x + s) + beta, with a learned number s (arXiv 2512.10938)."""

    squash = staticmethod(torch.erf)
    slope_at_zero = 2 / math.sqrt(math.pi)

    def __init__(self, width: int, alpha: float, bias: bool = True) -> None:
        super().__init__(width, alpha, bias)
        self.shift = nn.Parameter(torch.zeros(1))

    def squash_input(self, x: Tensor) -> Tensor:
        return self.alpha * x + self.shift


class Rectified(nn.Module):
    """Norm followed by a ReLU, which makes the inputs of projections sparse (arXiv 2310.04564, section 4, stage 2)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x))


class LearnableLeakyReLU(nn.Module):
    """max(x, 0) + slope * min(x, 0) with a learned slope (arXiv 2410.09637, section 3): one comparison, as in ReLU."""

    def __init__(self, slope: nn.Parameter) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        positive = F.relu(x)
        return positive + self.slope * (x - positive)  # one product of secrets


class Quad(nn.Module):
    """0.125 x^2 + 0.25 x + 0.5, MPCFormer's GELU (arXiv 2211.01452, section 3.1): one square."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.125 * x.square() + 0.25 * x + 0.5


class ScaledFFN(nn.Module):
    """beta x + FFN(x) / alpha with both factors learned: AERO's replacement of the norm (arXiv 2410.13060, equation 8).

    The block adds x itself, so this layer returns (beta - 1) x + FFN(x) / alpha. 1 / alpha is stored and learned.
    """

    def __init__(self, ffn: nn.Module) -> None:
        super().__init__()
        self.ffn = ffn
        self.beta = nn.Parameter(torch.ones(1))
        self.inverse_alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.inverse_alpha * self.ffn(x)
        return (self.beta - 1) * x + scaled


class FusedFFN(nn.Linear):
    """Product of the two matrices of an FFN without a nonlinearity, (d, d) (arXiv 2410.13060, section 4)."""

    @classmethod
    @torch.no_grad()
    def from_ffn(cls, ffn: nn.Module, width: int) -> "FusedFFN":
        """Return the same map as one matrix: values at zero and at the unit vectors determine an affine FFN."""
        parameter = next(ffn.parameters())
        fused = cls(width, width, device=parameter.device, dtype=parameter.dtype)
        bias = ffn(torch.zeros(1, 1, width).to(parameter))[0, 0]
        fused.bias.copy_(bias)
        fused.weight.copy_((ffn(torch.eye(width).to(parameter)[None])[0] - bias).T)
        return fused


class NoFFN(nn.Module):
    """Replacement of a dropped FFN: the residual stream passes unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


CONFIG_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}
"""Activations that a Hugging Face config can name, by their names in cards."""
FIXED_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "quad": Quad,
    "identity": nn.Identity,
}


def activation_factory(switches: Surgery) -> Callable[[], nn.Module]:
    """Return a function that makes the activation of one layer."""
    if switches.activation == "leaky_relu":
        return lambda: nn.LeakyReLU(switches.slope)
    if switches.activation != "learnable_lrelu":
        return FIXED_ACTIVATIONS[str(switches.activation)]

    def slope() -> nn.Parameter:
        return nn.Parameter(torch.full((1,), switches.slope))

    shared = slope()
    return lambda: LearnableLeakyReLU(shared if switches.slopes == "global" else slope())


Normaliser = Callable[[Tensor, Tensor | None], Tensor]

QUAD_SHIFT = 5.0
"""MPCFormer's constant c: scores seldom fall below -c, where (x + c)^2 would rise again."""
RELU_FLOOR = 0.01
"""Added to every rectified score, so that a row without a positive score has a sum to divide by."""


def softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """exp(x) / sum exp(x)."""
    return F.softmax(scores if mask is None else scores + mask, dim=-1)


def two_relu(scores: Tensor, mask: Tensor | None) -> Tensor:
    """relu(x) / sum relu(x) (MPCFormer, arXiv 2211.01452, section 3.1, after SecureML)."""
    return _divide_by_sum(F.relu(scores) + RELU_FLOOR, mask)


def two_quad(scores: Tensor, mask: Tensor | None) -> Tensor:
    """(x + c)^2 / sum (x + c)^2 (MPCFormer, arXiv 2211.01452, section 3.1)."""
    return _divide_by_sum((scores + QUAD_SHIFT).square(), mask)


def _divide_by_sum(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return every score over the sum of its row's visible scores, exactly zero where the mask hides it.

    Rows are divided by their public length first: a secret sum that does not grow with it is safer to divide by.
    """
    allowed = torch.ones_like(scores) if mask is None else (mask > -1).to(scores.dtype)
    visible = scores * (allowed / allowed.sum(-1, keepdim=True))
    return visible / visible.sum(-1, keepdim=True)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    normalise: Normaliser,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Return values (B, T, H, d) averaged by normalised scores, and the normalised scores (B, H, T, T).

    Groups of heads share keys and values if there are fewer. Raises `UsageError` for a family that changes its scores
    in another way.
    """
    # softcap caps the scores (Gemma 2), s_aux holds attention sinks (gpt-oss)
    if unsupported := [name for name in ("softcap", "s_aux") if options.get(name) is not None]:
        raise UsageError(f"{type(module).__name__} has {unsupported[0]} in its scores, which surgery would drop.")
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    if (inverse := getattr(module, "inverse_temperature", None)) is not None:
        scores = scores * inverse
    weights = normalise(scores, attention_mask).to(value.dtype)
    dropped = F.dropout(weights, p=dropout, training=module.training)
    return (dropped @ value).transpose(1, 2), weights


NORMALISERS: dict[str, Normaliser] = {"softmax": softmax, "2relu": two_relu, "2quad": two_quad}
ATTENTION_IMPLEMENTATIONS = {form: f"pi_sim_{form}" for form in NORMALISERS}
for form, name in ATTENTION_IMPLEMENTATIONS.items():
    AttentionInterface.register(name, partial(attend, normalise=NORMALISERS[form]))
    AttentionMaskInterface.register(name, eager_mask)


def add_temperature(attention: nn.Module, heads: int) -> None:
    """Add a learned temperature to every head; AERO (arXiv 2410.13060) learns one for every query as well.

    Its reciprocal (H, 1, 1) is stored: it starts at 1 and could be folded into the queries' projection.
    """
    attention.inverse_temperature = nn.Parameter(torch.ones(heads, 1, 1))
