"""What the connection itself takes: measured before a run, outside of what is counted, without an imitated network."""

import time
from statistics import median

import torch

from pi_sim.mpc.link import WORD, Link

SMALL_EXCHANGES = 25
LARGE_EXCHANGES = 9
MEGABYTE = 1_000_000


def benchmark_link(link: Link) -> dict[str, float]:
    """Seconds of a round, and what a megabyte each way adds to it: both parties ask at the same time.

    Medians of exchanges of one word, and of one megabyte.
    """
    network, link.network = link.network, None
    small, large = (
        median(_time_exchange(link, torch.zeros(words, dtype=torch.long)) for _ in range(times))
        for words, times in ((1, SMALL_EXCHANGES), (MEGABYTE // WORD, LARGE_EXCHANGES))
    )
    link.network = network
    return {"round_seconds": small, "megabyte_seconds": max(0.0, large - small)}


def _time_exchange(link: Link, words: torch.Tensor) -> float:
    started = time.perf_counter()
    link.all_reduce(words)
    return time.perf_counter() - started
