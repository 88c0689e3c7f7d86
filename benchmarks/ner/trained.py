"""One training through the command line, and the scores of what it learnt beside those of the untrained model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.logs import rows, speed
from benchmarks.ner.workload import TYPES, Job
from benchmarks.vs_trl.sides import environment

MAX_NEW_TOKENS = 128
BATCH_SIZE = 64
FIRST = 40
"""Validation records that are scored apart, too."""


class TrainingFailed(RuntimeError):
    """``pitstop train`` ended with an error."""


@dataclass(frozen=True)
class Trained:
    """A finished training: its run, tokens trained on, and seconds of all its steps."""

    run: Path
    records: int
    tokens: int
    seconds: float


def train(job: Job, lines: list[str], work: Path, *more: str) -> Trained:
    """Train ``job`` on records in ``work``, an empty directory. Raises ``TrainingFailed``."""
    data = work / "train.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pitstop.cli", *job.arguments(data, work / "runs", *more)],
        cwd=work,
        env={**environment(work), **_threads()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise TrainingFailed(f"pitstop train exited with {done.returncode}:\n{done.stderr[-2000:]}")
    run = Path(json.loads(done.stdout)["path"])
    logged = rows(run)
    return Trained(run, len(lines), logged[-1]["tokens"], sum(row["step_s"] for row in logged))


def _threads() -> dict[str, str]:
    """As many as the caller asks for, so that the benchmark can be tried beside other work; else one for each processor."""
    return {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]} if "OMP_NUM_THREADS" in os.environ else {}


def tokens_per_s(job: Job, lines: list[str], work: Path, steps: int = 5) -> float:
    """Measure the speed of training on a few steps, the first left out. Raises ``TrainingFailed``."""
    run = train(job, lines, work, "--max-steps", str(steps), "--save-strategy", "no").run
    return speed(rows(run), "tokens")


def score(job: Job, trained: Trained, validation: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return metrics by ``before`` and ``after`` and then by ``all`` and ``first``, from greedy answers."""
    from pitstop.trainers.machine.launch import prepare_environment

    prepare_environment()
    import torch

    from benchmarks.scoring import open_for_scoring
    from pitstop.checkpointing.runs.base_models import BaseModels
    from pitstop.trainers.data.reading import ReadOptions, load_dataset
    from pitstop.trainers.tasks.ner.greedy import greedy_answers
    from pitstop.trainers.tasks.ner.task import NerTask, scores_of

    settings = job.settings(validation)
    scoring = open_for_scoring(
        BaseModels(trained.run.parent).base_path(trained.run),
        settings,
        torch.device("cpu"),  # where it was trained
        stored=True,
        adapter=trained.run / "lora_weights" / "last",
        batch_size=BATCH_SIZE,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    examples = load_dataset(
        [str(validation)], NerTask(scoring.tokenizer, settings), ReadOptions(max_length=4096, packing=False)
    ).examples
    first = FIRST * len(TYPES)
    with scoring.model.disable_adapter():
        answers = {"before": greedy_answers(examples, scoring)}
    answers["after"] = greedy_answers(examples, scoring)
    return {
        when: {
            "all": scores_of(examples, given).as_metrics(),
            "first": scores_of(examples[:first], given[:first]).as_metrics(),
        }
        for when, given in answers.items()
    }
