"""What the papers print of these designs, as changes of the perplexity against their own softmax + LayerNorm + GELU."""

import math
from dataclasses import dataclass

GPT2 = "arXiv 2501.03489, table 2: GPT-2, 12 layers, 128 tokens, 2.1e9 tokens of CodeParrot"
AERO = "AERO, arXiv 2410.13060, table 4: the same models and text"
OWT = "arXiv 2512.10938: GPT-2 small on OpenWebText, loss 2.94 with LayerNorm, 2.97 with DyT, 2.94 with Derf"
BASE = 2.69
"""Perplexity of SM+LN+G, for table 4, which prints no changes as table 2 does."""


@dataclass(frozen=True)
class Published:
    """A design in its paper: its name there, its perplexity's change (NaN where training failed), and the source."""

    name: str
    change: float
    source: str


PUBLISHED = {
    "gelu_ln": Published("SM+LN+G", 0.0, GPT2),
    "relu_ln": Published("SM+LN+R", 0.0253, GPT2),
    "identity_ln": Published("SM+LN", 0.2558, GPT2),
    "gelu_nonorm": Published("SM+G", 0.1892, GPT2),
    "relu_nonorm": Published("SM+R", 0.0920, GPT2),
    "softmax_only": Published("SM", math.nan, GPT2),
    "aero_scaled": Published("SM+ScFFN", 3.50 / BASE - 1, AERO),
    "aero_fused": Published("SM+ScFuFFN", 3.48 / BASE - 1, AERO),
    "aero_entropy": Published("EReg(SM(t)+ScFuFFN)", 3.21 / BASE - 1, AERO),
    "dyt_gelu": Published("DyT", math.exp(2.97 - 2.94) - 1, OWT),
    "derf_gelu": Published("Derf", 0.0, OWT),
}
