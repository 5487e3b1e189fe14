"""The TOML facts: `models/*.toml` are model cards, `models/sizes/*.toml` sizes, `protocols/*.toml` protocols.

Each is data that can be reviewed without reading Python; a mistake in one is a `UsageError` that names the file, the
line and the key.
"""

from pi_sim.errors import UsageError
from pi_sim.specs.designs import Architecture, ModelCard, Recipe, Size, Surgery
from pi_sim.specs.protocols import FEATURES, DeclaredProtocol, ExecutableProtocol, Price, ProtocolHeader
from pi_sim.specs.toml import (
    FactKind,
    TomlModel,
    TomlModelT,
    data_root,
    find_file,
    list_names,
    location,
    parse_toml,
    read_toml,
    validate_table,
)

__all__ = [
    "FEATURES",
    "Architecture",
    "DeclaredProtocol",
    "ExecutableProtocol",
    "FactKind",
    "ModelCard",
    "Price",
    "ProtocolHeader",
    "Recipe",
    "Size",
    "Surgery",
    "TomlModel",
    "TomlModelT",
    "data_root",
    "find_file",
    "list_names",
    "load_executable_protocol",
    "load_model_card",
    "load_protocol",
    "load_size",
    "location",
    "parse_toml",
    "read_toml",
    "validate_table",
]


def load_model_card(name: str) -> ModelCard:
    """The model card called `name`, or at that path."""
    return read_toml(ModelCard, find_file("models", name))


def load_size(name: str) -> Size:
    """The size called `name`, or at that path."""
    return read_toml(Size, find_file("models/sizes", name))


def load_protocol(name: str) -> ExecutableProtocol | DeclaredProtocol:
    """The protocol called `name`, or at that path: an executable one chooses kernels, a declared one lists prices."""
    path = find_file("protocols", name)
    declared = parse_toml(path).get("provenance") == "declared"
    protocol: ExecutableProtocol | DeclaredProtocol = (
        read_toml(DeclaredProtocol, path) if declared else read_toml(ExecutableProtocol, path)
    )
    return protocol.with_origin(path)


def load_executable_protocol(name: str) -> ExecutableProtocol:
    """The executable protocol called `name`, or at that path."""
    found = load_protocol(name)
    if isinstance(found, DeclaredProtocol):
        raise UsageError(f"protocol {found.name} is declared: it has prices and no kernels to run; use crypten.")
    return found
