"""The benchmarks measure what they say; the long runs themselves are not part of the suite."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pitstop.configs.leaves import leaves

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def vs_trl(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    import benchmarks.vs_trl.compare

    return benchmarks.vs_trl


def job(vs_trl: Any, case: str = "bf16") -> Any:
    return vs_trl.sides.Job(Path("model"), Path("pairs.jsonl"), vs_trl.workload.Hyperparameters(), vs_trl.cases.CASES[case])


def test_workload_is_32_prompts_of_abstract_length(vs_trl: Any) -> None:
    rows = vs_trl.workload.pairs()
    assert len({row["id"] for row in rows}) == len(rows) == 32
    words = [len(row["prompt"].split()) for row in rows]
    assert 150 <= statistics.mean(words) <= 250
    assert all(row["completion"].startswith("- ") for row in rows)


def test_joined_records_list_each_entity_once(vs_trl: Any) -> None:
    records = [
        {"text": "A and b.", "entities": {"chemical": ["A"], "disease": ["b"]}},
        {"text": "A and c.", "entities": {"chemical": ["A"], "disease": ["c"]}},
    ]
    joined = vs_trl.workload.join(records, "x")
    assert joined == {"id": "x", "text": "A and b. A and c.", "entities": {"chemical": ["A"], "disease": ["b", "c"]}}


def test_data_of_ones_own_is_taken_by_length_and_refused_when_short(vs_trl: Any, tmp_path: Path) -> None:
    def record(number: int, words: int) -> dict[str, Any]:
        return {"id": str(number), "text": "word " * words, "entities": {"chemical": ["word"], "disease": []}}

    vs_trl.workload.write_jsonl(tmp_path / "train.jsonl", [record(n, 150 if n % 2 else 20) for n in range(40)])
    assert {row["id"].split("-")[0] for row in vs_trl.workload.pairs(tmp_path)} == {str(n) for n in range(1, 32, 2)}
    vs_trl.workload.write_jsonl(tmp_path / "train.jsonl", [record(n, 20) for n in range(40)])
    with pytest.raises(ValueError, match="0 records of 130 to 259 words, 16 are needed"):
        vs_trl.workload.pairs(tmp_path)


@pytest.mark.parametrize("case", ["bf16", "recompute", "trl-defaults"])
def test_pitstop_is_called_with_flags_that_it_has(vs_trl: Any, case: str) -> None:
    arguments = vs_trl.sides.pitstop_arguments(job(vs_trl, case), Path("runs"))
    flags = {word for word in arguments if word.startswith("--")}
    known = {leaf.flag for leaf in leaves()}
    assert {flag.replace("--no-", "--") for flag in flags} <= known


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="no wait4 on this system")
def test_peak_memory_of_a_child_is_measured_and_its_failure_reported(vs_trl: Any, tmp_path: Path) -> None:
    large = [sys.executable, "-c", "held = bytearray(200 << 20); held[::4096] = b'x' * len(held[::4096])"]
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10  # Linux counts what the child was before it became Python
    assert 200 << 20 <= vs_trl.sides.run_measured(large, tmp_path) < max(400 << 20, own + (1 << 20))
    with pytest.raises(vs_trl.sides.SideFailed, match=r"(?s)exited with 3:.*last words"):
        vs_trl.sides.run_measured([sys.executable, "-c", "print('last words'); raise SystemExit(3)"], tmp_path)


def test_sides_take_turns_and_ratios_are_of_medians(vs_trl: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    calls: list[str] = []

    def side(name: str, seconds: float, peak: int) -> Any:
        def run(job: Any, work: Path) -> Any:
            calls.append(name)
            return vs_trl.sides.Run([2.0, 1.0, 0.5, 0.3], [seconds] * 4, peak, 6400, {"versions": {name: "1"}})

        return run

    monkeypatch.setitem(vs_trl.compare.SIDES, "trl", side("trl", 16.0, 4 << 30))
    monkeypatch.setitem(vs_trl.compare.SIDES, "pitstop", side("pitstop", 8.0, 2 << 30))
    result = vs_trl.compare.compare(
        Path("model"),
        Path("pairs.jsonl"),
        ["bf16"],
        hyperparameters=vs_trl.workload.Hyperparameters(),
        rounds=2,
        sides=["trl", "pitstop"],
    )
    case = result["cases"]["bf16"]
    assert calls == ["trl", "pitstop", "pitstop", "trl"]
    assert case["trl"]["samples_per_s"] == 1.0 and case["pitstop"]["peak_gib"] == 2.0
    assert case["ratio"] == {"samples_per_s": 2.0, "peak_gib": 0.5}
    assert case["trl"]["mean_loss_by_epoch"] == [1.5, 0.4]
    assert json.loads(json.dumps(result)) == result
    text = vs_trl.compare.report(result)
    assert "2.00 ×" in text and "50 %" in text and "1.5000, 0.4000" in text
    assert "round 2/2" in capsys.readouterr().err


def test_startup_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.startup", "--rounds", "1", "--runs", "5", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["commands"]["import typer, rich"]["ratio"] == 1.0
    assert result["commands"].keys() >= {"name --simple", "list-runs"} and result["runs"] == 5
    assert result["machine"]["cpus"] >= 1 and "pitstop" in result["versions"]


def test_saving_is_summed_up_over_all_saves_and_as_a_share_of_the_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from benchmarks.saving.__main__ import report, sum_up

    ours = {"writes_s": [0.5, 0.7], "between_s": [9.0, 11.0], "waits_s": [0.0, 0.001]}
    found = {
        "trainer": [
            {"saves_s": [0.2, 0.4], "steps_s": [9.0, 1.0], "bytes": 60e6},
            {"saves_s": [0.3], "steps_s": [9.0, 1.0], "bytes": 60e6},
        ],
        "pitstop, beside": [{"saves_s": [0.02, 0.04], "steps_s": [9.0, 1.1], "bytes": 59e6, **ours}],
        "pitstop, --sync-save": [{"saves_s": [0.5], "steps_s": [9.0, 1.2], "bytes": 59e6}],
    }
    sides = sum_up(found)
    assert sides["trainer"]["save_s"] == 0.3 and sides["trainer"]["saves"] == 3 and sides["trainer"]["step_s"] == 1.0
    assert sides["pitstop, beside"]["ratio"] == pytest.approx(0.1)
    assert sides["pitstop, beside"]["slowest_write_s"] == 0.7 and sides["pitstop, beside"]["between_saves_s"] == 10.0
    machine = {"processor": "p", "instructions": [], "cpus": 2, "memory_gib": 1, "system": "s", "python": "3", "load": 0}
    text = report(
        {"machine": machine, "versions": {"torch": "2"}, "sides": sides, "steps": 60, "every": 10, "rank": 16, "rounds": 2}
    )
    assert "0.10 ×" in text and "0.70 s at most, of 10.00 s between saves" in text
