"""Learnable scales of embeddings and logits, which a narrow transformer needs in training alone.

A tied table has two uses with different scales: an embedding should have entries near one, and a head should let logits
grow. At small widths the usual initialization provides neither, so the token embeddings and the logits each get a
learnable factor. After training both are constants, and `fold` multiplies them into the tables.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from pi_sim.errors import UsageError

StateDict = dict[str, Any]

IGNORED_TARGET = -100
"""Target after a sequence's last token: cheaper than a copy of the logits without their last row."""


class ScaledModel(nn.Module):
    """Hugging Face causal language model with scaled token embeddings and logits.

    The logits are the head's product with the body's output; `check_plain_logits` refuses other models. Dropout of the
    scaled embeddings is for families whose config has none.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        embedding_scale: float | None,
        logit_scale: float | None,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding_dropout = embedding_dropout
        self.model = model
        self.embedding_scale = _scale_parameter(embedding_scale)
        self.logit_scale = _scale_parameter(logit_scale)
        self.register_state_dict_post_hook(_drop_shared_copies)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_restore_shared_copies)  # type: ignore[no-untyped-call]

    @property
    def embedding(self) -> nn.Module:
        """The token embeddings."""
        table: nn.Module = self.model.get_input_embeddings()
        return table

    @property
    def head(self) -> nn.Module:
        """The projection to the vocabulary."""
        head: nn.Module = self.model.get_output_embeddings()
        return head

    def forward(self, input_ids: Tensor) -> CausalLMOutput:
        """Map ids (B, T) to logits (B, T, V), and the mean loss in nats of predicting ids[:, 1:]."""
        embedded = F.dropout(self.embedding(input_ids) * self.embedding_scale, self.embedding_dropout, self.training)
        hidden = self.model.base_model(inputs_embeds=embedded, use_cache=False)[0]  # (B, T, d)
        logits = self.head(hidden * self.logit_scale)
        targets = F.pad(input_ids[:, 1:], (0, 1), value=IGNORED_TARGET)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED_TARGET)
        return CausalLMOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def fold(self) -> PreTrainedModel:
        """Return a plain model with the same logits: both scales are in its tables, and the head is not tied."""
        plain = copy.deepcopy(self.model)
        head = plain.get_output_embeddings()
        head.weight = nn.Parameter(head.weight * self.logit_scale)
        plain.get_input_embeddings().weight.mul_(self.embedding_scale)
        plain.config.tie_word_embeddings = False
        return plain


@torch.no_grad()
def check_plain_logits(model: PreTrainedModel) -> None:
    """Raise `UsageError` for a model that scales or caps its logits, as Cohere's and Gemma 2 do: training would not."""
    ids = torch.arange(4)[None]
    if not torch.allclose(ScaledModel(model, None, None)(ids).logits, model(ids).logits, rtol=1e-3, equal_nan=True):
        raise UsageError(f"{type(model).__name__} has custom logits, which training would change.")


def _scale_parameter(start: float | None) -> nn.Parameter:
    """Return a learnable scale, or the constant one if the recipe has none."""
    return nn.Parameter(torch.tensor(start or 1.0), requires_grad=start is not None)


def _drop_shared_copies(scaled: ScaledModel, state: StateDict, prefix: str, *_: Any) -> None:
    """Remove further names of shared tensors from a state dict: safetensors refuses to write a tensor twice."""
    for alias, _first in _shared_parameters(scaled):
        del state[f"{prefix}{alias}"]


def _restore_shared_copies(scaled: ScaledModel, state: StateDict, prefix: str, *_: Any) -> None:
    """Restore the names that `_drop_shared_copies` removed, for strict loading."""
    for alias, first in _shared_parameters(scaled):
        state[f"{prefix}{alias}"] = state[f"{prefix}{first}"]


def _shared_parameters(scaled: ScaledModel) -> Iterator[tuple[str, str]]:
    """Yield every further name of a parameter, such as a tied head's, with its first name."""
    first: dict[nn.Parameter, str] = {}
    for name, parameter in scaled.named_parameters(remove_duplicate=False):
        if first.setdefault(parameter, name) != name:
            yield name, first[parameter]
