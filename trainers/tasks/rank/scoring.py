"""Ranks candidates by the logits of their letters: one forward pass a user, many users at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from pitstop.trainers.data.batch import Batch, flat_batch, padded_batch
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.loop.scoring import Scoring
from pitstop.trainers.models.adapter import bare_model
from pitstop.trainers.models.attention import IMPLEMENTATION
from pitstop.trainers.models.loss import supervised_logits, takes_logits_to_keep
from pitstop.trainers.tasks.rank.measures import mean_measures, rank_of, report

_FLASH = "flash_attention_2"


def score(evaluation: Dataset, scoring: Scoring, letter_ids: Sequence[int]) -> dict[str, float]:
    """The metrics of ``measures.report``. Raises ``Interrupted``."""
    ranks = _all_ranks(evaluation.examples[: scoring.limit], scoring, torch.tensor(letter_ids))
    return report(mean_measures(ranks), retrieved_share(evaluation.examples))


def retrieved_share(examples: Sequence[Example]) -> float:
    """Users whose target is among their candidates (one example each), as a share of all users of their data sets."""
    users = {}
    for example in examples:
        reference = json.loads(example.reference)
        users[reference["set"]] = int(reference["users"])
    return len(examples) / max(1, sum(users.values()))


@torch.no_grad()
def _all_ranks(examples: Sequence[Example], scoring: Scoring, letter_ids: torch.Tensor) -> list[int]:
    """The rank of each example's target. Processes take batches in turn, so that these are the same for any number of them."""
    starts = range(0, len(examples), scoring.batch_size)
    was_training = scoring.model.training
    scoring.model.eval()
    pieces, mine = scoring.pieces(), []
    try:
        for start in starts[scoring.rank :: scoring.world_size]:
            scoring.check()
            batch = examples[start : start + scoring.batch_size]
            rank_lists = pieces.of(batch, lambda some: _ranks(some, scoring, letter_ids))
            mine.append((start, [rank for ranks in rank_lists for rank in ranks]))
    finally:
        scoring.model.train(was_training)
    parts = [part for data in scoring.gather(json.dumps(mine).encode()) for part in json.loads(data)]
    return [rank for _, ranks in sorted(parts) for rank in ranks]


def _ranks(examples: Sequence[Example], scoring: Scoring, letter_ids: torch.Tensor) -> list[int]:
    with scoring.autocast():
        logits = supervised_logits(
            scoring.model, _batch(examples, scoring), keep_positions=takes_logits_to_keep(bare_model(scoring.model))
        )
    table = logits[:, letter_ids.to(logits.device)].cpu().tolist()
    references = [json.loads(example.reference) for example in examples]
    return [rank_of(row[: r["candidates"]], r["answer"]) for row, r in zip(table, references, strict=True)]


def _batch(examples: Sequence[Example], scoring: Scoring) -> Batch:
    """The prompts, laid out as the model was built for: in one row where its attention keeps documents apart, else padded."""
    prompts = [_prompt_alone(example) for example in examples]
    implementation = bare_model(scoring.model).config._attn_implementation
    if implementation in (IMPLEMENTATION, _FLASH):
        return flat_batch(prompts, scoring.device, flash=implementation == _FLASH)
    tokenizer = scoring.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return padded_batch(prompts, scoring.device, pad)


def _prompt_alone(example: Example) -> Example:
    """The prompt and the letter, with the letter alone supervised: what is computed is the output at the prompt's last token."""
    length = len(example.prompt) + 1
    supervised = np.zeros(length, dtype=bool)
    supervised[-1] = True
    return Example(example.input_ids[:length], supervised)
