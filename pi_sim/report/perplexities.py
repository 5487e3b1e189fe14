"""Perplexities of designs that were trained, by the records of their trainings; pandas is loaded for new ones alone."""

from collections.abc import Sequence
from pathlib import Path

from pi_sim import specs
from pi_sim.cost.census import cached_json
from pi_sim.zoo.source import ModelSource

RECORDS = Path("reports/records")


def default_folders() -> list[Path]:
    """Return the folders of records that came with pi-sim, or were made beside it."""
    return [specs.data_root() / "models" / "weights", RECORDS]


def known_perplexities(folders: Sequence[Path], sources: Sequence[ModelSource]) -> dict[tuple[str, str], float]:
    """Return the perplexities of trained designs by model and size, see `pi_sim.report.sweep.load_perplexities`.

    They are read anew when a file of the folders, by default those of `default_folders`, has changed.
    """
    searched = list(folders) or default_folders()

    def load() -> list[tuple[str, str, float]]:
        from pi_sim.report.sweep import load_perplexities

        return [(*key, value) for key, value in load_perplexities(searched, sources).items()]

    files = sorted(path for folder in searched for path in folder.rglob("*.json") if path.is_file())
    states = [[str(path), status.st_mtime_ns, status.st_size] for path in files if (status := path.stat())]
    missing = [str(folder) for folder in searched if not folder.is_dir()]
    subjects = [[source.identity, source.name, source.label] for source in sources]
    stored = cached_json("perplexities", [states, missing, subjects], load)
    return {(model, size): value for model, size, value in stored}
