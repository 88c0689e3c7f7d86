"""Mistakes with images: one clear message with the nearest right name, the right exit code, and no half-made run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forked import Ended, pitstop
from support.image_files import write_cifar, write_folder
from support.image_training import NETWORK, OF_TREES, ImageRuns, image_arguments, write_image_data
from support.training import checkpoints, metadata

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return write_image_data(tmp_path)


def _refused(ended: Ended, code: int, *words: str, base_dir: Path) -> None:
    assert ended.code == code, ended.output
    assert ended.output.count("error:") == 1 and "hint:" in ended.output, ended.output
    assert "Traceback" not in ended.output and "a bug in pitstop" not in ended.output, ended.output
    for word in words:
        assert word in ended.output, ended.output
    assert not list(base_dir.rglob("run_*")), "a run was left behind"


MISTAKES: list[tuple[str, dict[str, Any], int, tuple[str, ...]]] = [
    ("misspelt class", {"classes": "maple_tree,ok_tree"}, 3, ("There is no class ok_tree", "Did you mean oak_tree")),
    ("superclass", {"classes": "trees"}, 3, ("superclass of CIFAR-100", "maple_tree")),
    ("class twice", {"classes": "cat,0"}, 3, ("cat is given twice",)),
    ("unknown data set", {"dataset": "CIFAR11"}, 3, ("CIFAR11", "CIFAR10, CIFAR100, FashionMNIST")),
    ("unknown network", {"model_config": "diffit-cpv"}, 3, ("diffit-cpv", "diffit-cpu")),
    ("two data sets", {"dataset": ["a", "b"]}, 2, ("2 data sets", "one")),
    ("4 bits", {"method": "qlora"}, 2, ("no 4-bit form", "--method lora")),
    ("an adapter on nothing", {"method": "lora"}, 2, ("--from",)),
    ("ranks that are no numbers", {**OF_TREES, "lora_stage_ranks": "12,x,8"}, 2, ("12,x,8", "12,10,8")),
    ("more classes than the model is told", {"conditional_classes": 3}, 3, ("6 classes", "--conditional-classes 6")),
    ("unknown metric", {"monitor": "val_fid"}, 2, ("val_fid", "val_loss")),
    ("prompts", {"sample_prompts": "prompts.txt"}, 2, ("is for text",)),
]


@pytest.mark.parametrize(("settings", "code", "words"), [each[1:] for each in MISTAKES], ids=[each[0] for each in MISTAKES])
def test_mistake_in_a_setting(home: Path, settings: dict[str, Any], code: int, words: tuple[str, ...]) -> None:
    if settings.get("from"):
        ended = pitstop(*image_arguments(home, home / "other", method="full", max_steps=1))
        assert ended.code == 0, ended.output
        (home / "runs").mkdir()
        (home / "other/base_training").rename(home / "base_training")
        settings = {**settings, "from": f"{home}/base_training/run_001"}
    _refused(pitstop(*image_arguments(home, home / "runs", **settings)), code, *words, base_dir=home / "runs")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ("describes no DiffiT network",)),
        (json.dumps({**NETWORK, "model_type": "llama"}), ("llama", "diffit")),
        (json.dumps({**NETWORK, "widhts": [8]}), ("widhts", "widths")),
        (json.dumps({**NETWORK, "widths": [8, 9, 8]}), ("9 is not a multiple of 4",)),
        (json.dumps({**NETWORK, "blocks": 10**9}), ("blocks", "64")),
    ],
    ids=["no JSON", "a language model", "misspelt key", "width", "blocks without end"],
)
def test_mistake_in_the_description_of_the_network(home: Path, content: str, words: tuple[str, ...]) -> None:
    (home / "network.json").write_text(content)
    _refused(pitstop(*image_arguments(home, home / "runs")), 3, str(home / "network.json"), *words, base_dir=home / "runs")


def test_archives_do_not_fit_a_network_of_another_size(home: Path) -> None:
    archive = write_cifar(home / "data", archive=True, train=10, test=10)
    ended = pitstop(*image_arguments(home, home / "runs", dataset=archive))
    _refused(ended, 3, "32", "8", base_dir=home / "runs")


def test_a_broken_image_is_named_and_may_be_left_out(home: Path) -> None:
    broken = home / "images/train/oak_tree/002.png"
    broken.write_bytes(broken.read_bytes()[:40])
    words = image_arguments(home, home / "runs", max_steps=1)
    _refused(pitstop(*words), 3, str(broken), "--skip-bad-rows", base_dir=home / "runs")
    ended = pitstop(*words, "--skip-bad-rows")
    assert ended.code == 0 and "1 malformed image was left out" in ended.output and str(broken) in ended.output, ended.output
    data = metadata(home / "runs/base_training/run_001")["data"]
    assert (data["records"], data["used"], data["bad"], data["classes"]["oak_tree"]) == (24, 23, 1, 3)
    ended = pitstop("resume", "base_training/1", "--base-dir", home / "runs", "--max-steps", 2)
    assert ended.code == 0, ended.output


def test_no_room_for_a_checkpoint_is_said_before_training(home: Path) -> None:
    def prepare() -> None:
        from pitstop.checkpointing.disk.storage import LocalStorage

        LocalStorage.free_space = lambda self, path: 1000  # type: ignore[method-assign]

    ended = pitstop(*image_arguments(home, home / "runs"), prepare=prepare)
    _refused(ended, 6, "no room for a single checkpoint", base_dir=home / "runs")


@pytest.fixture
def trained(image_runs: ImageRuns) -> Path:
    """What the fixture ``runs`` copies."""
    return image_runs.home


def _another_folder(runs: Path) -> Path:
    return write_folder(
        runs.parent / "others", classes=("cat", *OTHERS), splits={"train": 4, "validation": 2}, size=(8, 8), seed=1
    )


def _a_changed_image(runs: Path) -> Path:
    from PIL import Image

    path = runs.parent / "images/train/cat/000.png"
    with Image.open(path) as picture:
        picture.rotate(90).save(path)
    return runs.parent / "images"


OTHERS = ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree")


@pytest.mark.parametrize("change", [_another_folder, _a_changed_image], ids=["other images", "an image turned"])
def test_a_resume_with_other_images_is_refused_unless_it_is_wanted(
    runs: Path, trained: Path, change: Callable[[Path], Path]
) -> None:
    shutil.copytree(trained / "images", runs.parent / "images")
    words = ["resume", "base_training/1", "--base-dir", runs, "--max-steps", 13, "--dataset", change(runs)]
    ended = pitstop(*words)
    assert ended.code == 3 and "training data of base_training/run_001 has changed" in ended.output, ended.output
    run = runs / "base_training/run_001"
    assert checkpoints(run)[-1] != "checkpoint-13" and metadata(run)["progress"]["step"] == 12
    ended = pitstop(*words, "--allow-changed-data")
    assert ended.code == 0 and "warning" in ended.output, ended.output


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--classes", "cat"], 3, "training data of base_training/run_001 has changed"),
        (["--model-config", "diffit-cpu"], 2, "--model-config cannot change"),
        (["--conditional-classes", 6], 2, "--conditional-classes cannot change"),
        (["--ema-decay", 0.5], 2, "--ema-decay cannot change"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_what_a_resume_cannot_change_is_said(runs: Path, words: list[Any], code: int, told: str) -> None:
    ended = pitstop("resume", "base_training/1", "--base-dir", runs, "--max-steps", 13, *words)
    assert ended.code == code and told in ended.output and "Traceback" not in ended.output, ended.output
    assert metadata(runs / "base_training/run_001")["progress"]["step"] == 12


def test_a_resume_may_begin_to_flip_images_and_says_so(runs: Path) -> None:
    ended = pitstop("resume", "base_training/1", "--base-dir", runs, "--max-steps", 13, "--flip-images")
    assert ended.code == 0 and "diffusion.flip" in ended.output, ended.output
