"""Signals set a flag; the training loop acts on it at the next optimizer-step boundary."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from pitstop.configs.errors import EXIT_SIGHUP, EXIT_SIGINT, EXIT_SIGTERM
from pitstop.trainers.machine.launch import Handler, handling, hangups, neighbour_is_gone

SAVE = 1  # SIGUSR1: save and go on
INTERRUPT = 2  # SIGINT: save and stop
HANGUP = 3  # SIGHUP: save and stop
TERMINATE = 4  # SIGTERM: save and stop

EXIT_CODES = {INTERRUPT: EXIT_SIGINT, HANGUP: EXIT_SIGHUP, TERMINATE: EXIT_SIGTERM}


@contextlib.contextmanager
def leaving_on_signals() -> Iterator[None]:
    """End at once with exit code 143 on SIGTERM and 129 on SIGHUP while inside: for the time before training, when there is nothing to save."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with handling(dict.fromkeys((signal.SIGTERM, *hangups()), leave)):
        yield


class SignalFlag:
    """The strongest signal that has arrived and not been acted on."""

    def __init__(self, announce: bool = True) -> None:
        self.pending = 0
        self._announce = announce

    def wants_stop(self) -> bool:
        """Whether training is to end at the next boundary."""
        return self.pending >= INTERRUPT

    def clear_save(self) -> None:
        """Forget a SIGUSR1 that has been acted on."""
        if self.pending == SAVE:
            self.pending = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[SignalFlag]:
        """Handle SIGTERM, SIGHUP, SIGINT and SIGUSR1 while inside; the handlers before come back afterwards."""
        handlers: dict[signal.Signals, Handler] = dict.fromkeys((signal.SIGTERM, *hangups()), self._on_stop)
        handlers[signal.SIGINT] = self._on_interrupt
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = self._on_save
        with handling(handlers):
            yield self

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        self.pending = max(self.pending, SAVE)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.pending = max(self.pending, TERMINATE if number == signal.SIGTERM else HANGUP)
        if number != signal.SIGTERM or not neighbour_is_gone():  # else nothing can be saved, and the cause is what has to be said
            self._say(f"{signal.Signals(number).name}: saving a checkpoint at the end of this step, then stopping.")

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.pending >= INTERRUPT:
            # The user does not want to wait. What is committed is safe; a save under way is dropped on the next start.
            self._say("Stopping at once; the run can be resumed from its last saved checkpoint.")
            os._exit(EXIT_SIGINT)
        self.pending = INTERRUPT
        self._say("Ctrl+C: saving a checkpoint at the end of this step, then stopping. Press it again to leave at once.")

    def _say(self, text: str) -> None:
        # os.write, not print: a handler may run in the middle of a print on the same stream.
        if self._announce:
            with contextlib.suppress(OSError):  # the terminal may have gone, and a reader: often the reason of the signal
                show_cursor = "\x1b[?25h\r\n" if os.isatty(2) else ""
                os.write(2, f"{show_cursor}{text}\n".encode())
