"""The ranking benchmark's own arithmetic and the data that it fetches."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pitstop.trainers.tasks.rank.measures import NAMES
from support.rating_files import write_movielens

REPOSITORY = Path(__file__).resolve().parents[3]
OPTIONS = argparse.Namespace(
    users=7, steps=3, history=5, title_tokens=8, learning_rate=5e-4, retriever="popularity", wheel=None, model=None
)


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))


@pytest.fixture
def command() -> ModuleType:
    import benchmarks.rank.__main__

    return benchmarks.rank.__main__


@pytest.fixture
def stages() -> ModuleType:
    import benchmarks.rank.stages

    return benchmarks.rank.stages


@pytest.fixture
def data() -> ModuleType:
    import benchmarks.rank.data

    return benchmarks.rank.data


def test_chance_is_the_mean_over_all_places_of_the_right_letter(stages: Any) -> None:
    found = stages.by_chance(0.5, 4)
    assert set(found) == set(NAMES)
    assert found["retrieved_mrr@5"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found["retrieved_recall@1"] == 0.25
    assert found["recall@20"] == 0.5
    assert found["ndcg@10"] == pytest.approx((1 + 0.63093 + 0.5 + 0.43068) / 4 * 0.5, abs=1e-5)


def test_the_command_gets_the_settings_that_are_measured(tmp_path: Path, command: Any) -> None:
    job = command.job_of(OPTIONS, tmp_path, tmp_path / "films")
    settings = job.settings()
    assert (settings.training.task, settings.rank.eval_users, settings.rank.max_train_rows) == ("rank", 7, 12)
    assert settings.lora.target_modules == ["q_proj", "v_proj"]
    assert job.words.count("--lora-target-modules") == 2
    assert "--no-packing" in job.words and settings.data.packing is False
    assert job.words[job.words.index("--rank-history") + 1] == "5"


def test_retrievers_alone_are_measured_on_the_same_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, stages: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    films = write_movielens(tmp_path / "films", users=30)
    result: dict[str, Any] = command.measure(
        command.job_of(OPTIONS, tmp_path, films), argparse.Namespace(**{**vars(OPTIONS), "steps": 0})
    )
    assert result["users"] == 7
    assert list(result["rows"]) == ["itemknn", "popularity, the retriever"]
    known = stages.sequences(films)
    assert result["popularity_all_users"] == stages.retriever_alone("popularity", known, np.arange(30), 20, "test")
    text = command.table({"machine": command.machine.describe(), "versions": {"numpy": "1"}, **result})
    assert "30 users, 24 items, 240 ratings" in text
    assert f"| itemknn | {result['rows']['itemknn']['recall@1']:.4f} |" in text


def test_another_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel = tmp_path / "recbole.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", "x")
    with pytest.raises(data.NotThere, match="another one"):
        data.ml_100k(wheel)
    assert not (tmp_path / "cache").exists()


def test_the_two_files_are_taken_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Any) -> None:
    import hashlib

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel = tmp_path / "recbole.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in data.FILES:
            archive.writestr(f"recbole/dataset_example/ml-100k/{name}", name)
    monkeypatch.setattr(data, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    directory = data.ml_100k(wheel)
    assert [(directory / name).read_text() for name in data.FILES] == list(data.FILES)
    wheel.unlink()
    assert data.ml_100k() == directory


def test_the_bare_model_is_scored_on_the_retrieved_users(tmp_path: Path, tiny_model: Path, command: Any, stages: Any) -> None:
    films = write_movielens(tmp_path / "films")
    found, seconds = stages.score(command.job_of(OPTIONS, tiny_model, films), None, "test")
    assert set(found) == set(NAMES) and 0 < found["retrieved_share"] <= 1 and seconds > 0
    assert found["ndcg@10"] == pytest.approx(found["retrieved_ndcg@10"] * found["retrieved_share"])
