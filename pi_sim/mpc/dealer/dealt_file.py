"""The first line of a dealt file: what it holds, for whom, and whether it serves a run."""

# MERGED: Randomness serves once: two openings under one mask tell the difference of what they hide. A dealt file is marked in this user's state folder and renamed before the first share is drawn from it. So a second use is refused, and so is a copy's by the same user on the same machine. A copy that is used on another machine, or by another user, is not recognised there; both parties' files would have to be copied, or the other party refuses.  # noqa: E501
# MERGED: Randomness that was dealt ahead of time: a file for each party, used once. party0.dealing a header with its seed, then its shares of all derived parts in the order in which they are needed party1.dealing a header alone: party 1 expands everything from its seed  # noqa: E501

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
from pi_sim.specs.toml import TomlModel, validate_table

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


def check_unused(path: Path, header: Header) -> None:
    """A `UsageError` where this user has used the file, or a copy of it."""
    if _marker_path(header).exists():
        raise UsageError(f"{path} was used already, and randomness serves once; deal anew.")


def mark_used(path: Path, header: Header) -> None:
    """Mark and rename a file; a `UsageError` where somebody else was quicker, or where that cannot be written."""
    mark = _marker_path(header)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
        path.rename(used_path(path))
    except FileExistsError:
        raise UsageError(f"{path} was used already, and randomness serves once; deal anew.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be marked as used ({error.strerror}: {error.filename}).") from None


def _marker_path(header: Header) -> Path:
    """An empty file: in `$XDG_STATE_HOME/pi-sim`, by default `~/.local/state/pi-sim`."""
    return user_folder("XDG_STATE_HOME", "~/.local/state") / "dealings" / f"{header.number}.party{header.rank}"


BUFFER_BYTES = 2**20
WINDOW_BYTES = 2**26
"""Bytes that are mapped at once, or more for a larger tensor."""


def party_path(path: Path, rank: int) -> Path:
    """A party's file: `path` itself, or the one in the folder that `pi-sim deal` wrote."""
    return path / f"party{rank}.dealing" if path.is_dir() else path


def read_usable_header(path: Path, rank: int, terms: RunIdentity, sequences: int) -> Header:
    """The header of a party's file, once it is sure to serve a run of so many sequences; else a `UsageError`."""
    path = party_path(path, rank)
    found = read_header(path)
    found.check_run(path, rank, terms, sequences)
    check_unused(path, found)
    return found


def open_dealt_file(path: Path, rank: int, terms: RunIdentity, sequences: int) -> ExternalDealer:
    """A party's way to its file, which is still unused until the parties have met."""
    found = read_usable_header(path, rank, terms, sequences)
    path = party_path(path, rank)
    number, stream = (bytes.fromhex(each) for each in (found.number, found.seed))
    return ExternalDealer(
        DEALT_FILE, rank, number, stream, MappedShares(path, len(found.line)), partial(mark_used, path, found)
    )


class MappedShares:
    """Party 0's derived shares in order: the file's own pages, of which a window is mapped, so that nothing is copied.

    What a party writes there stays its own. Memory is that of the windows in use, however long the file. A file that
    shrinks while it is mapped ends the party by a signal, SIGBUS.
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
        found = torch.frombuffer(self.window, dtype=torch.uint8, count=length, offset=start - self.window_start)
        return found.clone() if start % WORD else found

    def _map(self, start: int) -> None:
        """A window from the page in which the next bytes begin."""
        self.window_start = start - start % mmap.ALLOCATIONGRANULARITY
        self.window_end = min(max(self.position, start + WINDOW_BYTES), os.fstat(self.file.fileno()).st_size)
        if self.position > self.window_end:
            raise RunError("the dealer's file ended too soon; deal anew.")
        length = self.window_end - self.window_start
        try:
            self.window = mmap.mmap(self.file.fileno(), length, access=mmap.ACCESS_COPY, offset=self.window_start)
        except OSError as error:
            raise RunError(f"the dealer's file cannot be mapped into memory ({error.strerror}).") from None


def write_dealing(
    folder: Path,
    tape: Demand,
    terms: RunIdentity,
    sequences: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[int]:
    """Deal for so many sequences: both files in a new folder, whole or not at all. How many bytes each has.

    The shares are written as they are dealt, so that memory stays bounded by one correlation of the largest.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another --out, or remove it.")
    with new_folder(folder, mode=0o700) as inside:
        return _write_files(inside, tape, terms, sequences, progress)


def _write_files(
    folder: Path, tape: Demand, terms: RunIdentity, sequences: int, progress: Callable[[float], None]
) -> list[int]:
    seeds, number, payload = (new_seed(), new_seed()), os.urandom(DEALING_NUMBER_BYTES), tape.offline_bytes(sequences)
    with ExitStack() as stack:
        files = [stack.enter_context(_create_private(party_path(folder, rank))) for rank in (0, 1)]
        for rank, file in enumerate(files):
            found = Header(
                rank=rank, number=number.hex(), seed=seeds[rank].hex(), sequences=sequences,
                payload=payload * (rank == 0), graph=terms.graph, protocol=terms.protocol, version=terms.version,
            )  # fmt: skip
            file.write(found.line)
        start = files[0].tell()
        for shares in tape.replay(DealerSource(*map(AesCtrPrg, seeds)), sequences):
            for share in shares:
                files[0].write(raw_bytes(share))
            progress((files[0].tell() - start) / (payload or 1))
        return [file.tell() for file in files]


def _create_private(path: Path) -> BinaryIO:
    """A new file that its owner alone may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=BUFFER_BYTES)
