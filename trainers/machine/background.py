"""One piece of work at a time beside the training."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs a job on a thread of its own; the next one waits for it. What a job raises comes out of ``wait``."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Run ``job``, after the one before has ended. Raises what that one raised."""
        self.wait()

        def run() -> None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - it is raised again where somebody waits
                self._error = error

        # No daemon: the interpreter waits for a save under way, however the training ended.
        self._thread = threading.Thread(target=run, name="pitstop-save", daemon=False)
        self._thread.start()

    def wait(self) -> None:
        """Return once no job is running. Raises what the last one raised, once."""
        self.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def join(self) -> None:
        """Return once no job is running; what it raised is still to come out of ``wait``."""
        if self._thread is not None:
            self._thread.join()

    def failed(self) -> bool:
        """Whether a job has raised an error that nobody has seen yet."""
        return self._error is not None
