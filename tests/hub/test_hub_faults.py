"""The Hub and the line to it break at random, the uploader is killed, retention runs beside it: what arrives is what was saved."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.push_records import Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.fake_hub import add, send_to
from support.fault_matrix import Matrix, Row
from support.forging import CONFIG
from support.forked import Child
from support.hub import Hub
from support.hub.distant import Distant
from support.hub.disturbances import assert_every_commit_is_whole, away, spoil
from support.hub.environment import environment
from support.hub.pushed import SAVES, SETTINGS, PushedTraining
from support.hub.uploading import SAVED_ALL
from support.stores import ForgetfulStorage
from support.training import assert_same_end
from support.trials import Trainings

ROW = "Hub: 429, 500, lost answers, cut lines, killed uploader, retention racing it"
TRAINS = 15
"""Every fifteenth trial trains for real; the others save checkpoints of a few bytes beside the uploader."""

pytestmark = pytest.mark.faults


def numbers(row: Row, *, training: bool) -> list[int]:
    """The trials that train, or those that do not."""
    return [number for number in row.numbers() if (number % TRAINS == 0) is training]


# Without a training


class Saving:
    """A run that saves five to seven checkpoints, a few milliseconds apart, with its own retention after each."""

    def __init__(self, base_dir: Path, number: int, rng: random.Random) -> None:
        self.rng = rng
        self.run = create_run(
            base_dir, name=f"trial-{number}", config=CONFIG, metadata={"model": "owner/name"}, storage=ForgetfulStorage()
        )
        self.keep_here, self.keep_there = rng.choice([None, 1, 1, 2]), rng.choice([None, None, None, 1, 2])
        send_to(self.run, keep_last_n=self.keep_there)
        self.pause_s = rng.choice([0.0, 0.01, 0.05])
        self.losses: dict[int, float] = {}
        self.saved: dict[str, bytes] = {}

    def save_all(self) -> None:
        for step in range(1, self.rng.randint(6, 8)):
            self.losses[step] = self.rng.random()
            info = add(self.run, step, self.losses[step])
            self.saved |= {f"{info.name}/{path.name}": path.read_bytes() for path in info.path.iterdir()}
            if self.keep_here is not None:
                self.run.store.prune(self.keep_here, protect=set(retention.pins(self.run)))
            time.sleep(self.pause_s)
        (self.run.path / "hub" / SAVED_ALL).touch()

    def assert_arrived(self, hub: Hub) -> None:
        repo = f"tester/{self.run.name}"
        assert list(hub.store.repositories) == [("models", repo)]
        best, steps = min(self.losses, key=lambda step: self.losses[step]), sorted(self.losses)
        titles = [commit.title for commit in hub.commits(repo)]
        for step in steps:
            assert titles.count(f"{self.run.name}: checkpoint of step {step}") == 1, titles
        assert len(titles) - 1 - len(steps) in (0, 1), titles  # the end of training may have a commit of its own
        tree = hub.tree(repo)
        there = {path for path in tree if path.startswith("checkpoint-")}
        if self.keep_there is None:
            assert there == set(self.saved)
        else:
            newest = {f"checkpoint-{step}" for step in steps[-self.keep_there :]}
            assert {path.split("/")[0] for path in there} - newest <= {f"checkpoint-{best}"}
            assert newest <= {path.split("/")[0] for path in there}
        for path in there:
            assert hub.content(repo, path) == self.saved[path], path
        root = f"checkpoint-{best}/adapter_model.safetensors"
        if root in tree:
            assert hub.content(repo, "adapter_model.safetensors") == self.saved[root]
        assert_every_commit_is_whole(hub, repo)
        assert retention.unpushed(self.run) == []


@pytest.fixture(scope="module", params=["lfs", "xet"])
def uploads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Distant, int]]:
    """A Hub, a process that pushes to it, and which half of the trials they are for."""
    home = tmp_path_factory.mktemp("hub-faults")
    with Hub(home / "server") as hub, Distant(environment(hub, request.param, home / "hf")) as distant:
        yield hub, distant, int(request.param == "xet")


def test_every_checkpoint_arrives_once_and_every_commit_is_whole(
    uploads: tuple[Hub, Distant, int], matrix: Matrix, tmp_path: Path
) -> None:
    row = matrix(ROW)
    hub, distant, half = uploads
    for number in numbers(row, training=False)[half::2]:
        rng = random.Random(f"push {number}")
        hub.reset()
        hub.store.repositories.clear()
        saving = Saving(tmp_path / str(number), number, rng)
        faults = spoil(hub, rng)
        kills = [rng.uniform(0.0, 0.8) for _ in range(rng.choice([0, 0, 1, 2, 3]))]
        down = (rng.uniform(0.0, 0.5), rng.uniform(0.05, 0.4)) if rng.random() < 0.25 else None
        plan = f"seed {number}: {faults}, killed after {kills}, down {down}, keeps {saving.keep_here}, {saving.keep_there} there"
        with row.trial(plan), away(hub, *down) if down else contextlib.nullcontext():
            thread = threading.Thread(target=saving.save_all)
            thread.start()
            try:
                codes = [distant("support.hub.uploading:push", str(saving.run.path), kill) for kill in [*kills, None]]
            finally:
                thread.join()
            assert codes[-1] == 0, f"{codes}\n{distant.stderr()[-3000:]}"
            saving.assert_arrived(hub)
            assert not hub.errors, hub.errors


# With a training


def uploader_of(child: Child) -> int | None:
    """The process that uploads for a training."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(child.pid) and b"hub.process" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    return None


class Trouble:
    """What happens to one training; ``excuses`` are the reasons for which something may be left at its end."""

    def __init__(self, training: PushedTraining, rng: random.Random) -> None:
        self.training, self.rng = training, rng
        training.settings = {"keep_last_n": rng.choice(["none", 1, 1, 2])}
        training.delay_s = rng.choice([0.0, 0.05, 0.1])
        self.faults = spoil(training.hub, rng)
        self.what = rng.choice(["nothing", "uploader killed", "training killed", "down", "down"])
        self.step = rng.randint(1, SAVES - 2)

    def __str__(self) -> str:
        return f"{self.training.environment['HF_HUB_DISABLE_XET']=}, {self.training.settings}, {self.faults}, {self.what} at {self.step}"

    @property
    def excuses(self) -> bool:
        return self.what in ("uploader killed", "down")

    def go(self) -> str:
        """Train to the end; all that was printed."""
        child = self.training.start()
        self._strike(child)
        ended = child.wait(120)
        if self.what == "training killed" and ended.code == -signal.SIGKILL:
            return ended.output + self._resume()
        assert ended.code == 0, ended.output
        return ended.output

    def _strike(self, child: Child) -> None:
        if self.what == "nothing":
            return
        log = self.training.run / "logs" / "train.log"
        deadline = time.monotonic() + 60
        while not (log.exists() and f"saved checkpoint-{self.step} " in log.read_text()):
            assert time.monotonic() < deadline, child.output()
            time.sleep(0.005)
        time.sleep(self.rng.uniform(0, 0.1))
        if self.what == "down":
            self.training.hub.down()
            time.sleep(self.rng.uniform(0.1, 1.0))
            self.training.hub.up()
        elif self.what == "training killed":
            child.send(signal.SIGKILL)
        elif (pid := uploader_of(child)) is not None:
            os.kill(pid, signal.SIGKILL)

    def _resume(self) -> str:
        ended = self.training.resume()
        assert ended.code == 0, ended.output
        return ended.output


@pytest.mark.usefixtures("warm")
def test_the_training_is_the_same_and_all_of_it_arrives(trainings: Trainings, matrix: Matrix, tmp_path: Path) -> None:
    row = matrix(ROW)
    undisturbed = trainings.reference("without the Hub", SETTINGS).run
    for number in numbers(row, training=True):
        rng = random.Random(f"train {number}")
        mode = rng.choice(["lfs", "xet"])
        with Hub(tmp_path / f"hub-{number}") as hub:
            training = PushedTraining(trainings, hub, environment(hub, mode, tmp_path / f"hf-{number}"))
            trouble = Trouble(training, rng)
            with row.trial(f"seed {number}: {trouble}"):
                output = trouble.go()
                run = RunDirectory(training.run)
                if retention.unpushed(run) or not Outbox(run.path).arrived().finished:
                    assert trouble.excuses, f"something is left\n{output}"
                    hub.faults.clear()
                    pushed = training.push()
                    assert pushed.code == 0, pushed.output
                assert_same_end(undisturbed, training.run)
                training.assert_arrived(undisturbed)
                assert_every_commit_is_whole(hub, training.repo)
                assert not hub.errors, hub.errors
        shutil.rmtree(training.run)
