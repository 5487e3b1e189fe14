"""Protocols of other packages, Python objects in the entry-point group `pi_sim.protocols`.

They are for prices that are not linear in the features of a sheet. The object has the attributes of `Plugin`; a class
or a function is called to make it.
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
    """Interface of a plugin: its header and its prices."""

    name: str
    title: str
    threat_model: str
    source: str
    parties: int

    def price(self, op: Op) -> Cost:
        """Return the cost of `op` for one party; raise `pi_sim.errors.UnpricedError` if there is no price."""


def plugin_names() -> list[str]:
    """Return the names of the installed plugins, sorted, without loading any."""
    return sorted({point.name for point in metadata.entry_points(group=ENTRY_POINT_GROUP)})


def load_plugin(name: str) -> Plugin:
    """Load the installed plugin; a `UsageError` names its fault."""
    point = next(point for point in metadata.entry_points(group=ENTRY_POINT_GROUP) if point.name == name)
    try:
        plugin: Any = point.load()
        plugin = plugin() if callable(plugin) else plugin
    except Exception as error:
        raise UsageError(f"the protocol plugin {name} ({point.value}) cannot be loaded: {error}.") from None
    missing = [attribute for attribute in REQUIRED_ATTRIBUTES if not hasattr(plugin, attribute)]
    if missing:
        raise UsageError(f"the protocol plugin {name} ({point.value}) has no {missing[0]}; see protocols/README.md.")
    checked: Plugin = plugin
    return checked


def plugin_cost(op: Op, plugin: Plugin) -> Cost:
    """Return the plugin's cost of an operation; a `UsageError` if it fails instead of refusing."""
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
