"""Where a resumed run goes on: its place in the data, whether anything is left, and the streams of random numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.checkpointing.state import state
from pitstop.configs.errors import CheckpointError, DataError, RunError
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.loop import ALL_DONE
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training import resuming
from pitstop.trainers.training.resumed_progress import check_data, progress_of, restore
from support.displays import Lines
from support.fake_training import FakeEngine, dataset, inputs_of, settings_with

SHAPE, CPU = BatchShape(2, 1, 1), torch.device("cpu")


def _chosen(
    progress: Progress,
    *,
    epoch: float = 0.5,
    data: str | None = None,
    changes: dict[str, Any] | None = None,
    status: str = "running",
    world_size: int = 1,
    **flags: Any,
) -> Any:
    """A checkpoint in the middle of the first of two epochs of four examples."""
    manifest = SimpleNamespace(fingerprints={"data": data or dataset().fingerprint}, world_size=world_size)
    run = SimpleNamespace(
        label="run_003",
        ref="3",
        metadata=lambda: Metadata({"status": status}),
        last_changes=lambda checkpoint: {},
        settings=lambda: {"training": {"max_steps": flags.get("training__max_steps")}},
    )
    return SimpleNamespace(
        run=run,
        info=SimpleNamespace(name="epoch_001", path=Path("epoch_001"), epoch=epoch, step=progress.step, manifest=manifest),
        trainer_state={"progress": progress.to_dict()},
        settings=settings_with(**flags),
        changes=changes or {},
        restore_weights=lambda engine: None,
    )


def _progress(**values: Any) -> Progress:
    progress = Progress()
    for name, value in {"step": 1, "position": 2, **values}.items():
        setattr(progress, name, value)
    return progress


def test_the_same_data_are_gone_on_with_where_training_stood() -> None:
    progress = progress_of(_chosen(_progress()), dataset())
    assert (progress.step, progress.epoch, progress.position) == (1, 0, 2)


def test_a_place_that_is_not_the_manifests_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"position 2 of 4 in epoch 0 is not the manifest's epoch 0.75"):
        progress_of(_chosen(_progress(), epoch=0.75), dataset())


def test_changed_data_are_begun_anew_with_the_epoch() -> None:
    progress = progress_of(_chosen(_progress(boundary_pending=True), data="other"), dataset())
    assert (progress.epoch, progress.position, progress.boundary_pending) == (0, 0, False)


def test_changed_data_after_a_whole_epoch_begin_with_the_next() -> None:
    progress = progress_of(_chosen(_progress(position=4), epoch=1.0, data="other"), dataset())
    assert (progress.epoch, progress.position) == (1, 0)


def _inputs(template: str | None = None) -> Any:
    return SimpleNamespace(train=dataset(), template=template)


@pytest.mark.parametrize(
    ("changes", "template", "transformers", "told"),
    [
        ({}, None, "5.3", "The training data of run_003 has changed since epoch_001 was saved"),
        (
            {"data.template_date": ("2026-01-05", "2026-02-05")},
            None,
            "5.3",
            "changed: data.template_date 2026-01-05 → 2026-02-05.",
        ),
        ({}, "b" * 64, "5.3", "changed: the tokenizer's chat template."),
        ({}, "a" * 64, "5.4", "What makes tokens of it has changed: transformers 5.3 → 5.4."),
    ],
)
def test_a_refusal_names_what_else_than_the_data_makes_other_tokens(
    changes: dict[str, Any], template: str | None, transformers: str, told: str
) -> None:
    chosen, data = _chosen(_progress(), data="other", changes=changes), {"template": "a" * 64} if template else {}
    chosen.run.metadata = lambda: Metadata({"data": data})
    chosen.trainer_state["environment"] = {"versions": {"transformers": "5.3", "torch": "2.9"}, "threads": 1}
    environment = {"versions": {"transformers": transformers, "torch": "2.10"}, "threads": 2}
    with pytest.raises(DataError) as caught:
        check_data(chosen, _inputs(template), environment, Reporter(Lines()), allow_changed=False)
    assert told in caught.value.message
    assert "--allow-changed-data" in str(caught.value.hint)


def test_another_seed_is_another_order_of_the_data() -> None:
    chosen, display = _chosen(_progress(), changes={"training.seed": (1, 2)}), Lines()
    with pytest.raises(DataError, match="The training data of run_003 has changed since epoch_001 was saved"):
        check_data(chosen, _inputs(), {"versions": {"transformers": "5.4"}}, Reporter(display), allow_changed=False)
    check_data(chosen, _inputs(), {}, Reporter(display), allow_changed=True)
    assert display.warnings == ["The training data has changed: the current epoch starts again on the new data."]


def _over(progress: Progress, **options: Any) -> str | None:
    chosen = _chosen(progress, **options)
    return resuming.check_unfinished(chosen, inputs_of(chosen.settings), SHAPE, progress, CPU)


def test_there_is_something_left_to_train() -> None:
    assert _over(_progress()) is None


def test_a_process_that_died_before_its_last_word_has_trained_it_all() -> None:
    assert _over(_progress(step=4, epoch=2, position=0)) == ALL_DONE


def test_a_finished_run_is_refused_with_the_way_to_train_on() -> None:
    with pytest.raises(RunError, match="run_003 is finished: step 4") as refused:
        _over(_progress(step=4, epoch=2, position=0), status="completed")
    assert "pitstop resume 3 --epochs" in str(refused.value.hint)


def test_a_run_that_ended_by_steps_needs_more_of_them_whatever_it_was_started_with() -> None:
    with pytest.raises(RunError, match="run_003 is finished: step 4") as refused:
        _over(_progress(step=4, epoch=2, position=0), status="completed", training__max_steps=4)
    assert str(refused.value.hint).endswith("pitstop resume 3 --max-steps 8")


def test_an_evaluation_that_was_put_off_is_something_left() -> None:
    assert _over(_progress(step=4, epoch=2, position=0, boundary_pending=True)) is None


def test_the_first_process_decides_since_the_record_changes_once_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "from_first", lambda produce, device: b"null")
    assert _over(_progress(step=4, epoch=2, position=0), status="completed") is None


def test_an_early_stop_is_made_up_for_unless_something_was_changed() -> None:
    progress = _progress(evaluations_without_improvement=3, best_value=1.0, best_step=1)
    reason = _over(progress, training__early_stopping_patience=3)
    assert reason is not None and reason.startswith("train_loss has not improved in 3 evaluations")
    changes = {"training.learning_rate": (1e-4, 1e-5)}
    assert _over(progress, training__early_stopping_patience=3, changes=changes) is None
    moved = {"model.id": ("/old/tiny", "/new/tiny")}
    assert _over(progress, training__early_stopping_patience=3, changes=moved) == reason


def test_processes_beyond_those_of_the_checkpoint_draw_streams_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(state, "load_optimizer", lambda optimizer, names, path: None)
    monkeypatch.setattr(state, "restore_rng", lambda path: torch.manual_seed(99))
    draws = []
    for rank in (0, 1, 2):
        engine: Any = FakeEngine()
        engine.accelerator.process_index = rank
        restore_rng = restore(engine, _chosen(_progress(learning_rate=0.25)))
        assert engine.raw_optimizer.param_groups[0]["lr"] == 0.25
        restore_rng()
        draws.append(float(torch.rand(())))
    torch.manual_seed(99)
    assert draws[0] == float(torch.rand(())), "the first goes on with the stream of the checkpoint"
    assert len(set(draws)) == 3
