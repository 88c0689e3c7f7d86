from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.disk import locking
from pitstop.checkpointing.runs import name_links
from pitstop.configs.errors import RunError


@pytest.fixture
def by_name(base: Path) -> Path:
    (base / "by-name").mkdir(parents=True)
    (base / "run_001").mkdir()
    for name, target in {"first": "../run_001", "gone": "../run_002", "base": "../base_training/run_001", "odd": "/etc"}.items():
        (base / "by-name" / name).symlink_to(target)
    (base / "by-name" / "file").write_text("../run_001\n")
    (base / "by-name" / ".lock").touch()
    return base / "by-name"


def test_entries_are_links_or_files_that_lead_to_a_run(base: Path, by_name: Path) -> None:
    assert [path.name for path in name_links.listed(base)] == ["base", "file", "first", "gone", "odd"]
    assert [path.name for path in name_links.entries(base, "run_001")] == ["file", "first"]
    assert [path.name for path in name_links.entries(base, "base_training/run_001")] == ["base"]
    assert name_links.target(by_name / "file") == "../run_001"
    assert name_links.target(by_name / "missing") is None


def test_entries_of_runs_that_are_gone_dangle_and_others_are_left_alone(base: Path, by_name: Path) -> None:
    assert [path.name for path in name_links.dangling(base)] == ["base", "gone"]
    (by_name / "wrong").write_text("../run_0002")
    assert [path.name for path in name_links.dangling(base)] == ["base", "gone"]


def test_without_the_directory_there_are_no_entries(base: Path) -> None:
    assert name_links.listed(base) == name_links.dangling(base) == []


def test_one_process_at_a_time_gives_names(base: Path, by_name: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_links, "PATIENCE_S", 0.0)
    with name_links.alone(base):
        assert locking.is_locked(by_name / ".lock")
        with pytest.raises(RunError, match="the list of names"), name_links.alone(base):
            pass
