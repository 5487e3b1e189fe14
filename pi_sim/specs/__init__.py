"""Specifications in TOML: model cards (`models/*.toml`), sizes (`models/sizes/*.toml`), protocols (`protocols/*.toml`).

They are data, to be reviewed without reading Python. A mistake in one raises a `UsageError` with file, line and key.
"""

from pathlib import Path

from pi_sim.errors import UsageError
from pi_sim.specs.designs import Architecture, ModelCard, Recipe, Size, Surgery
from pi_sim.specs.protocols import (
    FEATURES,
    DeclaredProtocol,
    ExecutableProtocol,
    Price,
    merge_protocol_tables,
)
from pi_sim.specs.toml import (
    TomlModel,
    TomlModelT,
    data_root,
    find_file,
    list_names,
    location,
    parse_toml,
    read_toml,
    unknown_name,
    validate_table,
)

__all__ = [
    "FEATURES",
    "Architecture",
    "DeclaredProtocol",
    "ExecutableProtocol",
    "ModelCard",
    "Price",
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
    "read_toml",
    "unknown_name",
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
    table = parse_toml(path)
    if table.get("provenance") == "declared":
        return read_toml(DeclaredProtocol, path).with_origin(path)
    if "extends" in table:
        table = merge_protocol_tables(table, _load_base_protocol(path, table.pop("extends")))
    return validate_table(ExecutableProtocol, table, str(path), path.read_text(encoding="utf-8")).with_origin(path)


def _load_base_protocol(path: Path, base: object) -> ExecutableProtocol:
    """Return the protocol that the one at `path` extends; it has to be executable and must not extend another one."""
    where = location(str(path), path.read_text(encoding="utf-8"), ("extends",))
    if not isinstance(base, str):
        raise UsageError(f"{where}, key 'extends': it names one protocol, such as \"crypten\".")
    name = str(path.parent / base) if base.endswith(".toml") else base
    try:
        if "extends" not in parse_toml(find_file("protocols", name)):
            return load_executable_protocol(name)
    except UsageError as error:
        raise UsageError(f"{where}, key 'extends': {error}") from None
    raise UsageError(f"{where}, key 'extends': {base} extends another protocol itself; extend that one.")


def load_executable_protocol(name: str) -> ExecutableProtocol:
    """Return the executable protocol called `name`, or at that path."""
    protocol = load_protocol(name)
    if isinstance(protocol, DeclaredProtocol):
        raise UsageError(f"protocol {protocol.name} is declared: it has prices and no kernels to run; use crypten.")
    return protocol
