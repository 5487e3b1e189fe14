"""Records that the pages are made of."""

from pathlib import Path

import pytest

from pi_sim import specs
from tests.helpers.sample_records import PERPLEXITIES


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of records, and facts without shipped weights."""
    facts = tmp_path / "facts"
    (facts / "models").mkdir(parents=True)
    for part in ("protocols", "models/sizes", *(f"models/{model}.toml" for model in PERPLEXITIES)):
        (facts / part).symlink_to(specs.data_root() / part)
    for reader in (specs, specs.toml):
        monkeypatch.setattr(reader, "data_root", lambda: facts)
    (tmp_path / "records").mkdir()
    return tmp_path / "records"
