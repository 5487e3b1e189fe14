"""Networks: a link has a latency and a bandwidth; named ones come with their source."""

import re
from dataclasses import dataclass

from pi_sim.errors import UsageError


@dataclass(frozen=True)
class Network:
    """A full-duplex link: one-way latency in seconds, bandwidth in bits per second and direction."""

    name: str
    latency: float
    bandwidth: float
    source: str

    def seconds(self, rounds: int, sent: int) -> float:
        """A round costs one one-way latency; the bytes that one party sends pass one after the other."""
        return rounds * self.latency + 8 * sent / self.bandwidth


PRESETS = {
    network.name: network
    for network in (
        Network("lan", 0.4e-3, 3e9, "3 Gbps, 0.8 ms round trip: the LAN of BOLT (IEEE S&P 2024)"),
        Network("wan", 20e-3, 200e6, "200 Mbps, 40 ms round trip: a WAN of BOLT (IEEE S&P 2024)"),
        Network("slow-wan", 40e-3, 100e6, "100 Mbps, 80 ms round trip: the slower WAN of BOLT (IEEE S&P 2024)"),
    )
}
"""Named networks; `rtt` halves into a one-way latency."""

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BITS = {"kbps": 1e3, "mbps": 1e6, "gbps": 1e9}
WRITTEN = re.compile(r"rtt=(\d+\.?\d*)(us|ms|s),bw=(\d+\.?\d*)(kbps|mbps|gbps)", re.IGNORECASE)


def network(text: str) -> Network:
    """A preset by name, or a link written as `rtt=40ms,bw=200Mbps`."""
    if text in PRESETS:
        return PRESETS[text]
    written = WRITTEN.fullmatch(text.replace(" ", ""))
    if not written or float(written[3]) == 0:
        raise UsageError(f"unknown network {text!r}; use {', '.join(PRESETS)} or rtt=40ms,bw=200Mbps.")
    latency = float(written[1]) * SECONDS[written[2].lower()] / 2
    return Network(text, latency, float(written[3]) * BITS[written[4].lower()], "as given")
