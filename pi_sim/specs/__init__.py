"""Specifications in TOML: model cards (`models/*.toml`), sizes (`models/sizes/*.toml`), protocols (`protocols/*.toml`).

They are data, to be reviewed without reading Python. A mistake in one raises a `UsageError` with file, line and key.
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
    """Load the model card called `name`, or the one at that path."""
    return read_toml(ModelCard, find_file("models", name))


def load_size(name: str) -> Size:
    """Load the size called `name`, or the one at that path."""
    return read_toml(Size, find_file("models/sizes", name))


def load_protocol(name: str) -> ExecutableProtocol | DeclaredProtocol:
    """Return the protocol called `name`, or at that path: an executable one has kernels, a declared one prices."""
    path = find_file("protocols", name)
    declared = parse_toml(path).get("provenance") == "declared"
    return read_toml(DeclaredProtocol, path) if declared else read_toml(ExecutableProtocol, path)


def load_executable_protocol(name: str) -> ExecutableProtocol:
    """Return the executable protocol called `name`, or at that path."""
    protocol = load_protocol(name)
    if isinstance(protocol, DeclaredProtocol):
        raise UsageError(f"protocol {protocol.name} is declared: it has prices and no kernels to run; use crypten.")
    return protocol
