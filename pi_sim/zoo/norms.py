"""What stands in the place of a norm."""

from dataclasses import dataclass

from torch import Tensor, nn

from pi_sim.errors import UsageError
from pi_sim.zoo.anatomy import GAIN_NORM_CLASSES
from pi_sim.zoo.layers import Derf, DyT, HardDyT

SQUASHING_LAYERS: dict[str, type[DyT]] = {"dyt": DyT, "dyt-hardtanh": HardDyT, "derf": Derf}
AFFINE_PARAMETERS = ("weight", "bias")


@dataclass(frozen=True)
class NativeNorm:
    """What the family's own norm had, and all that take its place have as well, however many were between.

    A checkpoint loads by one operation on the family's own model, whatever the operations were that led there.
    """

    bias: bool
    eps: float


def replacement_norm(name: str, old: nn.Module, alpha: float) -> nn.Module:
    """A norm of that name with the gain and the bias that the old one has learned; DyT and Derf start from alpha.

    Raises `UsageError` for a norm without a gain, or one whose gain is not known to be its weight.
    """
    if name == "none":
        return nn.Identity()
    gain = getattr(old, "weight", None)
    if type(old).__name__ not in GAIN_NORM_CLASSES or not isinstance(gain, Tensor):
        raise UsageError(f"{type(old).__name__} has no gain that {name} could take over; surgery can make it none.")
    own = getattr(old, "own", None) or NativeNorm(getattr(old, "bias", None) is not None, _norm_eps(old))
    fresh = _new_norm(name, gain.numel(), own, alpha).to(gain)
    kept = [part for part in AFFINE_PARAMETERS if getattr(fresh, part, None) is not None and getattr(old, part, None) is not None]
    fresh.load_state_dict({part: getattr(old, part) for part in kept}, strict=False)
    fresh.own = own  # type: ignore[assignment]  # no tensor and no module, but nn.Module keeps anything
    return fresh


def _new_norm(name: str, width: int, own: NativeNorm, alpha: float) -> nn.Module:
    """As wide as the old one, and with a bias only where the family's own has one."""
    if name == "layernorm":
        return nn.LayerNorm(width, eps=own.eps, bias=own.bias)
    if name == "rmsnorm":
        return nn.RMSNorm(width, eps=own.eps)
    return SQUASHING_LAYERS[name](width, alpha, own.bias)


def _norm_eps(norm: nn.Module) -> float:
    """A norm's guard against a division by zero; families call it differently."""
    known = (getattr(norm, name, None) for name in ("eps", "variance_epsilon"))
    return next((eps for eps in known if eps is not None), 1e-5)
