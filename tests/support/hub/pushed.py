"""Trainings that push to the look-alike, and whether everything has arrived."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.manifest import parse_manifest
from pitstop.checkpointing.runs.inventory import INVENTORY, ROOT_ADAPTER, Inventory
from support.forked import Child, Ended
from support.hub.server import Hub
from support.interruptions import slow_saves
from support.training import EXACT_FILES
from support.trials import Trainings

SAVES = 12
SETTINGS: dict[str, Any] = {
    "method": "lora",
    "eval_dataset": None,
    "no_packing": True,
    "save_strategy": "steps",
    "save_steps": 1,
    "max_steps": SAVES,
    "keep_last_n": "none",
}
PUSHING: dict[str, Any] = {**SETTINGS, "push_to_hub": True, "hub_retry_s": 0.05, "push_timeout": 60}


@dataclass
class PushedTraining:
    """One training that pushes, in a forked child with ``environment``; every save begins ``delay_s`` late."""

    trainings: Trainings
    hub: Hub
    environment: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    delay_s: float = 0.0
    run: Path = Path()

    def start(self) -> Child:
        """Start it."""
        numbers = [int(path.name.removeprefix("run_")) for path in self.trainings.base_dir.glob("run_*")]
        self.run = self.trainings.base_dir / f"run_{max(numbers, default=0) + 1:03d}"
        return Child(*self.trainings.words({**PUSHING, **self.settings}), prepare=self.prepare)

    def resume(self, *words: str) -> Ended:
        """Go on with it, to the end."""
        return Child("resume", str(self.run), *words, prepare=self.prepare).wait(120)

    def pitstop(self, *words: object, timeout: float = 60) -> Ended:
        """``pitstop WORDS`` in a fresh process: the Hub's library reads its environment when it is imported."""
        command = [sys.executable, "-m", "pitstop.cli", *map(str, words)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        done = subprocess.run(
            command, env={**kept, **self.environment}, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Ended(done.returncode, done.stdout + done.stderr)

    def push(self, *words: str) -> Ended:
        """``pitstop push``."""
        return self.pitstop("push", self.run, *words)

    def prepare(self) -> None:
        """In the child: its own environment, and none of the look-alike's sockets, which would stay open with it."""
        for name in [name for name in os.environ if name.startswith("HF_")]:
            del os.environ[name]
        os.environ.update(self.environment)
        self.hub.forget()
        if self.delay_s:
            slow_saves(self.delay_s)

    @property
    def repo(self) -> str:
        """The repository, which has the run's name."""
        names = [name for kind, name in self.hub.store.repositories if name.startswith("tester/")]
        assert len(names) == 1, names
        return names[0]

    def assert_arrived(self, reference: Path, *, steps: int = SAVES, one_each: bool = True) -> None:
        """Every checkpoint is on the Hub, byte for byte that of the run ``reference``, each committed exactly once."""
        tree = self.hub.tree(self.repo)
        inventory = Inventory.from_bytes(self.hub.content(self.repo, INVENTORY), INVENTORY)
        wanted = {f"checkpoint-{step}" for step in range(1, steps + 1)}
        assert {path.split("/")[0] for path in tree if path.startswith("checkpoint-")} == wanted == set(inventory.checkpoints)
        for directory in wanted:
            self._assert_equal(directory, reference / "lora_weights" / directory)
        assert inventory.finished, "the end of training has not arrived"
        titles = [commit.title for commit in self.hub.commits(self.repo)]
        for step in range(1, steps + 1):
            assert sum(step in _steps_in(title) for title in titles) == 1, (step, titles)
        if one_each:
            assert all(len(_steps_in(title)) <= 1 for title in titles), titles
        best = (reference / "lora_weights/best").resolve()
        for name in ROOT_ADAPTER:
            assert self.hub.content(self.repo, name) == (best / name).read_bytes(), f"{name} at the root is not the best one"

    def _assert_equal(self, directory: str, reference: Path) -> None:
        manifest = parse_manifest(self.hub.content(self.repo, f"{directory}/MANIFEST.json"), directory)
        for name, record in manifest.files.items():
            content = self.hub.content(self.repo, f"{directory}/{name}")
            assert len(content) == record.size
            if name in EXACT_FILES:
                assert content == (reference / name).read_bytes(), f"{directory}/{name} is not what an undisturbed training saved"
        local = self.run / "lora_weights" / directory
        for path in local.iterdir() if local.is_dir() else []:
            assert self.hub.content(self.repo, f"{directory}/{path.name}") == path.read_bytes()


def _steps_in(title: str) -> set[int]:
    """The steps whose checkpoints a commit says it brings."""
    found = title.partition(" of step ")[2]
    return {int(part) for part in found.split(", ")} if found else set()
