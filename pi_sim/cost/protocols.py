"""Any protocol by name: a TOML file's, executable or declared, or an installed plugin's."""

from pi_sim import specs
from pi_sim.cost import plugins, sheet
from pi_sim.cost.plugins import Plugin
from pi_sim.graph.ops import STRUCTURAL, Op
from pi_sim.specs import ProtocolCard, Sheet

Protocol = ProtocolCard | Sheet | Plugin

ALIKE = {
    **dict.fromkeys(("lookup", "add", "neg", "sum", "mask"), "local"),
    **dict.fromkeys(STRUCTURAL, "local"),
    "reveal": "derived",
}
"""Operations that every executable protocol does alike, without a kernel of its choice."""


def protocol(name: str) -> Protocol:
    """The protocol called `name`, or at that path; a TOML file goes before a plugin of the same name."""
    if _plugged(name):
        return plugins.load(name)
    found, path = specs.protocol(name), specs.find("protocols", name)
    return sheet.check(found, str(path), path.read_text(encoding="utf-8")) if isinstance(found, Sheet) else found


def origin(name: str) -> str:
    """Where to mend it: its file, or which plugin it is."""
    return f"the plugin {name}" if _plugged(name) else str(specs.find("protocols", name))


def names() -> list[str]:
    """All of them, in alphabetical order."""
    return sorted({*specs.names("protocols"), *plugins.names()})


def provenance(protocol: Protocol) -> str:
    """Derived from kernels, declared by a sheet, or computed by a plugin."""
    return protocol.provenance if isinstance(protocol, ProtocolCard | Sheet) else "plugin"


def provenance_of(op: Op, protocol: Protocol) -> str:
    """Where one price comes from: what a sheet says of it, "local" for what is free there, or the protocol's own."""
    if not isinstance(protocol, Sheet):
        return provenance(protocol)
    entry = sheet.entry_of(op, protocol)
    return entry.provenance if entry else "local"


def coverage(name: str, protocol: Protocol) -> str:
    """How a protocol prices an operation: derived, declared, scaled, fitted, plugin, local, or none at all."""
    if isinstance(protocol, ProtocolCard):
        return ALIKE.get(name, "derived" if name in protocol.kernels else "none")
    if not isinstance(protocol, Sheet):
        return "plugin"
    if sheet.free(name, protocol):
        return "local"
    return next((price.provenance for key, price in protocol.price.items() if key.partition("-")[0] == name), "none")


def offline_known(protocol: Protocol) -> bool:
    """Whether a zero of offline bytes is one, and not what a declared protocol's sources do not tell."""
    return not isinstance(protocol, Sheet) or protocol.has_offline_figures


def _plugged(name: str) -> bool:
    return name not in specs.names("protocols") and name in plugins.names()
