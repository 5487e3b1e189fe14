"""The page on real models: trained language models that continue a prompt privately, and encoders of real sentences."""

from pathlib import Path
from typing import Any

from pi_sim.records import RunRecord
from pi_sim.report import frames

FOLDER = "real"
"""Folder, inside one of records, of runs of models that others trained."""


def load(folders: list[Path]) -> list[RunRecord]:
    """Load the runs of real models of these folders, in order of their file names."""
    loaded = frames.load_folders(folder / FOLDER for folder in folders)
    return [record for _, record in loaded if isinstance(record, RunRecord)]


def context(runs: list[RunRecord]) -> dict[str, Any]:
    """Return the rows of the page's tables."""
    return {
        "runs": runs,
        "generations": [_generation_row(run) for run in runs if run.generation],
        "encodings": [_encoding_row(run) for run in runs if run.vectors],
        "environments": list(dict.fromkeys(run.environment for run in runs)),
        "commands": [run.command for run in runs if run.argv],
    }


def _common_fields(run: RunRecord) -> dict[str, Any]:
    measured = run.measured
    return {
        "model": Path(run.model).name,
        "protocol": run.protocol,
        "session_bytes": measured.session_bytes,
        "offline_bytes": measured.offline_bytes,
        "ahead_seconds": measured.ahead_seconds,
        "memory_bytes": measured.memory_bytes,
    }


def _generation_row(run: RunRecord) -> dict[str, Any]:
    """Return lengths, quality and costs of a continuation; those of a token are of the last step."""
    text = run.generation
    assert text is not None
    last = text.steps[-1] if text.steps else None
    return {
        **_common_fields(run),
        "prompt_tokens": text.prompt_tokens,
        "generated": run.generate,
        "agreement": text.agreement,
        "prompt": text.prompt,
        "text": text.text,
        "plain_text": text.plain_text,
        "max_error": run.agreement.max_abs if run.agreement else None,
        "prompt_seconds": text.prefill.seconds,
        "prompt_bytes": text.prefill.bytes,
        "token_seconds": 1 / text.tokens_per_second if text.tokens_per_second else None,
        "token_rounds": last.rounds if last else None,
        "token_bytes": last.bytes if last else None,
    }


def _encoding_row(run: RunRecord) -> dict[str, Any]:
    """Return counts, quality and costs of vectors of real sentences."""
    cosines = [vector.cosine for vector in run.vectors if vector.cosine is not None]
    return {
        **_common_fields(run),
        "sentences": len(run.vectors),
        "batch": run.batch,
        "seq_len": run.seq_len,
        "cosine": min(cosines, default=None),
        "seconds": run.measured.seconds,
        "rounds": run.measured.rounds,
        "bytes": run.measured.bytes,
    }
