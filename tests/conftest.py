"""Fixtures of many tests: a cache of their own, golden texts, two real parties, and one small training.

`PI_SIM_RENEW=1 pytest` rewrites the files of tests/golden instead of comparing texts with them.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

pytest.register_assert_rewrite("tests.helpers")  # before the first import of a helper

from tests.helpers import small_training  # noqa: E402
from tests.helpers.golden import Golden  # noqa: E402
from tests.helpers.two_processes import TwoParties  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's job in the background: tests send it to their children
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Examples run between two processes: their wall time says nothing, and failures must be the same everywhere.
settings.register_profile("pi-sim", deadline=None, derandomize=True)
settings.load_profile("pi-sim")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with `two_parties` as `parties`, and those that are neither `parties` nor `slow` as `unit`."""
    for item in items:
        if "two_parties" in getattr(item, "fixturenames", ()):
            item.add_marker("parties")
        if not {"parties", "slow"} & {mark.name for mark in item.iter_markers()}:
            item.add_marker("unit")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's cache, machine profile or used dealings; child processes inherit this one."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ.update(dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"), str(folder)))
    yield folder


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden texts are those of a pipe with 80 columns, also under `pytest -s`."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def golden(no_terminal: None) -> Golden:
    """Compare a text, as a pipe would get it, with the file of tests/golden that has this name."""

    def compare(name: str, text: str) -> None:
        path, text = GOLDEN / f"{name}.txt", text.removesuffix("\n") + "\n"
        if os.environ.get("PI_SIM_RENEW"):
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text

    return compare


@pytest.fixture(scope="session")
def two_parties() -> Iterator[TwoParties]:
    """Two processes joined by TCP, started once."""
    started = TwoParties()
    yield started
    started.close()


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of short files."""
    return small_training.write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="session")
def size(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A size that trains in a second."""
    path = tmp_path_factory.mktemp("size") / "small.toml"
    path.write_text(small_training.SIZE)
    return str(path)


@pytest.fixture(scope="session")
def trained(size: str, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing interrupted."""
    out = tmp_path_factory.mktemp("trained") / "out"
    result = small_training.train(size, texts, out)
    assert result.exit_code == 0, result.stderr
    return out


@pytest.fixture
def ids() -> Tensor:
    """Token ids (2, 8) for an untrained model."""
    return torch.randint(0, 40, (2, 8), generator=torch.Generator().manual_seed(0))
