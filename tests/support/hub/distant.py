"""Calls in another process, which has an environment of its own: the Hub's library reads it once, when it is imported.

A child reads pickled ``(function, arguments, named)`` from its stdin and answers ``(value, error)``; a function is named
``module:function``. Both ends are ours, so that pickle is as good as anything.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

TESTS = Path(__file__).resolve().parents[2]


class Distant:
    """A process in which functions are called one after the other: ``distant("support.hub.library:push", …)``.

    What they raise is raised here. ``env`` adds to ``environment`` (for a token of one's own); the process starts with the
    first call and ends with the ``with`` block.
    """

    def __init__(self, environment: Mapping[str, str], **env: str) -> None:
        self._environment = {**environment, **env, "PYTHONPATH": str(TESTS)}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Distant:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.stdout.close()  # type: ignore[union-attr]
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def __call__(self, function: str, *arguments: Any, **named: Any) -> Any:
        """Call ``module:function`` over there."""
        if self._process is None:
            command = [sys.executable, "-m", "support.hub.distant"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._stderr, env=self._environment)
        pickle.dump((function, arguments, named), self._process.stdin)  # type: ignore[arg-type]
        self._process.stdin.flush()  # type: ignore[union-attr]
        try:
            value, error = pickle.load(self._process.stdout)  # type: ignore[arg-type]
        except EOFError:
            raise RuntimeError(f"the process ended in {function}:\n{self.stderr()}") from None
        if error is not None:
            raise error
        return value

    def stderr(self) -> str:
        """What the process has written to stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")


def _call(function: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, BaseException | None]:
    module, _, name = function.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(*arguments, **named), None
    except Exception as error:
        return None, _portable(error)


def _portable(error: Exception) -> Exception:
    """The error itself where it survives the journey, else one that says what it was."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def main() -> None:
    """Answer until stdin ends. What is printed goes to stderr: stdout belongs to the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            function, arguments, named = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answers.write(pickle.dumps(_call(function, arguments, named)))
        answers.flush()


if __name__ == "__main__":
    main()
