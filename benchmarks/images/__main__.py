"""``python -m benchmarks.images``: a base of clothes and LoRA on shoes, in a quarter of an hour on a processor."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import machine, marked
from benchmarks.images.workload import BATCH, Failed, Stage, base_words, images_per_s, lora_words, pitstop, prepare, train

NAME = "images"
PICTURES = marked.PAGE.parent / "pictures"
PACKAGES = ("pitstop", "torch", "peft", "accelerate")
_BASE_SHARE, _MARGIN = 0.7, 0.92


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print; 2 where the data is missing, 1 where a training fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="the four files of Fashion-MNIST"
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="longest time to train, steps of both stages together")
    parser.add_argument(
        "--steps", type=int, nargs=2, metavar=("BASE", "LORA"), help="so many steps instead, however long they take"
    )
    parser.add_argument("--validation", type=int, default=2000, help="images to validate on, the first ones of the test half")
    parser.add_argument("--write", action="store_true", help="put table and pictures into docs/")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="pitstop-images-") as work:
            result = measure(Path(work), options)
            if options.write:
                keep_pictures(result)
                marked.write(NAME, table(result))
    except OSError as error:
        print(
            f"error: {error}\nThe data is in Debian's package dataset-fashion-mnist; --data names another directory.",
            file=sys.stderr,
        )
        return 2
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=2, default=str) if options.json else table(result))
    return 0


def measure(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train both stages and score base and adapter on the shoes that were held out."""
    data = prepare(options.data, work / "fashion-mnist", validation=options.validation)
    base_steps, lora_steps = options.steps or (0, 0)
    if not base_steps:
        base_steps = _steps(images_per_s(work, base_words(data, 8)), options.minutes * _BASE_SHARE)
    print(f"base: {base_steps} steps of {BATCH} images", file=sys.stderr, flush=True)
    base = train(work, base_words(data, base_steps))
    if not lora_steps:
        speed = images_per_s(work, lora_words(data, 8, base=base.ref))
        lora_steps = _steps(speed, min(options.minutes * (1 - _BASE_SHARE), options.minutes - base.seconds / 60))
    print(f"LoRA: {lora_steps} steps of {BATCH} images", file=sys.stderr, flush=True)
    lora = train(work, lora_words(data, lora_steps, base=base.ref))
    scores = pitstop(work, "evaluate", lora.ref, "--base")["metrics"]
    return {
        "date": date.today().isoformat(),
        "machine": machine.describe(),
        "versions": machine.versions(PACKAGES),
        "validation": options.validation,
        "steps": {"base": base_steps, "lora": lora_steps},
        "stages": {"base": asdict(base), "lora": asdict(lora)},
        "shoes": {("base" if label == "base" else "lora"): values["val_loss"] for label, values in scores.items()},
        "pictures": {name: sorted((stage.path / "logs" / "samples").glob("*.png")) for name, stage in _named(base, lora)},
    }


def _named(base: Stage, lora: Stage) -> list[tuple[str, Stage]]:
    return [("base", base), ("lora", lora)]


def _steps(speed: float, minutes: float) -> int:
    return max(5, int(_MARGIN * 60 * minutes * speed / BATCH))


def keep_pictures(result: Mapping[str, Any]) -> None:
    """Copy the last grid of each stage to docs/pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, paths in result["pictures"].items():
        shutil.copyfile(paths[-1], PICTURES / f"fashion-{name}.png")


def table(result: Mapping[str, Any]) -> str:
    """Return the results in words, a table and two pictures, as Markdown."""
    packages = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    base, lora = result["stages"]["base"], result["stages"]["lora"]
    share = 100 * lora["checkpoint_bytes"] / base["checkpoint_bytes"]
    rows = [
        f"| {name} | {stage['parameters']:,} | {stage['images']:,} | {stage['seconds'] / 60:.1f} | {stage['images'] / stage['seconds']:.0f} | "
        f"{' → '.join(f'{loss:.4f}' for _, loss in stage['evaluations'])} | {stage['checkpoint_bytes'] / 1e6:.2f} |"
        for name, stage in (("base, ten classes", base), ("LoRA, three classes of shoes", lora))
    ]
    return "\n".join(
        [
            f"On {result['date']}, on {machine.in_words(result['machine'])}; {packages}. Validation: the first {result['validation']:,} images of the test half, of the second stage the shoes among them.",
            "",
            "| stage | trained parameters | images | training, minutes | images/s | validation loss at each evaluation | checkpoint, MB |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"On the shoes held out the loss is {result['shoes']['base']:.4f} with the base alone and {result['shoes']['lora']:.4f} with the adapter. "
            f"A checkpoint of the adapter is {share:.1f} % of one of the base, optimizer and average included in both.",
            "",
            "![Sixteen images of clothes](pictures/fashion-base.png) ![Sixteen images of shoes](pictures/fashion-lora.png)",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
