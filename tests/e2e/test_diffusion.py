"""The two stages of the image model: what a base training and the adapters on its best checkpoint leave, and how one stands on the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forked import Ended, pitstop
from support.image_files import write_cifar
from support.image_training import CLASSES, NETWORK, OF_TREES, TREES, ImageRuns, image_arguments
from support.training import checkpoints, metadata, rows, train_with

pytestmark = pytest.mark.usefixtures("warm")

FULL = {"config.json", "model.safetensors", "ema.safetensors"}
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
STATE = {"MANIFEST.json", "optimizer.json", "optimizer.safetensors", "rng_state_0.json", "trainer_state.json"}
BASE = "base_training/run_001"


@pytest.fixture
def trained(image_runs: ImageRuns) -> Path:
    """What the fixture ``runs`` copies."""
    return image_runs.home


def test_each_stage_leaves_checkpoints_of_its_own_form(image_runs: ImageRuns) -> None:
    for run, form in ((image_runs.base, FULL), (image_runs.adapter, ADAPTER)):
        assert {"checkpoint-3", "checkpoint-6", "checkpoint-9", "checkpoint-12"} <= set(checkpoints(run))
        last = run / ("checkpoints" if form is FULL else "lora_weights") / "last"
        assert {path.name for path in last.iterdir()} == form | STATE
    described = json.loads((image_runs.base / "checkpoints/last/config.json").read_text())
    assert described == {**NETWORK, "classes": 0, "sigma_data": 0.5}
    adapter = json.loads((image_runs.adapter / "lora_weights/last/adapter_config.json").read_text())
    assert sorted(adapter["rank_pattern"].values()) == [8, 10, 12], "the preset's rank of each resolution"
    assert sorted(adapter["alpha_pattern"].values()) == [16, 20, 24], "twice the rank everywhere"


def test_images_are_counted_in_the_log_and_both_losses_are_there(image_runs: ImageRuns) -> None:
    for run in (image_runs.base, image_runs.adapter):
        lines = (run / "logs/metrics.jsonl").read_text().splitlines()
        logged = [json.loads(line) for line in lines]
        assert [row["step"] for row in logged] == list(range(1, 13))
        assert all({"epoch", "loss", "learning_rate", "images", "images_per_s"} <= row.keys() for row in logged)
        assert all("tokens" not in row for row in logged)
        evaluated = [row["step"] for row in logged if "val_loss" in row]
        assert evaluated == ([6, 12] if run == image_runs.base else [5, 10, 12]), "at the end of each epoch and at the last step"
    assert [row["images"] for row in rows(image_runs.base)] == [4 * step for step in range(1, 13)]


def test_a_grid_of_images_is_made_at_each_evaluation_and_tensorboard_has_it(image_runs: ImageRuns) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for run, steps in ((image_runs.base, [6, 12]), (image_runs.adapter, [5, 10, 12])):
        pictures = sorted((run / "logs/samples").iterdir())
        assert [path.name for path in pictures] == [f"step_{step:06d}.png" for step in steps]
        events = EventAccumulator(str(run / "logs/tensorboard"), size_guidance={"images": 0})
        events.Reload()
        (tag,) = events.Tags()["images"]
        assert [event.step for event in events.Images(tag)] == steps
        with Image.open(pictures[-1]) as picture:
            shown = events.Images(tag)[-1]
            assert (shown.width, shown.height) == picture.size


def test_the_metadata_says_which_images_of_which_classes(image_runs: ImageRuns) -> None:
    base, adapter = metadata(image_runs.base)["data"], metadata(image_runs.adapter)["data"]
    assert base["classes"] == dict.fromkeys(sorted(CLASSES), 4) and base["eval"]["classes"] == dict.fromkeys(sorted(CLASSES), 2)
    assert adapter["classes"] == dict.fromkeys(TREES, 4) and adapter["eval"]["classes"] == dict.fromkeys(TREES, 2)
    assert adapter["class_names"] == sorted(CLASSES), "all of them, in their numbering"
    assert (base["used"], base["bad"], adapter["used"]) == (24, 0, 20)


def test_the_list_has_the_trees_and_marks_the_best_of_each_data_set(image_runs: ImageRuns) -> None:
    listed = {run["run"]: run for run in json.loads(pitstop("list-runs", "--base-dir", image_runs.base_dir, "--json").output)}
    assert {name: run["dataset"] for name, run in listed.items()} == {
        "run_001": "Trees (5)",
        "run_002": "Trees (5)",
        BASE: "images",
        "base_training/run_002": "images",
    }
    assert {name for name, run in listed.items() if run["is_best"]} == {"run_001", BASE}
    table = pitstop("list-runs", "--base-dir", image_runs.base_dir).output
    (line,) = (line for line in table.splitlines() if line.split()[:1] == ["1"])
    assert "Trees (5)" in line and "★" in line, table


def test_an_adapter_stands_on_the_best_base_by_reference(image_runs: ImageRuns) -> None:
    base = metadata(image_runs.base)
    record = metadata(image_runs.adapter)["base_model"]
    best = base["best_checkpoint"]
    assert record["from"] == {"run": BASE, "name": base["name"], "checkpoint": best["name"], "step": best["step"]}
    copy = image_runs.adapter / "base_model"
    assert (copy / "config.json").read_bytes() == (image_runs.base / "checkpoints/best/config.json").read_bytes()
    assert copy.samefile(image_runs.base_dir / "run_002/base_model") or _same_files(
        copy, image_runs.base_dir / "run_002/base_model"
    )
    shown = json.loads(pitstop("show", "base_training/1", "--base-dir", image_runs.base_dir, "--json").output)
    pins = {each["name"]: each["pins"] for each in shown["checkpoints"]}
    assert {"base of run_001", "base of run_002"} <= set(pins[best["name"]])

    def the_copy_is_the_average() -> None:
        import safetensors.torch
        import torch

        there = safetensors.torch.load_file(copy / "model.safetensors")
        average = safetensors.torch.load_file(image_runs.base / f"checkpoints/{best['name']}/ema.safetensors")
        assert there.keys() == average.keys() and all(torch.equal(there[name], average[name]) for name in there)

    ended = pitstop("--version", prepare=the_copy_is_the_average)
    assert ended.code == 0, ended.output


def _same_files(one: Path, other: Path) -> bool:
    """Whether the files of two directories are the same on the disk."""
    return all(path.samefile(other / path.name) for path in one.iterdir())


def test_the_base_of_an_adapter_is_neither_pruned_nor_deleted(runs: Path, image_runs: ImageRuns) -> None:
    at = ["--base-dir", runs]
    ended = _adapter(image_runs, runs, max_steps=1, **{"from": "base_training/1@checkpoint-3"})
    assert ended.code == 0, ended.output
    assert pitstop("prune", "base_training/1", *at, "--keep-last-n", 1).code == 0
    best = metadata(runs / BASE)["best_checkpoint"]["name"]
    assert set(checkpoints(runs / BASE)) == {"checkpoint-3", best, "checkpoint-12"}
    refused = pitstop("delete", "base_training/1", *at, "--yes")
    assert refused.code == 2 and "is the base of run_001" in refused.output, refused.output
    assert (runs / BASE).is_dir()


def test_an_adapter_trains_on_when_the_base_training_is_gone_and_says_so_when_its_copy_is_gone_too(runs: Path) -> None:
    shutil.rmtree(runs / "base_training")
    resumed = ["resume", 1, "--base-dir", runs, "--max-steps"]
    ended = pitstop(*resumed, 13)
    assert ended.code == 0 and "the run's own copy of it is used" in ended.output, ended.output
    shutil.rmtree(runs / ".base_models")
    shutil.rmtree(runs / "run_001/base_model")
    ended = pitstop(*resumed, 14)
    assert ended.code == 3 and "base_training/run_001" in ended.output and "hint:" in ended.output, ended.output
    assert "Traceback" not in ended.output
    assert checkpoints(runs / "run_001")[-1] != "checkpoint-14"


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _other_network(path: Path) -> None:
    path.write_text(json.dumps({**NETWORK, "widths": [16, 16, 16]}))


@pytest.mark.parametrize(
    ("name", "change", "code", "told"),
    [("ema.safetensors", _flip_a_bit, 3, "ema.safetensors changed"), ("config.json", _other_network, 4, "config.json has")],
    ids=["a bit of its average", "its description"],
)
def test_a_base_that_was_changed_is_not_stood_on(
    runs: Path, image_runs: ImageRuns, name: str, change: Callable[[Path], None], code: int, told: str
) -> None:
    change(runs / BASE / "checkpoints/checkpoint-6" / name)
    ended = _adapter(image_runs, runs, **{"from": "base_training/1@checkpoint-6"})
    assert ended.code == code and told in ended.output, ended.output
    assert not (runs / "run_003").exists()


@pytest.mark.parametrize(
    ("reference", "code", "told"),
    [
        ("base_training/9", 2, "base_training/9"),
        ("base_training/1@epoch_009", 4, "epoch_009"),
        ("run_001", 2, "trained an adapter"),
    ],
)
def test_a_base_that_is_not_there_is_said(image_runs: ImageRuns, reference: str, code: int, told: str) -> None:
    ended = _adapter(image_runs, image_runs.base_dir, **{"from": reference})
    assert ended.code == code and told in ended.output and "Traceback" not in ended.output, ended.output
    assert not (image_runs.base_dir / "run_003").exists()


def _adapter(image_runs: ImageRuns, base_dir: Path, **settings: Any) -> Ended:
    return pitstop(*image_arguments(image_runs.home, base_dir, **{**OF_TREES, **settings}))


def test_the_two_commands_of_the_workflow_train_on_cifar_by_name_and_the_adapter_is_small(tmp_path: Path) -> None:
    """The shipped presets and size; three images a step."""
    from pitstop.trainers.data.images import cifar
    from pitstop.trainers.data.images.cifar100 import CLASS_NAMES

    data, runs = tmp_path / "data", tmp_path / "runs"
    write_cifar(data, train=30, test=10, archive=True)
    write_cifar(data, cifar.CIFAR100, train=12, test=6, classes=[CLASS_NAMES.index(name) for name in (*TREES, "wolf")])
    common = {"data_root": data, "base_dir": runs, "max_steps": 1, "batch_size": 3, "sample_images": 1, "sampling_steps": 2}
    base = pitstop(*train_with({**common, "config": ["cifar10", "base_training"], "model_config": "diffit-cpu"}))
    assert base.code == 0 and "476,247 trainable parameters" in base.output, base.output
    ended = pitstop(*train_with({**common, **OF_TREES, "from": "base_training/1@best"}))
    assert ended.code == 0 and "10 images of 5 classes" in ended.output, ended.output
    assert "Trees (5)" in pitstop("list-runs", "--base-dir", runs).output

    def size(run: Path) -> int:
        return sum(path.stat().st_size for path in (run / "last").resolve().iterdir())

    whole, adapter = size(runs / BASE / "checkpoints"), size(runs / "run_001/lora_weights")
    assert adapter < whole / 4, (adapter, whole)
