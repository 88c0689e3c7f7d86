"""Fixtures for tests that really train: a tiny model, data, and the libraries imported once for all forked children. A plugin."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from support.image_training import write_image_data
from support.own_process import in_child
from support.stores import fast_directory
from support.tiny_model import make_tiny_model, write_data
from support.trials import Trainings


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """The tiny model's directory. Made in a child: this process must not compute with torch before it forks."""
    directory = tmp_path_factory.mktemp("models") / "tiny-llama"
    in_child(lambda: str(make_tiny_model(directory)))
    return directory


_WARM = (
    "bitsandbytes",
    "encodings.utf_8_sig",
    "numpy.ctypeslib",
    "numpy.ma",
    "peft.tuners.lora.bnb",
    "peft.utils.transformers_weight_conversion",
    "tensorboard.plugins.hparams.metadata",
    "torch.distributed.elastic.multiprocessing.api",
    "torch.profiler._cupti_monitor",
    "torch.utils.tensorboard",
    "transformers.integrations.bitsandbytes",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "zoneinfo",
    "pitstop.cli.commands.evaluate",
    "pitstop.cli.commands.export",
    "pitstop.cli.commands.generate",
    "pitstop.cli.commands.resume",
    "pitstop.cli.commands.train",
    "pitstop.cli.generation.entities",
    "pitstop.cli.generation.images",
    "pitstop.cli.terminal.progress",
    "pitstop.trainers.data.batch",
    "pitstop.trainers.data.images.named",
    "pitstop.trainers.data.images.reading",
    "pitstop.trainers.models.causal_lm",
    "pitstop.trainers.models.loss",
    "pitstop.trainers.tasks.diffusion.family",
    "pitstop.trainers.tasks.diffusion.task",
    "pitstop.trainers.tasks.ner.task",
    "pitstop.trainers.tasks.rank.task",
    "pitstop.trainers.tasks.sft",
    "pitstop.trainers.training.worker",
    "pitstop.trainers.using.answering",
    "pitstop.trainers.using.evaluating",
    "pitstop.trainers.using.exporting",
)
"""What trainings import, at once or on the way: a forked child that has to spends a third of its time on it."""


@pytest.fixture(scope="session")
def warm() -> None:
    """Import what training imports, so that forked children have it."""
    for module in _WARM:
        importlib.import_module(module)
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")  # a table that takes a fifth of a second to build, and is kept
    app = typer.Typer()
    app.command()(_count)
    app(["3"], standalone_mode=False)  # Typer converts numbers by pydantic, which looks for plugins in all that is installed


def _count(number: int) -> None:
    """A command with a number."""


@pytest.fixture(scope="session")
def trainings(tiny_model: Path, warm: None) -> Iterator[Trainings]:
    """Short trainings whose uninterrupted ends are computed once."""
    with tempfile.TemporaryDirectory(prefix="pitstop-trainings-", dir=fast_directory()) as home:
        write_image_data(write_data(Path(home), 12, 4))
        yield Trainings(tiny_model, Path(home))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve training and four evaluation records in a directory."""
    return write_data(tmp_path / "data", 12, 4)
