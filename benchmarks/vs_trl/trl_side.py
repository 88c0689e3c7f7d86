"""Train one job with TRL's SFTTrainer; runs in the environment of ``requirements.txt``, never in Pitstop's.

Usage: ``python trl_side.py JOB.json``. The job is written by ``compare.py``; the result goes to the job's ``result``
file: seconds and loss of each optimizer step, the versions, and the sequence lengths after tokenising.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

IGNORED = -100  # the label of a token without loss


class StepTimes(TrainerCallback):
    """Seconds of each optimizer step, from its first micro-batch to the updated weights."""

    def __init__(self) -> None:
        self.started = 0.0
        self.rows: list[dict[str, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rows.append({"step": state.global_step, "step_s": time.perf_counter() - self.started})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs and self.rows:
            self.rows[-1]["loss"] = float(logs["loss"])


def conversations(path: str) -> Dataset:
    """Return the pairs of a JSONL file as conversations, so that TRL applies the chat template as Pitstop does."""
    pairs = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": pair["prompt"]}],
                "completion": [{"role": "assistant", "content": pair["completion"]}],
            }
            for pair in pairs
        ]
    )


def config(job: dict[str, Any]) -> SFTConfig:
    """Return TRL's settings: the job's hyperparameters, ``job["trl"]`` on top, everything else at TRL's defaults."""
    overrides = dict(job["trl"])
    dtype = overrides.pop("dtype", None)
    return SFTConfig(
        output_dir=job["output"],
        model_init_kwargs={"dtype": dtype} if dtype else None,
        completion_only_loss=True,
        max_length=job["max_length"],
        per_device_train_batch_size=job["batch_size"],
        gradient_accumulation_steps=job["accumulation"],
        num_train_epochs=job["epochs"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=job["weight_decay"],
        max_grad_norm=job["max_grad_norm"],
        seed=job["seed"],
        bf16=True,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **overrides,
    )


def adapter(job: dict[str, Any]) -> LoraConfig:
    """Return the adapter's settings."""
    return LoraConfig(
        r=job["rank"],
        lora_alpha=job["alpha"],
        lora_dropout=job["dropout"],
        target_modules=job["target_modules"],
        task_type="CAUSAL_LM",
    )


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train the job and return its result."""
    times = StepTimes()
    trainer = SFTTrainer(
        model=job["model"],
        args=config(job),
        train_dataset=conversations(job["data"]),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=adapter(job),
        callbacks=[times],
    )
    trainer.train()
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return {
        "steps": times.rows,
        "trainable_parameters": trainable,
        "lengths": [len(row["input_ids"]) for row in trainer.train_dataset],
        "supervised_tokens": sum(label != IGNORED for row in trainer.train_dataset for label in row["labels"]),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("trl", "torch", "transformers", "peft", "accelerate", "datasets")},
    }


def main() -> None:
    """Read the job named on the command line, train it, write its result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["result"]).write_text(json.dumps(train(job)), encoding="utf-8")


if __name__ == "__main__":
    main()
