"""A tiny model and data for real training, with the libraries imported once for all forked children."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny_model import write_records


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's directory. Made in another process: this one must not compute with torch before it forks."""
    directory = tmp_path_factory.mktemp("models") / "tiny-llama"
    program = (
        f"from support.tiny_model import make_tiny_model; from pathlib import Path; make_tiny_model(Path({str(directory)!r}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent, capture_output=True)
    return directory


@pytest.fixture(scope="session")
def warm() -> None:
    """Import what training imports, so that forked children have it."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import transformers.models.auto.tokenization_auto
    import transformers.models.llama.modeling_llama  # noqa: F401

    import pitstop.trainers.worker  # noqa: F401


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve training and four evaluation records in a directory."""
    directory = tmp_path / "data"
    directory.mkdir()
    write_records(directory / "train.jsonl", 12)
    write_records(directory / "eval.jsonl", 4, start=100)
    return directory
