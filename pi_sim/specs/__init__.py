"""The TOML facts: `models/*.toml` are model cards, `models/sizes/*.toml` sizes, `protocols/*.toml` protocols.

Each is data that can be reviewed without reading Python; a mistake in one is a `UsageError` that names the file, the
line and the key.
"""

from pi_sim.errors import UsageError
from pi_sim.specs import configs
from pi_sim.specs.designs import Architecture, ModelCard, Surgery
from pi_sim.specs.files import Kind, Spec, SpecT, check, facts, find, names, parse, place, read
from pi_sim.specs.protocols import FEATURES, Price, Protocol, ProtocolCard, Sheet
from pi_sim.specs.sizes import Recipe, Size

__all__ = [
    "FEATURES",
    "Architecture",
    "Kind",
    "ModelCard",
    "Price",
    "Protocol",
    "ProtocolCard",
    "Recipe",
    "Sheet",
    "Size",
    "Spec",
    "SpecT",
    "Surgery",
    "check",
    "configs",
    "facts",
    "find",
    "model_card",
    "names",
    "parse",
    "place",
    "protocol",
    "protocol_card",
    "read",
    "size",
]


def model_card(name: str) -> ModelCard:
    """The model card called `name`, or at that path."""
    return read(ModelCard, find("models", name))


def size(name: str) -> Size:
    """The size called `name`, or at that path."""
    return read(Size, find("models/sizes", name))


def protocol(name: str) -> ProtocolCard | Sheet:
    """The protocol called `name`, or at that path: an executable one chooses kernels, a declared one lists prices."""
    path = find("protocols", name)
    declared = parse(path).get("provenance") == "declared"
    return read(Sheet, path) if declared else read(ProtocolCard, path)


def protocol_card(name: str) -> ProtocolCard:
    """The executable protocol called `name`, or at that path."""
    found = protocol(name)
    if isinstance(found, Sheet):
        raise UsageError(f"protocol {found.name} is declared: it has prices and no kernels to run; use crypten.")
    return found
