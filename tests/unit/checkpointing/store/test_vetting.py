from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.store.vetting import check_optimizer_meta, check_settings
from pitstop.configs.errors import CheckpointError

META: dict[str, Any] = {"class": "AdamW", "groups": [{"lr": 0.1}], "scalars": {"w": {"step": 3}}, "tensors": ["w::exp_avg"]}


def test_settings_of_a_run_may_be_checked_on_their_own_or_against_its_start() -> None:
    settings = {"training": {"epochs": 3, "method": "lora"}, "model": {"id": "tiny"}}
    check_settings(settings, "a file")
    check_settings(settings, "a file", settings, lambda path: True)
    longer = {**settings, "training": {"epochs": 5, "method": "lora"}}
    check_settings(longer, "a file", settings, lambda path: path != "training.epochs")
    with pytest.raises(CheckpointError, match=r"a file: training\.epochs is 5, the run was started with 3 \(config\.json\)"):
        check_settings(longer, "a file", settings, lambda path: True)
    with pytest.raises(CheckpointError, match=r"a file: the setting model\.id is missing"):
        check_settings({"training": settings["training"]}, "a file", settings)
    with pytest.raises(CheckpointError, match=r"^config\.json: 'training\.epoch' is not a setting"):
        check_settings(settings, "a file", {"training": {"epoch": 3}})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([], "it holds no settings"),
        ({"training": 3}, "training holds no settings"),
        ({"training": {"epoch": 3}}, "'training.epoch' is not a setting"),
        ({"training": {"epochs": "3"}}, r"training\.epochs is '3'"),
        ({"training": {"epochs": True}}, r"training\.epochs is True"),
        ({"training": {"learning_rate": float("nan")}}, r"training\.learning_rate: "),
        ({"data": {"train": ["a", 3]}}, r"data\.train is \['a', 3\]"),
        ({"hub": {"token": "hf_secret"}}, r"hub\.token is a secret, which no run may hold"),
    ],
)
def test_settings_that_pitstop_would_not_have_written_are_refused(settings: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^a file: {reason}"):
        check_settings(settings, "a file")


def test_a_description_of_an_optimizer_is_whole_or_none() -> None:
    path = Path("optimizer.json")
    assert check_optimizer_meta(META, path) is META
    odd: list[Any] = [None, {**META, "more": 1}, {**META, "class": 3}, {**META, "tensors": [1]}, {**META, "scalars": {"w": 3}}]
    for meta in [*odd, {**META, "groups": [3]}]:
        with pytest.raises(CheckpointError, match=r"optimizer\.json does not describe an optimizer"):
            check_optimizer_meta(meta, path)
