"""How a plan is shown: ``pitstop plan`` and ``pitstop train --dry-run``."""

from __future__ import annotations

import sys

from pitstop.cli.reports.hub_plan import in_words, push_plan
from pitstop.cli.reports.settings_view import rows, sources_as_dict
from pitstop.cli.terminal.output import Column, notice, print_json, say, table, warn
from pitstop.cli.terminal.progress import PlainDisplay
from pitstop.configs.load import Loaded, settings_to_dict
from pitstop.configs.shown import human_duration, human_size


def show_plan(loaded: Loaded, *, json_output: bool) -> int:
    """Print what a training with these settings would do and need; returns the exit code. Raises ``PitstopError``."""
    from datetime import datetime

    from pitstop.naming.names import run_name
    from pitstop.trainers.machine.launch import prepare_environment

    prepare_environment()
    notice("Loading libraries …")
    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.training.planning import forecast

    for note in loaded.notes:
        notice(note)
    plan = forecast(loaded.settings, Reporter(PlainDisplay(sys.stderr)))
    name = run_name(loaded.settings, datetime.now().astimezone()).text
    pushing = push_plan(loaded.settings, name)
    if json_output:
        print_json(
            {
                "name": name,
                "plan": plan.to_dict(),
                "hub": pushing,
                "settings": settings_to_dict(loaded.settings),
                "sources": sources_as_dict(loaded),
            }
        )
        return 0
    table([Column("Setting"), Column("Value", wrap=True), Column("Source", style="dim")], rows(loaded), title="Settings")
    say()
    training = loaded.settings.training
    figures = [
        ("name, if started now", name),
        ("method", f"{training.method} on {plan.device}"),
        ("parameters", f"{plan.parameters:,} frozen, {plan.trainable_parameters:,} trainable"),
        ("data", plan.data),
        *(("", share) for share in plan.sources),
        ("steps", f"{plan.steps_per_epoch:,} an epoch, {plan.total_steps:,} in all"),
        ("peak memory, about", human_size(plan.peak_memory_bytes)),
        ("a checkpoint, about", human_size(plan.checkpoint_bytes)),
        ("disk, about", f"{human_size(plan.disk_bytes)}{_base(plan.base_bytes)}"),
        ("disk, free", human_size(plan.free_disk_bytes) if plan.free_disk_bytes is not None else "unknown"),
        ("time, roughly", human_duration(plan.time_s)),
        ("pushed to", in_words(pushing) if pushing else "not pushed"),
    ]
    table([Column("Plan"), Column("", wrap=True)], figures)
    say()
    if plan.free_disk_bytes is not None and plan.free_disk_bytes < plan.disk_bytes:
        warn(f"the disk has {human_size(plan.free_disk_bytes)} free, {human_size(plan.disk_bytes)} are needed")
    for reason in pushing["missing"] if pushing else []:
        warn(f"checkpoints could not be pushed: {reason}")
    say("Nothing was started.")
    return 0


def _base(size: int) -> str:
    """Where all weights are trained there is no base beside them."""
    return f" ({human_size(size)} of it the base, shared by all runs)" if size else ""
