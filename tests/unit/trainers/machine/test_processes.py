"""Processes exchange bytes, agree, and let the first decide: with one process, and with two in one group."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pitstop.configs.errors import CheckpointError, PitstopError, RunError
from pitstop.trainers.machine.processes import agree, agree_on, from_first, gather_bytes, main_process_first

CPU = torch.device("cpu")


def test_one_process_agrees_with_itself() -> None:
    assert agree(3, CPU) == 3
    assert gather_bytes(b"state", CPU) == [b"state"]
    assert from_first(lambda: b"choice", CPU) == b"choice"
    with main_process_first():
        pass


def test_an_error_of_the_only_process_is_raised_as_it_is() -> None:
    error = RunError("no such run", hint="pitstop list")

    def fails() -> bytes:
        raise error

    with pytest.raises(RunError) as raised:
        from_first(fails, CPU)
    assert raised.value is error


def _in_group(body: Callable[[int, Path], Any], rank: int, world: int, directory: Path, results: Any) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{directory / 'group'}", rank=rank, world_size=world)
    results.put((rank, body(rank, directory)))
    dist.destroy_process_group()


def _together(body: Callable[[int, Path], Any], directory: Path, world: int = 2) -> list[Any]:
    """What ``body(rank, directory)`` gives in each process of a group, by rank."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_in_group, args=(body, rank, world, directory, results)) for rank in range(world)]
    for process in processes:
        process.start()
    answers = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    return [answers[rank] for rank in range(world)]


def _exchange(rank: int, directory: Path) -> Any:
    with main_process_first():
        order = directory / "order"
        if rank == 0:
            time.sleep(0.1)
        with order.open("a") as file:
            file.write(str(rank))
    return gather_bytes(b"x" * (3 * rank), CPU), agree_on([rank, 1 - rank, 0], CPU), from_first(lambda: b"of %d" % rank, CPU)


def test_two_processes_exchange_agree_and_take_turns(tmp_path: Path) -> None:
    assert _together(_exchange, tmp_path) == [([b"", b"xxx"], [1, 1, 0], b"of 0")] * 2
    assert (tmp_path / "order").read_text() == "01"


@pytest.mark.parametrize("kind", [CheckpointError, RunError])
def test_an_error_of_the_first_process_is_raised_on_all(tmp_path: Path, kind: type[PitstopError]) -> None:
    def refused(rank: int, directory: Path) -> tuple[str, str, int]:
        def fails() -> bytes:
            raise kind("run_003 is in use")

        try:
            from_first(fails, CPU)
        except PitstopError as error:
            return type(error).__name__, error.message, error.exit_code
        raise AssertionError("nothing was raised")

    first, second = _together(refused, tmp_path)
    assert first == (kind.__name__, "run_003 is in use", kind.exit_code)
    assert second[1:] == first[1:]
    assert (second[0] == "CheckpointError") == (kind is CheckpointError)  # a resume may fall back from that
