from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing import manager_values
from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import read_object
from pitstop.configs.errors import SettingsError
from support.new_runs import start
from support.stores import FILES, save


def test_a_run_is_summed_up_with_its_best_checkpoint_marked(base: Path) -> None:
    run = start(base)
    save(run.store, 10, metrics={"f1": 0.5, "odd": None}, name="epoch_001")
    save(run.store, 20, metrics={"f1": 0.75})
    run.sync_checkpoints({"progress": {"step": 20, "epoch": 1.5}})
    lines = manager_values.text(run).splitlines()
    assert lines[:4] == [
        "Run 1: a-run (created)",
        "  experiment   first",
        "  created      2026-01-01T12:00:00+00:00",
        "  progress     step 20, epoch 1.5",
    ]
    assert lines[5:] == ["    epoch_001  step 10  f1=0.5 odd=nan", "    checkpoint-20  step 20  f1=0.75  ← best"]
    best = run.best_entry(run.store.list())
    assert best is not None
    assert (best.name, best.metric, best.mode, best.value) == ("checkpoint-20", "f1", "max", 0.75)


def test_a_run_without_metrics_has_no_best(base: Path) -> None:
    run = start(base)
    save(run.store, 10, metrics={})
    assert run.best_entry(run.store.list()) is None
    assert "best" not in manager_values.text(run)


def test_the_adapter_of_a_checkpoint_is_described_as_far_as_it_can_be_read(base: Path) -> None:
    run = start(base)
    info = save(run.store, 1, files={**FILES, layout.ADAPTER_CONFIG: memoryview(b'{"r": 4}')})
    assert read_object(info, layout.ADAPTER_CONFIG) == {"r": 4}
    (info.path / layout.ADAPTER_CONFIG).write_bytes(b'{"r": 8}')
    assert read_object(info, layout.ADAPTER_CONFIG) == {}
    assert read_object(save(run.store, 2), layout.ADAPTER_CONFIG) == {}


def test_settings_are_kept_as_json_gives_them_back() -> None:
    assert manager_values.plain({"a": (1, 2), "b": {"y", "x"}, "c": Path("d/e")}) == {"a": [1, 2], "b": ["x", "y"], "c": "d/e"}
    with pytest.raises(SettingsError, match="a object"):
        manager_values.plain({"a": object()})
    with pytest.raises(SettingsError, match="cannot be written as JSON"):
        manager_values.plain({"a": float("nan")})
