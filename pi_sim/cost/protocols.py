"""Any protocol by name: a TOML file's, executable or declared, or an installed plugin's."""

from pi_sim import specs
from pi_sim.cost import plugins, sheet
from pi_sim.cost.plugins import Plugin
from pi_sim.graph.ops import Op
from pi_sim.specs import ProtocolCard, Sheet

Protocol = ProtocolCard | Sheet | Plugin


def protocol(name: str) -> Protocol:
    """The protocol called `name`, or at that path; a TOML file goes before a plugin of the same name."""
    if name not in specs.names("protocols") and name in plugins.names():
        return plugins.load(name)
    found, path = specs.protocol(name), specs.find("protocols", name)
    return sheet.check(found, str(path), path.read_text(encoding="utf-8")) if isinstance(found, Sheet) else found


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
