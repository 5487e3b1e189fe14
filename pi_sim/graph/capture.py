"""`torch.export` of a model becomes the secrecy-typed Graph; the model may live on the meta device."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pi_sim.errors import UsageError
from pi_sim.graph import decode, questions, simplify
from pi_sim.graph.composites import fuse_composites
from pi_sim.graph.ops import Graph
from pi_sim.graph.unpadded import assume_no_padding
from pi_sim.graph.walk import Lowering

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def capture_model(model: "PreTrainedModel", length: int, batch: int = 1, past: int | None = None) -> Graph:
    """The graph of what a Hugging Face model computes for (batch, length) token ids, or for a batch of images.

    With `past` it is one decoding step: a token for each sequence after `past` others, whose keys and values are
    cached. No weight is read. Raises `UsageError` for a sequence longer than the model's context, and for a model
    with an operation outside the vocabulary, naming operation, module and the file to edit.
    """
    questions.check_length(model, length, past)
    if past is None:
        return trace_module(model, questions.example_inputs(model, length, batch), questions.forward_kwargs(model))
    with decode.decode_step_forward(model):
        return trace_module(model, decode.decode_inputs(model, batch, past), {})


def trace_module(model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Graph:
    """The graph of a module's call; the given values may lie on another device than the module."""
    given = pytree.tree_leaves((args, options))
    program = export_program(model, *pytree.tree_map_only(Tensor, lambda value: value.to(_module_device(model)), (args, options)))
    if simplify.has_inplace_ops(program):
        return Lowering(model, simplify.decompose(program), given).lower()
    try:
        return Lowering(model, program, given).lower()
    except UsageError as error:
        with suppress(UsageError):
            return Lowering(model, simplify.decompose(program), given).lower()
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
