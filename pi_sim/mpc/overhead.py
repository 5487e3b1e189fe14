"""What the connection itself takes: measured before a run, outside of what is counted, without an imitated network."""

import time
from statistics import median

import torch

from pi_sim.mpc.link import WORD, Link

EXCHANGES = 25
LARGE = 9
MEGABYTE = 1_000_000


def overhead(link: Link) -> dict[str, float]:
    """Seconds of a round, and what a megabyte each way adds to it: both parties ask at the same time.

    Medians of exchanges of one word, and of one megabyte.
    """
    network, link.network = link.network, None
    small, large = (
        median(_exchange(link, torch.zeros(words, dtype=torch.long)) for _ in range(times))
        for words, times in ((1, EXCHANGES), (MEGABYTE // WORD, LARGE))
    )
    link.network = network
    return {"round_seconds": small, "megabyte_seconds": max(0.0, large - small)}


def _exchange(link: Link, words: torch.Tensor) -> float:
    started = time.perf_counter()
    link.all_reduce(words)
    return time.perf_counter() - started
