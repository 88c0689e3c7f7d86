"""What a run is that takes the place of one that cannot be resumed."""

from __future__ import annotations

from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.trainers.training.request import ResumeRequest
from pitstop.trainers.training.resuming import start_again


def test_a_new_run_in_place_of_an_old_one_has_its_settings_and_the_present_rendering(golden_run: RunDirectory) -> None:
    loaded = start_again(ResumeRequest(str(golden_run.base_dir), str(golden_run.number), flags={"training.epochs": 7}))
    settings = loaded.settings
    assert (settings.training.epochs, settings.lora.rank) == (7, 2)
    assert settings.data.rendering == 2
    assert settings.training.checkpoint.run_number is None
