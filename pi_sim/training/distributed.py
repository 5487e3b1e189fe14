"""Several processes that train one model together, as `torchrun` and `accelerate launch` start them.

Each takes its part of every batch; the first speaks and writes. Those on several machines share the folder of the
checkpoint.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from pi_sim.errors import PiSimError, RunError, UsageError

PROCESS_GROUP_TIMEOUT = timedelta(hours=2)  # of the others, while the first makes a tokenizer for a large corpus


def world_size() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_rank_zero() -> bool:
    """Whether this is the one that speaks and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def check_gpus() -> None:
    """Refuse several GPUs for one process, which the Trainer would give a whole batch each, and the reverse."""
    gpus, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if world_size() == 1 and gpus > 1:
        raise UsageError(
            f"this machine has {gpus} GPUs; train on all with `torchrun --nproc-per-node {gpus} -m pi_sim train ...`, "
            "or choose one: CUDA_VISIBLE_DEVICES=0."
        )
    if here > gpus > 0:
        raise UsageError(f"{here} processes need a GPU each, but this machine has {gpus}; start fewer.")


def local_batch_size(batch_size: int) -> int:
    """The sequences of every batch that each process takes."""
    if batch_size % world_size():
        raise UsageError(
            f"a batch of {batch_size} does not divide among {world_size()} processes; change one of the two."
        )
    return batch_size // world_size()


@contextmanager
def process_group() -> Iterator[None]:
    """The processes know each other: by gloo on the CPU, by NCCL between GPUs."""
    if world_size() == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=PROCESS_GROUP_TIMEOUT)
    yield
    distributed.destroy_process_group()


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Let the first process make what the others then find."""
    if not is_rank_zero():
        any_rank(False)
    yield
    if is_rank_zero():
        any_rank(False)


def any_rank(asked: bool) -> bool:
    """Whether one of the processes was asked; each waits here for all."""
    if world_size() == 1:
        return asked
    flag = torch.tensor(int(asked))  # on the CPU: no GPU must be waited for
    try:
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    except RuntimeError as error:
        raise RunError(f"another process of this training has ended: {error}.") from None
    return bool(flag)


@contextmanager
def quiet_nonzero_ranks() -> Iterator[None]:
    """Keep the others quiet; of an error, each machine tells once."""
    try:
        with ExitStack() as stack:
            if not is_rank_zero():
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield
    except PiSimError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        sys.exit(error.exit_status)
