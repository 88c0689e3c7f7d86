"""What every tracker is: Accelerate's ``GeneralTracker``, with texts, images, an outcome and a way to go on after a resume."""

from __future__ import annotations

import http.client
import importlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from accelerate.tracking import GeneralTracker

from pitstop.checkpointing.disk.dotted import flattened
from pitstop.checkpointing.runs.metadata import COMPLETED
from pitstop.configs.errors import SettingsError
from pitstop.configs.secrets import mask

REACH_TIMEOUT_S = 10
"""How long one request to a tracker's server may take."""

_LOGIN = re.compile(r"//[^/@\s]*@")
_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Subject:
    """The run that is tracked.

    ``label`` is ``run_003``, the run's name in the tracker; ``name`` its own unique name. ``logs`` is its directory for logs.
    ``identity`` is what the tracker is to be found by again, empty at the start. ``first_step`` is the first optimizer step
    that is logged after a resume, None at the start: what a tracker knows of that and later steps is void.
    """

    label: str
    name: str
    project: str
    logs: Path
    identity: str = ""
    first_step: int | None = None


class RunTracker(GeneralTracker):
    """One run in one tracker. All methods but ``check`` are called on one thread, and may raise whatever the library raises.

    The library is imported in the methods: it may be missing, and takes its time. ``package`` is its name.
    """

    requires_logging_directory = False
    main_process_only = False  # only the first process makes one at all
    package: ClassVar[str]

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject

    @classmethod
    def check(cls) -> None:
        """Raise ``SettingsError`` where this tracker cannot be used here: no package, no key, no server."""
        require(cls.name, cls.package)

    @property
    def identity(self) -> str:
        """What finds the tracker's run again; empty where the run's directory does."""
        return ""

    def last_step(self) -> int | None:
        """The newest step that the tracker has from an earlier process; None where it cannot tell."""
        return None

    def note_changes(self, changes: Mapping[str, tuple[Any, Any]], step: int) -> None:
        """Tell what a resume at ``step`` changed, as {setting: (before, now)}."""

    def log_text(self, name: str, text: str, step: int) -> None:
        """Log a text, such as a generated sample."""

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Log an image: height × width × 3, unsigned bytes, RGB."""

    def finish(self, status: str = COMPLETED) -> None:
        """Close the tracker's run as ``completed``, ``interrupted`` or ``failed``."""

    def abandon(self) -> None:
        """Let go of a tracker that did not finish in time, so that it does not keep the process from ending."""


def require(name: str, package: str) -> Any:
    """Import ``package``. ``SettingsError`` with the line to type where it is missing or broken."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        problem = "is not installed" if missing else f"cannot be imported ({error})"
        raise SettingsError(
            f"REPORT_TO = {name}: the package {package} {problem}.",
            hint=f"Type: pip install 'pitstop[{name}]', or leave {name} out of --report-to.",
        ) from error


def set_defaults(environment: Mapping[str, str]) -> None:
    """Put into the environment what a library reads there; what the user set stands."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)


def reach(name: str, server: str, way_out: str) -> None:
    """Ask ``server`` for anything. ``SettingsError`` where it does not answer, with ``way_out`` in the hint."""
    try:
        with urllib.request.urlopen(_LOGIN.sub("//", server), timeout=REACH_TIMEOUT_S):
            return
    except urllib.error.HTTPError as answer:
        answer.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise SettingsError(
            f"REPORT_TO = {name}: {shown(server)} cannot be reached ({shown(getattr(error, 'reason', error))}).",
            hint=f"{way_out}, or leave {name} out of --report-to.",
        ) from error


def is_identity(text: Any) -> bool:
    """Whether ``text`` can be an identity; one becomes part of addresses and file names."""
    return isinstance(text, str) and bool(_IDENTITY.fullmatch(text))


def shown(text: object) -> str:
    """``text`` as it may be shown: without tokens, and without the login in an address."""
    return mask(_LOGIN.sub("//", str(text)))


def flat(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Nested settings by dotted path, as every tracker takes them: a list becomes ``a,b``, None becomes ``none``."""
    return {path: _plain(value) for path, value in flattened(settings)}


def _plain(value: Any) -> bool | int | float | str:
    if value is None:
        return "none"
    if isinstance(value, bool | int | float):
        return value
    return mask(",".join(str(item) for item in value) if isinstance(value, list) else str(value))


def change_lines(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """What a resume changed, a line a setting: ``training.epochs: 2 → 3``."""
    return [f"{path}: {former} → {value}" for path, (former, value) in changes.items()]


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a row of the log, without its step."""
    return {
        key: value
        for key, value in row.items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }
