"""Networks: presets with sources, parsing, and transfer seconds."""

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.cli import main
from pi_sim.errors import UsageError
from pi_sim.network import PRESETS, parse_network
from pi_sim.report.terminal import render_networks
from tests.helpers.golden import Golden

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
RATES = {"kbps": 1e3, "Mbps": 1e6, "gbps": 1e9}


@given(
    rtt=st.decimals(0, 1000, places=3),
    unit=st.sampled_from(sorted(UNITS)),
    bandwidth=st.decimals("0.001", 1000, places=3),
    rate=st.sampled_from(sorted(RATES)),
    swapped=st.booleans(),
)
def test_a_link_means_what_is_written(rtt: str, unit: str, bandwidth: str, rate: str, swapped: bool) -> None:
    fields = [f"rtt={rtt}{unit}", f"bw={bandwidth}{rate}"]
    link = parse_network(", ".join(reversed(fields) if swapped else fields))
    assert link.latency == pytest.approx(float(rtt) * UNITS[unit] / 2)
    assert link.bandwidth == pytest.approx(float(bandwidth) * RATES[rate])


@pytest.mark.parametrize("text", ["rtt=.8ms,bw=3.Gbps", "bw=3Gbps,rtt=800us", " rtt = 0.0008s , bw = 3000Mbps "])
def test_one_link_can_be_written_in_several_ways(text: str) -> None:
    written, lan = parse_network(text), PRESETS["lan"]
    assert (written.latency, written.bandwidth) == pytest.approx((lan.latency, lan.bandwidth))


@pytest.mark.parametrize("text", ["LAN", "moon", "", ",", "latency=20ms"])
def test_an_unknown_network_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"unknown network .*use lan, wan, .* or rtt=40ms,bw=200Mbps\.$"):
        parse_network(text)


def test_the_closest_network_is_named() -> None:
    with pytest.raises(UsageError, match=r"unknown network 'bumblebe-wan'; closest: bumblebee-wan, "):
        parse_network("bumblebe-wan")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rtt=40ms", "no bw"),
        ("bw=200Mbps", "no rtt"),
        ("rtt=40,bw=200", "rtt=40 is not a number with its unit and bw=200 is not a number with its unit"),
        ("rtt=40ms,bw=200", "bw=200 is not a number with its unit"),
        ("rtt=40ms,bw=200MBps", "bw=200MBps is not a number with its unit"),
        ("rtt=40,bw=200Mbps", "rtt=40 is not a number with its unit"),
        ("rtt=-1ms,bw=1Mbps", "rtt=-1ms is not a number with its unit"),
        ("rtt=1..2ms,bw=1Mbps", "rtt=1..2ms is not a number with its unit"),
        ("rtt=4e1ms,bw=1Mbps", "rtt=4e1ms is not a number with its unit"),
        ("rtt=.ms,bw=1Mbps", "rtt=.ms is not a number with its unit"),
        ("rtt=1ms,rtt=1ms", "no bw"),
        ("rtt=1ms,bw=1Mbps,bw=2Mbps", "it needs rtt and bw once each, and nothing else"),
        ("latency=20ms,bw=200Mbps", "no rtt"),
    ],
)
def test_a_link_says_what_it_lacks(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_network(text)
    assert str(refused.value) == (
        f"network {text!r}: {reason}; rtt takes us, ms or s, bw takes kbps, Mbps or Gbps: rtt=40ms,bw=200Mbps."
    )


def test_a_link_without_bandwidth_is_refused() -> None:
    with pytest.raises(UsageError, match="has no bandwidth, so that no message arrives"):
        parse_network("rtt=40ms,bw=0Mbps")


def test_a_rounds_latency_is_one_way_and_half_the_round_trip() -> None:
    assert parse_network("rtt=40ms,bw=1Gbps").seconds(rounds=10, sent=0) == pytest.approx(10 * 0.020)
    assert parse_network("rtt=0ms,bw=200Mbps").seconds(rounds=10, sent=25_000_000) == pytest.approx(1.0)


def test_the_networks_of_bolt_are_those_of_its_paper() -> None:
    """BOLT (IEEE S&P 2024) names its networks by bandwidth and round trip."""
    told = {name: (2e3 * PRESETS[name].latency, PRESETS[name].bandwidth) for name in ("lan", "wan", "slow-wan")}
    assert told == {"lan": (0.8, 3e9), "wan": (40.0, 200e6), "slow-wan": (80.0, 100e6)}


def test_every_named_network_has_a_source_and_can_be_asked_for() -> None:
    for name, preset in PRESETS.items():
        assert parse_network(name) is preset
        assert preset.name == name
        assert preset.source
        assert preset.latency > 0
        assert preset.bandwidth > 0


@pytest.mark.usefixtures("no_terminal")
def test_the_list_of_networks(golden: Golden) -> None:
    golden("networks", render_networks("table"))


def test_the_list_for_programs_has_seconds_and_bits() -> None:
    told = json.loads(CliRunner().invoke(main, ["networks", "--format", "json"]).stdout)
    assert [row["name"] for row in told] == list(PRESETS)
    assert set(told[0]) == {"name", "round_trip_seconds", "bits_per_second", "source"}
    assert [parse_network(f"rtt={row['round_trip_seconds']:f}s,bw=1Mbps").latency for row in told] == pytest.approx(
        [preset.latency for preset in PRESETS.values()]
    )
