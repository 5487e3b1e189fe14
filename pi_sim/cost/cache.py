"""Cache on disk of censuses and derived prices: a repeated estimate needs neither torch nor CrypTen."""

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
    """Return the JSON value under `key`; it is derived and stored if it is missing or damaged.

    The file's name is a digest of the key, of pi-sim's code and of the versions of the packages that values depend on:
    a change in any of them derives the value again.
    """
    digest = hashlib.sha256(json.dumps([key, code_fingerprint()], sort_keys=True).encode()).hexdigest()
    path = cache_dir() / kind / f"{digest[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = derive()
    with suppress(UsageError):  # a value that cannot be stored only costs time
        write_text(path, json.dumps(value))
    return value


def cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/pi-sim`, by default `~/.cache/pi-sim`; it may be removed at any time."""
    return user_folder("XDG_CACHE_HOME", "~/.cache")
