"""The directory of a new run: its place can be written to, its name, config.json and metadata.json."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.runs.base_runs import FROM
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.file_sets import group_of
from pitstop.configs.errors import SettingsError
from pitstop.configs.load import Loaded, settings_to_dict
from pitstop.configs.notices import Notice
from pitstop.configs.paths import obstacle
from pitstop.configs.schema import Settings
from pitstop.configs.sources import Source
from pitstop.naming.names import run_name
from pitstop.trainers.machine.processes import from_first
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.pinned_data import at_commits
from pitstop.trainers.training.building import BaseOnDisk
from pitstop.trainers.training.inputs import Inputs


def check_writable(base_dir: Path) -> None:
    """Make the directory of the runs and try to write there, before anything is spent. Raises ``SettingsError``."""
    try:
        base_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=base_dir):
            pass
    except OSError as error:
        in_the_way = obstacle(base_dir)
        raise SettingsError(
            f"OUTPUT_DIR = {base_dir} cannot be written: {in_the_way or error.strerror or error}.",
            hint="Give another directory with --base-dir" + ("." if in_the_way else ", or change the permissions of this one."),
        ) from error


def day_of_start(now: datetime, device: torch.device) -> date:
    """The day of the first process on every one, should midnight come between them."""
    return date.fromisoformat(from_first(lambda: now.date().isoformat().encode(), device).decode())


def pinned(loaded: Loaded, device: torch.device, reporter: Reporter) -> Loaded:
    """With the commits of data sets of the Hub, which the run keeps."""
    return replace(loaded, settings=at_commits(loaded.settings, device, reporter))


def with_template(loaded: Loaded, inputs: Inputs) -> Loaded:
    """With the chat template that stands in place of the tokenizer's, and the day that it was told, as ``inputs`` were read with them."""
    read, data, sources = inputs.task.settings.data, loaded.settings.data, loaded.sources
    if read.template_date != data.template_date:
        sources = {**sources, "data.template_date": Source("default", "day of the start")}
    data = replace(
        data,
        template_date=read.template_date,
        chat_template=read.chat_template,
        chat_template_text=read.chat_template_text,
    )
    return replace(loaded, settings=replace(loaded.settings, data=data), sources=sources)


def name_of(settings: Settings, now: datetime, reporter: Reporter) -> str:
    """What the run is called; what was decided about that is told."""
    name = run_name(settings, now)
    for note in name.notes:
        reporter.notice(Notice(note.removesuffix(".")))
    return name.text


def create(
    loaded: Loaded,
    name: str,
    now: datetime,
    inputs: Inputs,
    base: BaseOnDisk,
    environment: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> RunDirectory:
    """Make the run's directory. ``metadata`` comes beside what is on record of data, environment and base. ``RunError`` for a number in use."""
    config = settings_to_dict(loaded.settings)
    checkpoint, source = loaded.settings.training.checkpoint, inputs.source
    base_model: dict[str, Any] = {"id": source.model_id, "revision": source.revision, "digest": base.digest, "saved": base.stored}
    if source.base_run is not None:
        base_model[FROM] = source.base_run.record()
    return create_run(
        Path(checkpoint.base_dir) / group_of(config),
        name=name,
        config={**config, layout.SOURCES: {path: value.place for path, value in loaded.sources.items()}},
        metadata={"data": inputs.data_record(), "environment": dict(environment), "base_model": base_model, **metadata},
        number=checkpoint.run_number,
        started_at=now,
    )
