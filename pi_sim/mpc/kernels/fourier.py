"""SHAFT's activations: a Fourier series of |x|, which a stock comparison keeps within half the period, and a ReLU."""

from typing import Any

from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.primitives import bounded
from pi_sim.mpc.primitives.function import FRACTION_BITS, FourierSeries


def relu_plus_series(x: Any, series: FourierSeries) -> Any:
    """relu(x) plus a sine series of |x|, where |x| is within half the period.

    1. relu(x), see `relu` (9 rounds, 232 bytes); |x| = 2 relu(x) - x.
    2. Compare |x| with half the period (8 rounds, 216 bytes).
    3. The series of |x|, see `primitives.bounded` (1 round, 8 bytes).
    4. Multiply both (1 round, 16 bytes).

    19 rounds, 472 bytes per element. Source: SHAFT (NDSS 2025) and its code, `approximations.py`.
    """
    rectified = x.relu()
    size = map_share(rectified, lambda share: 2 * share - x.share)
    within = size < 2 ** (series.period_bits - FRACTION_BITS - 1)
    return rectified + within * map_share(size, lambda share: bounded.evaluate_local_truncation(share, series))
