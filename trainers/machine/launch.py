"""Several processes on this machine, through torch elastic; the processes are ``pitstop`` with the same arguments."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import NoReturn

from pitstop.configs.errors import EXIT_BUG, EXIT_SIGTERM, ResourceError, SettingsError

_FORWARDED = ("SIGTERM", "SIGINT", "SIGUSR1")
_LOST_PEER = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "timed out waiting",
    "remote process exited",
)


def prepare_environment() -> None:
    """Set what must be set before torch is imported; what the user set stands.

    GNU OpenMP's threads spin for milliseconds while they wait, which makes training some ten times slower as soon as
    another process wants the cores. Spinning for microseconds costs a tenth when none does.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # At import it warns of an optional inference kernel that training never uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def is_worker() -> bool:
    """Whether this process was started by torchrun, ``accelerate launch`` or ``launch`` as one of several."""
    return world_size() > 1 and "RANK" in os.environ


def world_size() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process among all of them."""
    return int(os.environ.get("RANK", "0"))


AFTER_THE_CAUSE_S = 3.0
"""How long a process that lost another one waits before it ends: the launcher reports the first that does, which should be the cause."""


def lost_peer(error: BaseException) -> ResourceError | None:
    """What to tell the user where ``error`` is what a process meets when another one of the group is gone; else None."""
    if not is_worker() or not isinstance(error, RuntimeError):
        return None
    from torch.distributed import DistError

    if not isinstance(error, DistError) and not any(words in str(error).lower() for words in _LOST_PEER):
        return None
    return ResourceError(
        "another process of this training died, and this one cannot go on alone.",
        hint="Look for its message, or for a message of the system about memory; then `pitstop resume` goes on from the last checkpoint.",
    )


def neighbour_is_gone() -> bool:
    """Whether one of the processes that torch elastic started beside this one has ended. It then ends the others by SIGTERM."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    import psutil

    try:
        return len(psutil.Process(os.getppid()).children()) < int(os.environ["LOCAL_WORLD_SIZE"])
    except psutil.Error:
        return False


def leave_worker(code: int) -> NoReturn:
    """End this process with exit code ``code`` as the interpreter would, but without taking the interpreter down.

    A thread of gloo may not have dropped the tensors of the last collective yet. To drop them it asks for the
    interpreter's lock, and before Python 3.14 a thread that asks for it during the shutdown is unwound, at which C++
    aborts: SIGABRT after a training that went well.
    """
    try:
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.current_thread():
                thread.join()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # a reader that has gone, or Ctrl+C, does not change what the process did
        os._exit(code)


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run ``pitstop ARGUMENTS`` in ``processes`` processes that form one group; returns the exit code of the first to end badly.

    Signals are passed on to the processes, which agree on when to save; torch elastic would kill them instead.
    Raises ``SettingsError`` for more processes than CUDA devices.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    devices = torch.cuda.device_count()
    if torch.cuda.is_available() and processes > devices:
        raise SettingsError(
            f"NUM_PROCESSES = {processes}: this machine has {devices} CUDA devices.",
            hint=f"Give --num-processes {devices} or fewer.",
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        run_id="pitstop",  # elastic warns of one that it has to make up
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle="SIGHUP,SIGQUIT",
    )
    with _quiet_elastic(), _forwarding():
        try:
            # -P: as with the console script, no file of the current directory passes for a library.
            elastic_launch(config, sys.executable)("-P", "-m", "pitstop.cli", *arguments)
        except ChildFailedError as error:
            codes = _to_blame({rank: failure.exitcode for rank, failure in error.failures.items()})
            _tell_killed(codes, processes)
            return _exit_code(list(codes.values()))
    return 0


def _to_blame(codes: Mapping[int, int]) -> dict[int, int]:
    """Exit codes by rank, without those of processes that elastic ended, by SIGTERM, because another one had ended badly."""
    own = {rank: code for rank, code in codes.items() if code not in (-signal.SIGTERM, EXIT_SIGTERM)}
    return own or dict(codes)


def _tell_killed(codes: Mapping[int, int], processes: int) -> None:
    """A process that was killed could not say so itself, and the first one, which speaks for all, may be the one."""
    for rank, code in codes.items():
        if code < 0:
            name = signal.Signals(-code).name
            sys.stderr.write(
                f"error: process {rank} of {processes} (counted from 0) was ended by {name}.\n"
                "hint: SIGKILL often means that the system's memory ran out; `pitstop resume` goes on from the last checkpoint\n"
            )


def _exit_code(codes: Sequence[int]) -> int:
    """The code a person should see: what a process chose itself (its error) rather than a signal that ended the others."""
    chosen = [code for code in codes if code > 0]
    if chosen:
        return chosen[0]
    return 128 - codes[0] if codes else EXIT_BUG


@contextlib.contextmanager
def _forwarding() -> Iterator[None]:
    """Pass signals on to the worker processes while inside."""
    import psutil

    def forward(number: int, frame: FrameType | None) -> None:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    numbers = [getattr(signal, name) for name in _FORWARDED if hasattr(signal, name)]
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_elastic() -> Iterator[None]:
    """Elastic logs a traceback for every exit code but zero; ours are not failures of it."""
    logger = logging.getLogger("torch.distributed.elastic")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
