"""Each kind of failure ends with its exit code, a message and what to do next; only bugs leave a traceback, in a file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pitstop.cli.boundary import run_guarded
from pitstop.configs.errors import (
    CheckpointError,
    DataError,
    HubError,
    ModelError,
    PitstopError,
    ResourceError,
    RunError,
    SettingsError,
)

TOKEN = "hf_" + "A" * 34


def raising(error: BaseException):
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("kind", "code"),
    [(SettingsError, 2), (RunError, 2), (DataError, 3), (ModelError, 3), (CheckpointError, 4), (HubError, 5), (ResourceError, 6)],
)
def test_our_errors_have_their_exit_codes(kind: type[PitstopError], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(kind("what and where", hint="what next"))) == code
    assert capsys.readouterr().err == "error: what and where\nhint: what next\n"


def test_an_error_without_a_hint_prints_none(capsys: pytest.CaptureFixture[str]) -> None:
    run_guarded(raising(DataError("empty")))
    assert capsys.readouterr().err == "error: empty\n"


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (143, 143), (True, 0), ("text", 0)])
def test_an_int_that_is_returned_is_the_exit_code(returned: object, code: int) -> None:
    assert run_guarded(lambda: returned) == code


@pytest.mark.parametrize(("status", "code"), [(None, 0), (7, 7), ("message", 1)])
def test_sys_exit_keeps_its_code(status: object, code: int) -> None:
    assert run_guarded(raising(SystemExit(status))) == code


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(KeyboardInterrupt())) == 130
    assert run_guarded(raising(typer.Abort())) == 130
    assert "Traceback" not in capsys.readouterr().err


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_out_of_memory_is_6_and_names_the_knobs(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(error)) == 6
    message = capsys.readouterr().err
    assert message.startswith("error: out of memory")
    assert "--batch-size" in message and "--gradient-checkpointing" in message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_6_and_names_the_place(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(OSError(number, "full", "runs/x"))) == 6
    message = capsys.readouterr().err
    assert "runs/x" in message and "--base-dir" in message


def test_a_place_that_may_not_be_written_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(PermissionError(errno.EACCES, "Permission denied", "/runs"))) == 2
    assert "Permission denied: /runs" in capsys.readouterr().err


def test_a_bug_saves_its_traceback_in_a_private_file_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run_guarded(raising(ZeroDivisionError("division by zero")), ["train", "--epochs", "1"]) == 1
    message = capsys.readouterr().err
    (saved,) = (tmp_path / "pitstop" / "tracebacks").iterdir()
    assert "Traceback" not in message and str(saved) in message
    text = saved.read_text()
    assert "ZeroDivisionError" in text and "command: pitstop train --epochs 1" in text
    assert saved.stat().st_mode & 0o077 == 0


def test_a_traceback_that_cannot_be_saved_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pitstop").write_text("a file where the cache should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run_guarded(raising(ZeroDivisionError("division by zero"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_secrets_are_hidden_in_messages_and_in_the_saved_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "a-value-of-its-own")
    run_guarded(raising(ModelError(f"cannot load with {TOKEN}", hint="not with a-value-of-its-own either")))
    run_guarded(raising(ValueError(f"{TOKEN} a-value-of-its-own")), ["train", TOKEN])
    captured = capsys.readouterr()
    (saved,) = (tmp_path / "pitstop" / "tracebacks").iterdir()
    for text in (captured.err, captured.out, saved.read_text()):
        assert TOKEN not in text and "a-value-of-its-own" not in text
    assert "<hidden>" in saved.read_text()


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    code = """
import sys
from pitstop.cli.boundary import run_guarded
from pitstop.cli.terminal import streams
streams.prepare()
sys.exit(run_guarded(lambda: [print("x" * 1000) for _ in range(9999)]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 0


@pytest.mark.parametrize("name", ["/mnt/disk full/x", "/data/no space left/x", "/home/quota exceeded"])
def test_a_path_that_sounds_like_a_full_disk_is_none(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(PermissionError(errno.EACCES, "Permission denied", name))) == 2
    assert "no space left on the disk" not in capsys.readouterr().err


def test_a_full_disk_is_known_in_the_words_of_a_library(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError('I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }')
    assert run_guarded(raising(error)) == 6
    assert "no space left on the disk" in capsys.readouterr().err
