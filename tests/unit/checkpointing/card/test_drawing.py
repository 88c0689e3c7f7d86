"""Pictures do not depend on what a notebook or a machine says of matplotlib: in processes of their own, since it is imported once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, os
from pitstop.checkpointing.card.curve import loss_curve
before = os.environ.get("MPLBACKEND")
picture = loss_curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], "a title")
assert os.environ.get("MPLBACKEND") == before
print(hashlib.sha256(picture).hexdigest())
"""


def _drawn(**variables: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    return done.stdout.strip(), done.stderr


@pytest.fixture(scope="module")
def plain() -> str:
    digest, complaints = _drawn()
    assert len(digest) == hashlib.sha256().digest_size * 2, complaints
    return digest


@pytest.mark.parametrize(
    "variables",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "no-such-back-end"},
        {"MPLBACKEND": "TkAgg", "DISPLAY": ":99"},
        {"MPLCONFIGDIR": "/proc/nowhere"},
        {"HOME": "/proc/nowhere"},
    ],
    ids=str,
)
def test_a_picture_is_the_same_whatever_the_surroundings_say(variables: dict[str, str], plain: str) -> None:
    assert _drawn(**variables) == (plain, "")


def test_a_broken_matplotlibrc_of_the_directory_changes_nothing(plain: str) -> None:
    Path("matplotlibrc").write_text("lines.linewidth: wide\nfigure.facecolor: black\n", encoding="utf-8")
    assert _drawn()[0] == plain
