from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.runs.find import locate
from pitstop.configs.errors import RunError
from support.new_runs import start
from support.stores import save


@pytest.mark.parametrize("ref", ["2", "002", "run_002", "second", 2])
def test_a_run_is_found_by_number_and_by_name(base: Path, ref: str | int) -> None:
    start(base, "first")
    start(base, "second")
    assert locate(base, ref)[0].path == base / "run_002"


def test_a_run_is_found_by_path_and_a_checkpoint_with_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(base)
    save(run.store, 5)
    run.store.repair_pointers()
    elsewhere = base / "nowhere"
    assert locate(elsewhere, str(run.path))[0].path == run.path
    assert locate(elsewhere, str(base / "by-name" / "a-run"))[0].number == 1
    for name in ("checkpoint-5", "last"):
        found, checkpoint = locate(elsewhere, str(run.store.directory / name))
        assert (found.path, checkpoint) == (run.path, name)
    assert locate(base, "1@best")[1] == "best"
    monkeypatch.chdir(base)
    assert locate(elsewhere, "run_001")[0].path == run.path
    assert locate(elsewhere, "./run_001")[0].path == run.path


def test_a_run_is_found_by_name_though_the_link_is_lost(base: Path) -> None:
    start(base)
    (base / "by-name" / "a-run").unlink()
    assert locate(base, "a-run")[0].number == 1


@pytest.mark.parametrize("target", ["../../outside/run_001", "/etc", "../run_001/../../run_001", "garbage"])
def test_a_name_never_leads_out_of_the_base_directory(base: Path, target: str) -> None:
    start(base)
    (base.parent / "outside" / "run_001").mkdir(parents=True)
    (base / "by-name" / "evil").symlink_to(target)
    with pytest.raises(RunError):
        locate(base, "evil")[0]


def test_a_run_that_is_not_there_says_what_is(base: Path) -> None:
    with pytest.raises(RunError, match="there are no runs in"):
        locate(base, 99)[0]
    for _ in range(10):
        start(base)
    with pytest.raises(RunError, match="run '99' not found") as raised:
        locate(base, 99)[0]
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("there: 2 older ones, run_003, ")
    with pytest.raises(RunError) as raised:
        locate(base, "a-rum")[0]
    assert "did you mean a-run?" in str(raised.value.hint)
    with pytest.raises(RunError, match="neither a run directory nor a checkpoint"):
        locate(base, "some/where")[0]
