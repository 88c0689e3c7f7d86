"""Two processes under DistributedDataParallel (gloo on the CPU).

Starting them as a person does takes twelve seconds of computing, since three interpreters import torch. One start does it, with
slow tests all of them; the rest forks them, or the launcher and what it starts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.elastic import forked_processes
from support.forked import kill_at_step, pitstop, two_ranks
from support.tiny_model import write_data
from support.training import EXACT_FILES, arguments, assert_same_end, checkpoints, metadata, rows

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("warm", "onednn")]
TWO = {"num_processes": 2, "gradient_accumulation_steps": 2, "epochs": 8, "save_strategy": "steps", "save_steps": 3}


def _start(*words: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pitstop.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


@dataclass(frozen=True)
class Launched:
    """A training of two processes that was told to stop after its first checkpoint; exit code and output of that."""

    home: Path
    run: Path
    code: int
    output: str
    checkpoints: list[str]


@pytest.fixture(scope="module")
def launched(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Started by ``pitstop`` itself, in a directory that holds a file with the name of a library."""
    home = tmp_path_factory.mktemp("launched")
    write_data(home, 12, 4)
    (home / "signal.py").write_text("raise SystemExit('taken for the standard library')")
    process = _start(*arguments(tiny_model, home, home / "runs", **TWO), cwd=home)
    run = home / "runs/run_001"
    deadline = time.monotonic() + 120
    while not (run / "lora_weights/checkpoint-3").is_dir() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, output = _finish(process)
    return Launched(home, run, code, output, checkpoints(run) if run.is_dir() else [])


@pytest.fixture
def stopped(launched: Launched, tmp_path: Path) -> Launched:
    """A copy to go on with."""
    shutil.copytree(launched.home, tmp_path / "copy", symlinks=True)
    return replace(launched, home=tmp_path / "copy", run=tmp_path / "copy/runs/run_001")


def _torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pitstop.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*torchrun, *map(str, words)], capture_output=True, text=True, timeout=240, env=environment, check=False
    )


def test_told_to_stop_both_save_and_one_speaks_for_them(launched: Launched) -> None:
    assert launched.code == 143, launched.output
    assert launched.output.count("Run 1:") == 1, "one process speaks for all"
    assert len(launched.checkpoints) >= 1


def test_a_file_of_the_current_directory_does_not_pass_for_a_library(launched: Launched) -> None:
    assert "taken for the standard library" not in launched.output and launched.code == 143, launched


def test_two_processes_interrupted_and_resumed_end_where_the_uninterrupted_ones_do(
    stopped: Launched, tiny_model: Path, tmp_path: Path
) -> None:
    resumed = pitstop("resume", 1, "--base-dir", stopped.home / "runs", prepare=forked_processes())
    assert resumed.code == 0, resumed.output
    whole = two_ranks(*arguments(tiny_model, stopped.home, tmp_path / "whole", **TWO))
    assert [rank.code for rank in whole] == [0, 0], whole
    assert_same_end(tmp_path / "whole/run_001", stopped.run, (*EXACT_FILES, "rng_state_1.json"))


@pytest.mark.slow
def test_resumed_by_a_person_they_end_where_those_that_torchrun_starts_do(
    stopped: Launched, tiny_model: Path, tmp_path: Path
) -> None:
    code, output = _finish(_start("resume", 1, "--base-dir", stopped.home / "runs", cwd=stopped.home))
    assert code == 0 and "taken for the standard library" not in output, output
    whole = _torchrun(*arguments(tiny_model, stopped.home, tmp_path / "whole", **TWO))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert metadata(tmp_path / "whole/run_001")["environment"]["world_size"] == 2
    assert not (tmp_path / "whole/run_002").exists()
    assert_same_end(tmp_path / "whole/run_001", stopped.run, (*EXACT_FILES, "rng_state_1.json"))


def test_one_and_two_processes_follow_the_same_path_for_the_same_global_batch(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    """Equal up to rounding: the gradient is normalised over all processes, and the global batches are the same."""
    common = {"lora_dropout": 0.0, "epochs": 2, "method": "lora"}
    one = pitstop(*arguments(tiny_model, data, tmp_path / "one", **common, gradient_accumulation_steps=4))
    assert one.code == 0, one.output
    two = two_ranks(*arguments(tiny_model, data, tmp_path / "two", **common, gradient_accumulation_steps=2, num_processes=2))
    assert [each.code for each in two] == [0, 0], two
    for mine, theirs in zip(rows(tmp_path / "one/run_001"), rows(tmp_path / "two/run_001"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
        assert mine["tokens"] == theirs["tokens"]


def test_a_wrong_path_under_two_processes_is_said_once_with_its_exit_code(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    words = arguments(tiny_model, data, tmp_path / "runs", dataset=data / "trian.jsonl", num_processes=2)
    ended = pitstop(*words, prepare=forked_processes())
    output = ended.output
    assert ended.code == 3, output
    assert output.count("error:") == 1, output
    assert "Did you mean" in output
    assert "Traceback" not in output


def test_a_hangup_that_one_process_gets_stops_both_and_the_resume_is_exact(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    """A terminal that is closed sends SIGHUP to all of them, but not at one moment."""
    words = arguments(tiny_model, data, tmp_path, **{**TWO, "epochs": 1, "gradient_accumulation_steps": 1, "method": "lora"})
    stopped = two_ranks(*words, prepare=(None, kill_at_step(2, signal.SIGHUP)))
    assert [rank.code for rank in stopped] == [129, 129], stopped
    assert checkpoints(tmp_path / "run_001") == ["checkpoint-2"]
    resumed = two_ranks("resume", 1, "--base-dir", tmp_path)
    assert [rank.code for rank in resumed] == [0, 0], resumed
    words[words.index("--base-dir") + 1] = str(tmp_path / "whole")
    assert [rank.code for rank in two_ranks(*words)] == [0, 0]
    assert_same_end(tmp_path / "whole/run_001", tmp_path / "run_001", (*EXACT_FILES, "rng_state_1.json"))
