"""What the libraries say by themselves: kept off the user's terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import cast


def do_without_torch() -> None:
    """Have transformers come up without torch, which takes seconds, for the rest of this process: a tokenizer needs none.

    Nothing happens where torch is imported already.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there are no models without it
    sys.modules.setdefault("torch", cast(ModuleType, None))  # Python's way to say that a module is not there


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep progress bars and advice meant for library authors off the user's terminal; errors still come through."""
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    logger = logging.getLogger("transformers")
    level = logger.level
    transformers_logging.disable_progress_bar()
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
