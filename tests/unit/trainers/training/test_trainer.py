"""A prepared training, run to its end: what is put on record and said, for each way in which it can end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pitstop.configs.errors import ResourceError
from pitstop.trainers.loop.loop import ALL_DONE
from pitstop.trainers.training.prepare import Prepared
from pitstop.trainers.training.trainer import Trainer
from support.displays import Lines
from support.fake_training import FakeEngine, FakePusher, prepared

PER_EPOCH = {"training__checkpoint__strategy": "epoch", "training__checkpoint__monitor": "train_loss"}


def _names(preparation: Prepared) -> list[str]:
    assert preparation.run is not None
    return [info.name for info in preparation.run.store.list()]


def test_a_training_to_the_end_is_on_record(tmp_path: Path) -> None:
    display, engine = Lines(), FakeEngine()
    preparation = prepared(tmp_path, engine=engine, display=display, **PER_EPOCH)
    result = Trainer(preparation).run()
    assert engine.steps == 4, "four examples, two a step, two epochs"
    assert result.exit_code == 0
    run = preparation.run
    assert run is not None
    metadata = run.metadata()
    assert (metadata.status, metadata.status_reason) == ("completed", ALL_DONE)
    assert metadata.progress.total_steps == 4
    assert _names(preparation) == ["epoch_001", "epoch_002"]
    summary = dict(result.summary)
    assert [save["step"] for save in summary.pop("saves")] == [2, 4]
    assert summary.pop("best_checkpoint")["name"] in ("epoch_001", "epoch_002")
    assert summary == {
        "run_number": 1,
        "name": run.name,
        "path": str(run.path),
        "status": "completed",
        "reason": ALL_DONE,
        "step": 4,
        "total_steps": 4,
        "checkpoints": ["epoch_001", "epoch_002"],
        "hub": None,
    }
    assert "8 trainable parameters (100.00 %)" in display.text
    assert "2 steps an epoch, 4 in all" in display.text
    assert "Done after step 4 of 4 in " in display.text
    assert "Training waited" in display.text and "for 2 saves" in display.text
    assert any(line.startswith("Best: epoch_00") and "(2.0000)" in line for line in display.lines)


def test_evaluations_are_what_the_best_is_chosen_by(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, evaluates=True, training__checkpoint__monitor="val_loss")
    result = Trainer(preparation).run()
    assert result.summary["best_checkpoint"]["name"] == "epoch_002"
    assert preparation.progress.best_value == pytest.approx(1 / 5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_stops_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    def interrupt(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), number)

    display, handler = Lines(), signal.getsignal(number)
    preparation = prepared(tmp_path, engine=FakeEngine(at_step=interrupt), display=display, **PER_EPOCH)
    result = Trainer(preparation).run()
    assert (result.exit_code, result.summary["status"], result.summary["step"]) == (code, "interrupted", 3)
    assert preparation.run is not None and preparation.run.store.list()[-1].step == 3
    assert "Stopped after step 3 of 4" in display.text and "Go on with: pitstop resume 1" in display.text
    assert signal.getsignal(number) is handler


def test_early_stopping_is_a_reason_of_its_own(tmp_path: Path) -> None:
    display = Lines()
    preparation = prepared(tmp_path, display=display, training__epochs=9, training__early_stopping_patience=1, **PER_EPOCH)
    result = Trainer(preparation).run()
    assert result.exit_code == 0 and result.summary["status"] == "stopped"
    assert result.summary["reason"].startswith("train_loss has not improved in 1 evaluations")
    assert f"Stopped early: {result.summary['reason']} after step 4 of 18" in display.text


@pytest.mark.parametrize(("reason", "status"), [(ALL_DONE, "completed"), ("val_loss has not improved", "stopped")])
def test_where_an_earlier_process_trained_it_all_only_the_record_is_made_up_for(tmp_path: Path, reason: str, status: str) -> None:
    engine = FakeEngine()
    preparation = prepared(tmp_path, engine=engine, fields={"over": reason}, **PER_EPOCH)
    assert Trainer(preparation).run().exit_code == 0
    assert preparation.run is not None
    metadata = preparation.run.metadata()
    assert (engine.steps, metadata.status, metadata.status_reason) == (0, status, reason)


def test_out_of_memory_tells_what_to_turn_and_where_to_go_on(tmp_path: Path) -> None:
    def fail(step: int) -> None:
        if step == 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB\nand more")

    preparation = prepared(tmp_path, engine=FakeEngine(at_step=fail), **PER_EPOCH)
    with pytest.raises(ResourceError, match=r"^Out of memory at step 3: CUDA out of memory") as refused:
        Trainer(preparation).run()
    assert "--batch-size 1 --gradient-accumulation-steps 2" in str(refused.value.hint)
    assert "pitstop resume 1 with one of these goes on from epoch_001" in str(refused.value.hint)


def test_out_of_memory_before_the_first_checkpoint_has_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as refused:
        Trainer(prepared(tmp_path, engine=FakeEngine(fits=0))).run()
    assert "Run 1 has no checkpoint yet: start again with pitstop train" in str(refused.value.hint)


def test_another_error_comes_through_with_the_save_under_way_finished(tmp_path: Path) -> None:
    def fail(step: int) -> None:
        if step == 3:
            raise ValueError("a bug")

    preparation = prepared(tmp_path, engine=FakeEngine(at_step=fail), **PER_EPOCH)
    with pytest.raises(ValueError, match="a bug"):
        Trainer(preparation).run()
    assert _names(preparation) == ["epoch_001"]


def test_smaller_batches_are_told_recorded_and_in_later_checkpoints(tmp_path: Path) -> None:
    display, engine = Lines(), FakeEngine(fits=1)
    preparation = prepared(tmp_path, engine=engine, display=display, training__auto_batch_size=True, **PER_EPOCH)
    Trainer(preparation).run()
    assert engine.shapes == [1, 1, 1, 1]
    assert len(display.warnings) == 1
    assert "Memory ran out at step 1: going on with --batch-size 1 --gradient-accumulation-steps 2" in display.warnings[0]
    assert preparation.run is not None
    changes = preparation.run.metadata().batch_size_changes
    assert list(changes) == [{"step": 1, "batch_size": [2, 1], "gradient_accumulation_steps": [1, 2]}]
    info = preparation.run.store.list()[-1]
    assert b'"batch_size": 1' in (info.path / "trainer_state.json").read_bytes()


def test_a_process_beside_the_first_writes_and_says_nothing(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, is_main=False)
    result = Trainer(preparation).run()
    assert (result.exit_code, result.summary) == (0, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_hub_is_woken_by_each_save_and_waited_for_at_the_end(tmp_path: Path, interrupted: bool) -> None:
    def interrupt(step: int) -> None:
        if interrupted and step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    pusher = FakePusher()
    preparation = prepared(tmp_path, engine=FakeEngine(at_step=interrupt), fields={"pusher": pusher}, **PER_EPOCH)
    result = Trainer(preparation).run()
    assert pusher.calls == ["wake", "wake", ("finish", not interrupted)]
    assert result.summary["hub"] == {"repo": "me/a-run", "left": []}


def test_making_a_trainer_draws_no_random_number(tmp_path: Path) -> None:
    preparation: Any = prepared(tmp_path, evaluates=True)
    before = torch.get_rng_state()
    Trainer(preparation)
    assert torch.equal(torch.get_rng_state(), before)


def test_time_and_memory_of_all_processes_that_trained_a_run_are_on_record(tmp_path: Path) -> None:
    def die(step: int) -> None:
        assert step != 4, "killed"

    preparation = prepared(tmp_path, engine=FakeEngine(at_step=die), **PER_EPOCH)
    run = preparation.run
    assert run is not None
    run.update_metadata({"usage": {"training_s": 100.0, "peak_memory_bytes": 1 << 50}})
    first = Trainer(preparation)
    first.usage._started -= 20.0
    with pytest.raises(AssertionError, match="killed"):
        first.run()
    usage = run.metadata().usage
    assert usage.training_s == pytest.approx(120.0, abs=10.0), "as of its last checkpoint"
    assert usage.peak_memory_bytes == 1 << 50, "what an earlier process held"
    run.update_metadata({"usage": {"training_s": 100.0}})
    second = Trainer(prepared(tmp_path, fields={"run": run}, **PER_EPOCH))
    second.usage._started -= 20.0
    second.saver.target = None
    second.run()
    assert run.metadata().usage.training_s == pytest.approx(120.0, abs=10.0), "as of its end"
    assert 10 << 20 < (run.metadata().usage.peak_memory_bytes or 0) < 1 << 50
