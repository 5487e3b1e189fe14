"""Resolution of names: models, protocols, networks, machines and dealers, as the command line and Python take them.

Each name is resolved here, once: functions below take the objects. An object in place of a name stays as it is.
Importing this module needs nothing beyond it.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pi_sim.errors import UsageError

if TYPE_CHECKING:
    from typing import TypeAlias, TypeGuard, TypeVar

    from torch import nn
    from transformers import PretrainedConfig

    from pi_sim.cost.cost import Machine
    from pi_sim.cost.pricing import PricedProtocol
    from pi_sim.mpc.dealer.dealers import DealerSpec
    from pi_sim.network import Network
    from pi_sim.specs import ExecutableProtocol
    from pi_sim.zoo.source import ModelSource

    ModelName: TypeAlias = str | Path | PretrainedConfig | ModelSource
    ProtocolName: TypeAlias = str | Path | PricedProtocol
    NetworkName: TypeAlias = str | Network
    NameT = TypeVar("NameT")
    OneOrMany: TypeAlias = NameT | Iterable[NameT]

DEFAULT_MODEL = "relu_nonorm"
DEFAULT_MODELS = ("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm")
"""Models where none is named: of one inference, and of a sweep."""
DEFAULT_NETWORKS = ("lan", "wan")
"""Networks where none is named."""


def resolve_models(models: "OneOrMany[ModelName]", sizes: "OneOrMany[str | Path]") -> "list[ModelSource]":
    """Return the source of each model at each size, each name once; a `UsageError` for an unknown name."""
    names = [str(size) for size in list_names(sizes)]
    return [source for model in list_names(models) for source in _model_sources(model, names)]


def _model_sources(model: Any, sizes: list[str]) -> "list[ModelSource]":
    """Return the sources of a name at all sizes, or that of an object."""
    from pi_sim.zoo.source import ConfigObject, ModelSource

    if isinstance(model, str | Path):
        return [ModelSource.parse(str(model), size) for size in sizes]
    if isinstance(model, ModelSource):
        return [model]
    if hasattr(model, "to_json_string"):
        return [ConfigObject.of(model)]
    raise UsageError(f"{_describe(model)}; give a model's name, a folder or a config of transformers.")


def _describe(model: Any) -> str:
    """Return why an object stands for no model by its name."""
    if is_module(model):
        return f"{type(model).__name__} is a module, which only pi_sim.estimate takes"
    return f"there is no model {model!r}"


def is_module(model: Any) -> "TypeGuard[nn.Module]":
    """Return whether an object is a torch module, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def resolve_protocols(protocols: "OneOrMany[ProtocolName]") -> "list[PricedProtocol]":
    """Return the protocols, executable, declared or plugins, each name once."""
    from pi_sim.cost.pricing import resolve_protocol

    return [resolve_protocol(str(name)) if _is_name(name) else name for name in list_names(protocols)]


def resolve_executable(protocol: "ProtocolName") -> "ExecutableProtocol":
    """Return a protocol that runs here; a `UsageError` for a declared one."""
    from pi_sim.specs import ExecutableProtocol, load_executable_protocol

    if isinstance(protocol, ExecutableProtocol):
        return protocol
    subject: Any = protocol
    return load_executable_protocol(str(subject if _is_name(subject) else subject.name))


def resolve_networks(networks: "OneOrMany[NetworkName]") -> "list[Network]":
    """Return the networks, presets or links, each text once."""
    from pi_sim.network import parse_network

    return [parse_network(str(name)) if _is_name(name) else name for name in list_names(networks)]


def resolve_machine(machine: "str | Path | Machine | None") -> "Machine | None":
    """Return a profile, that of a file, or by default this machine's, None where it was not measured."""
    from pi_sim.cost.cost import Machine, load_profile

    return machine if isinstance(machine, Machine) else load_profile(None if machine is None else Path(machine))


def _is_name(value: Any) -> "TypeGuard[str | Path]":
    """Return whether a value is a name to look up, and no object that has one."""
    return isinstance(value, str | Path) or not hasattr(value, "name")


def resolve_dealer(name: str | Path) -> "DealerSpec":
    """Return the dealer that a user named: first-party, third-party, or the path of dealt files."""
    from pi_sim.mpc.dealer.dealers import DealerSpec

    return DealerSpec.parse(str(name))


def list_names(values: Any) -> list[Any]:
    """Return names and objects in their order, a name once; a value that is no collection is the only one."""
    from pi_sim.specs import TomlModel

    is_single = isinstance(values, str | Path | TomlModel) or not isinstance(values, Iterable)
    items = [values] if is_single else list(values)
    return [value for index, value in enumerate(items) if not isinstance(value, str) or value not in items[:index]]


def check_counts(**counts: int | Sequence[int] | None) -> None:
    """Raise a `UsageError` that names an argument which is no whole number of at least 1; None is left out."""
    for name, value in counts.items():
        for count in value if isinstance(value, list | tuple) else [value]:
            if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
                raise UsageError(f"{name} is {count!r}; give a whole number of at least 1.")
