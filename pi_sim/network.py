"""Networks, by latency and bandwidth; presets come with their source."""

import re
from dataclasses import dataclass

from pi_sim.errors import UsageError
from pi_sim.names import describe_closest


@dataclass(frozen=True)
class Network:
    """A full-duplex link: one-way latency in seconds, bandwidth in bits per second and direction."""

    name: str
    latency: float
    bandwidth: float
    source: str

    def seconds(self, rounds: int, sent: int) -> float:
        """Seconds of `rounds` rounds, a one-way latency each, and of `sent` bytes of the busier direction of each."""
        return rounds * self.latency + 8 * sent / self.bandwidth


SECMOE = "as SecMoE (AAAI 2026, arXiv 2601.06790) compares BumbleBee and Iron"
SUF = "as SUF projects SIGMA and SHAFT (ponyyuhan/SUF_new, evaluation_report_lan_wan_rounds.md)"

PRESETS = {
    network.name: network
    for network in (
        Network("lan", 0.4e-3, 3e9, "BOLT (IEEE S&P 2024); also Nimbus (NeurIPS 2024), Table 6"),
        Network("wan", 20e-3, 200e6, "BOLT; also Nimbus, Table 6"),
        Network("slow-wan", 40e-3, 100e6, "BOLT; also AERO (arXiv 2410.13060)"),
        Network("bumblebee-lan", 0.25e-3, 1e9, f"LAN, {SECMOE}"),
        Network("bumblebee-wan", 2e-3, 400e6, f"WAN, {SECMOE}"),
        Network("puma", 0.5e-3, 5e9, "PUMA (arXiv 2307.12533), section 5"),
        Network("puma-llama", 0.05e-3, 20e9, "PUMA, section 5.4: its servers for LLaMA-7B"),
        Network("suf-lan", 0.5e-3, 8e9, f"LAN, 0.5 ms a round, {SUF}"),
        Network("suf-wan", 4e-3, 3.2e9, f"WAN, 4 ms a round, {SUF}"),
    )
}
"""Networks by name. Papers state the round trip; half of it is the one-way latency."""

SECONDS_PER_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BITS_PER_PREFIX = {"k": 1e3, "m": 1e6, "g": 1e9}
NUMBER_PATTERN = r"(\d+\.?\d*|\.\d+)"
LINK_UNITS = {"bw": rf"{NUMBER_PATTERN}([kKmMgG])bps", "rtt": rf"{NUMBER_PATTERN}(us|ms|s)"}
LINK_PATTERN = re.compile(rf"bw={LINK_UNITS['bw']},rtt={LINK_UNITS['rtt']}")


def parse_network(text: str) -> Network:
    """Return a preset by name, or the link that `rtt=40ms,bw=200Mbps` describes, in either order.

    `Mbps` are bits, not bytes. Raises `UsageError` for an unknown name, missing units or a bandwidth of zero.
    """
    if text in PRESETS:
        return PRESETS[text]
    match = LINK_PATTERN.fullmatch(",".join(sorted(text.replace(" ", "").split(","))))
    if not match:
        raise UsageError(_unknown_network(text))
    if float(match[1]) == 0:
        raise UsageError(f"network {text!r} has no bandwidth, so that no message arrives; give one such as bw=200Mbps.")
    latency = float(match[3]) * SECONDS_PER_UNIT[match[4]] / 2
    return Network(text, latency, float(match[1]) * BITS_PER_PREFIX[match[2].lower()], "as given")


def _unknown_network(text: str) -> str:
    """Return why a text names no network: a value of a link without its unit, or an unknown name with the closest."""
    values = dict(re.findall(r"(rtt|bw)=([^,]*)", text.replace(" ", "")))
    if values:
        wrong = [name for name in ("rtt", "bw") if not re.fullmatch(LINK_UNITS[name], values.get(name, ""))]
        faults = [
            f"{name}={values[name]} is not a number with its unit" if name in values else f"no {name}" for name in wrong
        ]
        reason = " and ".join(faults) or "it needs rtt and bw once each, and nothing else"
        return f"network {text!r}: {reason}; rtt takes us, ms or s, bw takes kbps, Mbps or Gbps: rtt=40ms,bw=200Mbps."
    closest = describe_closest(text, PRESETS)
    hint = f"{closest}; " if closest else ""
    return f"unknown network {text!r}; {hint}use {', '.join(PRESETS)} or rtt=40ms,bw=200Mbps."
