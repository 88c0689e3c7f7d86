"""``python -m benchmarks.vs_trl``: run the comparison."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.vs_trl import environment
from benchmarks.vs_trl.cases import CASES, DEFAULT_CASES
from benchmarks.vs_trl.compare import SIDES, compare, report
from benchmarks.vs_trl.sides import SideFailed
from benchmarks.vs_trl.workload import Hyperparameters, pairs, write_jsonl
from pitstop.trainers.models.demo_model import demo_model_path


def main() -> int:
    """Read the command line, run, print; 2 where something is missing that the comparison needs, 1 where a side fails."""
    options = _options()
    model = options.model or demo_model_path()
    if model is None or not model.is_dir():
        return _failed("the demo model is not in the cache: run `pitstop fetch-demo`, or give --model DIR", 2)
    try:
        rows = pairs(options.data)
        if "trl" in options.sides:
            environment.ensure()
        result = _compare(model.resolve(), rows, options)
    except (OSError, ValueError) as error:
        return _failed(str(error), 2)
    except (environment.EnvironmentFailed, SideFailed) as error:
        return _failed(str(error), 1)
    print(json.dumps(result, indent=2) if options.json else report(result))
    return 0


def _compare(model: Path, rows: list[dict[str, str]], options: argparse.Namespace) -> dict[str, Any]:
    hyperparameters = replace(Hyperparameters(), epochs=options.epochs, batch_size=options.batch_size)
    with tempfile.TemporaryDirectory(prefix="pitstop-bench-") as work:
        data = Path(work) / "pairs.jsonl"
        write_jsonl(data, rows)
        return compare(model, data, options.cases, hyperparameters=hyperparameters, rounds=options.rounds, sides=options.sides)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vs_trl",
        description="LoRA on 32 medical-NER prompts: Pitstop beside TRL's SFTTrainer, on the CPU.",
    )
    parser.add_argument("--model", type=Path, help="directory of the base model (default: the demo model)")
    parser.add_argument("--data", type=Path, help="directory with NER records in train.jsonl (default: the shipped examples)")
    parser.add_argument("--rounds", type=_positive, default=3, help="runs of each side (default: %(default)s)")
    parser.add_argument("--epochs", type=_positive, default=2, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--batch-size", type=_positive, default=4, help="prompts a step (default: %(default)s)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(DEFAULT_CASES), help="default: %(default)s")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="default: both")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
