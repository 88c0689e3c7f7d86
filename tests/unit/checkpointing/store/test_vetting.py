"""Settings in the files of a run."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.checkpointing.store.vetting import check_settings
from pitstop.configs.errors import CheckpointError

OLD_CONFIG: dict[str, Any] = {"training": {"epochs": 3, "checkpoint": {"enabled": True, "strategy": "epoch"}}}


def test_a_checkpoint_need_not_hold_the_alias_that_earlier_versions_wrote_into_config_json() -> None:
    check_settings(OLD_CONFIG, "trainer_state.json", OLD_CONFIG)
    check_settings({"training": {"epochs": 3, "checkpoint": {"strategy": "epoch"}}}, "trainer_state.json", OLD_CONFIG)
    with pytest.raises(CheckpointError, match=r"training\.epochs is missing"):
        check_settings({"training": {"checkpoint": {"strategy": "epoch"}}}, "trainer_state.json", OLD_CONFIG)


def test_the_alias_is_checked_where_it_stands() -> None:
    with pytest.raises(CheckpointError, match=r"training\.checkpoint\.enabled"):
        check_settings({"training": {"checkpoint": {"enabled": "yes"}}}, "config.json")
