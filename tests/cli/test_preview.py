"""``pitstop preview``: what is learnt, seen before anything is spent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch  # noqa: F401 - else the command would have this process do without it

from support.cli import Cli, pitstop_process
from support.json_lines import write_rows
from support.rating_files import write_movielens
from support.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model without its weights, which no preview looks at."""
    directory = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    (directory / "model.safetensors").unlink()
    return directory


PAIR = {"prompt": "Aspirin?", "completion": "Yes."}


def test_records_and_figures(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    data = write_rows(
        tmp_path / "a.jsonl", [PAIR, {"text": "One\ntwo."}, PAIR, {"prompt": "x"}, {**PAIR, "completion": "z" * 99}]
    )
    done = pitstop("preview", "--model-id", model, "--dataset", data, "--max-length", 64, "-n", 2)
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    assert "\n  line 1 · prompt+completion\n" in done.stdout
    assert "<|start|>user↵Aspirin?<|end|>↵<|start|>assistant↵⟦Yes.<|end|>⟧\n" in done.stdout
    assert "\n  line 2 · text\n" in done.stdout and "O⟦ne↵two.<|end|>⟧" in done.stdout and "line 3 ·" not in done.stdout
    assert re.search(r"records +5 = 3 used \+ 1 left out \+ 1 malformed\n", done.stdout)
    assert re.search(r"duplicates +1 example occurs more than once\n", done.stdout)
    assert re.search(r"33–64 +0  MAX_LENGTH = 64\n", done.stdout)
    assert "1 malformed row was left out: no known record shape; its fields: prompt" in done.stdout
    assert list(tmp_path.iterdir()) == [data] and not list(Path.cwd().iterdir())


def test_where_train_refuses_records_that_are_too_long_preview_says_so(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", [PAIR, {**PAIR, "completion": "z" * 99}])
    line = "train stops at the first record that is too long, since --too-long is refuse."
    for too_long, is_told in (("refuse", True), ("drop", False)):
        done = pitstop("preview", "--model-id", model, "--dataset", data, "--max-length", 64, "--too-long", too_long)
        assert done.code == 0 and (line in done.stdout) is is_told


def test_json_has_all_of_it(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", [PAIR, "{"])
    evaluation = write_rows(tmp_path / "b.jsonl", [PAIR, {**PAIR, "prompt": "?"}])
    done = pitstop("preview", "--model-id", model, "--dataset", train, "--eval-dataset", evaluation, "--json", "--ids")
    assert done.code == 0, done.stderr
    first, second = done.json()["data"]
    assert first["counts"]["records"] == {"read": 2, "used": 1, "left_out": 0, "malformed": 1}
    assert (first["in_training"], second["in_training"], second["evaluates"]) == (0, 1, True)
    parts = first["preview"][0]["examples"][0]["parts"]
    assert "".join(part["text"] for part in parts if part["learnt"]) == "Yes.<|end|>" and all("id" in part for part in parts)
    assert first["preview"][1]["malformed"].startswith("not valid JSON")


def test_ids_part_tokens(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    done = pitstop("preview", "--model-id", model, "--dataset", write_rows(tmp_path / "a.jsonl", [PAIR]), "--ids")
    assert re.search(r"<\|start\|> 0│use \d+│r \d+│↵ \d+│", done.stdout), done.stdout
    assert re.search(r"│⟦\w+ \d+│", done.stdout)


def test_one_record_in_full(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", [PAIR, {"prompt": "w" * 300, "completion": "v" * 300}])
    shortened = pitstop("preview", "--model-id", model, "--dataset", data)
    assert "tokens …" in shortened.stdout and "w" * 300 not in shortened.stdout
    done = pitstop("preview", "--model-id", model, "--dataset", data, "--record", 2)
    assert "w" * 300 in done.stdout and "v" * 300 in done.stdout and "line 1 ·" not in done.stdout
    done = pitstop("preview", "--model-id", model, "--dataset", data, "--record", 3)
    assert done.code == 2 and "--record 3: no data set has a record of that number." in done.stderr
    assert pitstop("preview", "--record", 3, "--odd").code == 2


def test_control_characters_of_data_never_reach_the_terminal(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", [{"prompt": "\x1b[2J\x07", "completion": "\u202e\x9b"}, {"\x1b[2Jx": "\x1b[2J"}])
    for options in ([], ["--odd"], ["--ids"], ["--record", 1], ["--json"]):
        done = pitstop("preview", "--model-id", model, "--dataset", data, *options)
        assert done.code == 0, options
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout), options


def test_it_starts_without_torch(model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", [PAIR])
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = pitstop_process("preview", "--model-id", model, "--dataset", data, env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 0 and done.stderr == "" and "⟦Yes.<|end|>⟧" in done.stdout


def test_entities_are_previewed_as_the_task_asks(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    row = {"text": "Aspirin for pain.", "entities": {"chemical": ["Aspirin"], "disease": ["pain"]}}
    done = pitstop("preview", "--task", "ner", "--model-id", model, "--dataset", write_rows(tmp_path / "a.jsonl", [row]))
    assert done.code == 0 and "example 2 of 2, " in done.stdout and "⟦- pain<|end|>⟧" in done.stdout
    assert re.search(r"examples +2: 1 record gives 2\n", done.stdout)


def test_preferences_show_the_prompt_once_and_both_answers(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    pair = {"prompt": "Aspirin?", "chosen": "Yes.", "rejected": "No."}
    data = write_rows(tmp_path / "a.jsonl", [pair, {**pair, "rejected": "Yes."}])
    shape = ("--model-id", model, "--dataset", data, "--shape", "preference")
    done = pitstop("preview", *shape)
    assert done.code == 0, done.stderr
    assert "\n  line 1 · prompt+chosen+rejected\n" in done.stdout
    assert (
        "    prompt    <|start|>user↵Aspirin?<|end|>↵<|start|>assistant↵\n"
        "    chosen    ⟦Yes.<|end|>⟧\n    rejected  ⟦No.<|end|>⟧\n"
    ) in done.stdout
    assert re.search(r"records +2 = 1 used \+ 0 left out \+ 1 malformed\n", done.stdout)
    assert re.search(r"answers +4 = 2 used \+ 0 left out \+ 2 malformed\n", done.stdout)
    assert "train refuses preference records" in done.stdout and "train stops" not in done.stdout
    parts = pitstop("preview", *shape, "--json").json()["data"][0]["preview"][0]["examples"][0]["parts"]
    assert [(part["part"], part["learnt"]) for part in parts] == [("prompt", False), ("chosen", True), ("rejected", True)]
    done = pitstop("preview", *shape[:-2])
    assert "2 malformed rows were left out: is a preference record" in done.stdout and "--column completion=chosen" in done.stdout


def test_rankings_too_and_images_not(pitstop: Cli, model: Path, tmp_path: Path) -> None:
    ratings = write_movielens(tmp_path / "ratings")
    done = pitstop("preview", "--task", "rank", "--model-id", model, "--dataset", ratings, "-n", 1)
    assert done.code == 0, done.stderr
    assert re.search(r"Answer with its letter\.<\|end\|>↵<\|start\|>assistant↵⟦[A-T]<\|end\|>⟧\n", done.stdout)
    assert re.search(r"answers +150 = 150 used \+ 0 left out \+ 0 malformed\n", done.stdout)
    done = pitstop("preview", "--task", "diffusion", "--dataset", "CIFAR10")
    assert done.code == 2 and "pitstop preview shows tokens, and the task diffusion learns images." in done.stderr
