"""pi-sim: what a transformer costs under secure two-party inference, and what that does to its quality.

The functions are the commands of the command line; docs/python.md describes them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pi_sim.api import compare, estimate, generate, models, networks, protocols, run, sweep
    from pi_sim.errors import PiSimError, RunError, UsageError

__version__ = "0.1.0"
__all__ = [
    "PiSimError",
    "RunError",
    "UsageError",
    "__version__",
    "compare",
    "estimate",
    "generate",
    "models",
    "networks",
    "protocols",
    "run",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Import a name of the interface on first use, so that importing the package takes no time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module("pi_sim.errors" if name.endswith("Error") else "pi_sim.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the names of the interface alone."""
    return sorted(__all__)
