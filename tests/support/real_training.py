"""Fixtures for tests that really train: a tiny model, data, and the libraries imported once for all forked children. A plugin."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def warm() -> None:
    """Import what training imports, so that forked children have it."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    import transformers.models.auto.tokenization_auto
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")  # a table that takes a fifth of a second to build, and is kept

    import pitstop.trainers.tasks.diffusion.family
    import pitstop.trainers.training.worker  # noqa: F401


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
