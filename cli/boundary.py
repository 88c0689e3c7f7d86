"""The exception boundary: every error becomes an exit code and a message that says what to do next.

Nothing but a bug of ours shows a traceback, and that one goes to a file. Secrets are hidden in both.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pitstop.cli.terminal import streams
from pitstop.cli.terminal.output import notice, paint
from pitstop.configs.errors import (
    EXIT_BUG,
    EXIT_RESOURCES,
    EXIT_SIGINT,
    EXIT_USAGE,
    PitstopError,
    first_line,
    is_disk_full,
    is_out_of_memory,
)
from pitstop.configs.secrets import mask
from pitstop.configs.shown import printable

_MEMORY_HINT = (
    "use less memory: --batch-size 1 with more --gradient-accumulation-steps, a smaller --max-length, "
    "--gradient-checkpointing, --method qlora, or a smaller model"
)
_DISK_HINT = (
    "free some space (pitstop prune --dry-run shows what can go) or choose another disk with --base-dir. "
    "Committed checkpoints are intact: resume the run when there is room"
)


def run_guarded(action: Callable[[], Any], arguments: Sequence[str] = ()) -> int:
    """Call ``action`` and turn what it does into an exit code.

    An ``int`` that it returns, or ``typer.Exit(code)`` that it raises, is the exit code; None is 0.
    """
    try:
        result = action()
        sys.stdout.flush()
        return result if type(result) is int else 0
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else (0 if exit_.code is None else EXIT_BUG)
    except KeyboardInterrupt:
        _tell("interrupted", None)
        return EXIT_SIGINT
    except BaseException as error:  # noqa: BLE001 - this is the boundary
        return report(error, arguments)


def after_output(code: int) -> int:
    """The exit code of a command that ended with ``code``, once all it printed is written: a result that did not arrive is none."""
    problem = streams.lost()
    if problem is None or code:
        return code
    return _tell(f"some of the output could not be written: {problem.strerror or problem}", None, EXIT_RESOURCES)


def report(error: BaseException, arguments: Sequence[str] = ()) -> int:
    """Print ``error`` for a person on stderr and return the exit code it stands for."""
    if isinstance(error, PitstopError):
        return _tell(error.message, error.hint, error.exit_code)
    # Typer carries its own copy of click from 0.26 on, and the base of its errors has no public name in all versions.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return _usage(error)
    if type(error).__name__ == "Abort" and isinstance(error, RuntimeError):
        return _tell("interrupted", None, EXIT_SIGINT)
    if is_out_of_memory(error):
        return _tell(f"out of memory: {first_line(error)}", _MEMORY_HINT, EXIT_RESOURCES)
    if is_disk_full(error):
        file = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return _tell(f"no space left on the disk{file}", _DISK_HINT, EXIT_RESOURCES)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _tell(f"{error.strerror}: {error.filename}", "choose another place, or change its permissions", EXIT_USAGE)
    return _bug(error, arguments)


def _tell(message: str, hint: str | None, code: int = EXIT_BUG) -> int:
    notice(f"{paint('error:', 'red', 'bold', stream=sys.stderr)} {printable(mask(message), lines=True)}")
    if hint:
        notice(f"{paint('hint:', 'cyan', 'bold', stream=sys.stderr)} {printable(mask(hint), lines=True)}")
    return code


def _usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        notice(error.format_message())
        return EXIT_USAGE
    path = context.command_path if context is not None else "pitstop"
    return _tell(error.format_message(), f"{path} --help lists what it takes", EXIT_USAGE)


def _bug(error: BaseException, arguments: Sequence[str]) -> int:
    text = f"{type(error).__name__}: {first_line(error)}"
    try:
        path = save_traceback(error, arguments)
    except OSError as problem:
        notice(mask("".join(traceback.format_exception(error))))
        return _tell(f"a bug in pitstop: {text}", f"its traceback stands above, since it could not be saved: {problem}")
    return _tell(f"a bug in pitstop: {text}", f"the traceback is saved in {path}; please report it with that file")


def save_traceback(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write the traceback of ``error`` to a new private file in the cache and return its path; raises OSError."""
    from pitstop.configs.paths import cache_directory

    directory = cache_directory() / "tracebacks"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    head = f"pitstop {_version()} on Python {sys.version.split()[0]}, {sys.platform}\ncommand: pitstop {' '.join(arguments)}\n\n"
    text = mask(head + "".join(traceback.format_exception(error)))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pitstop")
    except PackageNotFoundError:
        return "(not installed)"
