"""Opening a recorded checkpoint: under which settings, with what in front of it, and on which base."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, ModelError, SettingsError
from pitstop.trainers.machine.device import Precision
from pitstop.trainers.models.source import KnownBase, NoModel
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.chosen import ChosenCheckpoint, find_base, open_checkpoint, settings_of, start_settings
from support.displays import Lines

FLOAT32 = Precision(torch.float32, "no")


@pytest.fixture
def run(golden_run: RunDirectory) -> RunDirectory:
    return golden_run


def _open(run: RunDirectory, checkpoint: str = "best", **flags: Any) -> ChosenCheckpoint:
    return open_checkpoint(run, run.store.resolve(checkpoint), {path.replace("__", "."): value for path, value in flags.items()})


def test_a_checkpoint_has_the_settings_it_was_saved_under_and_no_changes(run: RunDirectory) -> None:
    chosen = _open(run, "checkpoint-3")
    assert (chosen.label, chosen.info.step, chosen.trainer_state["progress"]["step"]) == ("run_001@checkpoint-3", 3, 3)
    assert (chosen.settings.lora.rank, chosen.settings.training.ema_decay) == (2, 0.9)
    assert chosen.settings.training.checkpoint.base_dir == str(run.base_dir), "where it lies now, not where it lay"
    assert not chosen.changes and chosen.whole_model() is None
    assert chosen.known_base == KnownBase(None)


def test_a_run_of_an_earlier_version_keeps_the_first_rendering_and_the_day_of_its_start(run: RunDirectory) -> None:
    chosen = _open(run)
    assert chosen.settings.data.rendering == 1 and chosen.settings.data.template_date is None
    assert chosen.started_on == date.fromisoformat(str(run.metadata().created_at)[:10])
    content = json.loads((run.path / "metadata.json").read_text(encoding="utf-8"))
    (run.path / "metadata.json").write_text(json.dumps({**content, "created_at": "?"}), encoding="utf-8")
    assert chosen.started_on == chosen.info.saved_at.date(), "as far as can be told"


def test_a_flag_is_a_change_with_the_value_before_and_the_one_now(run: RunDirectory) -> None:
    chosen = _open(run, training__learning_rate=0.5)
    assert chosen.changes == {"training.learning_rate": (0.01, 0.5)}
    assert chosen.settings.training.learning_rate == 0.5


def test_a_flag_that_would_make_another_model_is_refused(run: RunDirectory) -> None:
    with pytest.raises(SettingsError, match="--lora-rank cannot change in a resumed run"):
        _open(run, lora__rank=4)


def test_what_is_on_record_of_the_base_holds_for_the_model_it_names_alone(run: RunDirectory) -> None:
    assert _open(run, model__id="model").known_base is None, "whoever names a model means what lies there"
    shutil.copytree("model", "elsewhere")
    assert _open(run, model__id="elsewhere").known_base is None


def test_the_settings_of_a_run_are_loaded_where_it_lies_now_with_flags_over_them(run: RunDirectory) -> None:
    loaded = settings_of(run, start_settings(run), "config.json", {"training.epochs": 7}, None)
    assert (loaded.settings.training.epochs, loaded.settings.training.batch_size) == (7, 1)
    assert loaded.settings.training.checkpoint.base_dir == str(run.base_dir)


def test_a_forged_state_is_refused_when_it_is_opened(run: RunDirectory) -> None:
    info = run.store.resolve("best")
    (info.path / "rng_state_0.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"rng_state_0\.json"):
        open_checkpoint(run, info)


def test_the_base_is_the_runs_own_copy_where_every_byte_of_it_is_there(run: RunDirectory) -> None:
    display, chosen = Lines(), _open(run)
    shutil.rmtree("model")
    base = find_base(chosen, FLOAT32, Reporter(display).notice)
    assert base.stored and base.digest == chosen.base_digest and (base.path / "model.safetensors").is_file()
    assert not display.warnings


def test_a_damaged_copy_is_passed_over_for_the_source_with_a_warning(run: RunDirectory) -> None:
    display, chosen = Lines(), _open(run)
    _damage(chosen)
    base = find_base(chosen, FLOAT32, Reporter(display).notice)
    assert not base.stored and base.path.resolve() == Path("model").resolve() and base.digest == chosen.base_digest
    assert "The base is taken from its source, model." in display.warnings[0]


def test_a_source_that_has_changed_is_not_the_base(run: RunDirectory) -> None:
    chosen = _open(run)
    _damage(chosen)
    _flip_last_byte(Path("model/model.safetensors"))
    with pytest.raises(ModelError, match="is not the one that run_001@epoch_002 was trained on"):
        find_base(chosen, FLOAT32, Reporter(Lines()).notice)


def test_where_copy_and_source_are_gone_the_hint_says_how_to_name_another_place(run: RunDirectory) -> None:
    chosen = _open(run)
    _damage(chosen)
    shutil.rmtree("model")
    with pytest.raises(NoModel) as caught:
        find_base(chosen, FLOAT32, Reporter(Lines()).notice)
    assert "--model-id PATH gives the new place" in str(caught.value.hint)


def _damage(chosen: ChosenCheckpoint) -> None:
    """Both what the run links to and what runs share, which is one file where links are kept."""
    copies = [chosen.run.path / "base_model", chosen.run.base_dir / ".base_models" / chosen.base_digest]
    for path in {(copy / "model.safetensors").stat().st_ino: copy / "model.safetensors" for copy in copies}.values():
        _flip_last_byte(path)


def _flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
