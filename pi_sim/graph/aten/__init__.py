"""ATen operations on secrets, translated into the graph's vocabulary: `math` and `shapes` register the translators.

A translator is one short function. Its arguments are the builder, the shape of the result and the arguments of the
call, in which secrets are `Secret` and public values are plain tensors and numbers.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from pi_sim.errors import UsageError
from pi_sim.graph.builder import Builder, MaskedScores, Tokens
from pi_sim.graph.vocabulary import VOCABULARY, Shape

TranslatorT = TypeVar("TranslatorT", bound=Callable[..., Any])
TRANSLATORS: dict[str, Callable[..., Any]] = {}
MASKED_SCORE_OPS = (
    *("softmax", "_softmax", "scaled_dot_product_attention", "add", "sub", "where", "masked_fill", "mul", "div"),
    *("clamp", "clamp_min", "maximum", "to", "alias", "clone", "contiguous", "detach", "dropout"),
    *("_assert_tensor_metadata", "view", "reshape", "_unsafe_view"),
)
"""Operations that may follow a mask: a softmax, a further mask, a positive factor, and what changes no score."""
ONLY_SOFTMAX = "masked scores may only go through softmax"
TOKEN_OPS = (
    *("embedding", "to", "alias", "clone", "contiguous", "detach", "view", "reshape", "slice"),
    "_assert_tensor_metadata",
    *("ne", "eq", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"),
)
"""Operations that embed tokens, leave them as they are, use their shape, or compare them with padding."""


class UnsupportedError(Exception):
    """Call that a translator cannot express; `translate` adds operation and module to the reason."""


def translates(*names: str) -> Callable[[TranslatorT], TranslatorT]:
    """Register a translator for ATen operations, named without their overload."""

    def register(function: TranslatorT) -> TranslatorT:
        TRANSLATORS.update(dict.fromkeys(names, function))
        return function

    return register


def require(condition: bool, reason: str) -> None:
    """Raise `UnsupportedError` for a call with another meaning than the vocabulary's operation."""
    if not condition:
        raise UnsupportedError(reason)


def translate(build: Builder, node: torch.fx.Node, shape: Shape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Translate one call with a result of a shape, () if it is no tensor.

    Raises `UsageError` with operation and module if the vocabulary cannot express it.
    """
    called, kinds = aten_name(node), {type(arg) for arg in args}
    try:
        translator = find_translator(called)
        if translator is None:
            raise UnsupportedError("it is not in the vocabulary")
        require(called in MASKED_SCORE_OPS or MaskedScores not in kinds, ONLY_SOFTMAX)
        require(called in TOKEN_OPS or Tokens not in kinds, "tokens may only be embedded")
        return _call_translator(translator, build, shape, *args, **kwargs)
    except UnsupportedError as reason:
        where = build.module or "the model"
        raise UsageError(f"cannot express aten.{called} of {where}: {reason}; extend pi_sim/graph/aten.") from None


def aten_name(node: torch.fx.Node) -> str:
    """An ATen operation's name without its overload; "" for an input or an output."""
    return str(node.target).removeprefix("aten.").split(".")[0] if node.op == "call_function" else ""


def find_translator(called: str) -> Callable[..., Any] | None:
    """Return the registered translator, or that of the vocabulary's operation that names this ATen operation."""
    if called in TRANSLATORS:
        return TRANSLATORS[called]
    name = next((operation.name for operation in VOCABULARY.values() if operation.aten == called), None)
    return (lambda build, shape, x: build.emit(name, [x], shape)) if name else None


def _call_translator(translator: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a translator. An argument that it does not expect is refused: it could change the result unnoticed."""
    try:
        inspect.signature(translator).bind(*args, **kwargs)
        return translator(*args, **kwargs)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise UnsupportedError(f"it is called in another way than expected ({error})") from None
