"""Entity extraction from the command line: scores at evaluations, the best by F1, and a training that scoring does not touch."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pitstop.trainers.tasks.ner.scores import parse_items
from support.forked import pitstop, two_ranks
from support.terminal import Terminal
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


def test_two_processes_score_what_one_does(tiny_model: Path, records: Path, tmp_path: Path) -> None:
    figures = []
    for processes in (1, 2):
        base = tmp_path / str(processes)
        more = {"max_steps": 1, "num_processes": processes, "learning_rate": 1e-12, "eval_generation_batch_size": 3}
        words = arguments(tiny_model, records, base, **SETTINGS, **more)
        ended = [pitstop(*words)] if processes == 1 else two_ranks(*words)
        assert [one.code for one in ended] == [0] * processes, ended
        figures.append({key: value for key, value in _evaluations(base / "run_001")[-1].items() if key.startswith("ner_")})
    assert figures[0] == figures[1] and len(figures[0]) == 10


# Asking about texts -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tiny_model: Path, records: Path, warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base directory of a run. Nobody changes it."""
    base = tmp_path_factory.mktemp("learnt")
    ended = pitstop(*arguments(tiny_model, records, base, **SETTINGS, epochs=8, eval_score_examples=0))
    assert ended.code == 0, ended.output
    return base


TEXT = "Case 7: the patient took heparin."


def test_a_text_is_asked_about_as_in_training(learnt: Path) -> None:
    words = ["generate", 1, "--base-dir", learnt, "--max-new-tokens", 8]
    asked = ["--prompt", f"chemical? {TEXT}", "--prompt", f"disease? {TEXT}", "--json"]
    by_hand = [parse_items(row["answers"]["run_001@epoch_008"]["text"]) for row in pitstop(*words, *asked).json()["answers"]]
    ended = pitstop(*words, "--text", TEXT)
    assert ended.code == 0
    assert ended.output.replace(" (cut at the limit of tokens)", "").splitlines() == [
        f"{kind}: {', '.join(items) or '-'}" for kind, items in zip(("chemical", "disease"), by_hand, strict=True)
    ]
    found = pitstop(*words, "--text", TEXT, "--entity-type", "Disease", "--json").json()
    assert found["entity_types"] == ["disease"]
    assert found["texts"][0]["text"] == TEXT
    assert found["texts"][0]["found"]["run_001@epoch_008"]["entities"] == {"disease": by_hand[1]}
    both = pitstop(*words, "--text", TEXT, "--entity-type", "chemical", "--base", "--json").json()["texts"][0]["found"]
    assert {label: each["entities"]["chemical"] for label, each in both.items()} == {"run_001@epoch_008": ["aspirin"], "base": []}


def test_texts_of_a_file_keep_their_order_and_the_base_answers_too(learnt: Path, records: Path, tmp_path: Path) -> None:
    texts = [json.loads(line)["text"] for line in (records / "train.jsonl").read_text().splitlines()]
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    words = ["generate", 1, "--base-dir", learnt, "--max-new-tokens", 2, "--batch-size", 3, "--base", "--json", "--texts"]
    found = [pitstop(*words, path).json()["texts"] for path in (tmp_path / "lines.txt", records / "train.jsonl")]
    assert found[0] == found[1] and [row["text"] for row in found[0]] == texts
    assert all(set(row["found"]) == {"run_001@epoch_008", "base"} for row in found[0])
    assert all(each["cut"] for row in found[0] for each in row["found"].values()), "two tokens are too few"
    shown = pitstop(*[word for word in words if word != "--json"], tmp_path / "lines.txt").output
    assert f"> {texts[0]}\nrun_001@epoch_008:\n  chemical: " in shown and "(cut at the limit of tokens)" in shown


def test_a_session_asks_about_a_text_too(learnt: Path) -> None:
    alone = pitstop("generate", 1, "--base-dir", learnt, "--max-new-tokens", 8, "--text", TEXT).output.splitlines()
    terminal = Terminal("generate", 1, "--base-dir", learnt, "--max-new-tokens", 8)
    terminal.until("run_001@epoch_008> ")
    shown = terminal.ask(f"/text {TEXT}", "run_001@epoch_008")
    plain = re.sub("\x1b[^m]*m", "", shown).splitlines()
    assert [line for line in plain if line.startswith(("chemical: ", "disease: "))] == alone and len(alone) == 2
    assert "needs a text" in terminal.ask("/text", "run_001@epoch_008")
    os.write(terminal.descriptor, b"\x04")
    assert terminal.close() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--text", TEXT, "--prompt", "x"], "--prompt does not go with questions about texts"),
        (["--text", TEXT, "--texts", "y.txt"], "Both --text and --texts"),
        (["--entity-type", "chemical"], "there is no text to ask about"),
        (["--text", TEXT, "--entity-type", "--"], "no letter or digit"),
        (["--text", " "], "nothing in it"),
        (["--text", "long " * 600], "there is room for"),
        (["--texts", "missing.jsonl"], "missing.jsonl: no such file"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(learnt: Path, words: list[str], said: str) -> None:
    ended = pitstop("generate", 1, "--base-dir", learnt, *words)
    assert ended.code in (2, 3) and said in ended.output and "hint:" in ended.output, ended.output


def test_where_the_training_data_is_gone_the_types_must_be_named(learnt: Path, tmp_path: Path) -> None:
    base = tmp_path / "runs"
    shutil.copytree(learnt, base, symlinks=True)
    config = base / "run_001" / "config.json"
    content = config.read_text()
    assert content.count("train.jsonl") >= 1
    config.write_text(content.replace("train.jsonl", "gone.jsonl"))
    ended = pitstop("generate", 1, "--base-dir", base, "--text", TEXT)
    assert ended.code == 3 and "--entity-type chemical" in ended.output, ended.output
    ended = pitstop("generate", 1, "--base-dir", base, "--text", TEXT, "--entity-type", "chemical", "--max-new-tokens", 8)
    assert ended.code == 0 and ended.output.startswith("chemical: ") and ended.output.count("\n") == 1, ended.output
