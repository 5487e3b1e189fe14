"""Fixtures: an estimate cache of the session's own, and two real parties for the kernels."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from parties import Parties

# Examples run between two processes: their wall time says nothing, and failures must be the same everywhere.
settings.register_profile("pi-sim", deadline=None, derandomize=True)
settings.load_profile("pi-sim")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's cache; child processes inherit this one."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder


@pytest.fixture(scope="session")
def parties() -> Iterator[Parties]:
    """Two processes joined by TCP, started once."""
    started = Parties()
    yield started
    started.close()
