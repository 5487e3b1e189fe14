"""The first line of a dealt file: what it holds, for whom, and whether it serves a run."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from pi_sim.errors import UsageError
from pi_sim.mpc.dealer.kinds import DEALING_NUMBER_BYTES
from pi_sim.mpc.dealer.stream import SEED_BYTES
from pi_sim.mpc.dealer.terms import RunIdentity
from pi_sim.specs.files import TomlModel, validate_table

MAX_HEADER_BYTES = 4096
"""Bytes within which the line must end."""
WORD = 8


class Header(TomlModel):
    """JSON. The seed makes it as secret as the shares that follow it: `payload` bytes, none at party 1."""

    format: Literal[2] = 2
    rank: int = Field(ge=0, le=1)
    number: str = Field(pattern=f"^[0-9a-f]{{{2 * DEALING_NUMBER_BYTES}}}$")
    seed: str = Field(pattern=f"^[0-9a-f]{{{2 * SEED_BYTES}}}$")
    sequences: int = Field(ge=1)
    payload: int = Field(ge=0)
    graph: str
    protocol: str
    version: str

    @property
    def line(self) -> bytes:
        """With spaces, so that what follows begins with a word."""
        text = self.model_dump_json().encode()
        return text + b" " * (-(len(text) + 1) % WORD) + b"\n"

    def check_run(self, path: Path, rank: int, terms: RunIdentity, sequences: int) -> None:
        """A `UsageError` says why the file does not serve a run."""
        if sentence := self._mismatch(rank, terms, sequences):
            raise UsageError(f"{path} {sentence}.")
        size, whole = path.stat().st_size, len(self.line) + self.payload
        if size != whole:
            raise UsageError(f"{path} is not whole: it has {size:,} of {whole:,} bytes; copy it anew.")

    def _mismatch(self, rank: int, terms: RunIdentity, sequences: int) -> str | None:
        if self.rank != rank:
            return f"is party {self.rank}'s file of a dealing; give party {rank} its own"
        if self.version != terms.version:
            return f"was dealt by pi-sim {self.version}, this is {terms.version}; deal anew"
        if self.graph != terms.graph:
            return "was dealt for another graph; run `pi-sim deal` with this bundle"
        if self.protocol != terms.protocol:
            return "was dealt for another protocol; run `pi-sim deal` with this --protocol"
        if self.sequences < sequences:
            return f"has randomness for {self.sequences:,} sequences, not for {sequences:,}; run fewer, or deal more"
        return None


def read_header(path: Path) -> Header:
    """The header of a dealt file; a `UsageError` for what is none, or is gone."""
    try:
        with path.open("rb") as file:
            line = file.readline(MAX_HEADER_BYTES)
        return validate_table(Header, json.loads(line), str(path))
    except FileNotFoundError:
        raise UsageError(_missing_message(path)) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is no file of `pi-sim deal`; deal anew.") from None


def used_path(path: Path) -> Path:
    """What a file is called once it was used."""
    return path.with_name(f"{path.name}.used")


def _missing_message(path: Path) -> str:
    if used_path(path).exists():
        return f"{path} was used already, and randomness serves once; deal anew."
    return f"there is no file {path}; `pi-sim deal` makes one for each party."
