"""What the loop and its hooks share."""

from __future__ import annotations

from dataclasses import dataclass

from pitstop.configs.schema import Settings
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.signals import SignalFlag


@dataclass(frozen=True)
class TrainingContext:
    """The engine, the settings, where training stands, and the signals that end it."""

    engine: Engine
    settings: Settings
    progress: Progress
    signals: SignalFlag
