"""Greedy answers: those of generation by its definition, shared out among processes, in batches that fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pitstop.trainers.tasks.ner import greedy
from pitstop.trainers.tasks.ner.task import NerTask
from support.ner_records import ASPIRIN, examples_of, on_processor


def _one_by_one(model: Any, ids: list[int], count: int, ends: set[int]) -> list[int]:
    """Greedy generation by its definition: no batch, no cache, no padding."""
    import torch

    new: list[int] = []
    with torch.no_grad():
        while len(new) < count and not (new and new[-1] in ends):
            row = torch.tensor([ids + new])
            new.append(int(model(row, doc_lengths=(row.shape[1],)).logits[0, -1].argmax()))
    return new


def _keep(parts: list[bytes]) -> Callable[[bytes], list[bytes]]:
    def gather(data: bytes) -> list[bytes]:
        parts.append(data)
        return [data]

    return gather


def test_batched_answers_are_those_of_generation_by_definition_on_any_number_of_processes(
    make_task: Callable[..., NerTask], load_tiny: Callable[..., Any]
) -> None:
    task, model = make_task(ASPIRIN), load_tiny().eval()
    texts = ["Aspirin.", "Metformin is used to treat diabetes.", "Pain and fever, " * 4, "x"]
    examples = [e for text in texts for e in examples_of(task, {**ASPIRIN, "text": text})][:7]
    end = int(examples[0].input_ids[-1])
    expected = [
        task.tokenizer.decode(_one_by_one(model, e.prompt.tolist(), 6, {end}), skip_special_tokens=True) for e in examples
    ]
    assert len(set(expected)) > 1, "the answers must differ for their order to matter"
    assert greedy.greedy_answers(examples, on_processor(model, task.tokenizer)) == expected

    parts: list[bytes] = []
    with pytest.raises(KeyError):  # alone it has only its share
        greedy.greedy_answers(examples, on_processor(model, task.tokenizer, rank=1, world_size=2, gather=_keep(parts)))
    both = on_processor(model, task.tokenizer, rank=0, world_size=2, gather=lambda data: parts + _keep(parts)(data))
    assert greedy.greedy_answers(examples, both) == expected
    shares = [{index for index, _ in json.loads(part)} for part in parts]
    assert len(shares) == 2 and not shares[0] & shares[1], "no answer is generated twice"


def test_a_batch_size_that_did_not_fit_is_not_tried_again_with_the_next_batch(
    make_task: Callable[..., NerTask], load_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pitstop.trainers.models import generation

    task, model, sizes = make_task(ASPIRIN), load_tiny().eval(), list[int]()
    examples = examples_of(task, ASPIRIN) * 4
    wanted = greedy.greedy_answers(examples, on_processor(model, task.tokenizer, batch_size=4))
    real = generation.answer_batch

    def answer_batch(model: Any, tokenizer: Any, prompts: dict[int, Any], **options: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise MemoryError
        return real(model, tokenizer, prompts, **options)

    monkeypatch.setattr(generation, "answer_batch", answer_batch)
    assert greedy.greedy_answers(examples, on_processor(model, task.tokenizer, batch_size=4)) == wanted
    assert sizes == [4, 2, 2, 2, 2]
