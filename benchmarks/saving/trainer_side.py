"""Train and save the same adapter with transformers' ``Trainer``; runs in a process of its own.

Usage: ``python trainer_side.py JOB.json``; seconds of each step and of each save go to the job's ``result`` file.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from pitstop.configs.schema import Settings
from pitstop.trainers.machine.device import choose_precision

IGNORED = -100  # the label of a token without loss


class TimedTrainer(Trainer):
    """Notes how long each checkpoint keeps the training waiting."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.saves_s: list[float] = []

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        started = time.perf_counter()
        super()._save_checkpoint(*arguments, **named)
        self.saves_s.append(time.perf_counter() - started)


class StepTimes(TrainerCallback):
    """Seconds of each optimizer step."""

    def __init__(self) -> None:
        self.started = 0.0
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def examples(path: str, tokenizer: Any) -> Dataset:
    """Return the pairs of a JSONL file with the loss on the completions."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        question = [{"role": "user", "content": pair["prompt"]}]
        conversation = [*question, {"role": "assistant", "content": pair["completion"]}]
        prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
        tokens = tokenizer.apply_chat_template(conversation, return_dict=False)
        rows.append({"input_ids": tokens, "labels": [IGNORED] * len(prompt) + tokens[len(prompt) :]})
    return Dataset.from_list(rows)


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train the job and return its times."""
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    precision = choose_precision(Settings(), torch.device("cpu"))
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype=precision.compute)
    config = LoraConfig(r=job["rank"], lora_alpha=2 * job["rank"], target_modules="all-linear", task_type="CAUSAL_LM")
    times = StepTimes()
    trainer = TimedTrainer(
        model=get_peft_model(base, config),
        args=TrainingArguments(
            output_dir=job["output"],
            max_steps=job["steps"],
            save_steps=job["every"],
            save_total_limit=2,
            per_device_train_batch_size=1,
            learning_rate=2e-4,
            optim="adamw_torch",
            bf16=precision.mixed == "bf16",
            use_cpu=True,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=examples(job["data"], tokenizer),
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        callbacks=[times],
    )
    trainer.train()
    saved = max(Path(job["output"]).glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    return {
        "steps_s": times.seconds,
        "saves_s": trainer.saves_s,
        "bytes": sum(file.stat().st_size for file in saved.iterdir()),
    }


def main() -> None:
    """Read the job named on the command line, train it, write its result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["result"]).write_text(json.dumps(train(job)), encoding="utf-8")


if __name__ == "__main__":
    main()
