"""How much of the processor the uploader takes: during training what is left over, afterwards its share.

Training on a CPU waits for the slowest of its threads many times a step, so that a short interruption of one is one of all.
"""

from __future__ import annotations

import contextlib
import os
import sys

NICENESS = 19
"""Where there is no class of processes that only run when nobody else wants to."""


def stand_back() -> None:
    """Have this thread, and those that it starts, run only while the processor is idle."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    if hasattr(os, "nice"):
        os.nice(NICENESS)


def come_forward() -> None:
    """Have all threads of this process run like any other's again; where the system does not allow that they stay back."""
    if sys.platform == "linux":
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names are numbers of threads
            with contextlib.suppress(OSError):
                os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))
