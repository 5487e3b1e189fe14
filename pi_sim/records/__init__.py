"""Records of runs, trainings and other measurements: versioned JSON, the source of every table and figure.

The imports are the names of this package.
"""

import json
from pathlib import Path
from typing import overload

from pydantic import ValidationError

from pi_sim.errors import UsageError
from pi_sim.provenance import code_fingerprint, cpu_name
from pi_sim.records.costs import (
    Agreement,
    Answer,
    BenchRecord,
    BenchSize,
    Decoded,
    EstimateRecord,
    Generation,
    KernelTiming,
    LatencyRecord,
    LatencyRow,
    MachineRecord,
    Measured,
    ModelTiming,
    PartyRecord,
    PayloadBytes,
    Perplexity,
    PerplexityPair,
    RunRecord,
    SecondsEach,
    SkippedRun,
    TruncationTest,
    VectorResult,
)
from pi_sim.records.envelope import (
    RECORD_FILE,
    VERSION,
    JsonObject,
    Record,
    RecordT,
    dumps,
    json_safe,
    save,
    stamp,
)
from pi_sim.records.models import (
    ConversionRecord,
    CorpusId,
    DiagnosisRecord,
    Dimensions,
    HeldOut,
    Observation,
    Origin,
    TrainingRecord,
)

SCHEMAS: dict[str, type[Record]] = {
    schema.model_fields["kind"].default: schema
    for schema in (
        *(EstimateRecord, RunRecord, PartyRecord, TrainingRecord, ConversionRecord),
        *(DiagnosisRecord, BenchRecord, MachineRecord, LatencyRecord),
    )
}
"""Schemas by kind of record."""
REMEDY = "make it again or remove it"


@overload
def load(path: Path) -> Record: ...


@overload
def load(path: Path, schema: type[RecordT]) -> RecordT: ...


def load(path: Path, schema: type[Record] = Record) -> Record:
    """Return the record at `path`, of any kind or of one `schema`. Raises `UsageError` with the first mistake in it."""
    table = _parse(path)
    actual = SCHEMAS[table["kind"]]
    if not issubclass(actual, schema):
        expected = schema.model_fields["kind"].default
        raise UsageError(f"{path} is a record of kind {table['kind']}, not {expected}; choose another file.")
    try:
        return actual.model_validate(table)
    except ValidationError as error:
        raise UsageError(f"{path} {_complaint(error)}; {REMEDY}.") from None


def _parse(path: Path) -> JsonObject:
    """Return the JSON object of a record of a known kind and of this version."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        table = None
    if not isinstance(table, dict) or table.get("kind") not in list(SCHEMAS):
        raise UsageError(f"{path} is not a pi-sim record; {REMEDY}.")
    if table.get("version") != VERSION:
        version = json.dumps(table.get("version"))
        raise UsageError(f"{path} is a record of version {version}, this pi-sim reads version {VERSION}; {REMEDY}.")
    return table


def _complaint(error: ValidationError) -> str:
    """Return the mistake in the first wrong key."""
    first = error.errors()[0]
    key, complaint = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"has no {key}" if first["type"] == "missing" else f"cannot be read, key {key!r}: {complaint}"
