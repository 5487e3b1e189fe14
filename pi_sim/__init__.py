"""pi-sim: what a transformer costs under secure two-party inference, and what that does to its quality."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pi_sim.api import estimate

__all__ = ["__version__", "estimate"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load `pi_sim.estimate` on first use, so that importing the package needs no torch."""
    if name != "estimate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pi_sim.api import estimate

    return estimate
