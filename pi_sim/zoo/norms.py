"""What stands in the place of a norm."""

from torch import nn

from pi_sim.zoo.layers import Derf, DyT, HardDyT

SQUASHES: dict[str, type[DyT]] = {"dyt": DyT, "dyt-hardtanh": HardDyT, "derf": Derf}
AFFINE = ("weight", "bias")


def norm(name: str, old: nn.Module, alpha: float) -> nn.Module:
    """A norm of that name with the gain and the bias that the old one has learned; DyT and Derf start from alpha."""
    if name == "none":
        return nn.Identity()
    fresh = _fresh(name, old, alpha).to(next(old.parameters()))
    kept = [part for part in AFFINE if getattr(fresh, part, None) is not None]
    fresh.load_state_dict({part: getattr(old, part) for part in kept}, strict=False)
    return fresh


def _fresh(name: str, old: nn.Module, alpha: float) -> nn.Module:
    """As wide as the old one, and with a bias only where that one has one."""
    width, bias = next(old.parameters()).numel(), getattr(old, "bias", None) is not None
    if name == "layernorm":
        return nn.LayerNorm(width, eps=_eps(old), bias=bias)
    if name == "rmsnorm":
        return nn.RMSNorm(width, eps=_eps(old))
    return SQUASHES[name](width, alpha, bias)


def _eps(old: nn.Module) -> float:
    """The old norm's guard against a division by zero; families call it differently, DyT has none."""
    known = (getattr(old, name, None) for name in ("eps", "variance_epsilon"))
    return next((eps for eps in known if eps is not None), 1e-5)
