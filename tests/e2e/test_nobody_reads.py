"""Trainings whose display cannot be shown: they go on, and end as they would have."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.forked import pitstop
from support.streams import encoded, read_by_nobody, written_to
from support.terminal import Terminal
from support.training import arguments, checkpoints, metadata

pytestmark = pytest.mark.usefixtures("warm")
SHORT = {"method": "lora", "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "no_packing": True}


def _assert_complete(base: Path) -> None:
    run = base / "run_001"
    assert metadata(run)["status"] == "completed"
    assert checkpoints(run) == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.parametrize("descriptors", [(1,), (2,), (1, 2)], ids=["stdout", "stderr", "both"])
def test_training_goes_on_where_nobody_reads_its_output(
    descriptors: tuple[int, ...], tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **SHORT), prepare=read_by_nobody(*descriptors))
    assert ended.code == 0, ended.output
    _assert_complete(tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_display_in_any_encoding(encoding: str, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **SHORT), prepare=encoded(encoding))
    assert ended.code == 0, ended.output
    assert "Loading libraries ..." in ended.output
    assert "saved checkpoint-4" in ended.output and "<- best" in ended.output, "the sign is a plain one"
    _assert_complete(tmp_path)


def test_a_disk_that_takes_no_output_does_not_end_a_training(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **SHORT), prepare=written_to("/dev/full"))
    assert ended.code == 0, ended.output
    _assert_complete(tmp_path)


def test_a_terminal_of_another_encoding_gets_a_bar_of_plain_signs(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    terminal = Terminal(*arguments(tiny_model, data, tmp_path, **SHORT), prepare=encoded("latin-1"))
    terminal.until("Done after step 4")
    assert terminal.close() == 0
    assert "---" in terminal.shown and "━" not in terminal.shown
    _assert_complete(tmp_path)


def test_a_terminal_that_is_closed_does_not_end_a_training_that_ignores_it(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    """As after ``disown``: nothing but writing tells that the terminal has gone."""

    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        encoded("utf-8")()

    terminal = Terminal(*arguments(tiny_model, data, tmp_path, **SHORT), prepare=prepare)
    terminal.until("Loading libraries")
    os.close(terminal.descriptor)
    _, status = os.waitpid(terminal.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    _assert_complete(tmp_path)
