"""Real trainings in other people's loops: killed, resumed, and equal to the last bit to those that were not."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.loops import RUNS, train_with_lightning, train_with_transformers, train_with_trl
from support.own_process import Died, in_child
from support.tiny_model import make_tiny_model

END = ("weights", "optimizer", "log")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, made in a child: this process must not compute with torch."""
    import pytorch_lightning  # noqa: F401 - once here, not in each child
    import transformers.trainer  # noqa: F401
    import trl.trainer.sft_trainer  # noqa: F401

    path = tmp_path_factory.mktemp("tiny")
    in_child(lambda: str(make_tiny_model(path)))
    return path


def killed(work: partial[Any]) -> None:
    with pytest.raises(Died, match="9"):
        in_child(work)


def damage(run: str, name: str) -> None:
    path = RUNS / run / "lora_weights" / name / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# Transformers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How an uninterrupted training with ``Trainer`` and an adapter ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        found: dict[str, Any] = in_child(partial(train_with_transformers, tiny, logging_steps=1))
    return found


def test_a_killed_trainer_goes_on_in_the_middle_of_an_epoch_bit_for_bit(tiny: Path, whole: dict[str, Any]) -> None:
    killed(partial(train_with_transformers, tiny, stop=5, logging_steps=1))
    killed(partial(train_with_transformers, tiny, 1, stop=11, logging_steps=1))
    resumed = in_child(partial(train_with_transformers, tiny, 1, logging_steps=1))
    assert whole["resumed"] is False and resumed["resumed"] is True
    assert {key: resumed[key] for key in END} == {key: whole[key] for key in END}
    assert (resumed["checkpoints"], resumed["best"]) == (whole["checkpoints"], whole["best"])
    assert resumed["status"] == whole["status"] == "completed" and resumed["left"] == []
    assert len(json.loads((RUNS / "run_001" / "metadata.json").read_text())["resumes"]) == 2
    assert (
        whole["trainer_files"] == resumed["trainer_files"] == []
    )  # the trainer writes no checkpoint of its own, and the run no pickle
    names = {path.name for path in RUNS.rglob("*") if path.is_file()}
    assert {"adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json", "rng_state_0.json"} <= names
    assert not [name for name in names if name.endswith((".pt", ".pth", ".bin", ".pkl"))]


OFTENER = {"logging_steps": 2, "save_steps": 4, "eval_strategy": "no"}
"""Rows between saves, which a resume must neither lose nor double."""


@pytest.mark.parametrize(
    "stops", [(12,), (12, 15), (4,), (4, 12)], ids=["after 11", "twice", "before a save", "before and after"]
)
def test_rows_logged_between_saves_are_those_of_an_uninterrupted_training(tiny: Path, stops: tuple[int, ...]) -> None:
    uninterrupted = in_child(partial(train_with_transformers, tiny, **OFTENER))
    for number, stop in zip((None, 2), stops, strict=False):
        killed(partial(train_with_transformers, tiny, number, stop=stop, **OFTENER))
    resumed = in_child(partial(train_with_transformers, tiny, 2, **OFTENER))
    assert [row["step"] for row in uninterrupted["rows"]] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert resumed["rows"] == uninterrupted["rows"]


def test_a_trainer_that_goes_back_and_is_killed_before_its_first_save_keeps_the_rows_of_its_line(tiny: Path) -> None:
    """The rows of the older line go together with its checkpoints: the next resume is from where this one was."""
    options = OFTENER | {"save_total_limit": 9}
    uninterrupted = in_child(partial(train_with_transformers, tiny, **options))
    killed(partial(train_with_transformers, tiny, 1, checkpoint="checkpoint-8", stop=12, **options))
    resumed = in_child(partial(train_with_transformers, tiny, 1, **options))
    assert resumed["rows"] == uninterrupted["rows"] and resumed["weights"] == uninterrupted["weights"]


def test_a_trainer_without_resume_from_does_not_double_the_rows_of_a_start_that_never_saved(tiny: Path) -> None:
    killed(partial(train_with_transformers, tiny, stop=4, **OFTENER))
    anew = in_child(partial(train_with_transformers, tiny, 1, resume=False, **OFTENER))
    assert [row["step"] for row in anew["rows"]] == [2, 4, 6, 8, 10, 12, 14, 16, 18]


def test_a_full_model_saved_by_the_epoch_goes_on_with_the_patience_of_other_callbacks(tiny: Path) -> None:
    options = {"adapter": False, "save_strategy": "epoch", "eval_strategy": "epoch", "metric_for_best_model": "loss", "save_total_limit": 1,
               "load_best_model_at_end": True, "num_train_epochs": 4, "restore_callback_states_from_checkpoint": True}  # fmt: skip

    def train(run_number: int | None = None, stop: int | None = None) -> dict[str, Any]:
        from transformers import EarlyStoppingCallback

        found = train_with_transformers(tiny, run_number, stop=stop, callbacks=[EarlyStoppingCallback(2)], **options)
        return found | {"steps": found["log"][-1]["step"]}

    uninterrupted = in_child(train)
    assert uninterrupted["best"] == "checkpoint-6" and uninterrupted["steps"] == 18  # patience ends it one epoch early
    killed(partial(train, stop=14))
    resumed = in_child(partial(train, 2))
    assert {key: resumed[key] for key in END} == {key: uninterrupted[key] for key in END}
    assert resumed["status"] == uninterrupted["status"] == "stopped"
    assert resumed["checkpoints"] == ["checkpoint-6", "checkpoint-12", "checkpoint-18"]  # best, resumed from, last


def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before_and_one_average(
    tiny: Path, whole: dict[str, Any]
) -> None:
    """Trainer keeps the running sum of the loss nowhere: the first row after a resume averages the steps since. All else is equal."""
    killed(partial(train_with_transformers, tiny, stop=11, logging_steps=4))
    damage("run_001", "checkpoint-9")
    resumed = in_child(partial(train_with_transformers, tiny, 1, logging_steps=4))
    assert (RUNS / "run_001" / "lora_weights" / ".damaged" / "checkpoint-9").is_dir()
    assert (resumed["weights"], resumed["optimizer"]) == (whole["weights"], whole["optimizer"])
    losses = {row["step"]: row["loss"] for row in whole["log"] if "loss" in row}
    logged = {row["step"]: row["loss"] for row in resumed["log"] if "loss" in row}
    since = {4: 1, 8: 7, 12: 9, 16: 13}  # row → first step in it; the resume was at step 6
    assert logged == {
        step: pytest.approx(sum(losses[n] for n in range(first, step + 1)) / (step + 1 - first)) for step, first in since.items()
    }
    evaluated = [[row for row in each["log"] if "eval_loss" in row] for each in (resumed, whole)]
    assert evaluated[0] == evaluated[1]


def test_starting_anew_in_a_run_with_checkpoints_is_refused(tiny: Path) -> None:
    killed(partial(train_with_transformers, tiny, stop=5))

    def begin() -> list[str]:
        from transformers import Trainer, TrainingArguments

        from pitstop.checkpointing.callbacks import PitstopCallback, resume_from
        from pitstop.configs.errors import CheckpointError, PitstopError, SettingsError
        from support.loops import Tokens, arguments, language_model

        said = []
        model = language_model(tiny, adapter=True)
        options = TrainingArguments(**arguments())
        trainer = Trainer(
            model, options, train_dataset=Tokens(22), eval_dataset=Tokens(6), callbacks=[PitstopCallback(RUNS, "t", 1)]
        )
        for attempt in (
            lambda: trainer.train(),
            lambda: resume_from(Trainer(model, options, eval_dataset=Tokens(6))),
            lambda: resume_from(trainer, "checkpoint-4"),
        ):
            try:
                attempt()
            except PitstopError as error:
                assert isinstance(error, CheckpointError | SettingsError) or "begins at step 0" in error.message
                said.append(error.message)
        return said

    said = in_child(begin)
    assert said[0] == "run_001 has checkpoints up to step 3, and this training begins at step 0"
    assert said[1] == "the trainer has no PitstopCallback"
    assert said[2].startswith("checkpoint 'checkpoint-4' not found")


def test_a_full_disk_costs_checkpoints_and_not_the_training(tiny: Path, whole: dict[str, Any]) -> None:
    def train() -> dict[str, Any]:
        from pitstop.checkpointing.disk.storage import LocalStorage

        enough, count = LocalStorage.free_space, iter(range(100))
        LocalStorage.free_space = lambda self, path: 0 if next(count) in (1, 2) else enough(self, path)  # type: ignore[method-assign]
        return train_with_transformers(tiny)

    ended = in_child(train)
    assert ended["checkpoints"] == [name for name in whole["checkpoints"] if name not in ("checkpoint-6", "checkpoint-9")]
    assert ended["weights"] == whole["weights"]


# TRL -------------------------------------------------------------------------------------------------------------------


def test_a_killed_sft_trainer_goes_on_bit_for_bit(tiny: Path) -> None:
    uninterrupted = in_child(partial(train_with_trl, tiny, **OFTENER))
    killed(partial(train_with_trl, tiny, stop=12, **OFTENER))
    resumed = in_child(partial(train_with_trl, tiny, 2, **OFTENER))
    assert (resumed["weights"], resumed["optimizer"]) == (uninterrupted["weights"], uninterrupted["optimizer"])
    # TRL counts the tokens of a process, not of the training: after a resume the counter begins anew.
    for log in ("log", "rows"):
        rows = [
            [{key: value for key, value in row.items() if "num_tokens" not in key} for row in each[log]]
            for each in (resumed, uninterrupted)
        ]
        assert rows[0] == rows[1]


# Lightning -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True], ids=["everything trains", "frozen base"])
def test_a_killed_lightning_trainer_goes_on_from_its_last_epoch_bit_for_bit(tiny: Path, frozen: bool) -> None:
    uninterrupted = in_child(partial(train_with_lightning, frozen=frozen))
    killed(partial(train_with_lightning, stop=5, frozen=frozen))
    killed(partial(train_with_lightning, 2, stop=8, frozen=frozen))
    resumed = in_child(partial(train_with_lightning, 2, frozen=frozen))
    started_from = {"checkpoints": ["epoch_002", *uninterrupted["checkpoints"]]}  # what a resume started from is kept
    assert resumed == uninterrupted | started_from
    assert uninterrupted["steps"] == 15 and uninterrupted["seen"] == 30
    assert len(list(RUNS.glob(".base_models/[0-9a-f]*"))) == frozen


def test_lightning_saving_every_second_epoch_keeps_every_row(tiny: Path) -> None:
    uninterrupted = in_child(partial(train_with_lightning, save_every=2))
    killed(partial(train_with_lightning, stop=11, save_every=2))
    resumed = in_child(partial(train_with_lightning, 2, save_every=2))
    assert [row["step"] for row in uninterrupted["rows"]] == [2, 3, 4, 6, 6, 8, 9, 10, 12, 12, 14, 15]
    assert resumed["rows"] == uninterrupted["rows"]


def test_lightning_without_a_checkpoint_begins_its_log_anew(tiny: Path) -> None:
    killed(partial(train_with_lightning, stop=5, save_every=2))
    anew = in_child(partial(train_with_lightning, 1, save_every=2, resume=False))
    assert [row["step"] for row in anew["rows"]] == [2, 3, 4, 6, 6, 8, 9, 10, 12, 12, 14, 15]


def test_lightning_begins_no_run_with_checkpoints_anew(tiny: Path) -> None:
    killed(partial(train_with_lightning, stop=8))
    with pytest.raises(AssertionError, match="run_001 has checkpoints up to epoch 2"):
        in_child(partial(train_with_lightning, 1, resume=False))


def test_lightning_ends_by_max_steps_and_the_last_epoch_is_saved(tiny: Path) -> None:
    ended = in_child(partial(train_with_lightning, max_steps=7, max_epochs=-1))
    assert (ended["status"], ended["steps"], ended["checkpoints"][-1]) == ("completed", 7, "epoch_003")
