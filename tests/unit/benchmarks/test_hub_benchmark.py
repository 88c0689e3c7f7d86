"""The benchmark of pushing compares what it says, and its trainings really push."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    import benchmarks.hub.__main__

    return benchmarks.hub.__main__


def one(steps_s: list[float], **more: Any) -> dict[str, Any]:
    """A training of six steps with saves at the end of the second and the last."""
    return {"steps_s": steps_s, "saved": [2, 6], "arrived_with_the_last_step": 0, "arrived": 0, "uploader_s": 0.0, **more}


def test_steps_beside_a_save_and_the_first_are_left_out_and_ratios_are_of_medians(bench: Any) -> None:
    found = {
        "not pushing": [one([9.0, 1.0, 5.0, 1.0, 1.2, 1.1], server_s=0.1)],
        "pushing": [
            one([9.0, 1.1, 7.0, 1.1, 1.3, 1.2], server_s=2.0, uploader_s=3.0, arrived_with_the_last_step=1, arrived=2),
            one([9.0, 1.1, 7.0, 1.2, 1.3, 1.2], server_s=4.0, uploader_s=5.0, arrived_with_the_last_step=1, arrived=1),
        ],
    }
    summary = bench.sum_up(found)
    assert bench.between_saves(found["not pushing"][0]) == [1.0, 1.0, 1.2, 1.1]
    assert summary["between_saves"]["step_s"] == {"not pushing": 1.05, "pushing": 1.2}
    assert summary["between_saves"]["ratio"] == pytest.approx(1.2 / 1.05) and summary["between_saves"]["steps"] == 8
    assert summary["all"]["ratio"] == pytest.approx(1.2 / 1.1)
    assert summary["all"]["ratio_of_means"] == pytest.approx(2.35 / 1.86)
    assert summary["pushing"] == {
        "uploader_s": 4.0, "training_s": pytest.approx(20.75), "server_s": 3.0, "checkpoints": 4,
        "arrived_with_the_last_step": 0.5, "arrived": 0.75,
    }  # fmt: skip
    machine = {"processor": "p", "instructions": [], "cpus": 2, "memory_gib": 1, "system": "s", "python": "3", "load": 0}
    how = {"model": "m", "steps": 6, "every": 4, "rank": 16, "rounds": 2, "megabytes_per_s": 2.0, "late_s": 0.1}
    text = bench.report({"machine": machine, "versions": {"torch": "2"}, **summary, **how})
    assert "1.143 ×" in text and "2 MB/s, each answer 100 ms late" in text
    assert "50 % had arrived with the last step, 75 % at the end" in text


def test_what_was_pushed_before_the_end_is_told_by_the_log(bench: Any) -> None:
    from benchmarks.hub.training import arrived

    before = "x saved checkpoint-2 (60 MB)\nx pushed checkpoint-2 to a/b (abcdef0)\nx pushed checkpoint-3, epoch_001 (abcdef1)\nx pushed the base model (abcdef3)\n"
    assert arrived(f"{before}x Done after step 6 of 6\nx pushed checkpoint-6 to a/b (abcdef2)\n") == 3
    assert arrived("x Done after step 6 of 6\n") == 0


def test_pitstop_is_called_with_flags_that_it_has(bench: Any) -> None:
    from benchmarks.hub.training import arguments
    from pitstop.configs.leaves import leaves

    known = {leaf.flag for leaf in leaves()} | {"--json"}
    for pushing in (False, True):
        given = {
            word for word in arguments(bench.Job(Path("m"), Path("d"), 6, 3), Path("runs"), pushing=pushing) if word[:2] == "--"
        }
        assert {word.replace("--no-", "--") for word in given} <= known


@pytest.mark.slow  # `make bench` does it, and a training that pushes is tested in tests/hub
def test_a_training_pushes_over_the_slow_line_and_is_measured(bench: Any, tiny_model: Path, tmp_path: Path) -> None:
    from benchmarks.hub.line import Line
    from benchmarks.vs_trl.workload import write_jsonl

    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": f"Which drug is {n}?", "completion": "- aspirin"} for n in range(8)])
    (tmp_path / "work").mkdir()
    job = bench.Job(tiny_model, tmp_path / "pairs.jsonl", 4, 2)
    with Line(tmp_path / "hub", late_s=0.005, bytes_per_s=20e6) as line:
        found = bench.train(job, tmp_path / "work", {**line.environment(), "OMP_NUM_THREADS": "1"}, pushing=True)
        assert line.cpu_s() > 0
    assert len(found["steps_s"]) == 4 and found["saved"] == [2, 4]
    assert found["arrived"] == 2 and found["uploader_s"] > 0
