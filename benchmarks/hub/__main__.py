"""``python -m benchmarks.hub``: the time of a training step with pushing over a slow line, beside the same without pushing."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.hub.line import Line
from benchmarks.hub.training import Job, train
from benchmarks.vs_trl.workload import pairs, write_jsonl
from pitstop.trainers.models.demo_model import demo_model_path

PACKAGES = ("pitstop", "torch", "transformers", "peft", "huggingface_hub", "hf_xet")
SIDES = {"not pushing": False, "pushing": True}
Trainings = dict[str, list[dict[str, Any]]]


def measure(job: Job, rounds: int, late_s: float, bytes_per_s: float) -> Trainings:
    """Train on both sides in turn; every second round the other way round. Each training has a look-alike of its own."""
    trainings: Trainings = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in list(SIDES) if number % 2 == 0 else list(reversed(SIDES)):
            with tempfile.TemporaryDirectory(prefix="pitstop-hub-bench-") as place:
                (Path(place) / "work").mkdir()
                with Line(Path(place) / "hub", late_s, bytes_per_s) as line:
                    training = train(job, Path(place) / "work", line.environment(), pushing=SIDES[side])
                    trainings[side].append({**training, "server_s": line.cpu_s()})
            print(f"  round {number + 1}/{rounds} {side}", file=sys.stderr, flush=True)
    return trainings


def all_steps(training: Mapping[str, Any]) -> list[float]:
    """Seconds of every step of a training but the first, which allocates what the others reuse."""
    return list(training["steps_s"][1:])


def between_saves(training: Mapping[str, Any]) -> list[float]:
    """Those of ``all_steps`` beside which no save was written: a save comes at the end of a step, its write beside the next."""
    written_beside = {step + 1 for step in training["saved"]}
    return [seconds for step, seconds in enumerate(training["steps_s"], start=1) if step > 1 and step not in written_beside]


def sum_up(trainings: Trainings) -> dict[str, Any]:
    """Medians over the steps of all rounds and their means, the ratio of pushing to not pushing, and what pushing took and did."""
    kinds: dict[str, Callable[[Mapping[str, Any]], list[float]]] = {"between_saves": between_saves, "all": all_steps}
    summary: dict[str, Any] = {}
    for kind, durations in kinds.items():
        sides = {side: [seconds for training in rounds for seconds in durations(training)] for side, rounds in trainings.items()}
        medians = {side: statistics.median(steps) for side, steps in sides.items()}
        means = {side: statistics.fmean(steps) for side, steps in sides.items()}
        summary[kind] = {
            "step_s": medians,
            "steps": len(sides["pushing"]),
            "ratio": medians["pushing"] / medians["not pushing"],
            "ratio_of_means": means["pushing"] / means["not pushing"],
        }
    return {**summary, "pushing": _of_pushing(trainings["pushing"])}


def _of_pushing(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    saved = sum(len(training["saved"]) for training in rounds)
    return {
        "uploader_s": statistics.median(training["uploader_s"] for training in rounds),
        "training_s": statistics.median(sum(training["steps_s"]) for training in rounds),
        "server_s": statistics.median(training["server_s"] for training in rounds),
        "checkpoints": saved,
        "arrived_with_the_last_step": sum(training["arrived_with_the_last_step"] for training in rounds) / saved,
        "arrived": sum(training["arrived"] for training in rounds) / saved,
    }


def report(result: Mapping[str, Any]) -> str:
    """Return the result as text."""
    pushing = result["pushing"]
    lines = [machine.in_words(result["machine"]), " · ".join(f"{k} {v}" for k, v in result["versions"].items())]
    lines.append(
        f"{result['model']}, LoRA r {result['rank']} all-linear, a save every {result['every']} of {result['steps']} steps, "
        f"{result['rounds']} interleaved rounds, each run a fresh process; a line of {result['megabytes_per_s']:g} MB/s, "
        f"each answer {1000 * result['late_s']:g} ms late"
    )
    lines.append(f"  {'a step, median':<24}{'not pushing':>14}{'pushing':>14}{'ratio':>10}{'of means':>11}{'steps':>8}")
    for kind, title in (("between_saves", "no save beside it"), ("all", "all steps")):
        row = result[kind]
        off, on = (1000 * row["step_s"][side] for side in SIDES)
        lines.append(
            f"  {title:<24}{off:>11.1f} ms{on:>11.1f} ms{row['ratio']:>8.3f} ×{row['ratio_of_means']:>9.3f} ×{row['steps']:>8}"
        )
    lines.append(
        f"  the uploader used {pushing['uploader_s']:.1f} s of a processor beside {pushing['training_s']:.0f} s of training "
        f"(the look-alike {pushing['server_s']:.1f} s); of {pushing['checkpoints']} checkpoints "
        f"{100 * pushing['arrived_with_the_last_step']:.0f} % had arrived with the last step, "
        f"{100 * pushing['arrived']:.0f} % at the end"
    )
    return "\n".join(lines)


def main() -> int:
    """Measure and print; 2 where the model is missing."""
    options = _options()
    model = options.model or demo_model_path()
    if model is None or not model.is_dir():
        print("error: the demo model is not in the cache: run `pitstop fetch-demo`, or give --model DIR", file=sys.stderr)
        return 2
    description = machine.describe()
    with tempfile.TemporaryDirectory(prefix="pitstop-hub-bench-") as work:
        data = Path(work) / "pairs.jsonl"
        write_jsonl(data, pairs())
        job = Job(model.resolve(), data, options.steps, options.every)
        trainings = measure(job, options.rounds, options.late / 1000, options.rate * 1e6)
    content = {"machine": description, "versions": machine.versions(PACKAGES), "model": job.model.name, **sum_up(trainings)}
    options_used = {"steps": job.steps, "every": job.every, "rank": job.rank, "rounds": options.rounds}
    result = {**content, **options_used, "megabytes_per_s": options.rate, "late_s": options.late / 1000}
    print(json.dumps({**result, "runs": trainings}, indent=2) if options.json else report(result))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="directory of the base model (default: the demo model)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="steps of each run (default: %(default)s)")
    parser.add_argument("--every", type=int, default=10, help="steps between saves (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=2.0, help="megabytes a second on the line (default: %(default)s)")
    parser.add_argument("--late", type=float, default=100.0, help="milliseconds before each answer (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, with every run")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
