"""``python -m benchmarks.rank``: MovieLens 100K ranked by popularity, by retrievers alone, and by a tuned model behind one."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, marked
from benchmarks.rank import stages
from benchmarks.rank.data import NotThere, ml_100k
from pitstop.trainers.models.demo_model import demo_model_path

PACKAGES = ("pitstop", "torch", "transformers", "peft", "accelerate", "numpy")
NAME = "rank"
SHOWN = ("recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr@10")
SPLIT = "test"


def job_of(options: argparse.Namespace, model: Path, data: Path) -> stages.Job:
    """The adapter of LlamaRec on prompts that a processor can train on in minutes."""
    flags = {
        "--task": "rank", "--method": "lora", "--lora-rank": 8, "--lora-alpha": 32, "--lora-dropout": 0.05,
        "--lora-target-modules": ["q_proj", "v_proj"], "--learning-rate": options.learning_rate, "--epochs": 1,
        "--batch-size": 4, "--gradient-accumulation-steps": 1, "--logging-steps": 1, "--max-length": 768,
        "--packing": False, "--monitor": "ndcg@10", "--mode": "max", "--eval-score-examples": 100_000,
        "--rank-retriever": options.retriever, "--rank-candidates": 20, "--rank-history": options.history,
        "--rank-title-tokens": options.title_tokens, "--rank-max-train-rows": max(1, 4 * options.steps), "--rank-eval-users": options.users,
    }  # fmt: skip
    return stages.Job(data, model.resolve(), flags)


def measure(job: stages.Job, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is shown: popularity on all users, and each way to rank on the same sample of users."""
    known = stages.sequences(job.data)
    found = stages.retrieved(job, known)
    everybody = np.arange(len(known.user_ids))
    count = job.flags["--rank-candidates"]
    rows = {
        name: stages.retriever_alone(name, known, found.users, count, SPLIT)
        for name in ("popularity", "itemknn")
        if name != options.retriever
    }
    rows[f"{options.retriever}, the retriever"] = stages.of_ranks(found.items[SPLIT], found.users, known, SPLIT)
    result: dict[str, Any] = {
        "data": str(known.statistics),
        "users": len(found.users),
        "popularity_all_users": stages.retriever_alone("popularity", known, everybody, count, SPLIT),
        "rows": rows,
    }
    if options.steps:
        share = rows[f"{options.retriever}, the retriever"]["retrieved_share"]
        rows["its candidates in any fixed order of letters"] = stages.by_chance(share, count)
        result |= _second_stage(job, rows)
    return result


def _second_stage(job: stages.Job, rows: dict[str, Any]) -> dict[str, Any]:
    rows["ranked by SmolLM2-135M-Instruct, untrained"], untrained_s = stages.score(job, None, SPLIT)
    with tempfile.TemporaryDirectory(prefix="pitstop-rank-") as work:
        trained = stages.train(job, Path(work))
        adapter = Path(trained.pop("path")) / "lora_weights" / "best"
        rows["ranked by SmolLM2-135M-Instruct, tuned"], tuned_s = stages.score(job, adapter, SPLIT)
    return {"training": trained, "scoring_s": [untrained_s, tuned_s]}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    popular = result["popularity_all_users"]
    lines = [
        machine.in_words(result["machine"]) + ".",
        " · ".join(f"{name} {version}" for name, version in result["versions"].items()) + ".",
        "",
        f"After 5-core: {result['data']}. All 943 users by popularity: Recall@10 {popular['recall@10']:.4f}, NDCG@10 {popular['ndcg@10']:.4f}.",
        f"The rest on {result['users']} users drawn by the seed, last items, all items of the history left out; a target that was not",
        "retrieved is a miss.",
        "",
        "| ranked by | " + " | ".join(SHOWN) + " | retrieved | NDCG@10 there |",
        "|---|" + "---|" * (len(SHOWN) + 2),
    ]
    for name, row in result["rows"].items():
        cells = [f"{row[key]:.4f}" for key in SHOWN]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['retrieved_share']:.3f} | {row['retrieved_ndcg@10']:.4f} |")
    if "training" in result:
        trained = result["training"]
        lines += [
            "",
            f"Trained: {trained['steps']} steps of 4 rows, {trained['tokens']:,} tokens in {trained['train_s']:.0f} s "
            f"({trained['wall_s']:.0f} s with start and evaluation); scored in {result['scoring_s'][0]:.0f} s and {result['scoring_s'][1]:.0f} s.",
        ]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; 2 where the model is missing, 3 where the data is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rank", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=500, help="users to evaluate (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of four rows; 0: no model (default: %(default)s)")
    parser.add_argument("--history", type=int, default=5, help="titles of the history in a prompt (default: %(default)s)")
    parser.add_argument("--title-tokens", type=int, default=8, help="tokens of a title (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument(
        "--retriever", choices=("gru", "itemknn", "popularity"), default="gru", help="stage one (default: %(default)s)"
    )
    parser.add_argument("--wheel", type=Path, help="a wheel of recbole 1.2.1, where it cannot be downloaded")
    parser.add_argument("--model", type=Path, help="directory of the base model (default: the demo model)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    model = options.model or demo_model_path() or Path("none")
    if options.steps and not model.is_dir():
        print("error: the demo model is not in the cache: run `pitstop fetch-demo`, or give --model DIR", file=sys.stderr)
        return 2
    try:
        data = ml_100k(options.wheel)
    except NotThere as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    result = {"machine": machine.describe(), "versions": machine.versions(PACKAGES)}
    result |= measure(job_of(options, model, data), options)
    if options.write:
        marked.write(NAME, table(result))
    print(json.dumps(result, indent=2) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
