"""The uploader runs on what others leave, until nobody else is waited for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, threading
from pitstop.checkpointing.hub.priority import come_forward, stand_back
def policies():
    return sorted({os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")})
stand_back()
over = threading.Event()
threading.Thread(target=over.wait, daemon=True).start()
print(policies())
come_forward()
print(policies())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems only know niceness")
def test_all_threads_stand_back_and_come_forward_again() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = done.stdout.splitlines()
    if before == f"[{os.SCHED_OTHER}]":
        pytest.skip("this system does not let a process stand back")
    assert before == f"[{os.SCHED_IDLE}]"
    assert after in (f"[{os.SCHED_OTHER}]", before), "coming forward takes a right that not everybody has"
    assert os.geteuid() or after == f"[{os.SCHED_OTHER}]"
