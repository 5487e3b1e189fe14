"""A fixed computation, timed at every party before and after a run: how fast the machine is just now.

Other work and the clock of the CPU change the speed of a machine by tens of percent within minutes. The profile of
`pi-sim calibrate` has the seconds of the probe too, so a prediction can follow the machine.
"""

import time
from statistics import median

import torch

REPETITIONS = 7
SMALL, LARGE = (4, 64), (64, 256)
CALLS = 300
"""Operations on small tensors in a repetition: there calls take the time, as in most kernels."""


def time_probe() -> float:
    """Return the median seconds of products, of sums of words and of calls, about ten milliseconds each."""
    return median(_time_once() for _ in range(REPETITIONS))


def _time_once() -> float:
    small, large = (torch.ones(shape, dtype=torch.int64) for shape in (SMALL, LARGE))
    words = torch.ones(2**18, dtype=torch.int64)
    started = time.perf_counter()
    for _ in range(4):
        large @ large.mT.repeat(1, 4)
        words = words * 3 + (words >> 1)
    for _ in range(CALLS):
        small = small + 1
    return time.perf_counter() - started
