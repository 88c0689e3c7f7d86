"""The processes of a training: how they join, wait for each other, exchange bytes and agree."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from pitstop.configs.errors import CheckpointError, PitstopError
from pitstop.trainers.machine.device import choose_device
from pitstop.trainers.machine.launch import rank
from pitstop.trainers.machine.libraries import quiet_libraries

_RESULT, _ERROR = b"r", b"e"


@contextlib.contextmanager
def process_group() -> Iterator[torch.device]:
    """Be in the group of the processes that a launcher started, if there are several; gives the device to compute on."""
    device = choose_device()
    with quiet_libraries():
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")
    try:
        yield device
    finally:
        if dist.is_initialized():  # torch warns at exit of a group that nobody left
            dist.destroy_process_group()


def gather_bytes(data: bytes, device: torch.device) -> list[bytes]:
    """Each process's bytes, in rank order, on every process. Tensors carry them: nothing is pickled."""
    if not dist.is_initialized():
        return [data]
    mine = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy()).to(device)
    world = dist.get_world_size()
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    dist.all_gather(lengths, torch.tensor([len(data)], dtype=torch.int64, device=device))
    width = max(int(length) for length in lengths)
    padded = torch.zeros(width, dtype=torch.uint8, device=device)
    padded[: len(data)] = mine
    parts = [torch.zeros(width, dtype=torch.uint8, device=device) for _ in range(world)]
    dist.all_gather(parts, padded)
    return [bytes(part[: int(length)].cpu().numpy().tobytes()) for part, length in zip(parts, lengths, strict=True)]


def agree(flag: int, device: torch.device) -> int:
    """The largest of all processes' flags: how they agree to act on something that one of them noticed."""
    return agree_on([flag], device)[0]


def agree_on(flags: Sequence[int], device: torch.device) -> list[int]:
    """``agree`` on several flags in one exchange."""
    if not dist.is_initialized():
        return list(flags)
    tensor = torch.tensor(flags, dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [int(flag) for flag in tensor.tolist()]


def from_first(produce: Callable[[], bytes], device: torch.device) -> bytes:
    """What ``produce`` gives on the first process, on every one. The others do not call it.

    A ``PitstopError`` that it raises is raised on all of them, with the same message and exit code.
    """
    message, failure = b"", None
    if rank() == 0:
        try:
            message = _RESULT + produce()
        except PitstopError as error:
            failure = error
            message = _ERROR + json.dumps({"message": error.message, "exit_code": error.exit_code}).encode()
    message = gather_bytes(message, device)[0]
    if failure is not None:
        raise failure
    if message.startswith(_ERROR):
        report = json.loads(message[1:])
        kind = CheckpointError if report["exit_code"] == CheckpointError.exit_code else PitstopError
        same_error = kind(report["message"])
        same_error.exit_code = report["exit_code"]
        raise same_error
    return message[1:]


@contextlib.contextmanager
def main_process_first(longest: timedelta | None = None) -> Iterator[None]:
    """Let the first process run the body before the others, so that a download happens once.

    With ``longest`` the others wait so long for it, and not as long as for a step.
    """
    if not dist.is_initialized():
        yield
        return
    group = dist.new_group(backend="gloo", timeout=longest) if longest else None
    if dist.get_rank() > 0:
        dist.barrier(group)
    yield
    if dist.get_rank() == 0:
        dist.barrier(group)
    if group is not None:
        dist.destroy_process_group(group)
