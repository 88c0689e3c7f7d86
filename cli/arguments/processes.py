"""A training in this process or in several: what ``train`` and ``resume`` share once their settings are known."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pitstop.cli.terminal import streams
from pitstop.cli.terminal.output import print_json
from pitstop.cli.terminal.progress import make_display
from pitstop.configs.errors import PitstopError
from pitstop.configs.notices import Notice

if TYPE_CHECKING:
    from pitstop.trainers.reporter import Display
    from pitstop.trainers.training.trainer import Result

SummaryOption = Annotated[bool, typer.Option("--json", help="Print a summary as JSON at the end; progress goes to stderr.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")]


def start_or_join(
    processes: int,
    training: Callable[[Display, Sequence[Notice]], Result],
    *,
    early: Sequence[Notice] = (),
    json_output: bool,
    quiet: bool,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run ``training`` and return the exit code; where there are to be several ``processes``, start them instead.

    A process that was started as one of several joins the others. ``arguments`` is the command line of the processes that
    are started; this process's own unless given. ``training``, which imports torch, is given what ``early`` and here was noticed.
    """
    from pitstop.trainers.machine import launch

    if not json_output:
        streams.let_display_go()
    notices = [*early, *launch.prepare_environment()]
    if processes > 1 and not launch.is_worker():
        launch.hand_down(notices)
        return launch.launch(processes, sys.argv[1:] if arguments is None else arguments)
    display = make_display(quiet=quiet, json_output=json_output)
    if launch.rank() == 0:
        display.line("Loading libraries …")
    with speaking_for_all():
        result = training(display, notices)
    if json_output and result.summary:
        print_json(result.summary)
    return result.exit_code


@contextmanager
def speaking_for_all() -> Iterator[None]:
    """Only the first process reports an error that every process meets, such as a wrong path.

    The other processes end silently with the same exit code. Where another process died, the error says that instead.
    """
    from pitstop.trainers.machine import launch

    try:
        yield
    except BaseException as error:
        lost_peer = launch.lost_peer(error)
        reported = lost_peer or error
        if launch.rank() > 0 and lost_peer is not None:
            time.sleep(launch.AFTER_THE_CAUSE_S)
        if launch.rank() > 0 and isinstance(reported, PitstopError):
            raise typer.Exit(reported.exit_code) from None
        if lost_peer is not None:
            raise lost_peer from error
        raise
