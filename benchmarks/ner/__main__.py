"""``python -m benchmarks.ner``: train on medical abstracts for a quarter of an hour, score before and after."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import machine, marked
from benchmarks.ner import page
from benchmarks.ner.trained import TrainingFailed, score, tokens_per_s, train
from benchmarks.ner.workload import MARGIN, Job, fitting, read_lines, tokens_of
from pitstop.configs.errors import PitstopError
from pitstop.trainers.models.demo_model import demo_model_path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "bc5cdr"
METHODS = ("lora", "qlora")
PACKAGES = ("pitstop", "torch", "transformers", "peft", "accelerate", "bitsandbytes")
_TRIED_ON = 12  # records that the speed is measured with


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print; 2 where something is missing that the benchmark needs, 1 where a training fails."""
    options = _options(arguments)
    model = options.model or demo_model_path()
    if model is None or not model.is_dir():
        return _failed("the demo model is not in the cache: run `pitstop fetch-demo`, or give --model DIR", 2)
    try:
        result = _measure(model.resolve(), options)
        if options.write:
            marked.write(page.NAME, page.table(result), options.write)
    except (OSError, ValueError, PitstopError) as error:
        return _failed(str(error), 2)
    except TrainingFailed as error:
        return _failed(str(error), 1)
    print(json.dumps(result, indent=2) if options.json else page.table(result))
    return 0


def _measure(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    lines, held_out = (
        read_lines(options.data / "train.jsonl"),
        read_lines(options.data / "validation.jsonl")[: options.validation],
    )
    methods = METHODS if options.method == "both" else (options.method,)
    with tempfile.TemporaryDirectory(prefix="pitstop-ner-") as work:
        validation = Path(work) / "validation.jsonl"
        validation.write_text("\n".join(held_out) + "\n", encoding="utf-8")
        results = {}
        for method in methods:
            job = Job(model, method, max_length=options.max_length, rank=options.rank, learning_rate=options.learning_rate)
            results[method] = _one(job, lines, validation, Path(work) / method, options)
    return {
        "command": f"python -m benchmarks.ner {' '.join(options.words)}".strip(),
        "date": date.today().isoformat(),
        "machine": machine.describe(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or machine.usable_cpus()),
        "versions": machine.versions(PACKAGES),
        "validation": len(held_out),
        "methods": results,
    }


def _one(job: Job, lines: list[str], validation: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score one method."""
    count = options.records or _records_for(job, lines, work / "speed", options)
    (work / "training").mkdir(parents=True)
    _say(options, f"{job.method}: training on {count} records")
    trained = train(job, lines[:count], work / "training")
    _say(options, f"{job.method}: trained on {trained.tokens:,} tokens in {trained.seconds / 60:.1f} minutes, scoring")
    scores = score(job, trained, validation)
    _say(options, page.in_short([job.method], {job.method: scores}))
    return {**asdict(trained), "run": trained.run.name, "scores": scores}


def _records_for(job: Job, lines: list[str], work: Path, options: argparse.Namespace) -> int:
    """How many records can be trained on in the time, by the speed of a few steps."""
    work.mkdir(parents=True)
    speed = tokens_per_s(job, lines[:_TRIED_ON], work)
    _say(options, f"{job.method}: {speed:.0f} tokens/s on {_TRIED_ON} records")
    return max(1, fitting(tokens_of(job, options.data / "train.jsonl"), MARGIN * 60 * options.minutes * speed))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ner", description=__doc__)
    parser.add_argument("--method", choices=(*METHODS, "both"), default="lora")
    parser.add_argument("--minutes", type=float, default=15.0, help="longest time to train, steps alone")
    parser.add_argument("--records", type=int, help="train on so many records instead, however long it takes")
    parser.add_argument("--data", type=Path, default=DATA, help="directory with train.jsonl and validation.jsonl")
    parser.add_argument("--validation", type=int, default=200, help="records to score, the first ones")
    parser.add_argument("--model", type=Path, help="another base model, as a Hugging Face directory")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens a step, packed")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--write", type=Path, nargs="?", const=marked.PAGE, help="put the table into docs/benchmarks.md, or a copy of it"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.minutes <= 0 or (options.records is not None and options.records < 1) or options.validation < 1:
        parser.error("--minutes, --records and --validation must be above zero")
    options.words = _without_paths(sys.argv[1:] if arguments is None else list(arguments))
    return options


def _without_paths(words: Sequence[str]) -> list[str]:
    """The command line as the page shows it: whose directories these were is nobody's business."""
    return ["DIR" if index and words[index - 1] in ("--data", "--model") else word for index, word in enumerate(words)]


def _say(options: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
