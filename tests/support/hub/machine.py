"""A machine with directories of its own, on which ``pitstop`` runs in forked children that take the look-alike for the Hub."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from support.forked import Child, Ended
from support.hub.environment import WRITE, environment
from support.hub.server import Hub
from support.interruptions import slow_saves
from support.tiny_model import write_data
from support.training import arguments

UPLOADER = "pitstop.checkpointing.hub.process"


@dataclass
class Machine:
    """``home`` holds its model, data, runs and login; commands run in ``home/cwd``. ``token`` None: none in the environment."""

    home: Path
    hub: Hub
    mode: str = "lfs"
    token: str | None = WRITE
    more: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0

    @property
    def model(self) -> Path:
        return self.home / "tiny-llama"

    @property
    def data(self) -> Path:
        return self.home / "train.jsonl"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def run(self) -> Path:
        return self.runs / "run_001"

    @property
    def environment(self) -> dict[str, str]:
        return {**environment(self.hub, self.mode, self.home / "hf", self.token), **self.more}

    def furnish(self, model: Path) -> Machine:
        """Put a copy of the model there, and the data that all trainings have."""
        shutil.copytree(model, self.model)
        write_data(self.home, 12, 4)
        return self

    def start_training(self, settings: Mapping[str, Any], prepare: Callable[[], None] | None = None) -> Child:
        """``pitstop train``, with pushing."""
        chosen = {"push_to_hub": True, "hub_retry_s": 0.05, "push_timeout": 60, **settings}
        return self.start(*arguments(self.model, self.home, self.runs, **chosen), prepare=prepare)

    def train(self, settings: Mapping[str, Any], prepare: Callable[[], None] | None = None) -> Ended:
        """The same to its end."""
        return self.start_training(settings, prepare).wait(120)

    def pitstop(self, *words: object, prepare: Callable[[], None] | None = None) -> Ended:
        """``pitstop WORDS`` on the runs of this machine, to its end."""
        return self.start(*words, "--base-dir", self.runs, prepare=prepare).wait(120)

    def start(self, *words: object, prepare: Callable[[], None] | None = None) -> Child:
        """Start ``pitstop WORDS``."""

        def everything() -> None:
            self.enter()
            if self.delay_s:
                slow_saves(self.delay_s)
            if prepare is not None:
                prepare()

        return Child(*words, prepare=everything)

    def enter(self) -> None:
        """In a forked child: be on this machine."""
        from huggingface_hub import constants

        for name in [name for name in os.environ if name.startswith("HF_")]:
            del os.environ[name]
        os.environ.update(self.environment)
        importlib.reload(constants)  # the library was imported long ago, in the tests' environment
        self.hub.forget()
        (self.home / "cwd").mkdir(parents=True, exist_ok=True)
        os.chdir(self.home / "cwd")

    def vanish(self) -> Path:
        """Rename all of it away; returns where the run lies now."""
        gone = self.home.with_name(f"{self.home.name}-is-gone")
        self.home.rename(gone)
        return gone / "runs" / "run_001"


def uploaders(hub: Hub) -> list[int]:
    """The process ids of the uploaders that push to ``hub``."""
    found = []
    for process in psutil.process_iter():
        try:
            if UPLOADER in process.cmdline() and process.environ().get("HF_ENDPOINT") == hub.endpoint:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@contextmanager
def copied(hub: Path, to: Path) -> Iterator[Hub]:
    """A Hub of its own that holds what the one in ``hub`` does."""
    shutil.copytree(hub, to)
    with Hub(to) as running:
        yield running
    assert not running.errors, "\n".join(running.errors)


def no_patience() -> None:
    """In a forked child: a pull gives a Hub that fails up at once."""
    from pitstop.checkpointing.hub import remote_repository

    patience = remote_repository.Patience(0.01, 0.01, 0.05)
    remote_repository.Patience = lambda: patience  # type: ignore[assignment, misc]
