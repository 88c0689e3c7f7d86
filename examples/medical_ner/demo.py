"""The demo: fine-tune SmolLM2 on the medical records, kill it in the middle, resume it, and score it before and after.

Run by ``make demo``, which installs Pitstop and fetches the model first. Every line that starts with ``$`` is a command
that can be typed as it stands. It measures this machine first and trains as much as ends within five minutes here;
``--full`` trains on all records, however long that takes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from pitstop.examples.medical_ner.pace import (
    LOST_STEPS,
    MAX_NEW_TOKENS,
    QUESTIONS,
    Choice,
    Pace,
    UntrainedModel,
    choose,
    explain,
    measure,
    whole_demo,
)
from pitstop.trainers.machine.launch import prepare_environment

BASE_DIR = "checkpoints"
SHORT_CONFIG = os.path.relpath(Path(__file__).with_name("short.yaml"))
SHOWN = 4
CLEAR_GAIN = 0.2  # in F1


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fine-tune the demo model: killed, resumed, scored before and after.")
    parser.add_argument("--full", action="store_true", help="train on all records, however long it takes here")
    full = parser.parse_args().full
    started, environment = time.monotonic(), dict(os.environ)
    questions = held_out_questions()
    print("\n1. Measure this machine, and ask the untrained model.\n", flush=True)
    pace, choice, before = _rehearse(questions, started, full=full)
    questions = questions[: choice.questions]
    print("\n2. Train until the machine 'fails': kill -9 a moment after the first checkpoint.\n", flush=True)
    run = _train_and_kill(choice, LOST_STEPS * pace.step_s, environment)
    print(f"\n   The process is gone. {_checkpoints(run)} is on disk and is verified before it is used.", flush=True)
    print("\n3. Resume: the run goes on, bit for bit, where it would have been.\n", flush=True)
    _pitstop(["resume", str(run), "--base-dir", BASE_DIR], environment)
    print("\n4. What ran:\n", flush=True)
    _pitstop(["list-runs", "--base-dir", BASE_DIR], environment)
    print(f"\n5. Entities found in {len(questions) // 2} held-out records, before and after:\n", flush=True)
    gain = _score(questions, before, _answers_of(run, questions))
    print(f"\nThe demo took {time.monotonic() - started:.0f} s. Next: pitstop train --help", flush=True)
    if gain < CLEAR_GAIN:
        print(f"error: F1 rose by {gain:.3f} only; at least {CLEAR_GAIN} were expected.", file=sys.stderr)
        return 1
    return 0


def held_out_questions() -> list[dict[str, str]]:
    """Two of each held-out record: ``prompt``, ``completion`` and ``entity_type``."""
    lines = (resources.files("pitstop.examples") / "medical_ner/held_out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _rehearse(questions: Sequence[Mapping[str, str]], started: float, *, full: bool) -> tuple[Pace, Choice, list[str]]:
    """Measure the machine with the untrained model, choose how much of the demo to run, and let the model answer."""
    for line in prepare_environment():
        print(line)
    prompts = [question["prompt"] for question in questions]
    model = UntrainedModel(BASE_DIR)
    pace = measure(model, prompts)
    elapsed_s = time.monotonic() - started
    choice = whole_demo(pace, model.workload, elapsed_s) if full else choose(pace, model.workload, elapsed_s)
    print("\n".join(f"   {line}" for line in explain(pace, model.workload, choice).splitlines()), flush=True)
    answers = model.answer(prompts[: choice.questions])
    del model
    gc.collect()  # its memory is the training's now
    return pace, choice, answers


def _command(arguments: Sequence[str]) -> list[str]:
    print("$ pitstop " + " ".join(arguments), flush=True)
    return [sys.executable, "-m", "pitstop.cli", *arguments]


def _pitstop(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run(_command(arguments), check=True, env=environment)


def _train_and_kill(choice: Choice, pause_s: float, environment: Mapping[str, str]) -> int:
    """Train in a child and kill it ``pause_s`` after its first checkpoint, so that work is lost; returns the run's number."""
    half = choice.steps // 2
    short = ["--config", SHORT_CONFIG, "--max-steps", str(choice.steps), "--save-steps", str(half)]
    arguments = ["train", "--config", "demo", *([] if choice.whole else short), "--base-dir", BASE_DIR]
    checkpoint = "epoch_001" if choice.whole else f"checkpoint-{half}"
    child = subprocess.Popen(_command(arguments), stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    number = None
    for line in child.stdout:
        print(f"  {line}", end="", flush=True)
        if line.startswith("Run "):
            number = int(line.split()[1].rstrip(":"))
        if line.startswith(f"saved {checkpoint} "):
            time.sleep(pause_s)
            os.kill(child.pid, signal.SIGKILL)
            break
    if child.wait() != -signal.SIGKILL or number is None:
        raise SystemExit("the training ended before it could be killed; its output stands above")
    print("  killed (kill -9)", flush=True)
    return number


def _checkpoints(run: int) -> str:
    directory = Path(BASE_DIR) / f"run_{run:03d}" / "lora_weights"
    return ", ".join(sorted(path.name for path in directory.iterdir() if path.name.startswith(("epoch", "checkpoint"))))


def _answers_of(run: int, questions: Sequence[Mapping[str, str]]) -> list[str]:
    """What the run's last checkpoint answers."""
    from pitstop.cli.terminal.progress import make_display
    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.using.answering import Answering, answer
    from pitstop.trainers.using.opened import choose as choose_checkpoint
    from pitstop.trainers.using.opened import open_model

    reporter = Reporter(make_display(quiet=True, json_output=False))
    opened = open_model(choose_checkpoint(BASE_DIR, f"{run}@last"), reporter)
    options = Answering(max_new_tokens=MAX_NEW_TOKENS, batch_size=QUESTIONS[0])
    return [reply.text for reply in answer(opened, [question["prompt"] for question in questions], options)]


def _score(questions: Sequence[Mapping[str, str]], before: Sequence[str], after: Sequence[str]) -> float:
    """Print examples of both, and precision, recall and F1; returns by how much F1 rose."""
    from pitstop.trainers.tasks.ner.scores import score_completions

    _show_examples(questions, before, after)
    print(f"{'micro':<8} {'precision':>9} {'recall':>7} {'F1':>7}")
    f1 = []
    for name, texts in (("before", before), ("after", after)):
        answered = zip(questions, texts, strict=True)
        total = score_completions((question["entity_type"], question["completion"], text) for question, text in answered).micro
        print(f"{name:<8} {total.precision:>9.3f} {total.recall:>7.3f} {total.f1:>7.3f}", flush=True)
        f1.append(total.f1)
    return f1[1] - f1[0]


def _show_examples(questions: Sequence[Mapping[str, str]], before: Sequence[str], after: Sequence[str]) -> None:
    from pitstop.trainers.tasks.ner.scores import parse_items

    for question, untrained, trained in list(zip(questions, before, after, strict=True))[:SHOWN]:
        print(f"  {question['prompt'].split('Text: ', 1)[1]}")
        for name, text in (("wanted", question["completion"]), ("before", untrained), ("after", trained)):
            items = ", ".join(parse_items(text)) or "none"
            print(f"    {question['entity_type']}s {name:<7} {items if len(items) < 90 else items[:87] + '…'}")
        print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
