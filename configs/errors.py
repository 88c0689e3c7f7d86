"""Every error that a user is meant to see, each with its exit code and what to do next."""

from __future__ import annotations

import errno

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_CHECKPOINT = 4
EXIT_HUB = 5
EXIT_RESOURCES = 6
EXIT_SIGHUP = 129
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class PitstopError(Exception):
    """Base of all errors shown to the user without a traceback.

    ``message`` says what happened and where; ``hint`` says what to do next.
    """

    exit_code = EXIT_BUG

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def with_hint(self) -> str:
        """Message and hint in one line, for a list of problems."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


class SettingsError(PitstopError):
    """A setting, flag or command line that cannot be used."""

    exit_code = EXIT_USAGE


class RunError(PitstopError):
    """A run that does not exist, already exists, is finished or is in use."""

    exit_code = EXIT_USAGE


class DataError(PitstopError):
    """A data set that is missing, empty or malformed."""

    exit_code = EXIT_INPUT


class ModelError(PitstopError):
    """A base model that cannot be found or loaded."""

    exit_code = EXIT_INPUT


class CheckpointError(PitstopError):
    """No valid checkpoint, or one that is corrupt."""

    exit_code = EXIT_CHECKPOINT


class HubError(PitstopError):
    """An explicit push, pull or ``resume --from-hub`` that failed."""

    exit_code = EXIT_HUB


class ResourceError(PitstopError):
    """Out of memory or out of disk."""

    exit_code = EXIT_RESOURCES


def first_line(error: BaseException) -> str:
    """The first line of what a library says of its error; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "alloc_cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out: of the device, of this process or of the system."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _MEMORY_WORDS)


_DISK_ERRNOS = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_DISK_WORDS = ("no space left", "storagefull", "quota exceeded", "disk full")


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` says that a disk or a quota is full; libraries wrap the system's error in their own kinds."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_ERRNOS  # its text may hold a path of any name
    return isinstance(error, Exception) and any(word in str(error).lower() for word in _DISK_WORDS)
