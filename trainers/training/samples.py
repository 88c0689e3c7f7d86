"""Answers to a few fixed prompts at every evaluation, in ``logs/samples.jsonl``: how the model writes as training goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import DataError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.prompts import read_prompts, room_for_prompt, tokenised
from pitstop.trainers.loop.sample_hook import SampleHook
from pitstop.trainers.machine.memory_pieces import Pieces
from pitstop.trainers.machine.processes import gather_bytes
from pitstop.trainers.models.generation import answer_in_pieces, batches
from pitstop.trainers.tasks.base import Task, Training
from pitstop.trainers.tasks.text import TextTask

_SHOWN = 60


@dataclass(frozen=True)
class SamplePrompts:
    """The prompts as text and as the token ids that generation starts from."""

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    def check_room(self, model: Any, max_new_tokens: int) -> None:
        """Raises ``DataError`` for a prompt that leaves the model no room for ``max_new_tokens`` new tokens."""
        room = room_for_prompt(model, max_new_tokens)
        for number, ids in enumerate(self.ids, start=1):
            if room is not None and len(ids) > room:
                raise DataError(
                    f"SAMPLE_PROMPTS: prompt {number} is {len(ids):,} tokens long, and the model has room for {room:,} beside "
                    f"{max_new_tokens:,} new ones.",
                    hint="Shorten it, or ask for fewer with --eval-max-new-tokens.",
                )


def read_samples(settings: Settings, task: Task) -> SamplePrompts | None:
    """The prompts that SAMPLE_PROMPTS names, None without. Raises ``DataError`` for a file or prompt that cannot be used."""
    path = settings.evaluation.sample_prompts
    if path is None or not isinstance(task, TextTask):
        return None
    try:
        texts = read_prompts(Path(path).expanduser())
        ids = tokenised(texts, task.prompt_ids, longest=settings.data.max_length, noun=f"{path}: prompt")
    except DataError as error:
        advice = "--sample-prompts FILE names another file, --sample-prompts none does without."
        raise DataError(f"SAMPLE_PROMPTS: {error.message}", hint=" ".join(filter(None, [error.hint, advice]))) from error
    return SamplePrompts(tuple(texts), tuple(tuple(prompt_ids) for prompt_ids in ids))


def samples_log(run: RunDirectory) -> MetricsLog:
    """The log of the run's samples; after a resume it is cut like ``metrics.jsonl``."""
    return MetricsLog(run.logs_dir / layout.SAMPLES)


class Samples(SampleHook):
    """Writes greedy answers. Every process answers some of the batches, which do not depend on how many processes there are, and the
    first writes: only that one has ``log``.
    """

    def __init__(self, prompts: SamplePrompts, tokenizer: Any, training: Training) -> None:
        super().__init__(training.context)
        self.prompts, self.tokenizer, self.reporter, self.tracking = prompts, tokenizer, training.reporter, training.tracking
        self.log = samples_log(training.run) if training.run is not None else None

    def make(self, step: int, give_up: Callable[[], None]) -> None:
        """Answer the prompts."""
        self.reporter.display.status("answering the sample prompts")
        answers = self._answers(give_up)
        if self.log is None:
            return
        for prompt, answer in zip(self.prompts.texts, answers, strict=True):
            self.log.append_or_warn({"step": step, "prompt": prompt, "answer": answer}, self.reporter.warn)
        self._tell(step, answers)

    def _answers(self, give_up: Callable[[], None]) -> list[str]:
        accelerator, settings = self.engine.accelerator, self.settings.evaluation
        mine = batches(self.prompts.ids, settings.generation_batch_size)[accelerator.process_index :: accelerator.num_processes]
        own: dict[int, str] = {}
        pieces = Pieces(
            settings.generation_batch_size,
            f"A sample prompt does not fit: take --eval-max-new-tokens below {settings.max_new_tokens}.",
        )
        options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "give_up": give_up}
        with accelerator.autocast():
            for members in mine:
                prompts = {number: self.prompts.ids[number] for number in members}
                answers = answer_in_pieces(self.engine.model, self.tokenizer, prompts, pieces, **options)
                own |= {number: answer.text for number, answer in answers.items()}
        parts = gather_bytes(json.dumps(own).encode(), self.engine.device)
        texts = {int(number): text for part in parts for number, text in json.loads(part).items()}
        return [texts[number] for number in range(len(self.prompts.texts))]

    def _tell(self, step: int, answers: Sequence[str]) -> None:
        count = "one sample" if len(answers) == 1 else f"{len(answers)} samples"
        first = f"{_short(self.prompts.texts[0])} → {_short(answers[0])}"
        self.reporter.line(f"step {step}: {count} in {layout.LOGS}/{layout.SAMPLES}, the first: {first}")
        for number, (prompt, answer) in enumerate(zip(self.prompts.texts, answers, strict=True), start=1):
            self.tracking.log_text(f"samples/{number}", f"{prompt}\n\n{answer}", step)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line}”" if len(line) <= _SHOWN else f"“{line[: _SHOWN - 1]}…”"
