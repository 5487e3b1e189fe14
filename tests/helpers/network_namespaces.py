"""Two machines imitated by network namespaces that are joined by a cable; needs root."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ADDRESSES = ("10.83.0.1", "10.83.0.2")
CABLE = "cable"


@contextmanager
def two_namespaces() -> Iterator[list[str]]:
    """Yield the names of two namespaces, each with an address of its own; delete them afterwards."""
    if os.geteuid():
        pytest.skip("network namespaces need root")
    names = [f"pi-sim-{os.getpid()}-{rank}" for rank in (0, 1)]
    try:
        _connect(names)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _connect(names: list[str]) -> None:
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
            ip("-n", name, "link", "set", CABLE, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine makes no network namespaces: {getattr(error, 'stderr', '') or error}")


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def carried_bytes(name: str) -> tuple[int, int]:
    """Return the bytes that a namespace's interface has sent and received."""
    links: list[dict[str, Any]] = json.loads(ip("-n", name, "-s", "-json", "link", "show", CABLE))
    counters = links[0]["stats64"]
    return counters["tx"]["bytes"], counters["rx"]["bytes"]
