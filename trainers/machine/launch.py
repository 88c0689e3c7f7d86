"""Several processes on this machine, through torch elastic; the processes are ``pitstop`` with the same arguments."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

from pitstop.configs.errors import EXIT_BUG, EXIT_SIGTERM, ResourceError, SettingsError, first_line
from pitstop.configs.notices import Notice

_FORWARDED = ("SIGTERM", "SIGINT", "SIGUSR1")
_LOST_PEER = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "timed out waiting",
    "remote process exited",
)


_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
"""What a launcher sets for each process, all of it."""
_CLAIMS = (
    *_LAUNCHER[:-1],
    "LOCAL_WORLD_SIZE",
    *(
        f"{launcher}_{name}"
        for launcher in ("PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD")
        for name in ("SIZE", "RANK", "LOCAL_RANK")
    ),
)
"""Where Accelerate looks for other processes."""
_NOTHING = ("", "0", "1", "no", "false", "default")
"""What ``accelerate launch`` sets where nobody asked for anything."""
_HANDED_DOWN = "_PITSTOP_NOTICES"
"""What the process that starts others has noticed: they no longer see the variables that it took out."""


Handler = Callable[[int, FrameType | None], None]
"""Of a signal, as ``signal.signal`` takes it."""


class Place(NamedTuple):
    """This process among those that a launcher started; ``local_rank`` is its number on this machine."""

    rank: int
    world_size: int
    local_rank: int


def prepare_environment() -> list[Notice]:
    """Set what must be set before torch is imported, and take out what would change a training behind its settings.

    Returns what of the environment is ignored, and why; nothing in processes that another speaks for. What the user set stands otherwise.

    GNU OpenMP's threads spin for milliseconds while they wait, which makes training some ten times slower as soon as
    another process wants the cores. Spinning for microseconds costs a tenth when none does.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # At import it warns of an optional inference kernel that training never uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    earlier = [Notice.of(record) for record in json.loads(os.environ.pop(_HANDED_DOWN, "[]"))]
    notices = [*earlier, *_forget_claims(), *_forget_accelerate()]
    return notices if rank() == 0 else []


def hand_down(notices: Iterable[Notice]) -> None:
    """Let the processes that ``launch`` starts find ``notices`` in ``prepare_environment``."""
    os.environ[_HANDED_DOWN] = json.dumps([notice.as_dict() for notice in notices])


def is_worker() -> bool:
    """Whether this process was started by torchrun, ``accelerate launch`` or ``launch`` as one of several."""
    return world_size() > 1


def world_size() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    place = _place()
    return place.world_size if place else 1


def rank() -> int:
    """Number of this process among all of them."""
    place = _place()
    return place.rank if place else 0


def local_rank() -> int:
    """Number of this process among those on this machine."""
    place = _place()
    return place.local_rank if place else 0


def _place() -> Place | None:
    """What a launcher says of this process; None where the environment is not wholly that of one."""
    if _doubt() is not None:
        return None
    rank, size, local = (int(os.environ[name]) for name in _LAUNCHER[:-1])
    return Place(rank, size, local)


def _doubt() -> str | None:
    """Why the environment is not that of a process that a launcher started."""
    missing = [name for name in _LAUNCHER if not os.environ.get(name)]
    if missing:
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
    for name in (*_LAUNCHER[:-1], "MASTER_PORT"):
        value = os.environ.get(name, "0")
        if not (value.isascii() and value.isdecimal()):
            return f"{name} is not a number"
    rank, size, local = (int(os.environ[name]) for name in _LAUNCHER[:-1])
    if not (rank < size and local < size):
        return f"{'RANK' if rank >= size else 'LOCAL_RANK'} is not below WORLD_SIZE"
    return None


def _forget_claims() -> Iterator[Notice]:
    """Take the variables that claim other processes, and are no launcher's, out of the environment: libraries would believe them."""
    doubt = _doubt()
    if doubt is None:
        return
    claims = {name: os.environ.pop(name) for name in _CLAIMS if name in os.environ}
    if not claims:
        return
    shown = ", ".join(f"{name}={value}" for name, value in claims.items())
    adapter = " The rank of an adapter is LORA_RANK." if "RANK" in claims else ""
    yield Notice(
        f"{{subject}} in the environment [is|are] ignored, since {doubt}: this is one process by itself",
        shown,
        len(claims),
        remedy=f"--num-processes or torchrun start several.{adapter}",
        loss=True,
    )


def _forget_accelerate() -> Iterator[Notice]:
    """Take out what Accelerate would compute by: it cuts gradients, or takes another engine, and no setting says so."""
    names = [name for name in os.environ if name.startswith("ACCELERATE_") or name == "FORK_LAUNCHED"]
    variables = {name: os.environ.pop(name) for name in names}
    asked = [f"{name}={value}" for name, value in variables.items() if value.lower() not in _NOTHING]
    if asked:
        reason = "{subject} in the environment [is|are] ignored, since a training computes as its settings say"
        yield Notice(reason, ", ".join(asked), len(asked), loss=True)


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
    neighbours = os.environ.get("LOCAL_WORLD_SIZE", "")
    if "TORCHELASTIC_RUN_ID" not in os.environ or not neighbours.isdecimal():
        return False
    import psutil

    try:
        return len(psutil.Process(os.getppid()).children()) < int(neighbours)
    except psutil.Error:
        return False


def hangups() -> tuple[signal.Signals, ...]:
    """SIGHUP, where the system has it and this process was not started to ignore it, as by ``nohup``."""
    number: signal.Signals | None = getattr(signal, "SIGHUP", None)
    return () if number is None or signal.getsignal(number) is signal.SIG_IGN else (number,)


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
    Raises ``SettingsError`` for more processes than CUDA devices, ``ResourceError`` where another program took the port that they meet at.
    """
    import torch
    from torch.distributed import DistNetworkError
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
        # Not c10d: it unpickles the state that it finds in a store which listens on all interfaces.
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{_free_port()}",
        rdzv_configs={"rank": 0},
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle="SIGQUIT",
    )
    with _quiet_elastic(), forwarding():
        try:
            # -P: as with the console script, no file of the current directory passes for a library.
            elastic_launch(config, sys.executable)("-P", "-m", "pitstop.cli", *arguments)
        except ChildFailedError as error:
            every_code = {rank: failure.exitcode for rank, failure in error.failures.items()}
            # Elastic ends the others, by SIGTERM, because one had ended badly.
            codes = {rank: code for rank, code in every_code.items() if code not in (-signal.SIGTERM, EXIT_SIGTERM)} or every_code
            _tell_killed(codes, processes)
            return _exit_code(list(codes.values()))
        except DistNetworkError as error:
            raise ResourceError(
                f"The {processes} processes cannot meet: {first_line(error)}",
                hint="Another program may have taken the port in that moment: start again, and it is another port.",
            ) from error
    return 0


def _free_port() -> int:
    """A TCP port that nobody listens on; another program may take it in the moment before the store does."""
    import socket  # here: every command imports this module, few start processes

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


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
def handling(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Handle signals while inside; the handlers before come back afterwards."""
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def forwarding() -> Iterator[None]:
    """Pass signals on to the worker processes while inside."""
    import psutil

    def forward(number: int, frame: FrameType | None) -> None:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    numbers = [*(getattr(signal, name) for name in _FORWARDED if hasattr(signal, name)), *hangups()]
    with handling(dict.fromkeys(numbers, forward)):
        yield


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
