"""Trained image models in use: evaluated as in training, made images with, and exported for others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forked import Ended
from support.forked import pitstop as forked
from support.image_training import CLASSES, OF_TREES, ImageRuns, image_arguments
from support.training import metadata, rows

pytestmark = pytest.mark.usefixtures("warm")

BASE, TOLD = "base_training/1", "base_training/2"
Command = Callable[..., Ended]


@pytest.fixture
def pitstop(image_runs: ImageRuns) -> Command:
    """``pitstop COMMAND RUN …`` on the trained runs."""

    def call(command: str, run: object, *words: object, **named: Any) -> Ended:
        return forked(command, run, "--base-dir", image_runs.base_dir, *words, **named)

    return call


def in_child(check: Callable[[], None]) -> None:
    """Run ``check`` where torch may compute: not in this process, which forks."""
    ended = forked("--version", prepare=check)
    assert ended.code == 0, ended.output


@pytest.mark.parametrize("reference", [f"{BASE}@last", f"{BASE}@checkpoint-6", "1@best", "1@checkpoint-5", f"{TOLD}@last"])
def test_an_evaluation_gives_exactly_what_training_logged(pitstop: Command, image_runs: ImageRuns, reference: str) -> None:
    """Of the base training, whose logged losses are those of its average, too."""
    found = pitstop("evaluate", reference, "--json").json()
    logged = next(row for row in rows(image_runs.base_dir / found["run"]) if row["step"] == found["step"])
    (metrics,) = found["metrics"].values()
    assert metrics == {"val_loss": logged["val_loss"]} == found["recorded"]
    assert found["examples"] == (10 if reference.startswith("1") else 12)


def test_the_base_of_an_adapter_scores_as_it_did_on_the_same_images(pitstop: Command, image_runs: ImageRuns) -> None:
    found = pitstop("evaluate", 1, "--base", "--json").json()
    best = metadata(image_runs.base)["best_checkpoint"]["name"]
    trees = ["--dataset", image_runs.home / "images"]
    of_base = pitstop("evaluate", f"{BASE}@{best}", *trees, "--json").json()
    assert of_base["examples"] == 12, "its own classes, all of them"
    (_, adapted), (label, without) = found["metrics"].items()
    assert label == "base" and adapted["val_loss"] < without["val_loss"]
    learning_nothing = rows(image_runs.base_dir / "run_002")[4]["val_loss"]
    assert without["val_loss"] == pytest.approx(learning_nothing, rel=1e-4)


def test_the_same_seed_gives_the_same_images_and_another_seed_others(pitstop: Command, tmp_path: Path) -> None:
    def made(name: str, *words: object) -> bytes:
        ended = pitstop("generate", BASE, "--images", 3, "--output", tmp_path / f"{name}.png", *words)
        assert ended.code == 0, ended.output
        return (tmp_path / f"{name}.png").read_bytes()

    first = made("first")
    assert made("again") == first
    assert made("in other batches", "--batch-size", 1) == first
    assert made("another seed", "--seed", 1) != first
    assert made("more steps", "--sampling-steps", 5) != first
    assert made("another checkpoint", "--force") == first, "the best unless told otherwise"
    refused = pitstop("generate", BASE, "--output", tmp_path / "first.png")
    assert refused.code == 2 and "exists" in refused.output, refused.output


@pytest.mark.parametrize("run", [BASE, TOLD, "1"])
def test_the_last_grid_of_training_is_what_is_made_of_its_last_checkpoint(
    pitstop: Command, image_runs: ImageRuns, tmp_path: Path, run: str
) -> None:
    """Of a base training with an average: the average's."""
    ended = pitstop("generate", f"{run}@last", "--images", 2, "--seed", 42, "--output", tmp_path / "made.png", "--json").json()
    grids = image_runs.base_dir / ended["run"] / "logs/samples"
    assert (tmp_path / "made.png").read_bytes() == max(grids.iterdir()).read_bytes()


def test_base_and_adapter_are_shown_in_one_picture(pitstop: Command, image_runs: ImageRuns, tmp_path: Path) -> None:
    from PIL import Image

    def made(run: object, *words: object) -> tuple[list[str], Any]:
        ended = pitstop("generate", run, "--images", 3, "--output", tmp_path / "made.png", "--force", "--json", *words)
        with Image.open(tmp_path / "made.png") as picture:
            return ended.json()["models"], picture.convert("RGB")

    def at(picture: Any, row: int, column: int) -> bytes:
        """An image in a grid with two pixels between the images."""
        cut: bytes = picture.crop((10 * column, 10 * row, 10 * column + 8, 10 * row + 8)).tobytes()
        return cut

    best = metadata(image_runs.base)["best_checkpoint"]["name"]
    (models, both), (_, adapted), (_, base) = made(1, "--base"), made(1), made(f"{BASE}@{best}")
    assert models == ["run_001@checkpoint-12", "base"]
    assert both.size == (28, 18), "a row each"
    assert [at(both, 0, column) for column in range(2)] == [at(adapted, 0, column) for column in range(2)]
    assert [at(both, 1, column) for column in range(2)] == [at(base, 0, column) for column in range(2)]
    assert at(both, 0, 0) != at(both, 1, 0)


def test_a_model_that_is_told_classes_makes_images_of_the_one_that_is_asked_for(pitstop: Command, tmp_path: Path) -> None:
    from PIL import Image

    def made(*words: object) -> tuple[bytes, list[str]]:
        """The image above the name of its class, and the classes."""
        ended = pitstop("generate", TOLD, "--images", 1, "--output", tmp_path / "one.png", "--force", "--json", *words)
        with Image.open(tmp_path / "one.png") as picture:
            left = (picture.width - 8) // 2
            return picture.crop((left, 0, left + 8, 8)).tobytes(), ended.json()["classes"]

    cat, oak, every = made("--class", "cat"), made("--class", "Oak Tree"), made()
    assert (cat[1], oak[1], every[1]) == (["cat"], ["oak_tree"], sorted(CLASSES))
    assert cat[0] != oak[0], "from the same noise"
    assert cat[0] == every[0], "the classes are gone through from the first"
    refused = pitstop("generate", TOLD, "--class", "oak_tre")
    assert refused.code == 3 and "Did you mean oak_tree" in refused.output, refused.output
    refused = pitstop("generate", BASE, "--class", "cat")
    assert refused.code == 2 and "is not conditioned on classes" in refused.output, refused.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["generate", BASE, "--prompt", "a tree"], "--prompt"),
        (["generate", BASE, "--max-new-tokens", 9], "--max-new-tokens"),
        (["generate", BASE, "--base"], "no base without it"),
        (["export", BASE, "--format", "adapter"], "has no adapter"),
        (["generate", BASE, "--output", "trees.jpg"], "PNG"),
    ],
    ids=["a prompt", "tokens", "no base", "no adapter", "no PNG"],
)
def test_what_does_not_go_with_a_run_is_refused(pitstop: Command, tmp_path: Path, words: list[str], told: str) -> None:
    if words[0] == "export":
        words = [*words, "--output", str(tmp_path / "out")]
    refused = pitstop(*words)
    assert refused.code == 2 and told in refused.output and "Traceback" not in refused.output, refused.output


@pytest.fixture(scope="module")
def exported(image_runs: ImageRuns, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapter 1 in every form and the base as one, all of the best checkpoint."""
    there = tmp_path_factory.mktemp("exported")
    for run, form, name in (
        (1, "merged", "trees"),
        (1, "adapter", "adapter"),
        (1, "ckpt", "trees.ckpt"),
        (BASE, "merged", "base"),
    ):
        ended = forked("export", run, "--base-dir", image_runs.base_dir, "--format", form, "--output", there / name)
        assert ended.code == 0, ended.output
    return there


def test_the_merged_model_makes_the_images_of_base_and_adapter(exported: Path, image_runs: ImageRuns) -> None:
    def the_same() -> None:
        import numpy as np

        from pitstop.trainers.tasks.diffusion.loading import load_sampler

        apart = load_sampler(image_runs.adapter / "base_model", image_runs.adapter / "lora_weights/best").made(6, seed=3)
        of_export = load_sampler(exported / "base", exported / "adapter").made(6, seed=3)
        merged = load_sampler(exported / "trees").made(6, seed=3)
        without = load_sampler(exported / "base").made(6, seed=3)
        assert apart.shape == (6, 3, 8, 8) and apart.dtype == np.uint8
        assert np.array_equal(apart, of_export)
        assert np.abs(merged.astype(int) - apart).max() <= 1, "a pixel on the edge between two values may round the other way"
        assert np.abs(without.astype(int) - apart).max() > 1

    in_child(the_same)


def test_the_exported_base_is_its_average(exported: Path, image_runs: ImageRuns) -> None:
    def the_same() -> None:
        import safetensors.torch
        import torch

        average = safetensors.torch.load_file(image_runs.base / "checkpoints/best/ema.safetensors")
        there = safetensors.torch.load_file(exported / "base/model.safetensors")
        assert there.keys() == average.keys() and all(torch.equal(there[name], average[name]) for name in there)

    in_child(the_same)


def test_the_single_file_is_all_that_torch_and_peft_take(exported: Path, image_runs: ImageRuns) -> None:
    def usable() -> None:
        import numpy as np
        import torch
        from peft import LoraConfig, get_peft_model

        from pitstop.trainers.tasks.diffusion.loading import load_sampler

        content = torch.load(exported / "trees.ckpt", weights_only=True)
        sampler = load_sampler(image_runs.adapter / "base_model")
        model = get_peft_model(sampler.model, LoraConfig(**content["lora_config"]))
        found = model.load_state_dict(content["lora_state_dict"], strict=False)
        assert found.unexpected_keys == [] and not [name for name in found.missing_keys if "lora" in name]
        wanted = load_sampler(image_runs.adapter / "base_model", image_runs.adapter / "lora_weights/best").made(4, seed=0)
        assert np.array_equal(dataclasses.replace(sampler, model=model).made(4, seed=0), wanted)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = getattr(torch.optim, content["optimizer_class"])(trained)
        optimizer.load_state_dict(content["optimizer_state_dict"])
        assert {int(values["step"]) for values in optimizer.state.values()} == {12} == {content["global_step"]}

    in_child(usable)


def test_an_adapter_starts_from_an_exported_model(exported: Path, image_runs: ImageRuns, tmp_path: Path) -> None:
    words = {**OF_TREES, "from": None, "model_id": exported / "trees", "max_steps": 1}
    ended = forked(*image_arguments(image_runs.home, tmp_path / "runs", **words))
    assert ended.code == 0, ended.output
    copy = tmp_path / "runs/run_001/base_model/model.safetensors"
    assert copy.read_bytes() == (exported / "trees/model.safetensors").read_bytes()


def test_the_cards_of_exports_say_how_images_are_made(exported: Path) -> None:
    for name, call in (("trees", 'load_sampler(".")'), ("base", 'load_sampler(".")'), ("adapter", "load_sampler(")):
        card = (exported / name / "README.md").read_text()
        assert call in card and "unconditional-image-generation" in card, card
        assert json.loads((exported / name / "pitstop_export.json").read_text())["settings"]["training"]["task"] == "diffusion"
