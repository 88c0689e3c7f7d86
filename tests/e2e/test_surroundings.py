"""Variables of the environment that would change a training, or keep it from speaking, and are none of its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forked import pitstop
from support.training import arguments, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")
SHORT = {"method": "lora", "max_steps": 2, "no_packing": True}


def _with(variables: dict[str, str]) -> Callable[[], None]:
    return lambda: os.environ.update(variables)


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of the training without any of them."""
    from support.tiny_model import write_data

    home = tmp_path_factory.mktemp("plain")
    ended = pitstop(*arguments(tiny_model, write_data(home, 12, 4), home, **SHORT))
    assert ended.code == 0, ended.output
    return rows(home / "run_001")


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "3"},
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": "auto", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"},
        {"LOCAL_RANK": "auto"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        {"ACCELERATE_TORCH_DEVICE": "meta"},
    ],
    ids=str,
)
def test_a_training_is_the_one_of_its_settings_and_says_what_it_ignores(
    variables: dict[str, str], plain: list[dict[str, Any]], tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **SHORT), prepare=_with(variables))
    assert ended.code == 0, ended.output
    (line,) = [line for line in ended.output.splitlines() if "ignored" in line]
    assert all(f"{name}={value}" in line for name, value in variables.items() if name != "MASTER_ADDR")
    assert rows(tmp_path / "run_001") == plain
    assert metadata(tmp_path / "run_001")["environment"]["world_size"] == 1
    (notice,) = metadata(tmp_path / "run_001")["notices"]
    assert notice["loss"] and all(
        f"{name}={value}" in notice["subject"] for name, value in variables.items() if name != "MASTER_ADDR"
    )


def test_an_error_is_told_whatever_rank_says(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    words = arguments(tiny_model, data, tmp_path, **SHORT, dataset=data / "nowhere.jsonl")
    ended = pitstop(*words, prepare=_with({"RANK": "3"}))
    assert ended.code == 3 and "error:" in ended.output and "nowhere.jsonl" in ended.output


def test_other_tools_names_in_env_are_passed_on_and_told_once(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    Path(".env").write_text("KAGGLE_KEY=k\nDEBUG=1\n", encoding="utf-8")
    seen = tmp_path / "seen"

    def prepare() -> None:
        from pitstop.trainers.training import worker

        train = worker.train

        def noting(*arguments: Any, **named: Any) -> Any:
            seen.write_text(os.environ["KAGGLE_KEY"] + os.environ["DEBUG"])
            return train(*arguments, **named)

        worker.train = noting

    ended = pitstop(*arguments(tiny_model, data, tmp_path, **SHORT), prepare=prepare)
    assert ended.code == 0, ended.output
    assert ended.output.count("KAGGLE_KEY, DEBUG") == 1
    assert seen.read_text() == "k1"
    (notice,) = metadata(tmp_path / "run_001")["notices"]
    assert (notice["subject"], notice["count"]) == ("KAGGLE_KEY, DEBUG", 2)
    line = ".env: passed on, since they are no settings of Pitstop: KAGGLE_KEY, DEBUG."
    assert line in pitstop("show", "1", "--base-dir", str(tmp_path)).output
    planned = pitstop("plan", "--json", *arguments(tiny_model, data, tmp_path, **SHORT)[1:])
    assert json.loads(planned.output[planned.output.index("{") :])["notices"] == [notice]


def test_a_base_directory_that_is_a_dangling_link_is_told_before_training(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    ended = pitstop(*arguments(tiny_model, data, tmp_path / "runs", **SHORT))
    assert ended.code == 2
    assert f"runs is a link to {tmp_path}/nowhere, which is not there" in ended.output
    assert "File exists" not in ended.output


@pytest.mark.parametrize("name", ["HOME", "HF_HOME"])
def test_a_table_needs_no_cache_that_can_be_written(name: str, tmp_path: Path) -> None:
    """In a process of its own: libraries choose their caches when they are imported."""
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "train.parquet")
    (tmp_path / "file").touch()
    program = (
        "import sys\nfrom pitstop.configs.errors import DataError\nfrom pitstop.trainers.data.files.places import read_records\nfrom pitstop.trainers.data.records import BadRows\n"
        "try:\n    print(sum(1 for _ in read_records(sys.argv[1], BadRows(skip=False))))\nexcept DataError as error:\n    print(error.hint)"
    )
    environment = {
        key: value for key, value in os.environ.items() if key not in ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "train.parquet"],
        env={**environment, name: str(tmp_path / "file/below")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2\n", done.stdout
