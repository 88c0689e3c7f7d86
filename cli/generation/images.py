"""``pitstop generate`` for runs that make images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pitstop.cli.arguments.opening import reporter
from pitstop.cli.terminal.output import notice, print_json, say
from pitstop.configs.errors import SettingsError

if TYPE_CHECKING:
    from pitstop.trainers.training.resuming import ResumePlan


@dataclass(frozen=True)
class Wanted:
    """What is asked for; None is the run's own setting, or for ``output`` a name in this directory."""

    count: int
    classes: tuple[str, ...]
    seed: int
    steps: int | None
    batch_size: int
    base: bool
    output: str | None
    force: bool


def make_images(plan: ResumePlan, wanted: Wanted, *, json_output: bool) -> int:
    """Make the images and write the grid; with ``base`` those of the base below those of the adapter, from the same noise."""
    from pitstop.trainers.using.export_files import check_target, in_place_of
    from pitstop.trainers.using.images import grid_of, images_of, told_classes
    from pitstop.trainers.using.opened import open_model

    target = Path(wanted.output or f"{plan.run.label.replace('/', '-')}-{plan.info.name}.png").expanduser()
    if target.suffix.lower() != ".png":
        raise SettingsError(f"--output {target}: the images are written as PNG.", hint="Give a name that ends in .png.")
    check_target(target, plan.run.path, directory=False, force=wanted.force)
    opened = open_model(plan, reporter())
    told = told_classes(opened, wanted.classes)
    found = {}
    for label in opened.in_turn(with_base=wanted.base):
        notice(f"making {wanted.count:,} images with {label} …")
        found[label] = images_of(opened, wanted.count, told, seed=wanted.seed, steps=wanted.steps, batch_size=wanted.batch_size)
    with in_place_of(target) as temporary:
        grid_of(found, told, temporary)
    content = {
        "run": plan.run.label,
        "checkpoint": plan.info.name,
        "step": plan.info.step,
        "images": wanted.count,
        "models": list(found),
        "classes": [name for _, name in told],
        "seed": wanted.seed,
        "output": str(target),
    }
    if json_output:
        print_json(content)
    else:
        say(f"{wanted.count:,} images of {' and '.join(found)} in {target}")
    return 0
