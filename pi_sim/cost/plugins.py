"""Protocols that are Python objects of other packages, offered through the entry-point group `pi_sim.protocols`.

For prices that are not linear in the features of a sheet. An object has the attributes of `Plugin`; a class or a
function is called for one.
"""

from importlib import metadata
from typing import Any
from typing import Protocol as Interface

from pi_sim.cost.cost import Cost
from pi_sim.errors import PiSimError, UsageError
from pi_sim.graph.ops import STRUCTURAL, Op

ENTRY_POINT_GROUP = "pi_sim.protocols"
REQUIRED_ATTRIBUTES = ("name", "title", "threat_model", "source", "parties", "price")


class Plugin(Interface):
    """What such an object says of itself, and its prices."""

    name: str
    title: str
    threat_model: str
    source: str
    parties: int

    def price(self, op: Op) -> Cost:
        """What one party sends for `op`; raises `pi_sim.errors.UnpricedError` for what it has no price for."""


def plugin_names() -> list[str]:
    """The installed ones, in alphabetical order; none of them is loaded for that."""
    return sorted({point.name for point in metadata.entry_points(group=ENTRY_POINT_GROUP)})


def load_plugin(name: str) -> Plugin:
    """The installed plugin; a `UsageError` tells what is wrong with it."""
    point = next(point for point in metadata.entry_points(group=ENTRY_POINT_GROUP) if point.name == name)
    try:
        found: Any = point.load()
        found = found() if callable(found) else found
    except Exception as error:
        raise UsageError(f"the protocol plugin {name} ({point.value}) cannot be loaded: {error}.") from None
    missing = [attribute for attribute in REQUIRED_ATTRIBUTES if not hasattr(found, attribute)]
    if missing:
        raise UsageError(f"the protocol plugin {name} ({point.value}) has no {missing[0]}; see protocols/README.md.")
    plugin: Plugin = found
    return plugin


def plugin_cost(op: Op, plugin: Plugin) -> Cost:
    """What the plugin says of an operation; a `UsageError` where it fails instead of refusing."""
    if op.name in STRUCTURAL:
        return Cost()
    try:
        cost = plugin.price(op)
    except PiSimError:
        raise
    except Exception as error:
        raise UsageError(f"the protocol plugin {plugin.name} fails at {op}: {error!r}.") from None
    if not isinstance(cost, Cost):
        raise UsageError(f"the protocol plugin {plugin.name} prices {op} with {cost!r}, which is no Cost.")
    return cost
