"""Signals only set a flag, the strongest wins, and the handlers before come back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from pitstop.trainers.machine.signals import EXIT_CODES, HANGUP, INTERRUPT, SAVE, TERMINATE, SignalFlag, leaving_on_signals

NUMBERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def _hangups_end_a_process() -> Iterator[None]:
    """Also where the tests were started under nohup, which ignores SIGHUP for all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def _in_child(body: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            body()
            os._exit(0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_exit_codes() -> None:
    assert EXIT_CODES == {INTERRUPT: 130, HANGUP: 129, TERMINATE: 143}


@pytest.mark.parametrize(
    ("sent", "pending", "stops"),
    [
        ([], 0, False),
        ([signal.SIGUSR1], SAVE, False),
        ([signal.SIGINT], INTERRUPT, True),
        ([signal.SIGTERM], TERMINATE, True),
        ([signal.SIGTERM, signal.SIGTERM], TERMINATE, True),
        ([signal.SIGUSR1, signal.SIGINT], INTERRUPT, True),
        ([signal.SIGINT, signal.SIGUSR1], INTERRUPT, True),
        ([signal.SIGTERM, signal.SIGUSR1], TERMINATE, True),
        ([signal.SIGINT, signal.SIGTERM], TERMINATE, True),
        ([signal.SIGHUP], HANGUP, True),
        ([signal.SIGHUP, signal.SIGHUP], HANGUP, True),
        ([signal.SIGUSR1, signal.SIGHUP], HANGUP, True),
        ([signal.SIGHUP, signal.SIGTERM], TERMINATE, True),
        ([signal.SIGTERM, signal.SIGHUP], TERMINATE, True),
    ],
)
def test_the_strongest_signal_is_pending(sent: list[int], pending: int, stops: bool) -> None:
    flag = SignalFlag(announce=False)
    with flag.installed():
        for number in sent:
            _send(number)
    assert (flag.pending, flag.wants_stop()) == (pending, stops)


def test_handlers_before_come_back_even_after_an_error() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with pytest.raises(RuntimeError), SignalFlag().installed():
        assert [signal.getsignal(number) for number in NUMBERS] != before
        raise RuntimeError
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_ctrl_c_after_a_stop_leaves_at_once(first: int) -> None:
    def body() -> None:
        with SignalFlag().installed():
            _send(first)
            _send(signal.SIGINT)
            os._exit(1)  # not reached

    assert _in_child(body) == 130


def test_a_save_that_was_done_is_forgotten_but_a_stop_that_came_meanwhile_is_not() -> None:
    flag = SignalFlag(announce=False)
    with flag.installed():
        _send(signal.SIGUSR1)
        flag.clear_save()
        assert flag.pending == 0
        _send(signal.SIGUSR1)
        _send(signal.SIGTERM)
        flag.clear_save()
    assert flag.pending == TERMINATE


@pytest.mark.parametrize(("announce", "said"), [(True, True), (False, False)])
def test_only_the_first_process_speaks(announce: bool, said: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with SignalFlag(announce=announce).installed():
        _send(signal.SIGTERM)
    assert ("saving a checkpoint at the end of this step" in capfd.readouterr().err) is said


@pytest.mark.parametrize(("neighbours", "said"), [(1, True), (0, False)])
def test_the_sigterm_by_which_elastic_ends_the_rest_of_a_group_is_not_announced(
    neighbours: int, said: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher with two processes, of which one may have ended; the other one is sent SIGTERM."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "pitstop")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    launcher = os.fork()
    if launcher == 0:
        others = [_child(signal.pause) for _ in range(neighbours)]
        os.waitpid(_child(_terminated), 0)
        for other in others:
            os.kill(other, signal.SIGKILL)
        os._exit(0)
    os.waitpid(launcher, 0)
    assert ("saving a checkpoint at the end of this step" in capfd.readouterr().err) is said


def test_a_hangup_that_is_ignored_from_the_start_stays_ignored() -> None:
    """As under nohup."""

    def body() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        flag = SignalFlag(announce=False)
        with leaving_on_signals(), flag.installed():
            _send(signal.SIGHUP)
        os._exit(0 if flag.pending == 0 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else 1)

    assert _in_child(body) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_before_training_there_is_nothing_to_save(number: int, code: int) -> None:
    with pytest.raises(SystemExit) as leaving, leaving_on_signals():
        _send(number)
    assert leaving.value.code == code


def test_a_stderr_that_has_gone_does_not_keep_a_signal_from_saving() -> None:
    def body() -> None:
        end, begin = os.pipe()
        os.close(end)
        os.dup2(begin, 2)
        flag = SignalFlag()
        with flag.installed():
            _send(signal.SIGHUP)
        os._exit(0 if flag.pending == HANGUP else 1)

    assert _in_child(body) == 0


def _child(body: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        body()
        os._exit(0)
    return child


def _terminated() -> None:
    flag = SignalFlag()
    with flag.installed():
        _send(signal.SIGTERM)
    os._exit(0 if flag.pending == TERMINATE else 1)
