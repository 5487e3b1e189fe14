"""Any protocol by name: a TOML file's, executable or declared, or an installed plugin's."""

from pi_sim import specs
from pi_sim.cost import plugins, sheet
from pi_sim.cost.plugins import Plugin
from pi_sim.graph.ops import STRUCTURAL, Op
from pi_sim.specs import DeclaredProtocol, ExecutableProtocol

PricedProtocol = ExecutableProtocol | DeclaredProtocol | Plugin

COMMON_PROVENANCE = {
    **dict.fromkeys(("lookup", "add", "neg", "sum", "mask"), "local"),
    **dict.fromkeys(STRUCTURAL, "local"),
    "reveal": "derived",
}
"""Operations that every executable protocol does alike, without a kernel of its choice."""


def resolve_protocol(name: str) -> PricedProtocol:
    """The protocol called `name`, or at that path; a TOML file goes before a plugin of the same name."""
    if _is_plugin(name):
        return plugins.load_plugin(name)
    found, path = specs.load_protocol(name), specs.find_file("protocols", name)
    return sheet.check_sheet(found, str(path), path.read_text(encoding="utf-8")) if isinstance(found, DeclaredProtocol) else found


def protocol_origin(name: str) -> str:
    """Where to mend it: its file, or which plugin it is."""
    return f"the plugin {name}" if _is_plugin(name) else str(specs.find_file("protocols", name))


def protocol_names() -> list[str]:
    """All of them, in alphabetical order."""
    return sorted({*specs.list_names("protocols"), *plugins.plugin_names()})


def protocol_provenance(protocol: PricedProtocol) -> str:
    """Derived from kernels, declared by a sheet, or computed by a plugin."""
    return protocol.provenance if isinstance(protocol, ExecutableProtocol | DeclaredProtocol) else "plugin"


def price_provenance(op: Op, protocol: PricedProtocol) -> str:
    """Where one price comes from: what a sheet says of it, "local" for what is free there, or the protocol's own."""
    if not isinstance(protocol, DeclaredProtocol):
        return protocol_provenance(protocol)
    entry = sheet.price_entry(op, protocol)
    return entry.provenance if entry else "local"


def op_coverage(name: str, protocol: PricedProtocol) -> str:
    """How a protocol prices an operation: derived, declared, scaled, fitted, plugin, local, or none at all."""
    if isinstance(protocol, ExecutableProtocol):
        return COMMON_PROVENANCE.get(name, "derived" if name in protocol.kernels else "none")
    if not isinstance(protocol, DeclaredProtocol):
        return "plugin"
    if sheet.is_local(name, protocol):
        return "local"
    return next((price.provenance for key, price in protocol.price.items() if key.partition("-")[0] == name), "none")


def is_offline_known(protocol: PricedProtocol) -> bool:
    """Whether a zero of offline bytes is one, and not what a declared protocol's sources do not tell."""
    return not isinstance(protocol, DeclaredProtocol) or protocol.has_offline_figures


def _is_plugin(name: str) -> bool:
    return name not in specs.list_names("protocols") and name in plugins.plugin_names()
