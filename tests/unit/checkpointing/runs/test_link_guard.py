from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.runs import link_guard
from pitstop.configs.errors import CheckpointError, RunError
from support.new_runs import start


def test_a_run_of_its_own_may_be_written(base: Path) -> None:
    run = start(base)
    link_guard.check_own(run.path)
    run.metrics_path.touch()
    (run.store.directory / ".damaged").mkdir()
    link_guard.check_own(run.path)


@pytest.mark.parametrize("name", ["logs", "lora_weights", "lora_weights/.damaged", "base_model", "logs/tensorboard"])
def test_a_directory_that_leads_elsewhere_is_refused(base: Path, name: str) -> None:
    run = start(base)
    path = run.path / name
    if path.exists():
        path.rename(base / "elsewhere")
    path.symlink_to(base)
    with pytest.raises(CheckpointError, match=rf"{path} is not a directory of its own"):
        link_guard.check_own(run.path)


def test_a_log_that_leads_elsewhere_is_refused(base: Path) -> None:
    run = start(base)
    run.metrics_path.symlink_to(run.path / "config.json")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is not a file of its own"), run.lock():
        pass


def test_a_run_that_is_a_link_is_named_with_where_it_leads(base: Path) -> None:
    run = start(base)
    linked = base / "run_002"
    linked.symlink_to("run_001")
    with pytest.raises(RunError, match=rf"run_002 is a link to {run.path.resolve()}"):
        link_guard.check_own(linked)
