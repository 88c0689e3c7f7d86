"""The shell commands of the guides on images do what the guides say, with a tiny network on small archives."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml

from pitstop.configs.files import PRESETS
from pitstop.trainers.data.images import cifar
from pitstop.trainers.data.images.cifar100 import CLASS_NAMES
from support.forked import pitstop
from support.guides import Command, commands, compare, follow
from support.image_files import write_cifar

STEPS_AN_EPOCH = 2  # of the base, and of the trees; the animals have more
_BATCH = 8


@pytest.fixture(autouse=True, scope="module")
def _imported(warm: None, onednn: None) -> None:
    import pitstop.trainers.tasks.diffusion.merging
    import pitstop.trainers.tasks.diffusion.task  # noqa: F401


def _classes(preset: str) -> list[int]:
    content = yaml.safe_load((PRESETS / "data" / f"cifar100_{preset}_only.yaml").read_text())
    return [CLASS_NAMES.index(name) for name in content["data"]["classes"]]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with archives in ``data``, and a ``.env`` with a tiny network that goes by the name of the default one."""
    monkeypatch.chdir(tmp_path)
    labels = 2 * _classes("trees") + _classes("animals")
    write_cifar(Path("data"), cifar.CIFAR10, archive=True, train=STEPS_AN_EPOCH * _BATCH, test=10)
    write_cifar(Path("data"), cifar.CIFAR100, archive=True, train=len(labels), test=len(labels), classes=labels)
    network = {"model_type": "diffit", "widths": [8, 8, 8], "blocks": 1, "heads": 2, "time_width": 8}
    Path("diffit-cifar-l2.json").write_text(json.dumps(network))
    settings = {
        "TASK": "diffusion",
        "MODEL_CONFIG": "diffit-cifar-l2.json",
        "TRAIN_BATCH_SIZE": _BATCH,
        "SAMPLE_IMAGES": 2,
        "SAMPLING_STEPS": 2,
    }
    Path(".env").write_text("".join(f"PITSTOP_{name}={value}\n" for name, value in settings.items()))
    return tmp_path


def test_the_workflow_goes_as_the_guide_says(small: Path) -> None:
    follow("complete-workflow.md", steps_an_epoch=STEPS_AN_EPOCH)
    assert all(Path(name).is_file() for name in ("base.png", "trees.png"))
    kept = sorted(path.name for path in Path("checkpoints/base_training/run_001/checkpoints").glob("epoch_*"))
    assert kept == ["epoch_002", "epoch_008", "epoch_009", "epoch_010"]


def test_the_quick_start_goes_as_the_guide_says(small: Path) -> None:
    follow("lora-quick-start.md", steps_an_epoch=STEPS_AN_EPOCH)
    for words in (["--output", "answers.jsonl"], ["--score-examples", "none"]):
        ended = pitstop("evaluate", 1, *words)
        assert ended.code == 2 and f"{words[0]}: run_001 is of the task diffusion" in ended.output


def test_commands_are_lines_and_a_loop_is_several() -> None:
    block = "# a remark\npitstop train --epochs 3 # why\n# crash in epoch 2\nfor x in a b; do pitstop show $x; done\npitstop \\\n  verify\n"
    assert commands(block) == [
        Command("pitstop train --epochs 3 # why", 2),
        Command("pitstop show a"),
        Command("pitstop show b"),
        Command("pitstop    verify"),
    ]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("Run 1: …-trees-… in …/run_001", True),
        ("Trees (5)   completed", True),
        ("Trees (5)\nRun 1:", False),  # the other way round
        ("Run 2: …", False),
        ("Tree", False),  # half a word
        ("0.8 ★", False),
    ],
)
def test_what_is_said_is_compared_with_what_is_printed(wanted: str, fits: bool) -> None:
    printed = "Run 1: tiny-trees-r12 in /tmp/checkpoints/run_001\n  1  Trees (5)  completed  0.9 ★\n"
    with contextlib.nullcontext() if fits else pytest.raises(AssertionError, match="was not printed"):
        compare(wanted, printed, "here")
