"""Pushing to the Hub beside the training: the uploader's process, what it says, and how long anyone waits for it.

Nothing here may fail or slow the training. The checkpoints are their own queue, so that losing the process loses nothing:
it is started again at the next save, and else by ``pitstop push`` or the next resume.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.push_records import Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import HubError
from pitstop.configs.schema import Settings
from pitstop.configs.shown import human_duration
from pitstop.trainers.reporter import Reporter

VERDICT_TIMEOUT_S = 30.0
"""How long the start of training waits to hear whether pushing will work."""

AFTER_SIGNAL_S = 5.0
"""Whoever stops a training by a signal wants it to end: the uploader gets this long to finish what it is at."""

UPLOADER = (sys.executable, "-P", "-m", "pitstop.checkpointing.hub.process")
"""How the uploader is started. ``-P``: no file of the current directory passes for a module."""

MOST_STARTS = 5


class Pusher:
    """Pushes the run of this training. Only the first process has one. ``left`` names, at the end, what is not on the Hub."""

    def __init__(
        self, settings: Settings, reporter: Reporter, flags: Collection[str] = (), command: Sequence[str] = UPLOADER
    ) -> None:
        """``flags`` are the settings that this resume was given: they change where a run goes that goes somewhere already."""
        self.settings, self.reporter, self.flags, self.command = settings, reporter, flags, command
        self.run: RunDirectory | None = None
        self.left: list[str] = []
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._heard: dict[str, dict[str, Any]] = {}
        self._starts = 0
        self._complaints = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by close(); stderr of the uploader
        self._troubled = False
        self._late = False  # whether training began before the verdict
        self._warned: set[str] = set()
        self._named: str | None = None  # the repository that the user knows of
        self._over = False

    # Before the first step

    def start(self) -> None:
        """Start the uploader; it looks at the account while the training loads its model."""
        self._spawn()

    def check_account(self) -> None:
        """Tell what is wrong with the account, if something is. ``HubError`` where pushing is required."""
        event = self._wait_for("account", "refused", "unreachable", timeout_s=VERDICT_TIMEOUT_S)
        if event is None or event["event"] != "account":
            self._judge(event)
        elif event.get("can_write") is False:
            self._judge({"event": "refused", "message": "the Hub token may only read", "hint": "make one with write access"})

    def open(self, run: RunDirectory) -> None:
        """Push ``run`` from now on, and tell where to. ``HubError`` where pushing is required and will not work."""
        self.run = run
        box = Outbox(run.path, run.storage)
        box.open(_destination(self.settings, box.destination(), self.flags))
        with self._news:
            for verdict in ("refused", "unreachable"):
                self._heard.pop(verdict, None)
        self._send(self._open_command())
        event = self._wait_for("ready", "refused", "unreachable", "stopped", timeout_s=VERDICT_TIMEOUT_S)
        self._late = event is None
        if event is not None and event["event"] == "ready":
            kind = "private" if self.settings.hub.private else "public"
            self._named = event["repo"]
            self.reporter.line(f"Pushing every checkpoint to {event['repo']}{f' (new, {kind})' if event['made'] else ''}.")
        else:
            self._judge(event)

    def _open_command(self) -> dict[str, Any]:
        assert self.run is not None
        hub = self.settings.hub
        return {"open": str(self.run.path), "retry_s": hub.retry_s, "commits_per_hour": hub.commits_per_hour}

    def _judge(self, event: Mapping[str, Any] | None) -> None:
        """Say why pushing does not work now; where it will not work by itself and is required, that ends the training."""
        if event is None or event["event"] == "unreachable":
            reason = event["reason"] if event else "no answer"
            self._warn_once("unreachable", f"The Hub cannot be reached ({reason}). Checkpoints are kept until they are pushed.")
            self._troubled = True
            return
        if self.settings.hub.push_required:
            raise HubError(f"Checkpoints cannot be pushed: {event['message']}.", hint=event.get("hint"))
        consequence = f"Training goes on, the checkpoints are kept, and {self._how_to_push()} sends them later."
        self._warn_once("refused", f"Checkpoints cannot be pushed: {event['message']}.{_advice(event)} {consequence}")

    def _warn_once(self, verdict: str, text: str) -> None:
        """Account, repository and the first commit may each meet the same obstacle."""
        if verdict not in self._warned:
            self.reporter.warn(text)
        self._warned.add(verdict)

    def _how_to_push(self) -> str:
        return f"`pitstop push {self.run.ref}`" if self.run else "`pitstop push`"

    # During training

    def wake(self) -> None:
        """There is a new checkpoint."""
        if self._over or self.run is None:
            return
        if self.has_ended():
            if self._starts >= MOST_STARTS or "stopped" in self._heard:
                return
            self._spawn()
            self._send(self._open_command())
        self._send({"wake": True})

    def _spawn(self) -> None:
        self._starts += 1
        environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        if (token := self.settings.hub.token_value) is not None:
            environment["HF_TOKEN"] = token
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl+C is for the training
            )
        except OSError as error:
            self.reporter.warn(f"The uploader could not be started: {error}. Checkpoints are kept until they are pushed.")
            return
        self._listener = threading.Thread(target=self._listen, args=(self._process,), name="pitstop-push", daemon=True)
        self._listener.start()

    def _send(self, command: Mapping[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it has ended; the next wake starts another

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            self._tell(event)
            with self._news:
                self._heard[event["event"]] = event
                self._news.notify_all()
        if process.wait() > 0 and "bug" not in self._heard:
            self._complaints.seek(0)
            complaints = self._complaints.read()[-4000:].decode(errors="replace")
            self._tell({"event": "bug", "error": f"exit code {process.returncode}", "traceback": complaints})
        with self._news:
            self._news.notify_all()

    def _tell(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "pushed":
            self._troubled = False
            destination = "" if event["repo"] == self._named else f" to {event['repo']}"
            self._named = event["repo"]
            self.reporter.line(f"pushed {event['what']}{destination} ({event['commit'][:7]})")
        elif kind == "trouble":
            # Once an outage, not at every try; and nothing new to whoever was told that pushing will not work.
            if not self._troubled and "refused" not in self._warned:
                self.reporter.warn(f"The Hub does not take checkpoints at the moment ({event['reason']}); it is tried again.")
            self._troubled = True
        elif kind == "spoilt":
            self.reporter.warn(f"A checkpoint is not pushed: {event['message']}")
        elif kind == "stopped":
            if "refused" in self._heard and not self._late:
                return  # the verdict that whoever opens the run waits for, and tells
            remedy = f"{self._how_to_push()} goes on with it."
            self._warn_once("refused", f"Pushing has stopped: {event['message']}.{_advice(event)} {remedy}")
        elif kind == "bug":
            self.reporter.warn(f"A bug ended the uploader ({event['error']}); the training goes on.\n{event['traceback']}")

    def _wait_for(self, *kinds: str, timeout_s: float) -> dict[str, Any] | None:
        def heard() -> dict[str, Any] | None:
            return next((self._heard[kind] for kind in kinds if kind in self._heard), None)

        with self._news:
            self._news.wait_for(lambda: heard() is not None or self.has_ended(), timeout=timeout_s)
            return heard()

    def has_ended(self) -> bool:
        """Whether there is no uploader at the moment."""
        return self._process is None or self._process.poll() is not None

    # At the end

    def finish(self, *, completed: bool) -> None:
        """Wait for what is not on the Hub yet, after a signal shortly, and end the uploader; a warning says what is left.

        ``completed``: training is over, so that the best adapter goes to the root. Ctrl+C and SIGTERM end the waiting.
        """
        if self.run is None:
            return
        try:
            self._wait(completed=completed, timeout_s=self.settings.hub.push_timeout if completed else AFTER_SIGNAL_S)
        except (KeyboardInterrupt, SystemExit):
            self.reporter.line("No longer waiting for the Hub.")
        self.close()
        self.left = self._unpushed()
        if self.left:
            self.reporter.warn(f"{_are(self.left)} not on the Hub yet; {self._how_to_push()} sends what is left.")

    def _wait(self, *, completed: bool, timeout_s: float) -> None:
        self.wake()
        self._send({"finish": completed})
        deadline = time.monotonic() + timeout_s
        announced = False
        while self._pass_a_second(deadline):
            if not (unpushed := self._unpushed()):
                continue
            if not announced:
                limit = human_duration(timeout_s)
                self.reporter.line(
                    f"Waiting for the Hub, {limit} at most: {_are(unpushed)} not there yet. Ctrl+C ends the waiting."
                )
                announced = True
            self.reporter.display.status(f"pushing {len(unpushed)} checkpoints to the Hub")

    def _pass_a_second(self, deadline: float) -> bool:
        """Whether there is something to wait for after it."""
        with self._news:
            self._news.wait_for(self.has_ended, timeout=min(1.0, max(0.0, deadline - time.monotonic())))
        return not self.has_ended() and time.monotonic() < deadline

    def _unpushed(self) -> list[str]:
        return retention.unpushed(self.run) if self.run is not None else []

    def summary(self) -> dict[str, Any]:
        """Where the run went, and what of it has not arrived."""
        return {"repo": Outbox(self.run.path).arrived().repo if self.run is not None else None, "left": self.left}

    def close(self) -> None:
        """End the uploader, whatever it is at; what has not arrived stays queued."""
        self._over = True
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait()
        if self._listener is not None:
            self._listener.join(timeout=5.0)  # what it said last is told first
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what it had no time to read
                    stream.close()
        self._complaints.close()


def _are(names: Sequence[str]) -> str:
    return f"{len(names)} checkpoints are" if len(names) > 1 else f"{names[0]} is"


def _advice(event: Mapping[str, Any]) -> str:
    return f" To put it right: {event['hint']}." if event.get("hint") else ""


def start_pusher(settings: Settings, reporter: Reporter, stack: contextlib.ExitStack, flags: Collection[str] = ()) -> Pusher:
    """Start the uploader's process; it ends with ``stack`` at the latest."""
    pusher = Pusher(settings, reporter, flags)
    stack.callback(pusher.close)
    pusher.start()
    return pusher


def stop_pushing(run: RunDirectory) -> None:
    """Push the run no longer: it was just turned off."""
    Outbox(run.path, run.storage).close()


def is_pushed(settings: Settings, run: RunDirectory | None, changes: Collection[str] = ()) -> bool:
    """Whether a run is to be pushed: as the settings say, or as it was by ``pitstop push``, unless that was just turned off."""
    if settings.hub.push:
        return True
    return run is not None and "hub.push" not in changes and Outbox(run.path).destination() is not None


def _destination(settings: Settings, present: Destination | None, flags: Collection[str]) -> Destination:
    """Where a run goes: as its settings say, and once it goes somewhere as it was, but for what ``flags`` set just now.

    The settings are those of its start; a pull, or ``pitstop push``, may have sent it elsewhere since.
    """
    destination = Destination.of(settings.hub)
    if present is None:
        return destination
    return replace(present, **{name: value for name, value in destination.__dict__.items() if f"hub.{name}" in flags})
