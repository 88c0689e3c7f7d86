"""What each stage makes of the same users: retrievers alone, and the model before and after training."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pitstop.configs.load import load_settings
from pitstop.configs.schema import Settings
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.rank import retrievers
from pitstop.trainers.tasks.rank.histories import UserHistories, build_histories
from pitstop.trainers.tasks.rank.measures import CUTOFFS, mean_measures, report
from pitstop.trainers.tasks.rank.reading import read_ratings
from pitstop.trainers.tasks.rank.retrieval import RetrievedCandidates, retrieve


@dataclass(frozen=True)
class Job:
    """What is measured: the data, the base model, and the settings of the command, by flag."""

    data: Path
    model: Path
    flags: dict[str, Any]

    @property
    def words(self) -> list[str]:
        """The flags as words of a command line; a list gives its flag once for each value, False the flag's ``--no-`` form."""
        words: list[str] = []
        for name, value in {"--dataset": self.data, "--model-id": self.model, **self.flags}.items():
            if value is False:
                words.append(name.replace("--", "--no-", 1))
            else:
                words += [str(word) for one in (value if isinstance(value, list) else [value]) for word in (name, one)]
        return words

    def settings(self) -> Settings:
        """The settings that ``pitstop train`` makes of the words."""
        from pitstop.configs.leaves import leaves

        by_flag = {leaf.flag: leaf.path for leaf in leaves() if leaf.flag}
        given = {by_flag[name]: value for name, value in self.flags.items()}
        flags = {**given, "data.train": [str(self.data)], "model.id": str(self.model)}
        return load_settings(flags=flags, environ={}).settings


def sequences(data: Path, least: int = 5) -> UserHistories:
    """The k-core of the data, in order."""
    return build_histories(read_ratings(str(data), BadRows(skip=False)), min_interactions=least, name=str(data))


def of_ranks(items: np.ndarray, users: np.ndarray, known: UserHistories, split: str) -> dict[str, float]:
    """The metrics of candidates in the order in which a retriever has them; a user whose item is not among them is a miss."""
    places = [np.flatnonzero(row == known.target(int(user), split)) for user, row in zip(users, items, strict=True)]
    ranks = [int(place[0]) + 1 for place in places if len(place)]
    return report(mean_measures(ranks), len(ranks) / len(places))


def retriever_alone(name: str, known: UserHistories, users: np.ndarray, count: int, split: str) -> dict[str, float]:
    """A retriever that needs no training, for these users."""
    found = retrievers.fit(name, known, seed=0, epochs=1, say=print)
    items, _ = retrievers.top(found, [known.history(int(user), split) for user in users], count)
    return of_ranks(items, users, known, split)


def retrieved(job: Job, known: UserHistories) -> RetrievedCandidates:
    """What stage one gives stage two, trained here if it is not in the cache yet."""
    settings = job.settings()
    return retrieve(known, settings.rank, settings.training.seed, lambda text: print(f"  {text}", file=sys.stderr, flush=True))


def by_chance(share: float, count: int) -> dict[str, float]:
    """What any fixed order of the letters is expected to give, since the candidates stand in random order."""
    ranks = range(1, count + 1)
    subset = {f"recall@{k}": min(k, count) / count for k in CUTOFFS}
    subset |= {f"mrr@{k}": math.fsum(1 / rank for rank in ranks if rank <= k) / count for k in CUTOFFS}
    subset |= {f"ndcg@{k}": math.fsum(1 / math.log2(rank + 1) for rank in ranks if rank <= k) / count for k in CUTOFFS}
    return report(subset, share)


def train(job: Job, base_dir: Path) -> dict[str, Any]:
    """Train with ``pitstop train`` in a process of its own; its summary and the seconds of its optimizer steps."""
    command = [sys.executable, "-P", "-m", "pitstop.cli", "train", "--json", "--base-dir", str(base_dir), *job.words]
    started = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=base_dir)
    summary: dict[str, Any] = json.loads(done.stdout)
    rows = [json.loads(line) for line in (Path(summary["path"]) / "logs" / "metrics.jsonl").read_text().splitlines()]
    return {
        "path": summary["path"],
        "steps": summary["step"],
        "tokens": rows[-1]["tokens"],
        "train_s": sum(row["step_s"] for row in rows),
        "wall_s": time.monotonic() - started,
        "validation": rows[-1],
    }


def score(job: Job, adapter: Path | None, split: str) -> tuple[dict[str, float], float]:
    """The model's metrics on a split, bare or with an adapter, and how many seconds that took."""
    from benchmarks.scoring import open_for_scoring
    from pitstop.trainers.data.reading import ReadOptions, load_dataset
    from pitstop.trainers.machine.device import choose_device
    from pitstop.trainers.tasks.registry import make_task

    settings = job.settings()
    scoring = open_for_scoring(
        job.model,
        settings,
        choose_device(),
        stored=False,
        adapter=adapter,
        batch_size=settings.evaluation.generation_batch_size,
        max_new_tokens=1,
    )
    task = make_task(settings, scoring.tokenizer)
    data = load_dataset(settings.data.train, task, ReadOptions(max_length=settings.data.max_length, packing=False, split=split))
    started = time.monotonic()
    return task.score(data, scoring), time.monotonic() - started
