"""Tracing of a module's call by `torch.export`: the ATen program that lowering reads.

While a module is traced, tensors of Python numbers keep their data whatever its device, modules that are written in
single steps call torch's function for them, and rotary positions that depend on the length are those of the length.
"""

import inspect
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pi_sim.errors import UsageError
from pi_sim.graph.aten import aten_name, find_translator
from pi_sim.graph.experts import ObliviousTopK, evaluate_experts, is_experts
from pi_sim.graph.recognition import recognise_forward

POSITION_IDS_METHOD = "create_position_ids_from_input_ids"
"""RoBERTa's method, which counts the tokens that are not padding."""


def export_program(
    model: nn.Module, args: tuple[Any, ...], options: dict[str, Any], past: int = 0
) -> torch.export.ExportedProgram:
    """Trace a module's call, after `past` cached tokens, as an ATen program. Raises `UsageError` if torch cannot."""
    fused = {module: forward for module in model.modules() if (forward := recognise_forward(module))}
    length_bound = filter(_is_length_bound, model.modules())
    rotary = {module: partial(_rotate_at_length, module, past) for module in length_bound}
    padded = {module: _position_ids for module in model.modules() if hasattr(module, POSITION_IDS_METHOD)}
    experts = {module: partial(evaluate_experts, module) for module in model.modules() if is_experts(module)}
    overrides = override_method("forward", fused | rotary | experts), override_method(POSITION_IDS_METHOD, padded)
    try:
        with torch.no_grad(), overrides[0], overrides[1], silence_torch(), NumbersKeepData(), ObliviousTopK():
            return torch.export.export(model, args, options, strict=False)
    except Exception as error:  # torch.export raises nearly anything for a model that it cannot trace
        raise UsageError(f"torch.export cannot trace this model: {_explain_failure(model, error)}") from None


def _explain_failure(model: nn.Module, error: Exception) -> str:
    """Return why a model cannot be traced, in one sentence that names the innermost module."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if "data-dependent" in reason:
        reason = "a branch depends on values, which are secret, or not known before a run"
    paths = {id(module): path for path, module in model.named_modules() if path}
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    modules = [paths[key] for frame in frames if (key := id(frame.frame.f_locals.get("self"))) in paths]
    where = f"{modules[-1]}: " if modules else ""
    return f"{where}{reason}."


@contextmanager
def silence_torch() -> Iterator[None]:
    """Discard what torch prints during a block: the errors of an export say what matters."""
    loggers = [logging.getLogger("torch"), logging.getLogger("torch.fx"), logging.getLogger("torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class NumbersKeepData(TorchFunctionMode):
    """Mode in which a tensor of Python numbers is made on the CPU, so that the program has its data.

    On the meta device, where models are priced, it would have none. Lists that index a tensor are such tensors too.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and _is_data(args[0] if args else kwargs.get("data")):
            return _make_on_cpu(*args, **kwargs)
        if func is Tensor.new_tensor and _is_data(args[1]):
            like, data = args
            return _make_on_cpu(data, **{"dtype": like.dtype, "device": like.device} | kwargs)
        if func is Tensor.__getitem__:
            x, index = args
            return func(x, _index_by_tensors(index, x.device))
        return func(*args, **kwargs)


def _is_data(value: Any) -> bool:
    """Return whether a value holds Python numbers alone, which torch knows while it traces."""
    return all(isinstance(leaf, bool | int | float) for leaf in pytree.tree_leaves(value))


def _make_on_cpu(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor of numbers, made on the CPU and moved to its device by an operation of the program."""
    tensor = torch.tensor(data, dtype=dtype, device="cpu")
    return tensor if device is None or torch.device(device).type == "cpu" else tensor.to(device)


def _index_by_tensors(index: Any, device: torch.device) -> Any:
    """Return an index whose lists of integers are tensors."""
    if isinstance(index, tuple):
        return tuple(_index_by_tensors(part, device) for part in index)
    is_rows = isinstance(index, list) and index and all(type(row) is int for row in index)
    return _make_on_cpu(index, device=device) if is_rows else index


def _is_length_bound(module: Any) -> bool:
    """Return whether a module's rotary positions depend on the length of the text."""
    kinds = vars(module).get("rope_type", "")
    kinds = kinds.values() if isinstance(kinds, dict) else [kinds]
    return hasattr(module, "original_max_seq_len") and any(kind in ("dynamic", "longrope") for kind in kinds)


def _rotate_at_length(module: Any, past: int, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Any:
    """Return the cosines and sines of rotary positions, with the frequencies of a text of this length.

    transformers chooses them by the greatest position, which torch does not know while it traces.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    named = {} if layer_type is None else {"layer_type": layer_type}
    kind = module.rope_type if layer_type is None else module.rope_type[layer_type]
    buffer = "inv_freq" if layer_type is None else f"{layer_type}_inv_freq"
    rotate = inspect.unwrap(type(module).forward)
    if kind not in ("dynamic", "longrope"):
        return rotate(module, x, position_ids, **named)
    length = past + position_ids.shape[-1]
    initial = getattr(module, buffer)
    frequencies, _ = ROPE_INIT_FUNCTIONS[kind](module.config, x.device, seq_len=length, **named)
    setattr(module, buffer, frequencies)
    try:
        return rotate(module, x, position_ids, **named)
    finally:
        setattr(module, buffer, initial)


@contextmanager
def override_method(name: str, methods: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Override one method of several modules during a block."""
    for module, method in methods.items():
        setattr(module, name, method)
    try:
        yield
    finally:
        for module in methods:
            delattr(module, name)


def has_inplace_ops(program: torch.export.ExportedProgram) -> bool:
    """Return whether values change in place, as `x += y` does; detaching a constant in place does not change it."""
    return any(re.search(r"[a-z]_$", aten_name(node)) and aten_name(node) != "detach_" for node in program.graph.nodes)


def decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Rewrite in-place operations, and by torch's decompositions those that have no translator."""
    targets = {node.target for node in program.graph.nodes if aten_name(node) and not find_translator(aten_name(node))}
    decompositions = torch.export.default_decompositions()
    table = {op: decompositions[op] for op in targets if op in decompositions}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        decomposed: torch.export.ExportedProgram = program.run_decompositions(table)
        return decomposed


def _position_ids(tokens: Tensor, padding: int, past: int = 0) -> Tensor:
    """Return the ids of positions that count every token, from the padding token's id on, which RoBERTa reserves."""
    first = padding + 1 + past
    return torch.arange(first, first + tokens.shape[1], device=tokens.device).expand(tokens.shape)
