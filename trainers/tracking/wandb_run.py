"""Weights & Biases, with a server or offline; its files lie in the run's ``logs/wandb``."""

from __future__ import annotations

import html
import netrc
import os
import secrets
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pitstop.checkpointing.runs.metadata import COMPLETED, FAILED
from pitstop.configs.errors import SettingsError
from pitstop.trainers.tracking.tracker import RunTracker, change_lines, reach, set_defaults

_EXIT_CODES = {COMPLETED: 0, FAILED: 1}
_INTERRUPTED = 130
_FINISH_S = 8.0
_ENVIRONMENT = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}
_NO_SERVER = ("offline", "disabled", "dryrun")


class WandbRun(RunTracker):
    """A resume goes on in the run of the same id."""

    name = "wandb"
    package = "wandb"

    @classmethod
    def check(cls) -> None:
        """Package, key and server; offline only the package."""
        set_defaults(_ENVIRONMENT)
        super().check()
        if os.environ.get("WANDB_MODE", "online") in _NO_SERVER:
            return
        server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        if not _has_key(server):
            raise SettingsError(
                "REPORT_TO = wandb: there is no key for Weights & Biases.",
                hint="Type: wandb login, or set WANDB_API_KEY; or WANDB_MODE=offline to send the run later with wandb sync.",
            )
        reach(cls.name, server, "Set WANDB_MODE=offline and send the run later with wandb sync")

    def start(self) -> None:
        """Begin the run, or go on with it."""
        set_defaults(_ENVIRONMENT)
        import wandb

        subject = self.subject
        self._id = subject.identity or secrets.token_hex(8)  # not by a generator that training draws from
        # No command line, no git, no list of packages: what is tracked are the settings and what is logged.
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_save_requirements=False,
            init_timeout=20.0,
            finish_timeout=_FINISH_S,
            x_transaction_log_flush_interval=1.0,  # what is not in its file yet when the training is killed is lost
        )
        self._run: Any = wandb.init(
            project=subject.project,
            id=self._id,
            name=subject.label,
            notes=subject.name,
            resume="allow",
            dir=str(subject.logs),
            settings=quiet,
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")  # its own counter only goes up, ours goes back at a resume

    @property
    def tracker(self) -> Any:
        """The run of the library."""
        return self._run

    @property
    def identity(self) -> str:
        """The run's id."""
        return self._id

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """The run's config; what a resume changed is overwritten."""
        self._run.config.update(dict(values), allow_val_change=True)

    def note_changes(self, changes: Mapping[str, tuple[Any, Any]], step: int) -> None:
        """In the config, under ``changed``."""
        self._run.config.update({f"changed.step_{step}": "; ".join(change_lines(changes))}, allow_val_change=True)

    def log(self, values: Mapping[str, float], step: int | None = None, **_: Any) -> None:
        """Each value over ``step``."""
        self._run.log({**values, "step": step})

    def log_text(self, name: str, text: str, step: int) -> None:
        """As a page that holds the text as it is."""
        import wandb

        self._run.log({name: wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False), "step": step})

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """As PNG."""
        import wandb

        self._run.log({name: wandb.Image(image), "step": step})

    def finish(self, status: str = COMPLETED) -> None:
        """Send the rest; any outcome but ``completed`` is a failed run there."""
        self._run.finish(exit_code=_EXIT_CODES.get(status, _INTERRUPTED))

    def abandon(self) -> None:
        """End the library's own process, for which it would wait at exit; ``wandb sync`` sends what lies in the directory."""
        import psutil

        for child in psutil.Process().children():
            if child.name().startswith("wandb-core"):
                child.kill()


def _has_key(server: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urllib.parse.urlsplit(server).hostname or ""
    places = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    return any(_in_netrc(path, host) for path in places)


def _in_netrc(path: Path, host: str) -> bool:
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
