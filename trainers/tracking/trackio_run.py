"""Trackio: a local database (``TRACKIO_DIR``), or a Space or server that its own variables name."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pitstop.checkpointing.runs.metadata import COMPLETED
from pitstop.trainers.tracking.tracker import RunTracker, change_lines


class TrackioRun(RunTracker):
    """A resume goes on in the run of the same name.

    A name is all that Trackio finds a run by, and every directory of runs has a run_001: the run's own name is part of it.
    """

    name = "trackio"
    package = "trackio"

    def start(self) -> None:
        """Begin the run, or go on with it."""
        import trackio

        self._name = self.subject.identity or f"{self.subject.label}-{self.subject.name}"
        resume = "allow" if self.subject.identity else "never"
        with _silence():
            self._run: Any = trackio.init(self.subject.project, name=self._name, resume=resume, embed=False, auto_log_cpu=False)

    @property
    def tracker(self) -> Any:
        """The run of the library."""
        return self._run

    @property
    def identity(self) -> str:
        """The run's name there."""
        return self._name

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """The run's config, which goes with the first row."""
        self._run.config.update(dict(values))

    def note_changes(self, changes: Mapping[str, tuple[Any, Any]], step: int) -> None:
        """In the config, under ``changed``."""
        self._run.config.update({f"changed.step_{step}": "; ".join(change_lines(changes))})

    def log(self, values: Mapping[str, float], step: int | None = None, **_: Any) -> None:
        """Each value at ``step``."""
        self._run.log(dict(values), step=step)

    def log_text(self, name: str, text: str, step: int) -> None:
        """As Markdown."""
        import trackio

        self._run.log({name: trackio.Markdown(text)}, step=step)

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """As PNG."""
        import trackio

        self._run.log({name: trackio.Image(image)}, step=step)

    def finish(self, status: str = COMPLETED) -> None:
        """Send the rest; Trackio knows no outcome."""
        with _silence():
            self._run.finish()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """It prints where the run is and how to look at it. Nothing else prints meanwhile: the training waits."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
