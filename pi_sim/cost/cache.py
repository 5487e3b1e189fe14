"""What was derived once is kept on disk, so that a repeated estimate needs neither torch nor CrypTen."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pi_sim.errors import UsageError
from pi_sim.files import user_folder, write_text
from pi_sim.records import code_fingerprint


def cached_json(kind: str, key: Any, derive: Callable[[], Any]) -> Any:
    """The JSON value under `key`, derived and stored the first time. A damaged memo is derived anew.

    The stored name covers the key, pi-sim's own code and the packages that the value depends on, so a change in any
    of them starts afresh.
    """
    digest = hashlib.sha256(json.dumps([key, code_fingerprint()], sort_keys=True).encode()).hexdigest()
    path = cache_dir() / kind / f"{digest[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = derive()
    with suppress(UsageError):  # a memo that cannot be kept only costs time
        write_text(path, json.dumps(value))
    return value


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/pi-sim`, by default `~/.cache/pi-sim`: safe to remove at any time."""
    return user_folder("XDG_CACHE_HOME", "~/.cache")
