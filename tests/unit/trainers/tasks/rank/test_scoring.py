"""The scores of letters: those of each prompt alone, on any number of processes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_uppercase
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pitstop.configs.schema import LoraSettings
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.loop.optim import trainable
from pitstop.trainers.loop.scoring import Interrupted, Scoring
from pitstop.trainers.models.adapter import add_adapter
from pitstop.trainers.tasks.rank import scoring
from pitstop.trainers.tasks.rank.scoring import retrieved_share
from pitstop.trainers.tasks.rank.task import RankTask
from support.rating_files import write_movielens

CPU = torch.device("cpu")


def _load(task: RankTask, films: Path, split: str, **options: Any) -> Dataset:
    return load_dataset([str(films)], task, ReadOptions(**{"max_length": 300, "packing": False, "split": split, **options}))


@pytest.fixture
def model(load_tiny: Callable[..., Any]) -> Any:
    """The tiny model with an adapter that does something."""
    base = load_tiny()
    model = add_adapter(base, LoraSettings(rank=4, alpha=8, dropout=0.5, target_modules=["all-linear"]), seed=1, model_id="tiny")
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


def _scoring(model: Any, tokenizer: Any, **options: Any) -> Scoring:
    from contextlib import nullcontext

    defaults: dict[str, Any] = {"batch_size": 3, "max_new_tokens": 1, "autocast": nullcontext, "device": CPU}
    return Scoring(model=model, tokenizer=tokenizer, **{**defaults, **options})


def _by_hand(model: Any, task: RankTask, examples: Sequence[Example]) -> list[int]:
    """Each prompt alone, all logits, softmax over the vocabulary, candidates sorted by the probability of their letter."""
    model.eval()
    ranks = []
    for example in examples:
        ids = torch.tensor(example.prompt.astype(np.int64))[None]
        with torch.no_grad():
            logits = model(input_ids=ids, doc_lengths=(ids.shape[1],), position_ids=torch.arange(ids.shape[1])[None]).logits
        known = json.loads(example.reference)
        letters = [task.tokenizer(f"\n{letter}")["input_ids"][-1] for letter in ascii_uppercase[: known["candidates"]]]
        chances = F.softmax(logits[0, -1].float(), dim=-1)[letters].tolist()
        order = sorted(range(len(chances)), key=lambda n: -chances[n])
        ranks.append(order.index(known["answer"]) + 1)
    return ranks


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_scores_are_those_of_each_prompt_alone(
    make_task: Callable[..., RankTask], films: Path, model: Any, tokenizer: Any, layout: str
) -> None:
    task = make_task()
    evaluation = _load(task, films, "test")
    ranks = _by_hand(model, task, evaluation.examples)
    assert len(set(ranks)) > 1
    if layout == "padded":
        model.get_base_model().set_attn_implementation("sdpa")
    model.train()
    found = task.score(evaluation, _scoring(model, tokenizer))
    assert model.training, "as it was"
    share = len(ranks) / 30
    assert found["retrieved_share"] == pytest.approx(share)
    assert found["retrieved_mrr@5"] == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks))
    ndcg = sum(1 / math.log2(rank + 1) for rank in ranks) / len(ranks)
    assert found["retrieved_ndcg@10"] == pytest.approx(ndcg)
    assert found["ndcg@10"] == pytest.approx(ndcg * share)
    assert found["recall@1"] == pytest.approx(sum(rank == 1 for rank in ranks) / 30)
    assert set(found) == set(task.metrics(evaluation))


@pytest.mark.parametrize("processes", [2, 3, 20])
def test_any_number_of_processes_finds_the_same(
    make_task: Callable[..., RankTask], films: Path, model: Any, tokenizer: Any, processes: int
) -> None:
    task = make_task()
    evaluation = _load(task, films, "test")
    alone = task.score(evaluation, _scoring(model, tokenizer))
    sent: list[bytes] = []

    def note(data: bytes) -> list[bytes]:
        sent.append(data)
        return [data]

    for rank in range(processes):
        task.score(evaluation, _scoring(model, tokenizer, rank=rank, world_size=processes, gather=note))
    assert len(sent) == processes, "each gathers once"
    assert sum(len(ranks) for data in sent for _, ranks in json.loads(data)) == len(evaluation.examples)
    together = task.score(evaluation, _scoring(model, tokenizer, world_size=processes, gather=lambda _: sent))
    assert together == alone


def test_users_that_do_not_fit_side_by_side_are_ranked_in_smaller_batches(
    make_task: Callable[..., RankTask], films: Path, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, sizes = make_task(), list[int]()
    evaluation = _load(task, films, "test")
    ample = task.score(evaluation, _scoring(model, tokenizer))
    real = scoring._ranks

    def ranks(examples: Sequence[Example], *given: Any) -> list[int]:
        sizes.append(len(examples))
        if len(examples) > 1:
            raise MemoryError
        return real(examples, *given)

    monkeypatch.setattr(scoring, "_ranks", ranks)
    assert task.score(evaluation, _scoring(model, tokenizer, batch_size=4)) == pytest.approx(ample)
    assert sizes[:3] == [4, 2, 1] and set(sizes[3:]) == {1}


def test_a_limit_takes_the_first_and_the_share_is_of_all(
    make_task: Callable[..., RankTask], films: Path, model: Any, tokenizer: Any
) -> None:
    task = make_task()
    evaluation = _load(task, films, "test")
    ranks = _by_hand(model, task, evaluation.examples[:2])
    found = task.score(evaluation, _scoring(model, tokenizer, limit=2))
    assert found["retrieved_mrr@20"] == pytest.approx(sum(1 / rank for rank in ranks) / 2)
    assert found["retrieved_share"] == pytest.approx(len(evaluation.examples) / 30)


def test_a_signal_ends_the_scoring_between_batches(
    make_task: Callable[..., RankTask], films: Path, model: Any, tokenizer: Any
) -> None:
    task, asked = make_task(), []

    def give_up() -> bool:
        asked.append(True)
        return len(asked) == 2

    model.train()
    with pytest.raises(Interrupted):
        task.score(_load(task, films, "test"), _scoring(model, tokenizer, batch_size=1, give_up=give_up))
    assert model.training and len(asked) == 2


def test_two_data_sets_share_one_report(make_task: Callable[..., RankTask], films: Path, tmp_path: Path) -> None:
    other = write_movielens(tmp_path / "other", users=20)
    task = make_task()
    evaluation = load_dataset([str(films), str(other)], task, ReadOptions(max_length=300, packing=False, split="test"))
    assert retrieved_share(evaluation.examples) == len(evaluation.examples) / 50
    assert retrieved_share([]) == 0.0


def test_half_of_a_batch_is_enough_and_the_scorer_needs_no_pad_token(
    make_task: Callable[..., RankTask], films: Path, model: Any, tokenizer: Any
) -> None:
    task = make_task()
    evaluation = _load(task, films, "test")
    alone = task.score(evaluation, _scoring(model, tokenizer))
    model.get_base_model().set_attn_implementation("sdpa")
    bare = SimpleNamespace(pad_token_id=None, eos_token_id=tokenizer.eos_token_id)
    assert task.score(evaluation, _scoring(model, bare, batch_size=100))["ndcg@10"] == pytest.approx(alone["ndcg@10"])
