"""``python -m benchmarks.saving``: the stall of a save, beside a synchronous one and one of Hugging Face's Trainer."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.vs_trl.sides import environment
from benchmarks.vs_trl.workload import pairs, write_jsonl
from pitstop.trainers.models.demo_model import demo_model_path

TRAINER_SIDE = Path(__file__).with_name("trainer_side.py")
PACKAGES = ("pitstop", "torch", "transformers", "peft", "accelerate", "safetensors")


@dataclass(frozen=True)
class Job:
    """What every side trains: ``every`` is the number of steps between saves, ``rank`` that of the adapter."""

    model: Path
    data: Path
    steps: int
    every: int
    rank: int = 16


def side_environment(work: Path) -> dict[str, str]:
    """The environment of every side; threads that spin for less, as Pitstop sets it for itself, for the Trainer too."""
    return {**environment(work), "GOMP_SPINCOUNT": "10000"}


def pitstop(job: Job, work: Path, *flags: str) -> dict[str, Any]:
    """Train ``job`` with ``pitstop`` in a fresh process; seconds of steps, stalls and writes, and a checkpoint's bytes."""
    words = {
        "--method": "lora", "--model-id": job.model, "--dataset": job.data, "--base-dir": work / "checkpoints",
        "--max-steps": job.steps, "--save-strategy": "steps", "--save-steps": job.every, "--keep-last-n": 2,
        "--batch-size": 1, "--gradient-accumulation-steps": 1, "--learning-rate": 2e-4, "--max-length": 1024,
        "--lora-rank": job.rank, "--lora-alpha": 2 * job.rank, "--lora-dropout": 0, "--logging-steps": 1,
    }  # fmt: skip
    command = [sys.executable, "-m", "pitstop.cli", "train", "--json", "--no-packing", "--no-save-base-model", *flags]
    process = subprocess.run(
        [*command, *(str(word) for pair in words.items() for word in pair)],
        cwd=work,
        env=side_environment(work),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    summary = json.loads(process.stdout)
    run = Path(summary["path"])
    rows = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row["step_s"] for row in rows]
    saves = summary["saves"][:-1]  # the last one is waited for: nothing comes after it
    return {
        "steps_s": steps,
        "saves_s": [save["stalled_s"] for save in saves],
        "writes_s": [save["written_s"] for save in saves],
        "waits_s": [save["waited_s"] for save in summary["saves"]],
        "between_s": [sum(steps[save["step"] : save["step"] + job.every]) for save in saves],
        "bytes": sum(file.stat().st_size for file in (run / "lora_weights" / "last").iterdir()),
    }


def trainer(job: Job, work: Path) -> dict[str, Any]:
    """Train ``job`` with transformers' ``Trainer`` in a fresh process."""
    result = work / "result.json"
    content = {"model": str(job.model), "data": str(job.data), "steps": job.steps, "every": job.every, "rank": job.rank}
    (work / "job.json").write_text(
        json.dumps({**content, "output": str(work / "output"), "result": str(result)}), encoding="utf-8"
    )
    command = [sys.executable, str(TRAINER_SIDE), str(work / "job.json")]
    subprocess.run(command, cwd=work, env=side_environment(work), check=True, capture_output=True)
    measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return measured


SIDES: dict[str, Callable[[Job, Path], dict[str, Any]]] = {
    "trainer": trainer,
    "pitstop, beside": pitstop,
    "pitstop, --sync-save": lambda job, work: pitstop(job, work, "--sync-save"),
}


def measure(job: Job, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run all sides in turn; every second round the other way round."""
    trainings: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in list(SIDES) if number % 2 == 0 else list(reversed(SIDES)):
            with tempfile.TemporaryDirectory(prefix="pitstop-saving-") as work:
                trainings[side].append(SIDES[side](job, Path(work)))
            print(f"  round {number + 1}/{rounds} {side}", file=sys.stderr, flush=True)
    return trainings


def sum_up(trainings: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over all saves of all rounds, and each over that of the Trainer."""
    summary: dict[str, Any] = {}
    for side, rounds in trainings.items():
        saves = [seconds for training in rounds for seconds in training["saves_s"]]
        steps = [seconds for training in rounds for seconds in training["steps_s"][1:]]
        summary[side] = {
            "save_s": statistics.median(saves),
            "slowest_save_s": max(saves),
            "saves": len(saves),
            "step_s": statistics.median(steps),
            "checkpoint_mb": rounds[-1]["bytes"] / 1e6,
        }
    for row in summary.values():
        row["ratio"] = row["save_s"] / summary["trainer"]["save_s"]
    asynchronous = trainings["pitstop, beside"]
    writes = [seconds for training in asynchronous for seconds in training["writes_s"]]
    between = [seconds for training in asynchronous for seconds in training["between_s"]]
    summary["pitstop, beside"] |= {
        "write_s": statistics.median(writes),
        "slowest_write_s": max(writes),
        "between_saves_s": statistics.median(between),
        "longest_wait_for_the_save_before_s": max(seconds for training in asynchronous for seconds in training["waits_s"]),
    }
    return summary


def report(result: dict[str, Any]) -> str:
    """Return the result as text."""
    lines = [machine.in_words(result["machine"]), " · ".join(f"{k} {v}" for k, v in result["versions"].items())]
    lines.append(
        f"SmolLM2-135M-Instruct, LoRA r {result['rank']} all-linear, AdamW, a save every {result['every']} of {result['steps']} steps, "
        f"{result['rounds']} interleaved rounds, each run a fresh process"
    )
    lines.append(
        f"  {'training waits for a save':<28}{'median':>10}{'slowest':>11}{'of Trainer':>12}{'checkpoint':>13}{'a step':>10}"
    )
    for side, row in result["sides"].items():
        lines.append(
            f"  {side:<28}{1000 * row['save_s']:>7.1f} ms{1000 * row['slowest_save_s']:>8.1f} ms{row['ratio']:>10.2f} ×"
            f"{row['checkpoint_mb']:>10.1f} MB{1000 * row['step_s']:>7.0f} ms"
        )
    row = result["sides"]["pitstop, beside"]
    lines.append(
        f"  the durable write behind it: {row['write_s']:.2f} s in the median, {row['slowest_write_s']:.2f} s at most, of "
        f"{row['between_saves_s']:.2f} s between saves; longest wait for the save before: "
        f"{1000 * row['longest_wait_for_the_save_before_s']:.2f} ms"
    )
    return "\n".join(lines)


def main() -> int:
    """Measure and print; 2 where the model is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saving", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="directory of the base model (default: the demo model)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="steps of each run (default: %(default)s)")
    parser.add_argument("--every", type=int, default=10, help="steps between saves (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    model = options.model or demo_model_path()
    if model is None or not model.is_dir():
        print("error: the demo model is not in the cache: run `pitstop fetch-demo`, or give --model DIR", file=sys.stderr)
        return 2
    description = machine.describe()
    with tempfile.TemporaryDirectory(prefix="pitstop-saving-") as work:
        data = Path(work) / "pairs.jsonl"
        write_jsonl(data, pairs())
        job = Job(model.resolve(), data, options.steps, options.every)
        sides = sum_up(measure(job, options.rounds))
    content = {"machine": description, "versions": machine.versions(PACKAGES), "sides": sides}
    result = {**content, "steps": job.steps, "every": job.every, "rank": job.rank, "rounds": options.rounds}
    print(json.dumps(result, indent=2) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
