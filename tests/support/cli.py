"""Calling ``pitstop`` from tests, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pitstop.cli.main import main


class Result(NamedTuple):
    """What a call of ``pitstop`` gave."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Parse stdout, which must be one JSON document and nothing else."""
        return json.loads(self.stdout)


class Cli:
    """Calls ``pitstop`` in this process through its real entry point, the exception boundary included."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path | int) -> Result:
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)


def pitstop_process(
    *arguments: str | Path | int, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
) -> Result:
    """Call ``pitstop`` in a process of its own, with ``env`` added to this one's; ``timeout`` in seconds."""
    command = [sys.executable, "-m", "pitstop.cli", *map(str, arguments)]
    done = subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)
