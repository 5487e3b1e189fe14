"""Capture: from a module through `torch.export` to the secrecy-typed Graph; the module may be on the meta device.

A Hugging Face model reads texts or images, or in a decoding step one new token for each sequence, after tokens whose
keys and values are in a cache. The parties hold shares of the cached keys and values, which are secret inputs of the
graph. Keys and values of the new token stay shared; only its logits are opened. Texts are padded
on the right, if at all, so positions do not depend on tokens and are public.

Operations that the vocabulary lacks are replaced by torch's decompositions. Modules that are written in single steps
although torch has one operation for them are fused, as a protocol may have a better algorithm for the operation.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from pi_sim.errors import UsageError
from pi_sim.graph.aten import aten_name, find_translator
from pi_sim.graph.experts import ObliviousTopK, has_experts, oblivious_forward
from pi_sim.graph.interpolation import NotLinearError, interpolate_graph
from pi_sim.graph.lowering import Lowering, Tracing
from pi_sim.graph.ops import Graph
from pi_sim.zoo.source import config_context
from pi_sim.zoo.tasks import find_task, image_shape, pool, pooling_of, reads_images

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LENGTH = 16_384
"""Tokens. The attention mask, a number for each pair of them, has to fit into 4 GB with everything else."""
POSITION_IDS_METHOD = "create_position_ids_from_input_ids"
"""RoBERTa's method, which counts the tokens that are not padding."""


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
    default as many as the encoder. No weight is read. Raises `UsageError` for a sequence longer than the
    model's context, and for a model with an operation outside the vocabulary, naming operation, module and the folder
    to edit.
    """
    check_length(model, length, past)
    if past is not None:
        inputs = _decode_inputs(model, batch, past)
        return _trace_step(model, inputs, _decode_step).graph
    if find_task(model) == "output":
        pair = tuple(torch.zeros(batch, count, dtype=torch.long) for count in (length, output_length or length))
        with override_method("forward", {model: partial(_read_pair, model, model.forward)}):
            return trace_module(model, pair, {})
    inputs = _example_inputs(model, length, batch, padded)
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
    ends = [_trace_step(model, _decode_inputs(model, 1, past), _decode_step) for past in sorted({first, last})]
    steps = [ends[0].graph]
    for past in range(first + 1, last):
        progress(len(steps) / tokens)
        inputs = _decode_inputs(model, 1, past)
        try:
            graph = interpolate_graph(model, ends[0], ends[1], Fraction(past - first, last - first), inputs)
        except NotLinearError:
            graph = _trace_step(model, inputs, _decode_step).graph
        steps.append(graph)
    return [prompt, *steps, *(end.graph for end in ends[1:])]


def _trace_step(model: Any, inputs: tuple[Tensor, ...], step: Callable[..., Any]) -> Tracing:
    """Trace a call that returns logits, and new keys and values of every layer."""
    names: list[str] = []
    with override_method("forward", {model: partial(step, model, model.forward, names)}):
        return trace_call(model, inputs, {}, names)


def check_length(model: Any, length: int, past: int | None) -> None:
    """Raise `UsageError` for a length that the model cannot read, or a decoding step that it does not have."""
    context = config_context(model.config.to_dict())
    if reads_images(model):
        if past is not None:
            raise UsageError("an image model has no decoding step; leave --past out.")
        if context is not None and length != context:
            raise UsageError(f"the model reads every image as {context} tokens; leave --seq-len out.")
    elif past is not None:
        check_decodes(model)
        if not 1 <= past < (context or past + 1):
            longest = (context or 0) - 1
            raise UsageError(f"the model's context is {context} tokens; choose --past between 1 and {longest}.")
    elif not 1 <= length <= (context or length):
        raise UsageError(f"the model's context is {context} tokens; choose --seq-len between 1 and {context}.")
    elif length > MAX_LENGTH:
        raise UsageError(f"a mask of {length:,} x {length:,} is too large; choose --seq-len up to {MAX_LENGTH:,}.")


def check_decodes(model: Any) -> None:
    """Raise `UsageError` for a model that does not generate text token by token."""
    if not getattr(model, "can_generate", lambda: False)() or model.config.is_encoder_decoder:
        raise UsageError(
            f"{type(model).__name__} has no decoding step, only causal models do; leave --past and --generate out."
        )


def _example_inputs(model: Any, length: int, batch: int, padded: bool) -> tuple[Tensor, ...]:
    """Return token ids (batch, length), or images (batch, channels, height, width), all zero; see `_read_padded`."""
    if reads_images(model):
        return (torch.zeros(batch, *image_shape(model)),)
    ids = torch.zeros(batch, length, dtype=torch.long)
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
    """Return the logits (B, S, V) alone, for tokens (B, T) of the encoder and (B, S) of the decoder."""
    logits: Tensor = forward(input_ids, decoder_input_ids=decoder_input_ids, **forward_kwargs(model)).logits
    return logits


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


def trace_call(model: nn.Module, args: tuple[Any, ...], options: dict[str, Any], cached: Sequence[str] = ()) -> Tracing:
    """Trace and lower a module's call; `cached` names its last outputs, which stay shared, and may be filled by it."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs = pytree.tree_leaves((args, options))
    program = export_program(model, *pytree.tree_map_only(Tensor, lambda value: value.to(device), (args, options)))

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


def export_program(model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> torch.export.ExportedProgram:
    """Trace a module's call as an ATen program. Raises `UsageError` if torch cannot."""
    fused = {module: forward for module in model.modules() if (forward := _fused_forward(module))}
    fused |= {module: oblivious_forward(module) for module in model.modules() if has_experts(module)}
    padded = {module: _position_ids for module in model.modules() if hasattr(module, POSITION_IDS_METHOD)}
    top_k = ObliviousTopK()
    try:
        with torch.no_grad(), override_method("forward", fused), override_method(POSITION_IDS_METHOD, padded), top_k:
            return torch.export.export(model, args, options, strict=False)
    except Exception as error:  # torch.export raises nearly anything for a model that it cannot trace
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if top_k.calls:
            reason = "it chooses by topk, which is known of routers to gated experts without biases alone"
        raise UsageError(f"torch.export cannot trace this model: {reason}") from None


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


FusedForward = Callable[[Tensor], Tensor]
_gelu_tanh = partial(functional.gelu, approximate="tanh")

ACTIVATION_FORWARDS: dict[str, FusedForward] = {
    "GELUActivation": functional.gelu,
    "GELUTanh": _gelu_tanh,
    "NewGELUActivation": _gelu_tanh,
    "FastGELUActivation": _gelu_tanh,
    "AccurateGELUActivation": _gelu_tanh,
    "QuickGELUActivation": lambda x: functional.silu(1.702 * x) / 1.702,  # arXiv 1606.08415, section 2
}
"""Activations by the module's class in transformers."""

NormForward = Callable[[Tensor, Tensor, float | None], Tensor]

NORM_FORWARDS: tuple[NormForward, ...] = (
    lambda x, weight, eps: functional.rms_norm(x, weight.shape, weight, eps),
    lambda x, weight, eps: functional.rms_norm(x, weight.shape, 1 + weight, eps),
    lambda x, weight, eps: functional.layer_norm(x, weight.shape, weight, None, eps or 0.0),
)
"""Norms with a weight and no bias. The second is Gemma's, whose gain is 1 + weight."""


def _fused_forward(module: Any) -> FusedForward | None:
    """Return torch's function for a module, if there is one.

    Class names do not tell the form of a norm, so the forms are compared on numbers.
    """
    name = type(module).__name__
    if not name.endswith("Norm") or {parameter for parameter, _ in module.named_parameters()} != {"weight"}:
        return ACTIVATION_FORWARDS.get(name)
    eps = next((vars(module)[name] for name in ("variance_epsilon", "eps", "epsilon") if name in vars(module)), None)
    form = next((norm for norm in NORM_FORWARDS if _matches_norm(module, norm, eps)), None)
    return form and (lambda x: form(x, module.weight, eps))


def _matches_norm(module: nn.Module, form: NormForward, eps: float | None) -> bool:
    """Return whether module and form agree on a row of usual size and on one so small that eps matters."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(module.get_parameter("weight").shape, generator=generator)
    x = torch.randn(2, *weight.shape, generator=generator) * torch.tensor([[1.0], [1e-3]])
    try:
        with torch.no_grad():
            expected = torch.func.functional_call(module, {"weight": weight}, (x,))
            return torch.allclose(expected, form(x, weight, eps), rtol=1e-4, atol=1e-6)
    except Exception:  # a module of this name may need other arguments, and is no norm of x alone then
        return False
