"""Several data sets in one training: interrupted and resumed bit for bit, wherever they lie, in memory or from the cache."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forging import change_json, reseal
from support.forked import kill_at_step, pitstop, two_ranks
from support.interruptions import note_batches, read_batches
from support.tiny_model import write_records
from support.training import EXACT_FILES, arguments, assert_same_end, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")
SETTINGS: dict[str, Any] = {
    "dataset": None,
    "eval_dataset": None,
    "eval_fraction": 0.2,
    "epochs": 3,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 3,
    "method": "lora",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a.jsonl`` with fourteen records and ``b.jsonl`` with six."""
    directory = tmp_path_factory.mktemp("sources")
    write_records(directory / "a.jsonl", 14)
    write_records(directory / "b.jsonl", 6, start=60)
    return directory


def _words(model: Path, sources: Path, base_dir: Path, weights: tuple[str, str] = (":1", ":3"), **more: Any) -> list[str]:
    words = arguments(model, sources, base_dir, **{**SETTINGS, **more})
    for name, weight in zip("ab", weights, strict=True):
        words += ["--dataset", f"{sources / name}.jsonl{weight}"]
    return words


def _large() -> None:
    """In the child: take any data for too large for memory."""
    from pitstop.trainers.data.cache import key

    key.SMALL_BYTES = 0


def _both(*prepare: Callable[[], None]) -> Callable[[], None]:
    return lambda: [each() for each in prepare] and None


@pytest.fixture(scope="module")
def whole(tiny_model: Path, sources: Path, tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """A base directory with an uninterrupted weighted run, and beside it the batches that it trained on."""
    base_dir = tmp_path_factory.mktemp("whole") / "runs"
    ended = pitstop(*_words(tiny_model, sources, base_dir), prepare=functools.partial(note_batches, base_dir.parent / "batches"))
    assert ended.code == 0, ended.output
    assert "sequences an epoch" in ended.output
    return base_dir


def test_a_mixed_run_that_is_killed_and_terminated_ends_where_the_uninterrupted_one_does(
    tiny_model: Path, sources: Path, tmp_path: Path, whole: Path
) -> None:
    broken, noted = tmp_path / "runs", tmp_path / "batches"
    note = functools.partial(note_batches, noted)
    assert pitstop(*_words(tiny_model, sources, broken), prepare=_both(note, kill_at_step(5))).code == -signal.SIGKILL
    ended = pitstop("resume", 1, "--base-dir", broken, prepare=_both(note, kill_at_step(11, signal.SIGTERM)))
    assert ended.code == 143, ended.output
    ended = pitstop("resume", 1, "--base-dir", broken, prepare=note)
    assert ended.code == 0, ended.output
    assert_same_end(whole / "run_001", broken / "run_001")
    last = {batch["step"]: batch for batch in read_batches(noted)}
    assert list(last.values()) == read_batches(whole.parent / "batches")


def test_each_epoch_takes_its_share_and_what_an_epoch_left_out_comes_in_the_next(whole: Path) -> None:
    data = metadata(whole / "run_001")["data"]
    taken = [number for batch in read_batches(whole.parent / "batches") for number in batch["ids"]]
    per_epoch, first = data["sequences"], data["sources"][0]
    assert len(taken) == 3 * per_epoch and first["sequences_per_epoch"] < first["sequences"]
    from_first = [number for number in taken if number < first["sequences"]]
    assert len(from_first) == 3 * first["sequences_per_epoch"]
    assert len(set(from_first[: first["sequences"]])) == min(len(from_first), first["sequences"])


def test_rows_and_metadata_tell_of_each_source(whole: Path) -> None:
    run = whole / "run_001"
    told = metadata(run)
    data = told["data"]
    assert [source["name"] for source in data["sources"]] == [source["name"] for source in data["eval"]["sources"]] == ["a", "b"]
    assert sum(source["tokens"] for source in data["sources"]) == data["tokens"]
    assert sum(source["sequences_per_epoch"] for source in data["sources"]) == data["sequences"]
    assert told["dataset"] == "a.jsonl +1" and told["name"].startswith("tiny") and "-a-" in told["name"]
    last = rows(run)[-1]
    assert last["tokens_a"] + last["tokens_b"] == last["tokens"]
    assert {"loss_a", "loss_b", "val_loss_a", "val_loss_b"} <= {key for row in rows(run) for key in row}


def test_moved_data_is_given_with_its_weights_and_other_weights_are_other_data(
    tiny_model: Path, sources: Path, tmp_path: Path, whole: Path
) -> None:
    here, base_dir = tmp_path / "here", tmp_path / "runs"
    here.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (here / name).write_bytes((sources / name).read_bytes())
    assert pitstop(*_words(tiny_model, here, base_dir), prepare=kill_at_step(5)).code == -signal.SIGKILL
    here.rename(tmp_path / "there")
    ended = pitstop("resume", 1, "--base-dir", base_dir)
    assert ended.code == 3 and "--dataset PATH" in ended.output, ended.output

    def given(*weights: str) -> list[str]:
        return [word for n, w in zip("ab", weights, strict=True) for word in ("--dataset", f"{tmp_path / 'there' / n}.jsonl:{w}")]

    ended = pitstop("resume", 1, "--base-dir", base_dir, *given("3", "1"))
    assert ended.code == 3 and "has changed" in ended.output, ended.output
    ended = pitstop("resume", 1, "--base-dir", base_dir, *given("1", "3"))
    assert ended.code == 0, ended.output
    assert_same_end(whole / "run_001", base_dir / "run_001")


def test_out_of_the_cache_a_run_is_the_same_and_other_data_starts_its_counts_anew(
    tiny_model: Path, sources: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base_dir = tmp_path / "runs"
    ended = pitstop(*_words(tiny_model, sources, base_dir), prepare=_both(_large, kill_at_step(5)))
    assert ended.code == -signal.SIGKILL and "tokenised; they are kept" in ended.output, ended.output
    ended = pitstop("resume", 1, "--base-dir", base_dir, prepare=_large)
    assert ended.code == 0 and "Data: 14 examples" in ended.output and "from the cache" in ended.output, ended.output
    assert_same_end(whole / "run_001", base_dir / "run_001")
    changed = ["--dataset", sources / "a.jsonl", "--allow-changed-data", "--epochs", "4"]
    ended = pitstop("resume", 1, "--base-dir", base_dir, *changed, prepare=_large)
    assert ended.code == 0, ended.output
    assert "tokens_a" not in rows(base_dir / "run_001")[-1]
    ended = pitstop(*_words(tiny_model, sources, base_dir, no_data_cache=True, max_steps=1), prepare=_large)
    assert ended.code == 0 and "Data: " not in ended.output, ended.output
    assert metadata(base_dir / "run_002")["data"] == metadata(whole / "run_001")["data"]


def test_a_checkpoint_that_tells_of_other_sources_is_refused(tiny_model: Path, sources: Path, tmp_path: Path) -> None:
    base_dir = tmp_path / "runs"
    words = _words(tiny_model, sources, base_dir, sync_save=True)
    assert pitstop(*words, prepare=kill_at_step(3)).code == -signal.SIGKILL
    checkpoint = base_dir / "run_001/lora_weights/checkpoint-2"
    change_json(checkpoint / "trainer_state.json", lambda content: content["progress"]["sources"].pop())
    reseal(checkpoint)
    ended = pitstop("resume", 1, "--base-dir", base_dir)
    assert ended.code == 4 and "it holds the progress of 1 data sets, and there are 2" in ended.output, ended.output


def test_two_processes_that_share_the_cache_are_interrupted_and_resumed_exactly(
    tiny_model: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, two = tmp_path / "one", tmp_path / "two"
    whole = two_ranks(*_words(tiny_model, sources, one), prepare=(_large, _large))
    assert [ended.code for ended in whole] == [0, 0], whole[0].output
    assert whole[0].output.count("tokenised; they are kept") == 2 and "Data:" not in whole[1].output
    killing = _both(_large, kill_at_step(4, signal.SIGTERM))
    ended = two_ranks(*_words(tiny_model, sources, two), prepare=(killing, killing))
    assert [each.code for each in ended] == [143, 143], ended[0].output
    ended = two_ranks("resume", 1, "--base-dir", two, prepare=(_large, _large))
    assert [each.code for each in ended] == [0, 0], ended[0].output
    assert_same_end(one / "run_001", two / "run_001", (*EXACT_FILES, "rng_state_1.json"))


def test_the_plan_tells_the_shares(tiny_model: Path, sources: Path, tmp_path: Path) -> None:
    words = ["plan", *_words(tiny_model, sources, tmp_path / "runs", eval_fraction=None)[1:]]
    ended = pitstop(*words)
    assert ended.code == 0 and "a: " in ended.output and "sequences an epoch (" in ended.output, ended.output
    as_json = pitstop(*words, "--json").output
    plan = json.loads(as_json[as_json.index("{") :])["plan"]
    assert len(plan["sources"]) == 2 and plan["sources"][1].startswith("b: ")


def test_mistakes_with_weights_are_told_before_anything_is_loaded(tiny_model: Path, sources: Path, tmp_path: Path) -> None:
    ended = pitstop(*_words(tiny_model, sources, tmp_path / "runs", ("", ":3")))
    assert ended.code == 2 and "has no weight, and others have" in ended.output
    ended = pitstop(*_words(tiny_model, sources, tmp_path / "runs", (":1", ":0")))
    assert ended.code == 2 and "must be a number above 0" in ended.output
