"""Training on images in tests: a network of some thousand weights, a folder of trees and a cat, and the words of ``train``. A plugin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.forked import pitstop
from support.image_files import write_folder
from support.training import train_with

TREES = ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree")
CLASSES = ("cat", *TREES)
NETWORK: dict[str, Any] = {
    "model_type": "diffit",
    "image_size": 8,
    "channels": 3,
    "widths": [8, 8, 8],  # three resolutions, as the preset of LoRA has ranks for
    "blocks": 1,
    "heads": 2,
    "time_width": 8,
    "mlp_ratio": 2,
    "window": 2,
}
OF_TREES: dict[str, Any] = {
    "method": "lora",
    "from": "base_training/1@best",
    "config": ["cifar100_trees_only", "blockwise_config"],
    "model_config": None,
}
"""Settings of an adapter: trees alone, by the presets."""


def write_image_data(home: Path) -> Path:
    """``images`` with four images a class to train on and two to validate on, and ``network.json``, in ``home``, which is returned."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "network.json").write_text(json.dumps(NETWORK))
    write_folder(home / "images", classes=CLASSES, splits={"train": 4, "validation": 2}, size=(8, 8))
    return home


def image_arguments(home: Path, base_dir: Path, **settings: Any) -> list[str]:
    """``train`` on the images of ``home`` for twelve steps with a checkpoint every third; see ``train_with``."""
    chosen: dict[str, Any] = {
        "task": "diffusion",
        "model_config": home / "network.json",
        "dataset": home / "images",
        "base_dir": base_dir,
        "batch_size": 4,
        "max_steps": 12,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "save_strategy": "steps",
        "save_steps": 3,
        "keep_last_n": "none",
        "sample_images": 2,
        "sampling_steps": 2,
        **settings,
    }
    return train_with(chosen)


@dataclass(frozen=True)
class ImageRuns:
    """What the two stages left in ``home``, and what they printed. Nobody changes it.

    Base training 1 keeps an average, runs 1 and 2 are adapters for trees on its best checkpoint, and base training 2 is told classes.
    """

    home: Path
    outputs: dict[str, str]

    @property
    def base_dir(self) -> Path:
        return self.home / "runs"

    @property
    def base(self) -> Path:
        return self.base_dir / "base_training/run_001"

    @property
    def adapter(self) -> Path:
        return self.base_dir / "run_001"


@pytest.fixture(scope="session")
def image_runs(warm: None, tmp_path_factory: pytest.TempPathFactory) -> ImageRuns:
    """Both stages, trained once."""
    home = write_image_data(tmp_path_factory.mktemp("images"))
    outputs = {}
    for name, settings in (
        ("base", {"ema_decay": 0.8}),
        ("adapter", OF_TREES),
        ("worse adapter", {**OF_TREES, "learning_rate": 1e-6}),
        ("told classes", {"conditional_classes": len(CLASSES), "max_steps": 3}),
    ):
        ended = pitstop(*image_arguments(home, home / "runs", **settings))
        assert ended.code == 0, ended.output
        outputs[name] = ended.output
    return ImageRuns(home, outputs)
