"""Capture: from a module through `torch.export` to the secrecy-typed Graph; the module may be on the meta device.

Operations that the vocabulary lacks are replaced by torch's decompositions. Texts are assumed to have no padding, so
positions do not depend on tokens and are public.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pi_sim.errors import UsageError
from pi_sim.graph import model_inputs
from pi_sim.graph.aten.registry import aten_name, find_translator
from pi_sim.graph.composites import fuse_composites
from pi_sim.graph.lowering import Lowering
from pi_sim.graph.ops import Graph

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def capture_model(model: "PreTrainedModel", length: int, batch: int = 1, past: int | None = None) -> Graph:
    """Return the graph of a Hugging Face model for (batch, length) token ids, or for a batch of images.

    With `past` it is one decoding step: one new token for each sequence, after `past` tokens whose keys and values are
    cached. No weight is read. Raises `UsageError` for a sequence longer than the model's context, and for a model
    with an operation outside the vocabulary, naming operation, module and the folder to edit.
    """
    model_inputs.check_length(model, length, past)
    if past is None:
        return trace_module(
            model, model_inputs.example_inputs(model, length, batch), model_inputs.forward_kwargs(model)
        )
    with model_inputs.decode_step_forward(model):
        return trace_module(model, model_inputs.decode_inputs(model, batch, past), {})


def trace_module(model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Graph:
    """Return the graph of a module's call; inputs may be on another device than the module."""
    inputs = pytree.tree_leaves((args, options))
    program = export_program(
        model, *pytree.tree_map_only(Tensor, lambda value: value.to(_module_device(model)), (args, options))
    )
    if has_inplace_ops(program):
        return Lowering(model, decompose(program), inputs).lower()
    try:
        return Lowering(model, program, inputs).lower()
    except UsageError as error:
        with suppress(UsageError):
            return Lowering(model, decompose(program), inputs).lower()
        raise error


def export_program(model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> torch.export.ExportedProgram:
    """Trace a module's call as an ATen program. Raises `UsageError` if torch cannot."""
    try:
        with torch.no_grad(), fuse_composites(model), assume_no_padding(model):
            return torch.export.export(model, args, options, strict=False)
    except Exception as error:  # torch.export raises nearly anything for a model that it cannot trace
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"torch.export cannot trace this model: {reason}") from None


def _module_device(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def has_inplace_ops(program: torch.export.ExportedProgram) -> bool:
    """Return whether values change in place, as `x += y` does; detaching a constant in place does not change it."""
    return any(re.search(r"[a-z]_$", aten_name(node)) and aten_name(node) != "detach_" for node in program.graph.nodes)


def decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Rewrite in-place operations, and by torch's decompositions those that have no translator."""
    decompositions = torch.export.default_decompositions()
    untranslated = {
        node.target for node in program.graph.nodes if aten_name(node) and not find_translator(aten_name(node))
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        decomposed: torch.export.ExportedProgram = program.run_decompositions(
            {op: decompositions[op] for op in untranslated if op in decompositions}
        )
        return decomposed


POSITION_IDS_METHOD = "create_position_ids_from_input_ids"
"""RoBERTa's method, which counts the tokens that are not padding."""


@contextmanager
def assume_no_padding(model: nn.Module) -> Iterator[None]:
    """Let modules that derive positions from token ids count every token."""
    counting = [module for module in model.modules() if hasattr(module, POSITION_IDS_METHOD)]
    for module in counting:
        setattr(module, POSITION_IDS_METHOD, _position_ids)
    try:
        yield
    finally:
        for module in counting:
            delattr(module, POSITION_IDS_METHOD)


def _position_ids(tokens: Tensor, padding: int, past: int = 0) -> Tensor:
    """Return position ids; they start after the padding token's id, which RoBERTa reserves."""
    first = padding + 1 + past
    return torch.arange(first, first + tokens.shape[1], device=tokens.device).expand(tokens.shape)
