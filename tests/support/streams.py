"""Standard streams as a shell may leave them: a reader that has gone, a descriptor that is closed, another encoding."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from pitstop.cli.terminal import streams

_REPLACED: list[TextIO] = []
"""They would close their descriptors with them."""


def read_by_nobody(*descriptors: int) -> Callable[[], None]:
    """Makes a forked child write into pipes whose reader has gone, as ``pitstop`` of a shell would."""

    def prepare() -> None:
        for descriptor in descriptors:
            end, start = os.pipe()
            os.close(end)
            os.dup2(start, descriptor)
            os.close(start)
        _as_at_the_start("utf-8")

    return prepare


def encoded(encoding: str) -> Callable[[], None]:
    """Makes a forked child print in ``encoding``."""
    return lambda: _as_at_the_start(encoding)


def written_to(path: str) -> Callable[[], None]:
    """Makes a forked child's stdout ``path``."""

    def prepare() -> None:
        descriptor = os.open(path, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.close(descriptor)
        _as_at_the_start("utf-8")

    return prepare


def _as_at_the_start(encoding: str) -> None:
    _REPLACED.extend([sys.stdout, sys.stderr])
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "wb", closefd=False)), encoding) for number in (1, 2)
    )
    streams.prepare()
