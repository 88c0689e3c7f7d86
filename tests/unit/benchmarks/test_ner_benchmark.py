"""The entity-extraction benchmark: which records it takes, what it calls, and where its table goes; it is not run here."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pitstop.configs.leaves import leaves
from pitstop.configs.load import load_settings
from pitstop.trainers.tasks.ner.scores import score_completions

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    import benchmarks.ner.__main__

    return benchmarks.ner


@pytest.mark.parametrize(("budget", "count"), [(0, 0), (9, 0), (10, 1), (59, 2), (60, 3), (1000, 3)])
def test_as_many_records_are_taken_as_the_time_suffices_for(bench: Any, budget: float, count: int) -> None:
    assert bench.workload.fitting([10, 20, 30], budget) == count


def test_pitstop_is_called_with_flags_that_it_has_and_the_settings_scored_with(bench: Any) -> None:
    job = bench.workload.Job(Path("model"), "qlora")
    words = job.arguments(Path("train.jsonl"), Path("runs"))
    pairs = dict(zip(words[2::2], words[3::2], strict=True))
    by_flag = {leaf.flag: leaf.path for leaf in leaves()}
    loaded = load_settings(flags={by_flag[flag]: value for flag, value in pairs.items()}, environ={})
    ours = job.settings(Path("train.jsonl"))
    assert loaded.settings.ner == ours.ner
    assert (
        (loaded.settings.training.task, loaded.settings.training.method)
        == ("ner", "qlora")
        == (
            ours.training.task,
            ours.training.method,
        )
    )


def _result() -> dict[str, Any]:
    right = score_completions([("chemical", "- a", "- a"), ("disease", "- none", "- none")]).as_metrics()
    wrong = score_completions([("chemical", "- a", "- b"), ("disease", "- none", "- c")]).as_metrics()
    scores = {"before": {"all": wrong, "first": wrong}, "after": {"all": right, "first": wrong}}
    run = {"records": 450, "tokens": 216_000, "seconds": 900.0, "scores": scores}
    return {
        "command": "python -m benchmarks.ner",
        "date": "2024-01-15",
        "machine": {
            "processor": "A processor", "instructions": ["avx2"], "cpus": 2, "memory_gib": 8.0,
            "system": "Linux", "python": "3.11.7", "load": 0.1,
        },
        "threads": 2,
        "versions": {"torch": "2.13.0"},
        "validation": 200,
        "methods": {"lora": run},
    }  # fmt: skip


def test_the_table_has_time_and_scores_before_and_after(bench: Any) -> None:
    text = bench.page.table(_result())
    assert "| lora | 450 | 216,000 | 15.0 | 240 |" in text
    assert "| lora | all 200 records | before | 0.000 | 0.000 | 0.000 | 0.000 | 0.000 | 0.000 |" in text
    assert "| lora | all 200 records | after | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 |" in text
    assert "| lora | the first 40 | after | 0.000 |" in text
    assert "A processor (avx2), 2 CPUs" in text and "torch 2.13.0" in text


@pytest.mark.parametrize("name", ["ner", "rank", "images"])
def test_a_table_takes_its_place_in_the_page_and_leaves_the_rest(bench: Any, name: str, tmp_path: Path) -> None:
    marked = bench.__main__.marked
    original = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    page = tmp_path / "benchmarks.md"
    page.write_text(original, encoding="utf-8")
    for text in ("first", "second"):
        marked.write(name, text, page)
    written = page.read_text(encoding="utf-8")
    begin, end = marked.marks(name)
    assert written.split(begin)[0] == original.split(begin)[0] and written.split(end)[1] == original.split(end)[1]
    assert written.split(begin)[1].split(end)[0] == "\nsecond\n"
    with pytest.raises(ValueError, match="once each"):
        marked.replaced("no marks", name, "x")


def test_what_is_missing_is_said(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = bench.__main__.main
    model = tmp_path / "model"
    assert main(["--model", str(model)]) == 2
    model.mkdir()
    assert main(["--model", str(model), "--data", str(tmp_path)]) == 2
    assert "train.jsonl" in capsys.readouterr().err
    (tmp_path / "train.jsonl").write_text("\n")
    assert main(["--model", str(model), "--data", str(tmp_path)]) == 2
    assert "holds no records" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--minutes", "0"])


def test_directories_do_not_get_into_the_page(bench: Any) -> None:
    words = bench.__main__._without_paths(["--method", "both", "--data", "/home/me/bc5cdr", "--minutes", "5"])
    assert words == ["--method", "both", "--data", "DIR", "--minutes", "5"]


def test_a_training_that_fails_is_reported(bench: Any, tmp_path: Path) -> None:
    job = bench.workload.Job(tmp_path / "model", "no-method")
    line = json.dumps({"id": "1", "text": "Pain.", "entities": {"chemical": [], "disease": ["pain"]}})
    with pytest.raises(bench.trained.TrainingFailed, match="pitstop train exited with"):
        bench.trained.train(job, [line], tmp_path)
