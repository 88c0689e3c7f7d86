"""Entity extraction from the command line: scores at evaluations, the best by F1, and a training that scoring does not touch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.forked import pitstop
from support.training import EXACT_FILES, arguments, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")

SETTINGS: dict[str, Any] = {
    "task": "ner",
    "max_length": 256,
    "lora_rank": 16,
    "eval_max_new_tokens": 8,
    "ner_prompt": "{type}? {text}",
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and four evaluation records, two sentences an article, whose answers are always the same."""
    directory = tmp_path_factory.mktemp("records")
    for name, start, count in (("train.jsonl", 0, 12), ("eval.jsonl", 100, 4)):
        lines = []
        for i in range(start, start + count):
            text = f"Case {i}: the patient took {('aspirin', 'metformin', 'heparin')[i % 3]}" + " and rested" * (i % 3) + "."
            entities: dict[str, list[str]] = {"chemical": ["aspirin"], "disease": []}
            lines.append(json.dumps({"id": f"{30000 + i // 2}-s{i % 2}", "text": text, "entities": entities}))
        (directory / name).write_text("\n".join(lines))
    return directory


@pytest.fixture
def base_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def _evaluations(run: Path) -> list[dict[str, Any]]:
    return [row for row in rows(run) if "val_loss" in row]


def test_the_checkpoint_with_the_best_f1_is_kept_as_the_best(tiny_model: Path, records: Path, base_dir: Path) -> None:
    words = arguments(tiny_model, records, base_dir, **SETTINGS, epochs=6, monitor="ner_f1", mode="max", keep_last_n=1)
    ended = pitstop(*words)
    assert ended.code == 0, ended.output
    run = base_dir / "run_001"
    scores = [row["ner_f1"] for row in _evaluations(run)]
    best = 1 + scores.index(max(scores))
    assert len(scores) == 6 and 0 < max(scores) and min(scores) < max(scores), "a run whose best is not told by chance"
    assert (run / "lora_weights" / "best").resolve().name == f"epoch_{best:03d}"
    assert checkpoints(run) == sorted({f"epoch_{best:03d}", "epoch_006"})
    assert metadata(run)["best_checkpoint"]["name"] == f"epoch_{best:03d}"
    row = _evaluations(run)[0]
    names = [f"ner_{kind}{ratio}" for kind in ("", "chemical_", "disease_") for ratio in ("precision", "recall", "f1")]
    assert {*names, "ner_exact_match"} == {key for key in row if key.startswith("ner_")}


def test_a_run_with_scoring_ends_byte_for_byte_where_one_without_does(
    tiny_model: Path, records: Path, base_dir: Path, tmp_path: Path
) -> None:
    common = {**SETTINGS, "eval_steps": 2, "gradient_accumulation_steps": 2, "lora_dropout": 0.2}
    scored, plain = base_dir / "run_001", tmp_path / "plain" / "run_001"
    for run, examples in ((scored, 3), (plain, 0)):
        ended = pitstop(*arguments(tiny_model, records, run.parent, **common, eval_score_examples=examples))
        assert ended.code == 0, ended.output
    assert any("ner_f1" in row for row in rows(scored)) and not any("ner_f1" in row for row in rows(plain))
    ends = [run / "lora_weights" / "last" for run in (scored, plain)]
    assert ends[0].resolve().name == ends[1].resolve().name
    for name in EXACT_FILES:
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), f"{name} differs"
    assert [{k: v for k, v in row.items() if not k.startswith("ner_")} for row in rows(scored)] == rows(plain)


def test_articles_are_held_out_whole_and_an_unknown_metric_is_refused(tiny_model: Path, records: Path, base_dir: Path) -> None:
    held_out = {**SETTINGS, "eval_dataset": None, "eval_fraction": 0.2, "max_steps": 1, "eval_score_examples": 0}
    words = arguments(tiny_model, records, base_dir, **held_out)
    assert "no such metric" in pitstop(*words, "--monitor", "ner_gene_f1", "--mode", "max").output
    assert "is not computed with EVAL_SCORE_EXAMPLES = 0" in pitstop(*words, "--monitor", "ner_f1", "--mode", "max").output
    ended = pitstop(*words)
    assert ended.code == 0, ended.output
    data = metadata(base_dir / "run_001")["data"]
    assert (data["used"], data["eval"]["used"]) == (20, 4), "six articles of two records with two questions each: one is held out"


@pytest.mark.slow
def test_two_processes_score_what_one_does(tiny_model: Path, records: Path, tmp_path: Path) -> None:
    """Run by itself with ``pytest -m slow tests/e2e/test_ner.py``."""
    figures = []
    for processes in (1, 2):
        base = tmp_path / str(processes)
        more = {"max_steps": 1, "num_processes": processes, "learning_rate": 1e-12, "eval_generation_batch_size": 3}
        words = [str(word) for word in arguments(tiny_model, records, base, **SETTINGS, **more)]
        if processes == 1:
            ended = pitstop(*words)
            code, output = ended.code, ended.output
        else:  # processes that are started by another import for themselves
            done = subprocess.run(
                [sys.executable, "-P", "-m", "pitstop.cli", *words], capture_output=True, text=True, check=False
            )
            code, output = done.returncode, done.stdout + done.stderr
        assert code == 0, output
        figures.append({key: value for key, value in _evaluations(base / "run_001")[-1].items() if key.startswith("ner_")})
    assert figures[0] == figures[1] and len(figures[0]) == 10
