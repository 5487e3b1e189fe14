"""Dealt files: randomness that was dealt ahead of time, a file for each party, used once.

    party0.dealing  a header with party 0's seed, then its shares of all dependent parts in the order of requests
    party1.dealing  a header only: party 1 expands everything from its seed

The header is one line of JSON that says what the file holds, and for which run.

Randomness must be used only once: two openings under one mask reveal the difference of the values that it hides. A
dealt file is marked in this user's state folder and renamed before the first share is drawn from it, so a second use is
refused, and so is a copy's by the same user on the same machine. The use of a copy on another machine, or by another
user, is not detected there; both parties' files would have to be copied, or the other party refuses.
"""

import json
import mmap
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import torch
from pydantic import Field
from torch import Tensor

from pi_sim.errors import RunError, UsageError
from pi_sim.files import new_folder, user_folder
from pi_sim.mpc.dealer.dealers import DEALING_NUMBER_BYTES, DEALT_FILE, ExternalDealer, RunIdentity
from pi_sim.mpc.dealer.prg import SEED_BYTES, AesCtrPrg, new_seed
from pi_sim.mpc.dealer.sources import DealerSource, Demand, raw_bytes
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.specs.toml import TomlModel, validate_table

MAX_HEADER_BYTES = 4096


class Header(TomlModel):
    """The first line of a dealt file. Its seed makes it as secret as the shares behind it.

    `payload` is the number of bytes of those shares, 0 at party 1.
    """

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
        """The header as bytes, padded with spaces so that the shares are aligned to words."""
        text = self.model_dump_json().encode()
        return text + b" " * (-(len(text) + 1) % WORD_BYTES) + b"\n"

    def check_run(self, path: Path, rank: int, identity: RunIdentity, sequences: int) -> None:
        """Raise `UsageError` if the file does not serve a run, or has the wrong size."""
        if reason := self._mismatch(rank, identity, sequences):
            raise UsageError(f"{path} {reason}.")
        size, expected = path.stat().st_size, len(self.line) + self.payload
        if size != expected:
            raise UsageError(f"{path} is damaged: it has {size:,} bytes instead of {expected:,}; copy it again.")

    def _mismatch(self, rank: int, identity: RunIdentity, sequences: int) -> str | None:
        if self.rank != rank:
            return f"is party {self.rank}'s file of a dealing; give party {rank} its own"
        if self.version != identity.version:
            return f"was dealt by pi-sim {self.version}, this is {identity.version}; deal again"
        if self.graph != identity.graph:
            return "was dealt for another graph; run `pi-sim deal` with this bundle"
        if self.protocol != identity.protocol:
            return "was dealt for another protocol; run `pi-sim deal` with this --protocol"
        if self.sequences < sequences:
            return f"has randomness for {self.sequences:,} sequences, not for {sequences:,}; run fewer, or deal more"
        return None


def read_header(path: Path) -> Header:
    """Read the header of a dealt file; raise `UsageError` if there is none, or no such file."""
    try:
        with path.open("rb") as file:
            line = file.readline(MAX_HEADER_BYTES)
        return validate_table(Header, json.loads(line), str(path))
    except FileNotFoundError:
        if used_path(path).exists():
            raise _already_used(path) from None
        raise UsageError(f"there is no file {path}; `pi-sim deal` makes one for each party.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not a file of `pi-sim deal`; deal again.") from None


def used_path(path: Path) -> Path:
    """Return the path of a file after its use."""
    return path.with_name(f"{path.name}.used")


def _already_used(path: Path) -> UsageError:
    return UsageError(f"{path} was used already, and dealt randomness serves one run only; deal again.")


def mark_used(path: Path, header: Header) -> None:
    """Mark and rename a file; raise `UsageError` if another process used it first, or the marker cannot be written."""
    marker = _marker_path(header)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch(exist_ok=False)
        path.rename(used_path(path))
    except FileExistsError:
        raise _already_used(path) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be marked as used ({error.strerror}: {error.filename}).") from None


def _marker_path(header: Header) -> Path:
    """Return the path of an empty file in `$XDG_STATE_HOME/pi-sim`, by default `~/.local/state/pi-sim`."""
    return user_folder("XDG_STATE_HOME", "~/.local/state") / "dealings" / f"{header.number}.party{header.rank}"


BUFFER_BYTES = 2**20
WINDOW_BYTES = 2**26
"""Bytes that are mapped at once; more for a larger tensor."""


def party_path(path: Path, rank: int) -> Path:
    """Return the path of a party's file: `path` itself, or the file in the folder that `pi-sim deal` wrote."""
    return path / f"party{rank}.dealing" if path.is_dir() else path


def read_usable_header(path: Path, rank: int, identity: RunIdentity, sequences: int) -> Header:
    """Return the header of a party's file; raise `UsageError` unless it serves a run of this many sequences.

    A file is refused if this user has used it, or a copy of it, on this machine.
    """
    path = party_path(path, rank)
    header = read_header(path)
    header.check_run(path, rank, identity, sequences)
    if _marker_path(header).exists():
        raise _already_used(path)
    return header


def open_dealt_file(path: Path, rank: int, identity: RunIdentity, sequences: int) -> ExternalDealer:
    """Return the dealer behind a party's file, which stays unused until the parties have agreed."""
    header = read_usable_header(path, rank, identity, sequences)
    path = party_path(path, rank)
    number, seed = bytes.fromhex(header.number), bytes.fromhex(header.seed)
    shares = MappedShares(path, len(header.line))
    return ExternalDealer(DEALT_FILE, rank, number, seed, shares, partial(mark_used, path, header))


class MappedShares:
    """Party 0's dependent shares in order, as views of a mapped window of the file, without a copy.

    The mapping is private: writing to a share does not change the file. Memory is that of the windows in use, however
    long the file. A file that shrinks while it is mapped kills the party with SIGBUS.
    """

    def __init__(self, path: Path, start: int) -> None:
        self.file = path.open("rb")
        self.position = self.window_start = self.window_end = start

    def take(self, length: int) -> Tensor:
        start, self.position = self.position, self.position + length
        if not length:
            return torch.empty(0, dtype=torch.uint8)
        if self.position > self.window_end:
            self._map(start)
        share = torch.frombuffer(self.window, dtype=torch.uint8, count=length, offset=start - self.window_start)
        return share.clone() if start % WORD_BYTES else share

    def _map(self, start: int) -> None:
        """Map a window that starts at the page of the next bytes."""
        self.window_start = start - start % mmap.ALLOCATIONGRANULARITY
        self.window_end = min(max(self.position, start + WINDOW_BYTES), os.fstat(self.file.fileno()).st_size)
        if self.position > self.window_end:
            raise RunError("the dealer's file ended too soon; deal again.")
        length = self.window_end - self.window_start
        try:
            self.window = mmap.mmap(self.file.fileno(), length, access=mmap.ACCESS_COPY, offset=self.window_start)
        except OSError as error:
            raise RunError(f"the dealer's file cannot be mapped into memory ({error.strerror}).") from None


def write_dealing(
    folder: Path,
    demand: Demand,
    identity: RunIdentity,
    sequences: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[int]:
    """Deal for a number of sequences: write both files to a new folder, completely or not at all; return their sizes.

    Shares are written as they are dealt, so memory is bounded by the largest correlation.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another --out, or remove it.")
    seeds, number, payload = (new_seed(), new_seed()), os.urandom(DEALING_NUMBER_BYTES), demand.offline_bytes(sequences)
    with new_folder(folder, mode=0o700) as inside, ExitStack() as stack:
        files = [stack.enter_context(_create_private(party_path(inside, rank))) for rank in (0, 1)]
        for rank, file in enumerate(files):
            header = Header(
                rank=rank, number=number.hex(), seed=seeds[rank].hex(),
                sequences=sequences, payload=payload * (rank == 0),
                graph=identity.graph, protocol=identity.protocol, version=identity.version,
            )  # fmt: skip
            file.write(header.line)
        start = files[0].tell()
        for shares in demand.replay(DealerSource(*map(AesCtrPrg, seeds)), sequences):
            for share in shares:
                files[0].write(raw_bytes(share))
            progress((files[0].tell() - start) / (payload or 1))
        return [file.tell() for file in files]


def _create_private(path: Path) -> BinaryIO:
    """Create a file that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=BUFFER_BYTES)
