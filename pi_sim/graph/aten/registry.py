"""Which translator serves which ATen operation, and the sentence for a call that none can express."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.builder import Builder, MaskedScores, Tokens
from pi_sim.graph.vocabulary import VOCABULARY

Translator = Callable[..., Any]
TranslatorT = TypeVar("TranslatorT", bound=Translator)
TRANSLATORS: dict[str, Translator] = {}

MASKED_SCORE_OPS = ("softmax", "_softmax", "add")
"""What may follow a mask: a softmax, or one more mask."""
TOKEN_PRESERVING_OPS = ("to", "alias", "clone", "contiguous", "detach", "view", "reshape")
"""What leaves tokens as they are."""


class UnsupportedError(Exception):
    """A translator cannot express this call; `translate` adds where it stands."""


def translates(*names: str) -> Callable[[TranslatorT], TranslatorT]:
    """Register a translator for ATen operations, named without their overload."""

    def register(function: TranslatorT) -> TranslatorT:
        TRANSLATORS.update(dict.fromkeys(names, function))
        return function

    return register


def require(meant: bool, what: str) -> None:
    """Refuse a call that the vocabulary would take for something else."""
    if not meant:
        raise UnsupportedError(what)


def translate(build: Builder, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Translate one call; a `UsageError` names an operation that is outside the vocabulary, and its module."""
    called = aten_name(node)
    value = node.meta.get("val")
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    try:
        translator = _find_translator(called)
        require(
            called in MASKED_SCORE_OPS or not _contains_kind(MaskedScores, args),
            "masked scores may only go through softmax",
        )
        require(
            called in ("embedding", *TOKEN_PRESERVING_OPS) or not _contains_kind(Tokens, args),
            "tokens may only be embedded",
        )
        return _call_translator(translator, build, shape, *args, **kwargs)
    except UnsupportedError as reason:
        where = build.module or "the model"
        raise UsageError(f"cannot express aten.{called} of {where}: {reason}; teach it to pi_sim/graph/aten.") from None


def aten_name(node: torch.fx.Node) -> str:
    """An ATen operation's name without its overload; "" for an input or an output."""
    return str(node.target).removeprefix("aten.").split(".")[0] if node.op == "call_function" else ""


def _find_translator(called: str) -> Translator:
    """Return the registered translator, or that of an operation whose definition names this ATen operation."""
    if called in TRANSLATORS:
        return TRANSLATORS[called]
    name = next((operation.name for operation in VOCABULARY.values() if operation.aten == called), None)
    if name is None:
        raise UnsupportedError("it is not in the vocabulary")
    return lambda build, shape, x: build.emit(name, [x], shape)


def _contains_kind(kind: type, args: tuple[Any, ...]) -> bool:
    return any(isinstance(arg, kind) for arg in args)


def _call_translator(translator: Translator, *args: Any, **kwargs: Any) -> Any:
    """Call a translator; an argument that it does not name, or not of that kind, would change the result unnoticed."""
    try:
        inspect.signature(translator).bind(*args, **kwargs)
        return translator(*args, **kwargs)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise UnsupportedError(f"it is called in another way than expected ({error})") from None
