"""The benchmark of both stages of images: the data it makes, the words it trains by, and its table."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pitstop.configs.leaves import leaves
from pitstop.trainers.data.images.idx import read_idx_directory
from support.image_files import write_idx

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    import benchmarks.images.__main__

    return benchmarks.images


def test_all_are_trained_on_and_the_first_of_the_test_half_validated_on(bench: Any, tmp_path: Path) -> None:
    write_idx(tmp_path / "fashion", train=30, test=20, packed=True)
    made = bench.workload.prepare(tmp_path / "fashion", tmp_path / "made", validation=7)
    whole, ours = (
        {split: read_idx_directory(place, split=split) for split in ("train", "test")} for place in (tmp_path / "fashion", made)
    )
    assert np.array_equal(ours["train"].images, whole["train"].images)
    assert len(ours["test"]) == 7
    assert np.array_equal(ours["test"].images, whole["test"].images[:7])
    assert np.array_equal(ours["test"].labels, whole["test"].labels[:7])
    with pytest.raises(FileNotFoundError):
        bench.workload.prepare(tmp_path, tmp_path / "again", validation=7)


def test_pitstop_is_called_with_flags_that_it_has(bench: Any) -> None:
    known = {leaf.flag for leaf in leaves()} | {"--config"}
    for words in (bench.workload.base_words(Path("d"), 10), bench.workload.lora_words(Path("d"), 10, base="base_training/1")):
        assert {word for word in words if str(word).startswith("--")} <= known


def test_speed_leaves_the_first_step_out(bench: Any) -> None:
    logged = [{"images": 8, "step_s": 9.0}, {"images": 16, "step_s": 1.0}, {"images": 24, "step_s": 3.0}]
    assert bench.workload.speed(logged, "images") == 4.0


def test_the_table_has_losses_sizes_and_the_share_of_the_adapter(bench: Any) -> None:
    stage = {
        "parameters": 1000,
        "images": 600,
        "seconds": 60.0,
        "evaluations": [(1, 0.5), (2, 0.25)],
        "checkpoint_bytes": 2_000_000,
    }
    result = {
        "date": "2026-01-01", "versions": {"torch": "2.13.0"}, "validation": 2000, "shoes": {"base": 0.5, "lora": 0.4},
        "machine": {
            "processor": "A", "instructions": [], "cpus": 2, "memory_gib": 1, "system": "Linux", "python": "3.11", "load": 0
        },
        "stages": {"base": stage, "lora": {**stage, "parameters": 100, "checkpoint_bytes": 300_000}},
    }  # fmt: skip
    text = bench.__main__.table(result)
    assert "| base, ten classes | 1,000 | 600 | 1.0 | 10 | 0.5000 → 0.2500 | 2.00 |" in text
    assert "0.5000 with the base alone and 0.4000 with the adapter" in text and "is 15.0 % of one of the base" in text


def test_data_that_is_missing_is_said(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.__main__.main(["--data", str(tmp_path)]) == 2
    assert "dataset-fashion-mnist" in capsys.readouterr().err
