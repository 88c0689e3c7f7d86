"""Samples at each evaluation: the training is the same with and without, and a resumed run neither repeats nor loses any."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forked import Child, Ended, kill_at_step, pitstop, two_ranks
from support.training import arguments, assert_same_end, metadata

pytestmark = pytest.mark.usefixtures("warm")

PROMPTS = ["Case 3: the patient took heparin.", "two", "Case 4: the patient took aspirin and rested and rested."]
# Steps 3, 6, 9 and 12 are evaluated; checkpoints are at 4, 8 and 12.
SETTINGS: dict[str, Any] = {
    "no_packing": True,
    "eval_steps": 3,
    "save_strategy": "steps",
    "save_steps": 4,
    "keep_last_n": 9,
    "eval_max_new_tokens": 6,
    "eval_generation_batch_size": 2,
}


def train(home: Path, name: str, model: Path, *, prepare: Callable[[], None] | None = None, **settings: Any) -> Ended:
    return pitstop(*words(home, name, model, **settings), prepare=prepare)


def words(home: Path, name: str, model: Path, **settings: Any) -> list[str]:
    chosen = {"sample_prompts": home / "prompts.txt", **SETTINGS, **settings}
    return arguments(model, home / "data", home / name, **chosen)


def samples(run: Path) -> list[tuple[int, str, str]]:
    """Step, prompt and answer of each row."""
    lines = (run / "logs/samples.jsonl").read_text().splitlines()
    return [(row["step"], row["prompt"], row["answer"]) for row in map(json.loads, lines)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.tiny_model import write_data

    home = tmp_path_factory.mktemp("samples")
    write_data(home / "data", 6, 2)
    (home / "prompts.txt").write_text("\n".join(PROMPTS))
    return home


@pytest.fixture(scope="module")
def whole(home: Path, tiny_model: Path, warm: None) -> Path:
    """The uninterrupted run with samples."""
    ended = train(home, "whole", tiny_model)
    assert ended.code == 0, ended.output
    assert "step 3: 3 samples in logs/samples.jsonl, the first: “Case 3: the patient took heparin.” → " in ended.output
    return home / "whole/run_001"


def test_each_prompt_is_answered_at_each_evaluation(whole: Path) -> None:
    found = samples(whole)
    assert [(step, prompt) for step, prompt, _ in found] == [(step, prompt) for step in (3, 6, 9, 12) for prompt in PROMPTS]
    assert len({answer for _, _, answer in found}) > 1


def test_training_is_bit_for_bit_the_same_without(whole: Path, home: Path, tiny_model: Path) -> None:
    ended = train(home, "without", tiny_model, sample_prompts=None)
    assert ended.code == 0, ended.output
    assert_same_end(whole, home / "without/run_001")
    assert not (home / "without/run_001/logs/samples.jsonl").exists()


def test_a_killed_and_resumed_run_has_the_samples_of_an_uninterrupted_one(whole: Path, home: Path, tiny_model: Path) -> None:
    assert train(home, "killed", tiny_model, prepare=kill_at_step(7)).code == -9
    resumed = pitstop("resume", 1, "--base-dir", home / "killed")
    assert resumed.code == 0, resumed.output
    assert samples(home / "killed/run_001") == samples(whole)
    assert_same_end(whole, home / "killed/run_001")


def test_an_older_checkpoint_takes_its_samples_with_it_and_later_ones_are_kept_aside(
    whole: Path, home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home / "whole", tmp_path / "runs", symlinks=True)
    run = tmp_path / "runs/run_001"
    assert pitstop("resume", "1@checkpoint-8", "--base-dir", tmp_path / "runs").code == 0
    assert samples(run) == samples(whole)
    aside = [json.loads(line)["step"] for line in (run / "logs/samples.superseded.jsonl").read_text().splitlines()]
    assert aside == [9, 9, 9, 12, 12, 12]


def test_a_signal_during_the_samples_puts_them_off_with_their_evaluation(whole: Path, home: Path, tiny_model: Path) -> None:
    def signal_at_the_second_batch() -> None:
        import os
        import signal

        from pitstop.trainers.models import generation as module

        real, calls = module.answer_batch, []

        def answer_batch(*given: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == 4:  # two batches a step: the second one of step 6
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*given, **named)

        module.answer_batch = answer_batch

    ended = train(home, "signal", tiny_model, prepare=signal_at_the_second_batch)
    run = home / "signal/run_001"
    assert ended.code == 143, ended.output
    assert {step for step, _, _ in samples(run)} == {3}
    assert (run / "lora_weights/checkpoint-6-pending").is_dir()
    assert pitstop("resume", 1, "--base-dir", home / "signal").code == 0
    assert samples(run) == samples(whole)
    assert_same_end(whole, run)


def test_two_processes_share_the_prompts_and_write_each_answer_once(home: Path, tiny_model: Path) -> None:
    both = two_ranks(*words(home, "two", tiny_model, epochs=1, eval_steps=2))
    assert [ended.code for ended in both] == [0, 0], both
    found = samples(home / "two/run_001")
    assert [(step, prompt) for step, prompt, _ in found] == [(step, prompt) for step in (2, 3) for prompt in PROMPTS]
    options = ["--max-new-tokens", 6, "--batch-size", 2, "--json"]
    alone = pitstop("generate", "1@last", "--base-dir", home / "two", "--prompts", home / "prompts.txt", *options)
    answers = alone.json()["answers"]
    assert [answer for step, _, answer in found if step == 3] == [
        text["text"] for row in answers for text in row["answers"].values()
    ]


def test_without_evaluation_data_they_come_at_the_end_of_each_epoch(home: Path, tiny_model: Path) -> None:
    ended = train(home, "no-data", tiny_model, eval_dataset=None, eval_steps=None, max_steps=8)
    assert ended.code == 0, ended.output
    assert [step for step, _, _ in samples(home / "no-data/run_001")] == [6] * 3 + [8] * 3


def test_a_training_that_stops_early_ends_with_samples(home: Path, tiny_model: Path) -> None:
    # Judged at each save; with a falling loss asked to rise, the first stays the best.
    settings = {"eval_dataset": None, "eval_steps": None, "save_steps": 2, "early_stopping_patience": 1, "learning_rate": 1e-9}
    ended = train(home, "early", tiny_model, **settings)
    assert ended.code == 0, ended.output
    step = metadata(home / "early/run_001")["progress"]["step"]
    found = [each for each, _, _ in samples(home / "early/run_001")]
    assert "Stopped early" in ended.output and step % 6 != 0
    assert found[-3:] == [step] * 3 and found.count(step) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("\n\n", "there is no prompt in it"),
        ("short\n" + "long " * 90, "prompt 2: it is"),
    ],
)
def test_prompts_are_checked_before_anything_is_made(
    home: Path, tiny_model: Path, tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "p.txt").write_text(content)
    ended = train(home, "bad", tiny_model, sample_prompts=tmp_path / "p.txt")
    assert ended.code == 3 and said in ended.output and "SAMPLE_PROMPTS" in ended.output, ended.output
    assert not (home / "bad").exists()


def test_a_model_without_room_for_the_answers_is_said(home: Path, tiny_model: Path) -> None:
    ended = train(home, "room", tiny_model, eval_max_new_tokens=500)
    assert ended.code == 3 and "the model has room for 12 beside 500 new ones" in ended.output, ended.output
    assert not (home / "room/run_001").exists()


def test_a_checkpoint_does_not_tell_where_the_prompts_lie(whole: Path, home: Path) -> None:
    state = json.loads((whole / "lora_weights/last/trainer_state.json").read_text())
    assert state["settings"]["evaluation"]["sample_prompts"] == "prompts.txt"
    assert json.loads((whole / "config.json").read_text())["evaluation"]["sample_prompts"] == str(home / "prompts.txt")


def test_samples_are_as_durable_as_the_checkpoint_they_come_before(home: Path, tiny_model: Path) -> None:
    """At the moment a checkpoint gets its name, the samples up to its step have been synced."""

    def watch() -> None:
        from pitstop.checkpointing.disk.metrics_log import MetricsLog
        from pitstop.checkpointing.store.store import CheckpointStore

        synced: list[str] = []
        sync, write = MetricsLog.sync, CheckpointStore.write

        def watched_sync(self: MetricsLog) -> None:
            sync(self)
            assert not self._recent
            synced.append(self.path.name)

        def watched_write(self: CheckpointStore, *given: Any, **named: Any) -> Any:
            assert {"metrics.jsonl", "samples.jsonl"} <= set(synced), synced
            synced.clear()
            return write(self, *given, **named)

        MetricsLog.sync, CheckpointStore.write = watched_sync, watched_write  # type: ignore[method-assign]

    child = Child(*words(home, "durable", tiny_model, max_steps=4), prepare=watch)
    assert child.wait(60).code == 0
