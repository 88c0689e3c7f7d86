from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.checkpointing.disk import layout
from pitstop.configs.errors import RunError


@given(st.integers(1, 999_999_999))
def test_numbers_and_directory_names_are_one_to_one(number: int) -> None:
    assert layout.run_number(layout.run_directory_name(number)) == number


@pytest.mark.parametrize(
    "name", ["run_1", "run_0001", "run_", "run_abc", "xrun_001", "run_001x", "run_001\n", "run_٠٠١", "RUN_001"]
)
def test_other_directories_are_no_runs(name: str) -> None:
    assert layout.run_number(name) is None


@given(st.integers(0, 999_999))
def test_checkpoint_names_are_recognised(number: int) -> None:
    assert layout.is_checkpoint_name(layout.epoch_name(number))
    assert layout.is_checkpoint_name(layout.step_name(number))
    assert not layout.is_checkpoint_name(f"checkpoint-0{number}")


@pytest.mark.parametrize(
    ("text", "group", "number", "name", "path", "checkpoint"),
    [
        ("3", "", 3, None, None, None),
        ("003", "", 3, None, None, None),
        ("run_003", "", 3, None, None, None),
        ("3@best", "", 3, None, None, "best"),
        ("run_003@epoch_3", "", 3, None, None, "epoch_003"),
        ("base_training/1", "base_training", 1, None, None, None),
        ("base_training/run_001@last", "base_training", 1, None, None, "last"),
        ("phi3-minimal-20240914", "", None, "phi3-minimal-20240914", None, None),
        ("a-name@checkpoint-100", "", None, "a-name", None, "checkpoint-100"),
        ("checkpoints/run_003", "", None, None, Path("checkpoints/run_003"), None),
        ("./run_003", "", None, None, Path("run_003"), None),
        ("/a@b/run_003", "", None, None, Path("/a@b/run_003"), None),
    ],
)
def test_references_are_read(
    text: str, group: str, number: int | None, name: str | None, path: Path | None, checkpoint: str | None
) -> None:
    ref = layout.parse_run_ref(text)
    assert (ref.group, ref.number, ref.name, ref.path, ref.checkpoint) == (group, number, name, path, checkpoint)


@pytest.mark.parametrize("text", ["", "  ", "@best", "3@"])
def test_references_to_nothing_are_refused(text: str) -> None:
    with pytest.raises(RunError):
        layout.parse_run_ref(text)
