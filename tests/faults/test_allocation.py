"""Many processes start runs at once: numbers are unique and without a gap, names are unique, one writer a run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import locking
from pitstop.checkpointing.runs import create, name_links
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import RunError
from pitstop.naming.names import unique
from support.fault_matrix import Matrix, is_caught
from support.stores import ForgetfulStorage, in_child

pytestmark = pytest.mark.faults

PROCESSES = 16
WINDOW_S = 0.02  # between the look and the leap of a mutant, so that no machine is too quick or too busy to be caught


def in_parallel(count: int, body: object) -> list[int]:
    """Exit codes of ``count`` forked processes that run ``body(number)`` at the same time."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 99
            try:
                body(number)  # type: ignore[operator]
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def start_runs(base: Path, processes: int, each: int) -> str | None:
    """Let ``processes`` start ``each`` runs at once; what is wrong with the outcome, None when nothing is."""

    def start(_: int) -> None:
        for _ in range(each):
            create_run(base, name="same-second", config={}, metadata={}, storage=ForgetfulStorage())

    if in_parallel(processes, start) != [0] * processes:
        return "a process failed"
    records = list_runs(base)
    if sorted(record.run_number for record in records) != list(range(1, processes * each + 1)):
        return "numbers are not unique and without a gap"
    if len({record.name for record in records}) != processes * each:
        return "names are not unique"
    wrong = [r.name for r in records if (base / "by-name" / r.name).resolve() != (base / r.run).resolve()]
    return f"{wrong[0]} leads elsewhere" if wrong else None


def test_processes_that_start_together_never_share_a_number_or_a_name(tmp_path: Path, matrix: Matrix) -> None:
    row = matrix("16 processes allocate runs")
    assert start_runs(tmp_path, PROCESSES, row.count // PROCESSES) is None
    for record in list_runs(tmp_path):
        with row.trial(record.run):
            assert (tmp_path / "by-name" / record.name).resolve() == (tmp_path / record.run).resolve()


def test_only_one_of_many_gets_the_number_that_all_ask_for(tmp_path: Path) -> None:
    def start(_: int) -> None:
        try:
            create_run(tmp_path, name="a-run", config={}, metadata={}, number=7, storage=ForgetfulStorage())
        except RunError:
            os._exit(7)

    assert sorted(in_parallel(8, start)) == [0] + [7] * 7
    assert [record.run_number for record in list_runs(tmp_path)] == [7]


def assert_second_writer_is_refused(base: Path) -> None:
    run = create_run(base, name="a-run", config={}, metadata={})

    def take() -> None:
        try:
            with RunDirectory(run.path).lock():
                os._exit(1)
        except RunError as error:
            os._exit(0 if f"process {parent} on" in error.message and "run_001 is in use" in error.message else 2)

    parent = os.getpid()
    with run.lock({"command": "train"}):
        assert run.is_locked()
        assert in_child(take) == 0
    assert not run.is_locked()
    with run.lock():
        pass


def test_a_second_writer_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    assert_second_writer_is_refused(tmp_path)


def counts_up(storage: Any, directory: Path, number: int | None) -> Path:
    """Takes the number of runs plus one, whether another process has taken it or not."""
    path = directory / f"run_{len(list(directory.glob('run_*'))) + 1:03d}"
    time.sleep(WINDOW_S)
    path.mkdir(exist_ok=True)
    return path


def asks_before_it_takes(storage: Any, by_name: Path, name: str, target: str) -> Path:
    """Looks for a free name and then takes it in another step, in place of whoever was quicker."""
    path = by_name / unique(name, lambda candidate: os.path.lexists(by_name / candidate))
    temporary = by_name / f".{os.getpid()}-{time.monotonic_ns()}"
    temporary.symlink_to(target)
    time.sleep(WINDOW_S)
    temporary.replace(path)
    return path


@contextlib.contextmanager
def without_the_lock(base: Path) -> Iterator[None]:
    """Lets any number of processes take numbers and names at once."""
    yield


def test_numbers_and_names_are_each_taken_in_one_step_that_needs_no_lock(
    tmp_path: Path, matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_links, "alone", without_the_lock)
    with matrix("16 processes allocate runs").trial("without a lock"):
        assert not start_runs(tmp_path, PROCESSES, 10)


@pytest.mark.parametrize(("part", "mutant"), [("_claim_number", counts_up), ("_claim_name", asks_before_it_takes)])
def test_an_allocation_that_looks_before_it_leaps_is_caught(
    part: str, mutant: object, tmp_path: Path, matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        name_links, "alone", without_the_lock
    )  # which would cover it on this machine, though not on every filesystem
    monkeypatch.setattr(create, part, mutant)
    with matrix("mutants of the protocol").trial(part):
        problems = (start_runs(tmp_path / str(attempt), PROCESSES, 5) for attempt in range(5))
        assert any(problems)


def test_a_lock_that_is_not_taken_is_caught(tmp_path: Path, matrix: Matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_try_lock", lambda descriptor, *, shared: True)
    with matrix("mutants of the protocol").trial("no lock"):
        assert is_caught(lambda: assert_second_writer_is_refused(tmp_path))


def test_a_lock_dies_with_its_holder_though_its_children_live_on(tmp_path: Path) -> None:
    run = create_run(tmp_path, name="a-run", config={}, metadata={})
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        with run.lock():
            worker = os.fork()  # as a data-loading worker
            if worker == 0:
                os.write(writing, str(os.getpid()).encode())
                time.sleep(30)
            os._exit(0)
    os.waitpid(holder, 0)
    worker = int(os.read(reading, 20))
    try:
        assert not run.is_locked()
        with run.lock():
            pass
    finally:
        os.kill(worker, 9)


def test_a_run_whose_process_died_is_listed_as_interrupted(tmp_path: Path) -> None:
    run = create_run(tmp_path, name="a-run", config={}, metadata={})
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with run.lock():
            run.update_metadata({"status": "running"})
            os.write(writing, b"x")
            time.sleep(30)
        os._exit(0)
    os.read(reading, 1)
    assert list_runs(tmp_path)[0].status == run.status() == "running"
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert list_runs(tmp_path)[0].status == run.status() == "interrupted"


def test_listing_never_stops_a_run_from_being_taken(tmp_path: Path) -> None:
    run = create_run(tmp_path, name="a-run", config={}, metadata={"status": "running"})
    watcher = os.fork()
    if watcher == 0:
        while True:
            list_runs(tmp_path)
    try:
        for _ in range(200):
            with run.lock():
                pass
    finally:
        os.kill(watcher, 9)
        os.waitpid(watcher, 0)


def test_processes_that_start_together_save_a_base_model_once(tmp_path: Path) -> None:
    written = tmp_path / "written"
    written.mkdir()

    def write(directory: Path) -> None:
        (written / str(os.getpid())).touch()
        time.sleep(0.4)  # longer than a taker of a run's lock would wait
        (directory / "model.safetensors").write_bytes(b"base")

    def start(_: int) -> None:
        BaseModels(tmp_path).save_once("digest-1234", write)

    assert in_parallel(4, start) == [0] * 4
    assert len(list(written.iterdir())) == 1
    assert BaseModels(tmp_path).verify("digest-1234").is_dir()
