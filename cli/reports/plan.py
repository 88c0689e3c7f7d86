"""How a plan is shown: ``pitstop plan`` and ``pitstop train --dry-run``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pitstop.cli.reports.hub_plan import in_words, push_plan
from pitstop.cli.reports.settings_view import loaded_rows, print_changed_settings, print_settings, sources_as_dict
from pitstop.cli.terminal.output import heading, notice, paint, print_facts, print_json, say, warn
from pitstop.cli.terminal.progress import PlainDisplay
from pitstop.configs.load import Loaded, settings_to_dict
from pitstop.configs.notices import Notice
from pitstop.configs.shown import human_duration, human_size
from pitstop.naming.names import run_name

if TYPE_CHECKING:
    from pitstop.trainers.training.planning import Forecast


def show_plan(loaded: Loaded, early: Sequence[Notice], *, all_settings: bool, json_output: bool) -> int:
    """Print what a training with these settings would do and need; returns the exit code. ``early`` is what was noticed before. Raises ``PitstopError``."""
    from pitstop.trainers.machine.launch import prepare_environment

    environment = prepare_environment()
    notice("Loading libraries …")
    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.training.planning import forecast

    reporter = Reporter(PlainDisplay(sys.stderr), [*early, *environment, *loaded.notices()])
    plan = forecast(loaded.settings, reporter)
    name = run_name(loaded.settings, datetime.now().astimezone()).text
    pushing = push_plan(loaded.settings, name)
    if json_output:
        print_json(
            {
                "name": name,
                "plan": plan.to_dict(),
                "hub": pushing,
                "notices": reporter.record(),
                "settings": settings_to_dict(loaded.settings),
                "sources": sources_as_dict(loaded),
            }
        )
        return 0
    say(paint("Plan", "bold"))
    print_facts(_figures(plan, loaded.settings.training.method, name, pushing), width=22)
    if plan.free_disk_bytes is not None and plan.free_disk_bytes < plan.disk_bytes:
        warn(f"the disk has {human_size(plan.free_disk_bytes)} free, {human_size(plan.disk_bytes)} are needed")
    for reason in pushing["missing"] if pushing else []:
        warn(f"checkpoints could not be pushed: {reason}")
    heading("Settings")
    if all_settings:
        print_settings(loaded_rows(loaded))
    else:
        print_changed_settings(loaded_rows(loaded), "pitstop plan")
    say()
    say("Nothing was started.")
    return 0


def _figures(plan: Forecast, method: str | None, name: str, pushing: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    yield "time, roughly", human_duration(plan.time_s)
    yield "peak memory, about", human_size(plan.peak_memory_bytes)
    # Where all weights are trained there is no base beside them.
    base = f" ({human_size(plan.base_bytes)} of it the base, shared by all runs)" if plan.base_bytes else ""
    yield "disk, about", f"{human_size(plan.disk_bytes)}{base}"
    yield "disk, free", human_size(plan.free_disk_bytes) if plan.free_disk_bytes is not None else "unknown"
    yield "a checkpoint, about", human_size(plan.checkpoint_bytes)
    yield "steps", f"{plan.steps_per_epoch:,} an epoch, {plan.total_steps:,} in all"
    yield "method", f"{method} on {plan.device}"
    yield "parameters", f"{plan.parameters:,} frozen, {plan.trainable_parameters:,} trainable"
    yield "data", plan.data
    yield from (("", share) for share in plan.sources)
    yield "name, if started now", name
    yield "pushed to", in_words(pushing) if pushing else "not pushed"
