"""Greedy answers to the prompts of an evaluation set, shared out among processes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pitstop.trainers.data.example import Example
from pitstop.trainers.loop.scoring import Scoring
from pitstop.trainers.models.generation import answer_in_pieces


def greedy_answers(examples: Sequence[Example], scoring: Scoring) -> list[str]:
    """The most likely answer to each example's prompt, as text, in the order of ``examples``; the same on every process.

    The longest prompts come first, so that memory that does not suffice shows at once. Batches are cut before they are shared
    out, so answers do not depend on the number of processes. Raises ``Interrupted`` where a signal wants the evaluation to end.
    """
    order = sorted(range(len(examples)), key=lambda i: (-len(examples[i].prompt), i))
    batches = [order[start : start + scoring.batch_size] for start in range(0, len(order), scoring.batch_size)]
    pieces, mine = scoring.pieces(), []
    options = {"max_new_tokens": scoring.max_new_tokens, "give_up": scoring.check}
    for batch in batches[scoring.rank :: scoring.world_size]:
        scoring.check()
        with scoring.autocast():
            prompts = {i: examples[i].prompt.tolist() for i in batch}
            batch_answers = answer_in_pieces(scoring.model, scoring.tokenizer, prompts, pieces, **options)
        mine += [(i, batch_answers[i].text) for i in batch]
    answers = {index: text for part in scoring.gather(json.dumps(mine).encode()) for index, text in json.loads(part)}
    return [answers[index] for index in range(len(examples))]
