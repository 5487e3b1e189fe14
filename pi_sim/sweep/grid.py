"""What a sweep asks: every combination of its axes, in a fixed order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from pi_sim import specs
from pi_sim.cost.census import model_context, size_label
from pi_sim.specs import configs


class Scenario(NamedTuple):
    """A model at a size that reads `seq_len` tokens of each sequence at once, `past` more being in a KV cache."""

    model: str
    size: str
    seq_len: int
    batch: int
    past: int | None
    only_inner: bool


@dataclass(frozen=True)
class Grid:
    """Models, sizes, lengths, batches and KV caches, each named once or more; no length is each model's context.

    Lengths and caches are different questions: a prefill for each length, a decode step for each cache.
    """

    models: tuple[str, ...]
    sizes: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1,)
    pasts: tuple[int, ...] = ()
    inner: bool = False

    def scenarios(self) -> list[Scenario]:
        """Each once: a model with a config has one size, its own."""
        return list(dict.fromkeys(self._scenarios()))

    def _scenarios(self) -> Iterator[Scenario]:
        for model, size in product(self.models, self.sizes):
            check_model_and_size(model, size)
            for (length, past), batch in product(self._token_counts(model, size), self.batches):
                yield Scenario(model, size_label(model, size), length, batch, past, self.inner)

    def _token_counts(self, model: str, size: str) -> Iterator[tuple[int, int | None]]:
        """(tokens that are read at once, tokens in a cache) of every prefill and every step."""
        if not self.pasts and not self.lengths:
            yield model_context(model, size), None
        yield from ((length, None) for length in self.lengths)
        yield from ((1, past) for past in self.pasts)


def check_model_and_size(model: str, size: str) -> None:
    """A `UsageError` for a model or a size that does not exist, before anything is priced."""
    if configs.config_text(model) is None:
        specs.load_model_card(model)
        specs.load_size(size)
