"""Where numbers break: NaN and infinities in the output of each block."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pi_sim.diagnosis import places
from pi_sim.diagnosis.probe import Probe, first_output


class NonFiniteCounts(Probe):
    """Counts of them over all places, by layer."""

    def __init__(self) -> None:
        self.nan: dict[int, Tensor] = {}
        self.inf: dict[int, Tensor] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for layer, (_, block) in enumerate(places.block_modules(model)):
            yield block.register_forward_hook(partial(self._count, layer))

    def _count(self, layer: int, module: nn.Module, args: Any, output: Any) -> None:
        hidden = first_output(output)
        self.nan[layer] = self.nan.get(layer, 0) + hidden.isnan().sum()
        self.inf[layer] = self.inf.get(layer, 0) + hidden.isinf().sum()

    def result(self) -> dict[str, Any]:
        counts = {"nan": self.nan, "inf": self.inf}
        return {"non_finite": {kind: [int(seen[layer]) for layer in sorted(seen)] for kind, seen in counts.items()}}
