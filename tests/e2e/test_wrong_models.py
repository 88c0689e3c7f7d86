"""A model that is not the one that was named: every way in which its directory can be wrong, in every command that opens it.

The table of docs/troubleshooting.md is made of the same cells.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forked import Ended, pitstop
from support.own_process import in_child
from support.tiny_model import make_tiny_model, write_data
from support.training import arguments, metadata
from support.wrong_models import WAYS, change_tensors, renamed, without, wrong_model

pytestmark = pytest.mark.usefixtures("warm")

COMMANDS = ("train", "plan", "resume", "generate", "evaluate", "export")
FIRST = COMMANDS[:3]
"""Those that look into the files before anything is loaded. The others hold the base against what the run was trained on."""

CHANGED = (3, "its files have changed")
CELLS: dict[str, tuple[int, str]] = {
    "foreign prefix": (3, "21 of 21 tensors are missing"),
    "one tensor missing": (3, "1 of 21 tensors is missing"),
    "wrong shape": (3, "is [32, 16] and should be [16, 16]"),
    "untied without head": (3, "1 of 21 tensors is missing (lm_head.weight)"),
    "other architecture": (3, "are not those of a Qwen2ForCausalLM"),
    "half-copied shard": (3, "the file has"),
    "index without shard": (3, "1 of them is missing"),
    "quantised unasked": (3, "is stored quantised (bitsandbytes)"),
    "tokenizer too large": (3, "320 tokens and the model's embeddings 262 rows"),
    "positions too few": (2, "more than the 16 positions"),
    "adapter in place of a base": (3, "holds an adapter"),
    "empty file": (3, "0 bytes are too few"),
}
ALWAYS = {"quantised unasked", "adapter in place of a base"}
"""What config.json or the names of the files say is refused in every command."""

SETTINGS: dict[str, Any] = {"method": "lora", "lora_dropout": 0.0, "max_steps": 2, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def home(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, data, and a run that has no copy of its base: it needs the model where it was."""
    directory = tmp_path_factory.mktemp("wrong")
    in_child(lambda: str(make_tiny_model(directory / "good", hidden=16)))
    shutil.copytree(directory / "good", directory / "model")
    write_data(directory / "data", 12, 4)
    ended = pitstop(*train(directory, directory / "runs"), "--no-save-base-model")
    assert ended.code == 0, ended.output
    return directory


@pytest.fixture
def other(home: Path, tmp_path: Path) -> Path:
    """A place with the same data and a copy of the model that is right, and no run yet."""
    directory = tmp_path / "home"
    directory.mkdir()
    (directory / "data").symlink_to(home / "data")
    shutil.copytree(home / "good", directory / "model")
    return directory


@pytest.fixture(scope="module")
def model_that_is(home: Path) -> Callable[[str], None]:
    """Makes the model wrong in a way, at the place that the run knows."""
    made: list[str] = []

    def become(way: str) -> None:
        if made != [way]:
            shutil.rmtree(home / "model")
            in_child(lambda: str(wrong_model(home / "good", home / "model", way)))
            made[:] = [way]

    return become


def train(home: Path, base_dir: Path, **settings: Any) -> list[str]:
    return arguments(home / "model", home / "data", base_dir, **{**SETTINGS, **settings})


def call(command: str, home: Path, scratch: Path) -> Ended:
    """``command`` on the model, or on the run that was trained on it."""
    words: dict[str, list[object]] = {
        "train": [*train(home, scratch / "new")],
        "plan": ["plan", *train(home, scratch / "new")[1:]],
        "resume": ["resume", 1, "--base-dir", home / "runs", "--max-steps", 4],
        "generate": ["generate", 1, "--base-dir", home / "runs", "--prompt", "Case 1", "--max-new-tokens", 2],
        "evaluate": ["evaluate", 1, "--base-dir", home / "runs"],
        "export": ["export", 1, "--base-dir", home / "runs", "--format", "merged", "--output", scratch / "merged"],
    }
    return pitstop(*words[command])


@pytest.mark.by_turns("command")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_model_is_refused(
    home: Path, model_that_is: Callable[[str], None], tmp_path: Path, way: str, command: str
) -> None:
    model_that_is(way)
    ended = call(command, home, tmp_path)
    code, words = CELLS[way] if command in FIRST or way in ALWAYS else CHANGED
    assert ended.code == code and words in ended.output, ended.output
    assert ended.output.count("error:") == 1 and "hint:" in ended.output and "Traceback" not in ended.output
    assert not list(tmp_path.glob("new/run_*")) and not list(tmp_path.glob("new/.base_models/*/")), "something was stored"
    assert not (tmp_path / "merged").exists()


def test_the_table_in_the_docs_is_that_of_the_cells(repository: Path) -> None:
    text = (repository / "docs/troubleshooting.md").read_text(encoding="utf-8")
    rows = {cells[0]: cells[1:] for cells in map(_cells, text.splitlines()) if cells and cells[0] in WAYS}
    assert rows.keys() == WAYS.keys() == CELLS.keys()
    for way, (first, later) in rows.items():
        for cell, (code, words) in ((first, CELLS[way]), (later, CELLS[way] if way in ALWAYS else CHANGED)):
            assert cell.startswith(f"{code}: ") and words in cell, (way, cell)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


# Runs of earlier versions, which trained on random weights without a word


@pytest.mark.parametrize("way", ["foreign prefix", "untied without head", "one tensor missing"])
@pytest.mark.by_turns("command")
@pytest.mark.parametrize("command", COMMANDS[2:])
@pytest.mark.parametrize("copy", [[], ["--no-save-base-model"]], ids=["its own copy", "no copy"])
def test_a_run_on_random_weights_is_not_used_again(other: Path, tmp_path: Path, way: str, command: str, copy: list[str]) -> None:
    in_child(lambda: WAYS[way](other / "model"))
    ended = pitstop(*train(other, other / "runs"), *copy, prepare=as_earlier_versions)
    assert ended.code == 0, ended.output
    ended = call(command, other, tmp_path)
    code, words = CELLS[way]
    assert ended.code == code and words in ended.output, ended.output
    assert ("stored with random weights" in ended.output) == (not copy and command != "resume")
    assert not (tmp_path / "merged").exists()


def as_earlier_versions() -> None:
    """Let everything be loaded, whatever it is."""
    from pitstop.trainers.models import fit

    without_headers()
    fit.Fit.check = lambda *arguments: None  # type: ignore[method-assign]


def test_a_whole_copy_of_the_base_serves_what_was_trained_on_it(other: Path, tmp_path: Path) -> None:
    """Answers and scores come from the run's own copy. A resume looks at the model too: what it was made from may be what is wrong."""
    assert pitstop(*train(other, other / "runs")).code == 0
    in_child(lambda: without("model.norm.weight")(other / "model"))
    assert call("generate", other, tmp_path).code == 0
    ended = call("resume", other, tmp_path)
    assert ended.code == 3 and "model.norm.weight" in ended.output, ended.output
    shutil.rmtree(other / "model")
    assert call("resume", other, tmp_path).code == 0


def test_a_quantised_model_does_not_stop_the_resume_of_a_run_with_a_copy_of_its_base(other: Path, tmp_path: Path) -> None:
    """Earlier versions trained on such models, and the copy is what was trained on."""
    assert pitstop(*train(other, other / "runs", method="qlora")).code == 0
    WAYS["quantised unasked"](other / "model")
    ended = call("resume", other, tmp_path)
    assert ended.code == 0 and "is stored quantised: the run's own copy of it is used" in ended.output, ended.output


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_no_method_trains_on_weights_that_are_missing(other: Path, method: str) -> None:
    """Even if nobody had looked at the headers."""
    in_child(lambda: renamed("module.")(other / "model"))
    ended = pitstop(*train(other, other / "runs", method=method), prepare=without_headers)
    assert ended.code == 3 and "'module.' in them" in ended.output, ended.output
    assert not list((other / "runs").rglob("*.safetensors")), "random weights were stored"


def without_headers() -> None:
    from pitstop.trainers.models import causal_lm

    causal_lm.check_weights = lambda *arguments: None  # type: ignore[assignment]


def test_what_is_not_used_is_told_by_whatever_reads_the_model(other: Path, tmp_path: Path) -> None:

    def add() -> None:
        import torch

        change_tensors(other / "model", lambda t: {**t, "value_head.weight": torch.zeros(1, 16)})

    in_child(add)
    words = "1 tensor in the weights of"
    for command in ("plan", "train"):
        ended = call(command, other, tmp_path)
        assert ended.code == 0 and ended.output.count(words) == 1 and "value_head.weight" in ended.output, ended.output
    assert pitstop(*train(other, other / "runs"), "--no-save-base-model").code == 0
    ended = call("generate", other, tmp_path)
    assert ended.code == 0 and ended.output.count(words) == 1, ended.output


def test_prompts_and_records_with_a_token_that_has_no_row_are_refused(other: Path, tmp_path: Path) -> None:
    path = other / "model/tokenizer.json"
    content = json.loads(path.read_text())
    extra = {"id": 320, "content": "<image>", "special": True}
    content["added_tokens"].append({**content["added_tokens"][0], **extra})
    path.write_text(json.dumps(content))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Case 1\nWhat is <image>?\n")
    ended = pitstop(*train(other, other / "runs", sample_prompts=prompts))
    assert ended.code == 3 and "'<image>', which occurs in prompt 2 of SAMPLE_PROMPTS" in ended.output, ended.output
    ended = pitstop(*train(other, other / "runs"))
    assert ended.code == 0 and "1 token of the tokenizer has no row" in ended.output, ended.output
    assert metadata(other / "runs/run_001")["status"] == "completed"
    ended = pitstop("generate", 1, "--base-dir", other / "runs", "--prompt", "an <image>", "--max-new-tokens", 2)
    assert ended.code == 3 and "320 rows: '<image>', which occurs in prompt 1" in ended.output, ended.output
    records = tmp_path / "pictures.jsonl"
    records.write_text(json.dumps({"prompt": "What is it?", "completion": "<image> of it"}) + "\n")
    ended = pitstop("evaluate", 1, "--base-dir", other / "runs", "--dataset", records)
    assert ended.code == 3 and "320 rows: '<image>', which occurs in the data" in ended.output, ended.output
