"""Data-parallel training in several processes that `torchrun` or `accelerate launch` started.

Each process computes on its part of every batch; only rank zero prints and writes. Processes on several machines need
a shared folder for the checkpoint.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from pi_sim.errors import PiSimError, RunError, UsageError

PROCESS_GROUP_TIMEOUT = timedelta(hours=2)
"""Longest wait of the other ranks while rank zero trains a tokenizer on a large corpus."""


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_rank_zero() -> bool:
    """Return True in the process that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def check_gpus() -> None:
    """Refuse one process on several GPUs, each of which the Trainer would give a full batch, and the reverse.

    Raises `UsageError`.
    """
    gpus, local_processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if world_size() == 1 and gpus > 1:
        raise UsageError(
            f"this machine has {gpus} GPUs; train on all with `torchrun --nproc-per-node {gpus} -m pi_sim train ...`, "
            "or choose one: CUDA_VISIBLE_DEVICES=0."
        )
    if local_processes > gpus > 0:
        raise UsageError(f"{local_processes} processes need a GPU each, but this machine has {gpus}; start fewer.")


def local_batch_size(batch_size: int) -> int:
    """Return each process's share of a batch, in sequences; raise `UsageError` where it does not divide evenly."""
    if batch_size % world_size():
        raise UsageError(
            f"a batch of {batch_size} does not divide among {world_size()} processes; change one of the two."
        )
    return batch_size // world_size()


@contextmanager
def process_group() -> Iterator[None]:
    """Connect the processes: by gloo on the CPU, by NCCL between GPUs."""
    if world_size() == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PROCESS_GROUP_TIMEOUT)
    yield
    dist.destroy_process_group()


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run the body in rank zero before the other ranks, which read the files that it writes."""
    if not is_rank_zero():
        any_rank(False)
    yield
    if is_rank_zero():
        any_rank(False)


def any_rank(flag: bool) -> bool:
    """Return True if the flag is set in any process; all processes wait for each other here.

    Raises `RunError` where another process has ended.
    """
    if world_size() == 1:
        return flag
    shared_flag = torch.tensor(int(flag))  # on the CPU, which waits for no GPU
    try:
        dist.all_reduce(shared_flag, op=dist.ReduceOp.MAX)
    except RuntimeError as error:
        raise RunError(f"another process of this training has ended: {error}.") from None
    return bool(shared_flag)


@contextmanager
def quiet_nonzero_ranks() -> Iterator[None]:
    """Silence every rank but zero; each machine prints an error once."""
    try:
        with ExitStack() as stack:
            if not is_rank_zero():
                devnull = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(redirect_stdout(devnull))
                stack.enter_context(redirect_stderr(devnull))
            yield
    except PiSimError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        sys.exit(error.exit_status)
