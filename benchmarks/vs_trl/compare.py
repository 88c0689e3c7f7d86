"""Interleave the two sides, sum up what they measured, print it."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.vs_trl.cases import CASES
from benchmarks.vs_trl.sides import Job, Run, run_pitstop, run_trl
from benchmarks.vs_trl.workload import PROMPTS, Hyperparameters

GIB = 2**30
SIDES: dict[str, Callable[[Job, Path], Run]] = {"trl": run_trl, "pitstop": run_pitstop}


def run_case(job: Job, rounds: int, sides: list[str]) -> dict[str, list[Run]]:
    """Run each side ``rounds`` times in turn; every second round starts with the other side."""
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            with tempfile.TemporaryDirectory(prefix=f"pitstop-bench-{side}-") as work:
                run = SIDES[side](job, Path(work))
            runs[side].append(run)
            rate = PROMPTS * job.hyperparameters.epochs / run.train_s
            _say(f"  round {number + 1}/{rounds} {side:<8}{rate:6.2f} samples/s {run.peak_bytes / GIB:6.2f} GiB")
    return runs


def sum_up(runs: dict[str, list[Run]], epochs: int) -> dict[str, Any]:
    """Return each side's medians and, where both ran, Pitstop's over TRL's."""
    summary: dict[str, Any] = {side: _side(found, epochs) for side, found in runs.items()}
    if summary.keys() >= {"trl", "pitstop"}:
        ours, theirs = summary["pitstop"], summary["trl"]
        summary["ratio"] = {key: ours[key] / theirs[key] for key in ("samples_per_s", "peak_gib")}
    return summary


def _side(runs: list[Run], epochs: int) -> dict[str, Any]:
    samples = PROMPTS * epochs
    rates = [samples / run.train_s for run in runs]
    peaks = [run.peak_bytes / GIB for run in runs]
    last = runs[-1]
    return {
        "samples_per_s": statistics.median(rates),
        "samples_per_s_of_each": rates,
        "peak_gib": statistics.median(peaks),
        "peak_gib_of_each": peaks,
        "tokens_per_sample": last.tokens / samples,
        "mean_loss_by_epoch": epoch_losses(last.losses, epochs),
        "losses": last.losses,
        **last.details,
    }


def epoch_losses(losses: list[float], epochs: int) -> list[float]:
    """Return the mean of the step losses of each epoch."""
    steps = len(losses) // epochs
    return [statistics.fmean(losses[start : start + steps]) for start in range(0, steps * epochs, steps)]


def compare(
    model: Path, data: Path, names: list[str], *, hyperparameters: Hyperparameters, rounds: int, sides: list[str]
) -> dict[str, Any]:
    """Run the named cases and return everything that is to be known about them."""
    result: dict[str, Any] = {"machine": machine.describe(), "hyperparameters": asdict(hyperparameters), "cases": {}}
    for name in names:
        case = CASES[name]
        _say(f"{name}: {case.summary}")
        runs = run_case(Job(model, data, hyperparameters, case), rounds, sides)
        result["cases"][name] = {"summary": case.summary, "rounds": rounds, **sum_up(runs, hyperparameters.epochs)}
    return result


def report(result: dict[str, Any]) -> str:
    """Return the result as text."""
    h = result["hyperparameters"]
    lines = [
        machine.in_words(result["machine"]),
        f"{PROMPTS} prompts, {h['epochs']} epochs, batch {h['batch_size']} × {h['accumulation']}, LoRA r {h['rank']} "
        f"{h['target_modules']}, lr {h['learning_rate']}; medians of interleaved runs, each in a fresh process",
    ]
    for name, case in result["cases"].items():
        lines += ["", f"{name} ({case['rounds']} rounds): {case['summary']}", *_case_lines(case)]
    return "\n".join(lines)


def _case_lines(case: dict[str, Any]) -> list[str]:
    lines = [f"  {'':<9}{'samples/s':>10}{'peak RSS':>12}{'tokens/sample':>15}   mean loss by epoch"]
    for side in (side for side in SIDES if side in case):
        row = case[side]
        losses = ", ".join(f"{loss:.4f}" for loss in row["mean_loss_by_epoch"])
        lines.append(
            f"  {side:<9}{row['samples_per_s']:>10.2f}{row['peak_gib']:>8.2f} GiB{row['tokens_per_sample']:>15.1f}   {losses}"
        )
    if "ratio" in case:
        lines.append(f"  {'ratio':<9}{case['ratio']['samples_per_s']:>8.2f} ×{100 * case['ratio']['peak_gib']:>10.0f} %")
    lines += [_details(side, case[side]) for side in SIDES if side in case]
    return lines


def _details(side: str, row: dict[str, Any]) -> str:
    words = [" ".join(item) for item in row["versions"].items()]
    if lengths := row.get("lengths"):
        words.append(f"{min(lengths)}–{max(lengths)} tokens a prompt with its completion")
        words.append(f"{row['supervised_tokens']} supervised tokens an epoch")
    return f"  {side}: {', '.join(words)}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
