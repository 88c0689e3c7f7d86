"""The look-alike of the Hub that the tests have, in a process of its own, at the end of a slow line."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType

import psutil

from pitstop.checkpointing.hub.priority import stand_back

TESTS = Path(__file__).resolve().parents[2] / "tests"
TOKEN = "hf_write"  # of the look-alike, nobody's secret


class Line:
    """A Hub that answers each request ``late_s`` seconds late and takes and gives ``bytes_per_s``, while the ``with`` block lasts.

    ``root`` is an empty directory: what a repository has already would not be sent again.
    """

    def __init__(self, root: Path, late_s: float, bytes_per_s: float) -> None:
        self.root, self.late_s, self.bytes_per_s = root, late_s, bytes_per_s
        self.endpoint = ""

    def __enter__(self) -> Line:
        # A real Hub takes no processor from the training: the look-alike gets what is left over.
        command = [sys.executable, "-m", "support.hub", "--root", str(self.root), "--port", "0"]
        self._process = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True, preexec_fn=stand_back)
        assert self._process.stdout is not None
        self.endpoint = json.loads(self._process.stdout.readline())["endpoint"]
        self._slow_down()
        return self

    def _slow_down(self) -> None:
        rule = json.dumps({"times": -1, "delay": self.late_s, "rate": self.bytes_per_s}).encode()
        with urllib.request.urlopen(f"{self.endpoint}/_test/faults", rule, timeout=30) as answer:
            answer.read()

    def cpu_s(self) -> float:
        """Seconds of a processor that the look-alike has used so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def environment(self) -> dict[str, str]:
        """What a process needs to take it for the Hub."""
        return {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
