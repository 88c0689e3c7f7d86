"""``pitstop generate`` for runs that make images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.cli.arguments.opening import reporter
from pitstop.cli.terminal.output import notice, print_json, say
from pitstop.configs.errors import SettingsError

if TYPE_CHECKING:
    from pitstop.trainers.training.chosen import ChosenCheckpoint

_IMAGES = 16


@dataclass(frozen=True)
class ImageOptions:
    """The options that only images have; None is the default, and for ``steps`` the run's own setting."""

    count: int | None
    classes: tuple[str, ...]
    steps: int | None
    output: str | None
    force: bool

    @property
    def flags(self) -> dict[str, Any]:
        """The options with their values; None where one was not given."""
        return {
            "--images": self.count,
            "--class": self.classes or None,
            "--sampling-steps": self.steps,
            "--output": self.output,
            "--force": self.force or None,
        }

    def target(self, plan: ChosenCheckpoint) -> Path:
        """The file for the grid. Raises ``SettingsError`` for one that is not PNG, is there already, or lies in the run."""
        from pitstop.trainers.using.export_files import check_target

        target = Path(self.output or f"{plan.run.label.replace('/', '-')}-{plan.info.name}.png").expanduser()
        if target.suffix.lower() != ".png":
            raise SettingsError(f"--output {target}: the images are written as PNG.", hint="Give a name that ends in .png.")
        check_target(target, plan.run.path, directory=False, force=self.force)
        return target


def make_images(
    plan: ChosenCheckpoint, options: ImageOptions, *, seed: int, batch_size: int, with_base: bool, json_output: bool
) -> int:
    """Make the images and write the grid; ``with_base`` those of the base below those of the adapter, from the same noise."""
    from pitstop.trainers.using.export_files import in_place_of
    from pitstop.trainers.using.images import grid_of, images_of, told_classes
    from pitstop.trainers.using.opened import open_model

    target, count = options.target(plan), options.count or _IMAGES
    opened = open_model(plan, reporter())
    classes = told_classes(opened, options.classes)
    images = {}
    for label in opened.in_turn(with_base=with_base):
        notice(f"making {count:,} images with {label} …")
        images[label] = images_of(opened, count, classes, seed=seed, steps=options.steps, batch_size=batch_size)
    with in_place_of(target) as temporary:
        grid_of(images, classes, temporary)
    content = {
        "run": plan.run.label,
        "checkpoint": plan.info.name,
        "step": plan.info.step,
        "images": count,
        "models": list(images),
        "classes": [name for _, name in classes],
        "seed": seed,
        "output": str(target),
    }
    if json_output:
        print_json(content)
    else:
        say(f"{count:,} images of {' and '.join(images)} in {target}")
    return 0
