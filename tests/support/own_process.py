"""Running a function in a forked child, so that it may kill itself or compute with torch: the parent's libraries are imported already."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from support.forked import compute_for_tests, temporary_file


class Died(Exception):
    """The child ended by a signal, whose number is the argument."""


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work()`` returns, as JSON gives it back. ``Died`` where a signal ended the child; an error in it fails the test."""
    output, result = temporary_file(".out"), temporary_file(".json")
    pid = os.fork()
    if pid == 0:
        _work(work, output, result)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    try:
        if code < 0:
            raise Died(-code)
        assert code == 0, output.read_text(errors="replace")
        return json.loads(result.read_text())
    finally:
        output.unlink()
        result.unlink()


def _work(work: Callable[[], Any], output: Path, result: Path) -> NoReturn:
    code = 1
    try:
        with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            try:
                compute_for_tests()
                result.write_text(json.dumps(work()))
                code = 0
            except BaseException:
                traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
