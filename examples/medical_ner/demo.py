"""The demo: fine-tune SmolLM2 on the medical records, kill it in the middle, resume it, and score it before and after.

Run by ``make demo``, which installs Pitstop and fetches the model first. Every line that starts with ``$`` is a command
that can be typed as it stands.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

BASE_DIR = "checkpoints"
KILL_AFTER = "saved epoch_001"
EXTRA_SECONDS = 4.0  # into the second epoch, so that work since the checkpoint is lost and done again
MAX_NEW_TOKENS = 48
SHOWN = 4


def main() -> int:
    """Run the demo; returns the exit code."""
    started = time.monotonic()
    print("\n1. Train until the machine 'fails': kill -9 a moment after the first checkpoint.\n", flush=True)
    run = _train_and_kill(["train", "--config", "demo", "--base-dir", BASE_DIR])
    print(f"\n   The process is gone. {_checkpoints(run)} is on disk, verified byte by byte on the way back.", flush=True)
    print("\n2. Resume: the run goes on, bit for bit, where it would have been.\n", flush=True)
    _pitstop(["resume", str(run), "--base-dir", BASE_DIR])
    print("\n3. What ran:\n", flush=True)
    _pitstop(["list-runs", "--base-dir", BASE_DIR])
    print("\n4. Entities found in the 20 held-out records, before and after:\n", flush=True)
    _score(Path(BASE_DIR) / f"run_{run:03d}")
    print(f"\nThe demo took {time.monotonic() - started:.0f} s. Next: pitstop train --help", flush=True)
    return 0


def _command(arguments: Sequence[str]) -> list[str]:
    print("$ pitstop " + " ".join(arguments), flush=True)
    return [sys.executable, "-m", "pitstop.cli", *arguments]


def _pitstop(arguments: Sequence[str]) -> None:
    subprocess.run(_command(arguments), check=True)


def _train_and_kill(arguments: Sequence[str]) -> int:
    """Train in a child, kill it shortly after its first checkpoint; returns the run's number."""
    child = subprocess.Popen(_command(arguments), stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    number = None
    for line in child.stdout:
        print(f"  {line}", end="", flush=True)
        if line.startswith("Run "):
            number = int(line.split()[1].rstrip(":"))
        if line.startswith(KILL_AFTER):
            time.sleep(EXTRA_SECONDS)
            os.kill(child.pid, signal.SIGKILL)
            break
    if child.wait() != -signal.SIGKILL or number is None:
        raise SystemExit("the training ended before it could be killed; its output stands above")
    print("  killed (kill -9)", flush=True)
    return number


def _checkpoints(run: int) -> str:
    names = sorted(p.name for p in (Path(BASE_DIR) / f"run_{run:03d}" / "lora_weights").iterdir() if p.name.startswith("epoch"))
    return ", ".join(names)


def _score(run: Path) -> None:
    """Print generated entities and F1 of the base model and of the best checkpoint."""
    from pitstop.trainers.machine.launch import prepare_environment

    prepare_environment()
    from pitstop.cli.terminal.progress import make_display
    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.tasks.ner.scores import score_completions
    from pitstop.trainers.using.answering import Answering, answer
    from pitstop.trainers.using.opened import BASE, choose, open_model

    rows = [
        json.loads(line) for line in (resources.files("pitstop.examples") / "medical_ner/held_out.jsonl").read_text().splitlines()
    ]
    prompts = [row["prompt"] for row in rows]
    how = Answering(max_new_tokens=MAX_NEW_TOKENS, batch_size=20)
    opened = open_model(choose(run.parent, str(run)), Reporter(make_display(quiet=True, json_output=False)))
    after = [found.text for found in answer(opened, prompts, how)]
    opened.use(BASE)
    before = [found.text for found in answer(opened, prompts, how)]
    scored = {
        name: score_completions((row["entity_type"], row["completion"], text) for row, text in zip(rows, texts, strict=True))
        for name, texts in (("before", before), ("after", after))
    }
    _show_examples(rows, before, after)
    print(f"{'micro':<8} {'precision':>9} {'recall':>7} {'F1':>7}")
    for name, scores in scored.items():
        total = scores.micro
        print(f"{name:<8} {total.precision:>9.3f} {total.recall:>7.3f} {total.f1:>7.3f}", flush=True)


def _show_examples(rows: Sequence[dict[str, str]], before: Sequence[str], after: Sequence[str]) -> None:
    from pitstop.trainers.tasks.ner.scores import parse_items

    for row, old, new in list(zip(rows, before, after, strict=True))[:SHOWN]:
        print(f"  {row['prompt'].split('Text: ', 1)[1]}")
        for name, text in (("wanted", row["completion"]), ("before", old), ("after", new)):
            items = ", ".join(parse_items(text)) or "none"
            print(f"    {row['entity_type']}s {name:<7} {items if len(items) < 90 else items[:87] + '…'}")
        print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
