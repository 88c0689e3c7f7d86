"""The examples train as they are, on the tiny model in place of the one that they name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.forked import pitstop
from support.training import metadata, rows

pytestmark = pytest.mark.usefixtures("warm")

EXAMPLES = Path(__file__).parents[2] / "examples"
OF_TASK = {
    "sft": {"val_loss"},
    "ner": {"val_loss", "ner_f1", "ner_chemical_f1", "ner_disease_f1"},
    "rank": {"val_loss", "ndcg@10", "retrieved_share"},
    "mixed": {"val_loss", "loss_train", "loss_train-2"},
}


@pytest.mark.parametrize("name", sorted(OF_TASK))
def test_an_example_trains_and_logs_what_its_task_measures(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    # The tiny model's tokens are short: what fits the real one's length must fit here too.
    ended = pitstop(
        "train", "--config", f"examples/{name}/config.yaml", "--model-id", str(tiny_model), "--max-length", "2048",
        "--max-steps", "2", "--logging-steps", "1", "--eval-max-new-tokens", "4", "--eval-score-examples", "8",
    )  # fmt: skip
    assert ended.code == 0, ended.output
    run = tmp_path / "checkpoints" / "run_001"
    assert OF_TASK[name] <= set().union(*rows(run))
    counts = metadata(run)["data"]
    assert counts["bad"] == 0 and counts["too_long"] == 0 and counts["used"] > 0


def test_every_example_is_in_the_table_of_the_readme() -> None:
    directories = {path.parent.name for path in EXAMPLES.glob("*/config.yaml")}
    assert directories == {*OF_TASK, "diffusion"}
    text = (EXAMPLES / "README.md").read_text()
    for name in directories:
        assert f"`{name}/`" in text and f"pitstop train --config examples/{name}/config.yaml" in text


def test_the_example_of_images_trains_both_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    few = ("--max-steps", "2", "--eval-steps", "2", "--save-steps", "2", "--logging-steps", "1", "--sample-images", "1")
    base = pitstop("train", "--config", "examples/diffusion/config.yaml", *few)
    assert base.code == 0, base.output
    assert "72 images of 3 classes" in base.output
    adapter = pitstop("train", "--from", "base_training/1@best", "--config", "examples/diffusion/circles.yaml", *few)
    assert adapter.code == 0, adapter.output
    run = tmp_path / "checkpoints" / "run_001"
    assert {"val_loss", "images"} <= set().union(*rows(run))
    assert metadata(run)["data"]["classes"] == {"circle": 24}
    assert metadata(run)["dataset"] == "Circles (1)"
