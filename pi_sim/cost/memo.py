"""What was derived once is kept on disk, so that a repeated estimate needs neither torch nor CrypTen."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pi_sim.errors import UsageError
from pi_sim.records import write_text

CODE = ("graph", "mpc", "cost", "zoo")
PACKAGES = ("torch", "transformers", "crypten")


def remember(kind: str, key: Any, derive: Callable[[], Any]) -> Any:
    """The JSON value under `key`, derived and stored the first time. A damaged memo is derived anew.

    The stored name covers the key, pi-sim's own code and the packages that the value depends on, so a change in any
    of them starts afresh.
    """
    digest = hashlib.sha256(json.dumps([key, _fingerprint()], sort_keys=True).encode()).hexdigest()
    path = folder() / kind / f"{digest[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = derive()
    with suppress(UsageError):  # a memo that cannot be kept only costs time
        write_text(path, json.dumps(value))
    return value


def folder() -> Path:
    """`$XDG_CACHE_HOME/pi-sim`, by default `~/.cache/pi-sim`: safe to remove at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "pi-sim"  # noqa: PTH111


@cache
def _fingerprint() -> str:
    """One hash over the code and the versions of packages that prices and graphs depend on."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(path for part in CODE for path in (package / part).rglob("*.py")):
        digest.update(path.read_bytes())
    for name in PACKAGES:
        digest.update(_version(name).encode())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
