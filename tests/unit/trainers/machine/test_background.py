"""One job at a time beside the training."""

from __future__ import annotations

import threading

import pytest

from pitstop.trainers.machine.background import Background


def test_a_job_runs_beside_its_starter_and_wait_joins_it() -> None:
    background, go, done = Background(), threading.Event(), []

    def job() -> None:
        go.wait(10)
        done.append(threading.current_thread())

    background.start(job)
    assert not done
    go.set()
    background.wait()
    assert done and done[0] is not threading.main_thread()
    background.wait()


def test_the_next_job_waits_for_the_one_before() -> None:
    background, order, go = Background(), [], threading.Event()

    def first() -> None:
        go.wait(10)
        order.append(1)

    background.start(first)
    threading.Timer(0.05, go.set).start()
    background.start(lambda: order.append(2))
    assert order[0] == 1
    background.wait()
    assert order == [1, 2]


def test_what_a_job_raises_comes_out_once_where_somebody_waits() -> None:
    background = Background()

    def fail() -> None:
        raise ValueError("no")

    background.start(fail)
    with pytest.raises(ValueError, match="no"):
        background.start(lambda: None)
    background.wait()
    assert not background.failed()


def test_a_failure_is_known_before_anybody_waits() -> None:
    background = Background()
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise ValueError("no")

    assert not background.failed()
    background.start(fail)
    failed.wait(10)
    background.join()
    assert background.failed()
    with pytest.raises(ValueError, match="no"):
        background.wait()
