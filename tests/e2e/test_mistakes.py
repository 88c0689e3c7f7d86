"""Mistakes a newcomer makes: one clear message, the right exit code, no traceback, no half-made run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.forked import Ended, pitstop
from support.training import arguments

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def base_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def _refused(ended: Ended, code: int, *words: str, base_dir: Path) -> None:
    assert ended.code == code, ended.output
    assert ended.output.count("error:") == 1, ended.output
    assert "Traceback" not in ended.output
    assert "a bug in pitstop" not in ended.output
    for word in words:
        assert word in ended.output, ended.output
    assert not list(base_dir.glob("run_*")), "a run was left behind"


MISTAKES: list[tuple[str, dict[str, Any], int, tuple[str, ...]]] = [
    ("no_such_model_directory", {"model_id": "./no-such-model"}, 3, ("no-such-model", "no such directory")),
    ("no_such_file", {"dataset": "trian.jsonl"}, 3, ("trian.jsonl", "no such file")),
    ("rank_negative", {"lora_rank": -1}, 2, ("--lora-rank", "-1", "1")),
    ("max_length_zero", {"max_length": 0}, 2, ("--max-length", "0", "8")),
    ("rate_is_a_word", {"learning_rate": "fast"}, 2, ("--learning-rate", "fast")),
    ("unknown_target_module", {"lora_target_modules": "q_porj"}, 2, ("q_porj", "q_proj")),
    ("unknown_metric", {"monitor": "val_f1"}, 2, ("val_f1", "val_loss")),
    ("fp16_on_the_cpu", {"use_fp16": True}, 2, ("USE_FP16",)),
    ("accuracy_minimised", {"monitor": "val_token_accuracy"}, 2, ("--mode max",)),
]


@pytest.mark.parametrize(("settings", "code", "words"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistake_in_a_setting(
    tiny_model: Path, data: Path, base_dir: Path, settings: dict[str, Any], code: int, words: tuple[str, ...]
) -> None:
    _refused(pitstop(*arguments(tiny_model, data, base_dir, **settings)), code, *words, base_dir=base_dir)


def test_output_directory_that_cannot_be_written(tiny_model: Path, data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, Path("/dev/null/runs")))
    _refused(ended, 2, "/dev/null/runs", "--base-dir", base_dir=base_dir)


def test_model_that_is_not_on_the_hub(data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(Path("nobody/no-such-model"), data, base_dir))
    _refused(ended, 3, "nobody/no-such-model", base_dir=base_dir)


def test_empty_data_set(tiny_model: Path, data: Path, base_dir: Path) -> None:
    (data / "train.jsonl").write_text("")
    _refused(pitstop(*arguments(tiny_model, data, base_dir)), 3, "train.jsonl", "empty", base_dir=base_dir)


@pytest.mark.parametrize("rest", ["", ', "n": ' + "9" * 5000 + "}", ', "n": ' + "[" * 100_000], ids=["cut", "digits", "depth"])
def test_wrong_json_on_line_seven_names_the_line(tiny_model: Path, data: Path, base_dir: Path, rest: str) -> None:
    lines = (data / "train.jsonl").read_text().splitlines()
    lines[6] = lines[6][:-1] + rest
    (data / "train.jsonl").write_text("\n".join(lines) + "\n")
    _refused(pitstop(*arguments(tiny_model, data, base_dir)), 3, "train.jsonl line 7", "--skip-bad-rows", base_dir=base_dir)
    ended = pitstop(*arguments(tiny_model, data, base_dir, max_steps=1), "--skip-bad-rows")
    assert ended.code == 0, ended.output
    assert "1 malformed row was left out" in ended.output


def test_misspelt_key_in_the_env_file_suggests_the_name(tiny_model: Path, data: Path, base_dir: Path, tmp_path: Path) -> None:
    env = tmp_path / "my.env"
    env.write_text("MAX_LENGTH=128\nLORA_RNAK=8\n")
    ended = pitstop(*arguments(tiny_model, data, base_dir), "--env-file", env)
    _refused(ended, 2, "LORA_RNAK", "LORA_RANK", "line 2", base_dir=base_dir)


def test_misspelt_flag_suggests_the_flag(tiny_model: Path, data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir), "--lora-rnak", 8)
    _refused(ended, 2, "--lora-rnak", "--lora-rank", base_dir=base_dir)


def test_absent_run_says_what_is_there(base_dir: Path) -> None:
    _refused(pitstop("resume", 99, "--base-dir", base_dir), 2, "99", base_dir=base_dir)


def test_everything_too_long_says_so(tiny_model: Path, data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir, max_length=8))
    _refused(ended, 3, "longer than MAX_LENGTH", base_dir=base_dir)


def test_model_without_data_says_what_is_missing(tiny_model: Path, base_dir: Path) -> None:
    ended = pitstop("train", "--model-id", tiny_model, "--base-dir", base_dir)
    _refused(ended, 2, "--dataset", base_dir=base_dir)


def test_taken_run_number_points_at_resume(tiny_model: Path, data: Path, base_dir: Path) -> None:
    assert pitstop(*arguments(tiny_model, data, base_dir, max_steps=1)).code == 0
    ended = pitstop(*arguments(tiny_model, data, base_dir, run_number=1))
    assert ended.code == 2
    assert "pitstop resume --run-number 1" in ended.output
    assert [p.name for p in base_dir.glob("run_*")] == ["run_001"]
