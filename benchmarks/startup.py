"""How long ``pitstop name --simple`` and ``pitstop list-runs`` (1,000 runs on disk) take beside ``import typer, rich``.

Usage: ``python -m benchmarks.startup [--rounds 15] [--runs 1000] [--json]``. The commands are run in turn, round by round,
so that a slow moment of the machine meets all of them, and their medians are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import machine
from pitstop.checkpointing.disk.storage import LocalStorage
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.store.store import CheckpointFacts
from pitstop.configs.data_settings import DataSettings
from pitstop.configs.leaves import leaves
from pitstop.configs.load import settings_to_dict
from pitstop.configs.schema import ModelSettings, Settings
from pitstop.naming.names import run_name

BASELINE = "import typer, rich"
CHECKPOINTS = 3
STATUSES = ("completed", "completed", "completed", "running", "stopped", "failed")
PACKAGES = ("pitstop", "typer", "rich", "pydantic")


class UnsyncedStorage(LocalStorage):
    """The real layout without waiting for the disk: made to be read, not to survive a crash."""

    def sync_file(self, descriptor: int) -> None:
        """Leave the file to the system's cache."""

    def sync_directory(self, path: Path) -> None:
        """Leave the directory to the system's cache."""


def make_runs(base_dir: Path, count: int) -> None:
    """Make ``count`` run directories as ``train`` leaves them, each with a few small checkpoints."""
    settings = Settings(model=ModelSettings(id="org/Some-Model-1B"), data=DataSettings(train=["dataset_notes.jsonl"]))
    config = settings_to_dict(settings)
    start = datetime(2024, 9, 14, 14, 30, 22, tzinfo=UTC)
    for index in range(count):
        now = start + timedelta(minutes=7 * index)
        name = run_name(settings, now).text
        run = create_run(base_dir, name=name, config=config, metadata={}, started_at=now, storage=UnsyncedStorage())
        for epoch in range(1, CHECKPOINTS + 1):
            run.store.write(
                f"epoch_{epoch:03d}",
                {"adapter_model.safetensors": bytes(4096)},
                CheckpointFacts(
                    step=100 * epoch,
                    epoch=float(epoch),
                    metrics={"val_loss": 2.0 / epoch + index / count},
                    world_size=1,
                    fingerprints={},
                    versions={},
                    saved_at=now + timedelta(minutes=epoch),
                ),
            )
        progress = {"step": 100 * CHECKPOINTS, "total_steps": 500, "epoch": CHECKPOINTS, "total_epochs": 5}
        run.sync_checkpoints({"status": STATUSES[index % len(STATUSES)], "progress": progress})


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of ours."""
    settings = {leaf.env for leaf in leaves()}
    return {k: v for k, v in os.environ.items() if k not in settings and not k.startswith("PITSTOP_")}


def pitstop_command() -> list[str]:
    """Return the console script beside this interpreter, as a user calls it, or else the module."""
    script = Path(sys.executable).with_name("pitstop")
    return [str(script)] if script.exists() else [sys.executable, "-m", "pitstop.cli"]


def piped(command: list[str], directory: Path, environment: dict[str, str]) -> None:
    """Run a command with its output in a pipe; raise ``CalledProcessError`` where it fails."""
    subprocess.run(command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def on_a_terminal(command: list[str], directory: Path, environment: dict[str, str]) -> None:
    """Run a command on a pseudo-terminal 160 columns wide; raise ``CalledProcessError`` where it fails."""
    import pty

    ours, theirs = pty.openpty()
    wide = {**environment, "COLUMNS": "160", "TERM": "xterm-256color"}
    try:
        child = subprocess.Popen(command, cwd=directory, env=wide, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        while _read(ours):
            pass
    finally:
        os.close(ours)
    if child.wait() != 0:
        raise subprocess.CalledProcessError(child.returncode, command)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says EIO where the other end is closed
        return b""


def measure(work: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each command in each round; ``work`` holds the runs in ``checkpoints``."""
    pitstop, environment = pitstop_command(), clean_environment()
    cases: dict[str, Callable[[], None]] = {
        BASELINE: lambda: piped([sys.executable, "-c", BASELINE], work, environment),
        "name --simple": lambda: piped([*pitstop, "name", "--simple"], work, environment),
        "list-runs": lambda: piped([*pitstop, "list-runs"], work, environment),
    }
    if os.name == "posix":
        cases["list-runs on a terminal"] = lambda: on_a_terminal([*pitstop, "list-runs"], work, environment)
    for run in cases.values():
        run()  # compiled modules and the disk's cache, once for all
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return each command's median and fastest time in seconds, and its median over the baseline's."""
    base = statistics.median(seconds[BASELINE])
    return {
        name: {"median_s": statistics.median(times), "fastest_s": min(times), "ratio": statistics.median(times) / base}
        for name, times in seconds.items()
    }


@contextlib.contextmanager
def directory_with_runs(count: int) -> Iterator[Path]:
    """Yield a temporary directory with ``count`` runs in ``checkpoints``."""
    with tempfile.TemporaryDirectory(prefix="pitstop-startup-") as name:
        make_runs(Path(name) / "checkpoints", count)
        yield Path(name)


def report(result: dict[str, Any]) -> str:
    """Return the result as text."""
    lines = [machine.in_words(result["machine"]), " · ".join(f"{k} {v}" for k, v in result["versions"].items())]
    lines.append(f"{result['runs']} runs on disk, medians of {result['rounds']} interleaved rounds")
    for name, row in result["commands"].items():
        lines.append(f"  {name:<26}{1000 * row['median_s']:8.0f} ms{row['ratio']:8.2f} ×")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="times each command is run (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=1000, help="run directories to make (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    before = machine.describe()
    with directory_with_runs(options.runs) as work:
        commands = summary(measure(work, options.rounds))
    result = {
        "machine": before,
        "versions": machine.versions(PACKAGES),
        "runs": options.runs,
        "rounds": options.rounds,
        "commands": commands,
    }
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
