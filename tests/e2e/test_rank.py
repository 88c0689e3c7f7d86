"""Ranking through the command: it trains, selects by NDCG, and a resumed run ends where an uninterrupted one does."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.forked import kill_at_step, pitstop, two_ranks
from support.rating_files import write_movielens
from support.training import arguments, assert_same_end, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")

SETTINGS: dict[str, Any] = {
    "task": "rank",
    "eval_dataset": None,
    "max_length": 230,
    "batch_size": 2,
    "epochs": 2,
    "save_strategy": "steps",
    "save_steps": 4,
    "monitor": "ndcg@10",
    "mode": "max",
    "rank_candidates": 5,
    "rank_history": 6,
    "rank_title_tokens": 12,
    "rank_max_train_rows": 16,
    "rank_retriever_epochs": 8,
    "eval_generation_batch_size": 3,
}
MAY_DIFFER = ("val_", "recall@", "mrr@", "ndcg@", "retrieved_")


Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def words(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Words:
    """The words of ``train`` for a base directory, with other settings where given."""
    films = write_movielens(tmp_path_factory.mktemp("ratings") / "films")

    def make(base_dir: Path, **other: Any) -> list[str]:
        return arguments(tiny_model, films, base_dir, **{**SETTINGS, "dataset": films, **other})

    return make


@dataclass(frozen=True)
class Whole:
    """A run that nothing interrupted, what was printed, and the file of the candidates that it left."""

    run: Path
    output: str
    candidates: Path


@pytest.fixture(scope="module")
def whole(words: Words, warm: None, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The run that others are compared with."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        ended = pitstop(*words(place))
    assert ended.code == 0, ended.output
    (candidates,) = (place / "cache" / "pitstop" / "rank").iterdir()
    return Whole(place / "run_001", ended.output, candidates)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where candidates are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pitstop" / "rank"


def test_it_reads_retrieves_trains_and_selects_by_ndcg(whole: Whole) -> None:
    assert "30 users, 24 items, 240 ratings" in whole.output
    assert "Training the retriever" in whole.output
    row = rows(whole.run)[-1]
    assert row["ndcg@10"] == pytest.approx(row["retrieved_ndcg@10"] * row["retrieved_share"])
    record = metadata(whole.run)
    assert record["best_checkpoint"]["metric"] == "ndcg@10"
    assert record["data"]["cut"] > 0, "six titles do not fit"
    assert record["data"]["used"] == 16


def test_a_killed_and_terminated_run_ends_where_the_uninterrupted_one_does(
    whole: Whole, words: Words, tmp_path: Path, cache: Path
) -> None:
    """The candidates are lost on the way, too, and found again."""
    broken = tmp_path / "broken"
    assert pitstop(*words(broken), prepare=kill_at_step(5)).code == -signal.SIGKILL
    (kept,) = cache.iterdir()
    kept.unlink()
    ended = pitstop("resume", "--base-dir", broken, prepare=kill_at_step(8, signal.SIGTERM))
    assert ended.code == 143, ended.output
    assert "Training the retriever" in ended.output
    assert kept.read_bytes() == whole.candidates.read_bytes()
    assert "checkpoint-8-pending" in checkpoints(broken / "run_001"), "the evaluation due then is put off"
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 0, ended.output
    assert "Training the retriever" not in ended.output
    assert_same_end(whole.run, broken / "run_001")
    assert metadata(whole.run)["data"] == metadata(broken / "run_001")["data"]


def test_training_is_the_same_whether_answers_are_scored_or_not(whole: Whole, words: Words, tmp_path: Path) -> None:
    plain = {"monitor": "val_loss", "mode": "min", "eval_score_examples": 0, "rank_retriever": "itemknn"}
    ended = pitstop(*words(tmp_path, **plain))
    assert ended.code == 0, ended.output
    bare = tmp_path / "run_001"
    assert [_learnt(row) for row in rows(whole.run)] == [_learnt(row) for row in rows(bare)]
    adapters = [run / "lora_weights/last/adapter_model.safetensors" for run in (whole.run, bare)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def _learnt(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith(MAY_DIFFER)}


def test_two_processes_find_candidates_once_and_score_together(words: Words, tmp_path: Path, cache: Path) -> None:
    """A rate of next to nothing: both runs score the same model."""
    one, two = tmp_path / "one", tmp_path / "two"
    still = {"learning_rate": 1e-12, "max_steps": 2, "save_steps": 2}
    assert pitstop(*words(one, gradient_accumulation_steps=2, **still)).code == 0
    for file in cache.iterdir():
        file.unlink()
    ended = two_ranks(*words(two, **still))
    assert [child.code for child in ended] == [0, 0], ended
    assert "".join(child.output for child in ended).count("Training the retriever") == 1
    assert len(list(cache.iterdir())) == 1
    names = [name for name in rows(one / "run_001")[-1] if name.startswith(MAY_DIFFER[1:])]
    assert len(names) == 25
    scores = [{name: rows(base / "run_001")[-1][name] for name in names} for base in (one, two)]
    assert scores[0] == scores[1]


def test_a_plan_says_what_there_is_and_its_candidates_serve_the_training(words: Words, tmp_path: Path) -> None:
    base = tmp_path / "runs"
    planned = pitstop(*words(base), "--dry-run", "--json")
    assert planned.code == 0, planned.output
    assert not base.exists()
    plan = json.loads(planned.output[planned.output.index("{") :])
    assert plan["plan"]["records"] == 16
    ended = pitstop(*words(base, max_steps=1))
    assert ended.code == 0, ended.output
    assert "Training the retriever" not in ended.output


def test_mistakes_are_said_before_anything_is_trained(words: Words, tmp_path: Path) -> None:
    ended = pitstop(*words(tmp_path / "runs", monitor="ndcg@7"))
    assert ended.code == 2
    assert "ndcg@10" in ended.output
    ended = pitstop(*words(tmp_path / "runs", mode="min"))
    assert ended.code == 2 and "worst checkpoint" in ended.output
    ended = pitstop(*words(tmp_path / "runs", dataset=tmp_path / "nowhere"))
    assert ended.code == 3 and "no such file" in ended.output
    ended = pitstop(*words(tmp_path / "runs", rank_candidates=27))
    assert ended.code == 2 and "26" in ended.output


def test_a_preset_takes_another_model_and_another_directory(words: Words, tiny_model: Path) -> None:
    films = words(Path("runs"))[words(Path("runs")).index("--dataset") + 1]
    ended = pitstop(
        "train",
        "--config",
        "ml-100k",
        "--model-id",
        tiny_model,
        "--dataset",
        films,
        "--dry-run",
        "--rank-retriever",
        "popularity",
    )
    assert ended.code == 0, ended.output
    assert "150 records" in ended.output
