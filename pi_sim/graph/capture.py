"""`torch.export` of a model becomes the secrecy-typed Graph; the model may live on the meta device."""

# MERGED: A program that the vocabulary cannot express at first, in simpler operations of torch's own.
# MERGED: Texts are taken to have no padding: positions are public then, for no token needs to be looked at.

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
from pi_sim.graph.aten.registry import TRANSLATORS, aten_name
from pi_sim.graph.composites import fuse_composites
from pi_sim.graph.lowering import Lowering
from pi_sim.graph.ops import Graph

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def capture_model(model: "PreTrainedModel", length: int, batch: int = 1, past: int | None = None) -> Graph:
    """The graph of what a Hugging Face model computes for (batch, length) token ids, or for a batch of images.

    With `past` it is one decoding step: a token for each sequence after `past` others, whose keys and values are
    cached. No weight is read. Raises `UsageError` for a sequence longer than the model's context, and for a model
    with an operation outside the vocabulary, naming operation, module and the file to edit.
    """
    model_inputs.check_length(model, length, past)
    if past is None:
        return trace_module(
            model, model_inputs.example_inputs(model, length, batch), model_inputs.forward_kwargs(model)
        )
    with model_inputs.decode_step_forward(model):
        return trace_module(model, model_inputs.decode_inputs(model, batch, past), {})


def trace_module(model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Graph:
    """The graph of a module's call; the given values may lie on another device than the module."""
    given = pytree.tree_leaves((args, options))
    program = export_program(
        model, *pytree.tree_map_only(Tensor, lambda value: value.to(_module_device(model)), (args, options))
    )
    if has_inplace_ops(program):
        return Lowering(model, decompose(program), given).lower()
    try:
        return Lowering(model, program, given).lower()
    except UsageError as error:
        with suppress(UsageError):
            return Lowering(model, decompose(program), given).lower()
        raise error


def export_program(model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> torch.export.ExportedProgram:
    """The module's call as an ATen graph."""
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
    """Whether it changes values in place, as `x += y` does; a constant that is detached in place keeps its value."""
    return any(re.search(r"[a-z]_$", aten_name(node)) and aten_name(node) != "detach_" for node in program.graph.nodes)


def decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without changes in place, and with unknown operations by torch's definition, if they have one."""
    known = torch.export.default_decompositions()
    unknown = {node.target for node in program.graph.nodes if aten_name(node) and aten_name(node) not in TRANSLATORS}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        simpler: torch.export.ExportedProgram = program.run_decompositions(
            {each: known[each] for each in unknown if each in known}
        )
        return simpler


POSITION_IDS_METHOD = "create_position_ids_from_input_ids"
"""RoBERTa's method that counts those tokens which are not padding."""


@contextmanager
def assume_no_padding(model: nn.Module) -> Iterator[None]:
    """Let modules that derive positions from token ids take every token for a text's."""
    looking = [module for module in model.modules() if hasattr(module, POSITION_IDS_METHOD)]
    for module in looking:
        setattr(module, POSITION_IDS_METHOD, _position_ids)
    try:
        yield
    finally:
        for module in looking:
            delattr(module, POSITION_IDS_METHOD)


def _position_ids(tokens: Tensor, padding: int, past: int = 0) -> Tensor:
    """They start behind the padding token's number, which stands for no position."""
    first = padding + 1 + past
    return torch.arange(first, first + tokens.shape[1], device=tokens.device).expand(tokens.shape)
