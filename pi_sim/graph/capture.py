"""Capture: from a module through `torch.export` to the secrecy-typed Graph; the module may be on the meta device.

A Hugging Face model reads texts or images, an encoder-decoder two texts, or in a decoding step one new token for each
sequence, after tokens whose keys and values are in a cache. The parties hold shares of the cached keys and values,
which are secret inputs of the graph. Keys and values of the new token stay shared; only its logits are opened. Texts
are padded on the right, if at all, so positions do not depend on tokens and are public.

Operations that the vocabulary lacks are replaced by torch's decompositions. Modules that are written in single steps
although torch has one operation for them are fused, as a protocol may have a better algorithm for the operation.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pi_sim.errors import UsageError
from pi_sim.graph.interpolation import NotLinearError, interpolate_graph
from pi_sim.graph.lowering import Lowering, Tracing
from pi_sim.graph.ops import Graph
from pi_sim.graph.tracing import decompose, export_program, has_inplace_ops, override_method
from pi_sim.zoo.source import MAX_LENGTH, config_context
from pi_sim.zoo.tasks import find_task, image_shape, pool, pooling_of, reads_images, reads_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def capture_model(
    model: "PreTrainedModel",
    length: int,
    batch: int = 1,
    past: int | None = None,
    padded: bool = False,
    output_length: int | None = None,
) -> Graph:
    """Return the graph of a Hugging Face model for (batch, length) token ids, or for a batch of images.

    With `past` it is one decoding step: one new token for each sequence, after `past` tokens whose keys and values are
    cached. A `padded` model reads texts of any lengths up to `length`: the client's mask of each is a secret input. An
    encoder returns one vector of each input; the decoder of an encoder-decoder model reads `output_length` tokens, by
    default as many as the encoder. No weight is read. Raises `UsageError` for a sequence longer than the model's
    context, and for a model with an operation outside the vocabulary, naming operation, module and the folder to edit.
    """
    check_length(model, length, past)
    if past is not None:
        return _trace_step(model, _decode_inputs(model, batch, past), _decode_step, past).graph
    graph = _capture_input(model, _example_inputs(model, length, batch, padded, output_length), padded)
    if reads_images(model) and length not in (graph.tokens, config_context(model.config.to_dict())):
        raise UsageError(f"the model reads every image as {graph.tokens} tokens; leave --seq-len out.")
    return graph


def _capture_input(model: Any, inputs: tuple[Tensor, ...], padded: bool) -> Graph:
    """Return the graph of whole texts or images."""
    if reads_pairs(model):
        with override_method("forward", {model: partial(_read_pair, model, model.forward)}):
            return trace_module(model, inputs, {})
    if not padded and find_task(model) != "vectors":
        return trace_module(model, inputs, forward_kwargs(model))
    call = _encode_image if reads_images(model) else _read_padded
    with override_method("forward", {model: partial(call, model, model.forward)}):
        return trace_module(model, inputs, {})


def capture_prompt(model: "PreTrainedModel", length: int, batch: int = 1) -> Graph:
    """Return the graph of a prompt (batch, length): the logits of its last token, and the rows that later steps read.

    Raises `UsageError` as `capture_model` does.
    """
    check_length(model, length, None)
    check_decodes(model)
    return _trace_step(model, (torch.zeros(batch, length, dtype=torch.long),), _read_prompt).graph


def capture_generation(
    model: "PreTrainedModel", length: int, tokens: int, progress: Callable[[float], None] = lambda fraction: None
) -> list[Graph]:
    """Return the graphs of a generation: that of a prompt, and those of the decoding steps behind its first token.

    Raises `UsageError` as `capture_model` does.
    """
    prompt, first, last = capture_prompt(model, length), length, length + tokens - 2
    if tokens == 1:
        return [prompt]
    check_length(model, 1, last)
    ends = [_trace_step(model, _decode_inputs(model, 1, past), _decode_step, past) for past in sorted({first, last})]
    steps = [ends[0].graph]
    for past in range(first + 1, last):
        progress(len(steps) / tokens)
        inputs = _decode_inputs(model, 1, past)
        try:
            graph = interpolate_graph(model, ends[0], ends[1], Fraction(past - first, last - first), inputs)
        except (NotLinearError, UsageError):
            graph = _trace_step(model, inputs, _decode_step, past).graph
        steps.append(graph)
    return [prompt, *steps, *(end.graph for end in ends[1:])]


def _trace_step(model: Any, inputs: tuple[Tensor, ...], step: Callable[..., Any], past: int = 0) -> Tracing:
    """Trace a call that returns logits, and new keys and values of every layer, after `past` cached tokens."""
    names: list[str] = []
    with override_method("forward", {model: partial(step, model, model.forward, names)}):
        return trace_call(model, inputs, {}, names, past)


def check_length(model: Any, length: int, past: int | None) -> None:
    """Raise `UsageError` for a length that the model cannot read, or a decoding step that it does not have."""
    context = config_context(model.config.to_dict())
    if reads_images(model):
        if past is not None:
            raise UsageError("an image model has no decoding step; leave --past out.")
    elif past is not None:
        check_decodes(model)
        if not 1 <= past < (context or past + 1):
            longest = (context or 0) - 1
            raise UsageError(f"the model's context is {context} tokens; choose --past between 1 and {longest}.")
    elif length < 1 or length > (_longest_length(model, context) or length):
        limit = _longest_length(model, context)
        raise UsageError(f"the model's context is {context} tokens; choose --seq-len between 1 and {limit}.")
    elif length > MAX_LENGTH:
        raise UsageError(f"a mask of {length:,} x {length:,} is too large; choose --seq-len up to {MAX_LENGTH:,}.")


def check_decodes(model: Any) -> None:
    """Raise `UsageError` for a model that does not generate text token by token."""
    if not getattr(model, "can_generate", lambda: False)() or reads_pairs(model):
        raise UsageError(
            f"{type(model).__name__} has no decoding step, only causal models do; leave --past and --generate out."
        )


def _longest_length(model: Any, context: int | None) -> int | None:
    """Return the longest text that a model of this context reads: dynamic rotary positions stretch it by a factor."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    is_stretched = context is not None and rope.get("rope_type") == "dynamic"
    return int(context * rope["factor"]) if is_stretched else context


def _example_inputs(
    model: Any, length: int, batch: int, padded: bool, output_length: int | None = None
) -> tuple[Tensor, ...]:
    """Return token ids (batch, length), or images (batch, channels, height, width), all zero; see `_read_padded`.

    An encoder-decoder reads a text in either part, of the same length unless `output_length` tells another one.
    """
    if reads_images(model):
        return (torch.zeros(batch, *image_shape(model)),)
    ids = torch.zeros(batch, length, dtype=torch.long)
    if reads_pairs(model):
        return (ids, torch.zeros(batch, output_length or length, dtype=torch.long))
    if not padded:
        return (ids,)
    is_averaged = find_task(model) == "vectors" and pooling_of(model) == "mean"
    weights = [torch.zeros(batch, 1, length)] if is_averaged else []
    return (ids, torch.zeros(batch, 1, 1, length), *weights)


def _read_padded(
    model: Any,
    forward: Callable[..., Any],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    pooling_weights: Tensor | None = None,
) -> Any:
    """Return logits, or the vectors of an encoder, of padded texts (B, T), whose tokens attend to no padding.

    `attention_mask` (B, 1, 1, T) is added to the scores: 0 at tokens, far below at padding. `pooling_weights` (B, 1, T)
    are those of a mean over the tokens.
    """
    masks = {} if attention_mask is None else {"attention_mask": attention_mask}
    output = forward(input_ids, **masks, **forward_kwargs(model))
    if find_task(model) == "vectors":
        return pool(output.last_hidden_state, pooling_of(model), pooling_weights)
    return output.logits


def _read_pair(model: Any, forward: Callable[..., Any], input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
    """Return the logits of the decoder's text (B, T), or its vectors (B, T, d) of a model without a head."""
    output = forward(input_ids=input_ids, decoder_input_ids=decoder_input_ids, **forward_kwargs(model))
    return output.logits if "logits" in output else output.last_hidden_state  # type: ignore[no-any-return]


def _encode_image(model: Any, forward: Callable[..., Any], pixel_values: Tensor) -> Tensor:
    """Return the vectors (B, d) of images (B, channels, height, width)."""
    return pool(forward(pixel_values, **forward_kwargs(model)).last_hidden_state, pooling_of(model))


def forward_kwargs(model: Any) -> dict[str, bool]:
    """Return the options of `forward` for a structured output, without a cache for further tokens."""
    return {"return_dict": True} | ({"use_cache": False} if hasattr(model.config, "use_cache") else {})


def _decode_inputs(model: Any, batch: int, past: int) -> tuple[Tensor, ...]:
    """Return the new tokens (batch, 1), and the cached keys and values (batch, heads, past, head width) by layer."""
    token = torch.zeros(batch, 1, dtype=torch.long)
    with torch.no_grad():
        cache = model(token.to(model.device), use_cache=True, return_dict=True).past_key_values
    if cache is None:
        raise UsageError(f"{type(model).__name__} keeps no keys and values of earlier tokens; leave --past out.")
    cached = (tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
    return (token, *(tensor.expand(-1, -1, past, -1) for tensor in cached))


NewRows = dict[int, tuple[Tensor, Tensor]]
"""Keys and values of new tokens by layer."""


def _read_prompt(model: Any, forward: Callable[..., Any], names: list[str], tokens: Tensor) -> tuple[Tensor, ...]:
    """Return the logits (B, 1, V) of the last token, then all keys and values; `names` are those of the latter."""
    from transformers import DynamicCache

    return _call_with_cache(model, forward, names, tokens, DynamicCache(config=model.config), keeps_earlier=False)


def _decode_step(
    model: Any, forward: Callable[..., Any], names: list[str], token: Tensor, *cached: Tensor
) -> tuple[Tensor, ...]:
    """Return the logits (B, 1, V) of a token after cached keys and values, then its own; `names` are theirs."""
    from transformers import DynamicCache

    cache = DynamicCache(zip(cached[::2], cached[1::2], strict=True), config=model.config)
    return _call_with_cache(model, forward, names, token, cache, keeps_earlier=True)


def _call_with_cache(
    model: Any, forward: Callable[..., Any], names: list[str], tokens: Tensor, cache: Any, keeps_earlier: bool
) -> tuple[Tensor, ...]:
    rows: NewRows = {}
    for layer, entry in enumerate(cache.layers):
        entry.update = partial(_record_rows, rows, layer, entry.update if keeps_earlier else None)
    is_last_alone = "logits_to_keep" in signature(type(model).forward).parameters
    options = {"logits_to_keep": 1} if is_last_alone else {}
    logits = forward(tokens, past_key_values=cache, use_cache=True, return_dict=True, **options).logits[:, -1:]
    if not rows:
        raise UsageError(f"{type(model).__name__} keeps no keys and values of earlier tokens; it cannot decode.")
    names[:] = [f"cached_{2 * layer + index}" for layer in sorted(rows) for index in (0, 1)]
    return (logits, *(tensor for layer in sorted(rows) for tensor in rows[layer]))


def _record_rows(
    rows: NewRows,
    layer: int,
    update: Callable[..., tuple[Tensor, Tensor]] | None,
    keys: Tensor,
    values: Tensor,
    *args: Any,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Record new keys and values in place of a layer's `update`; return those of all tokens."""
    rows[layer] = keys, values
    return (keys, values) if update is None else update(keys, values, *args, **options)


def trace_module(model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Graph:
    """Return the graph of a module's call; inputs may be on another device than the module."""
    return trace_call(model, args, options).graph


def trace_call(
    model: nn.Module, args: tuple[Any, ...], options: dict[str, Any], cached: Sequence[str] = (), past: int = 0
) -> Tracing:
    """Trace and lower a module's call, after `past` cached tokens.

    `cached` names its last outputs, which stay shared, and may be filled by the call.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs = pytree.tree_leaves((args, options))
    # torch takes one tensor that is given twice for one input
    args, options = pytree.tree_map_only(Tensor, lambda value: value.to(device).clone(), (args, options))
    program = export_program(model, args, options, past)

    def lower(program: torch.export.ExportedProgram) -> Tracing:
        return Tracing(program, Lowering(model, program, inputs, cached).lower(), cached)

    if has_inplace_ops(program):
        return lower(decompose(program))
    try:
        return lower(program)
    except UsageError as error:
        with suppress(UsageError):
            return lower(decompose(program))
        raise error
