"""Rows and prompts of stage two, and the scores of its answers."""

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

from pitstop.configs.errors import DataError, ModelError
from pitstop.configs.schema import LoraSettings, Settings
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.loop.optim import trainable
from pitstop.trainers.loop.scoring import Interrupted, Scoring
from pitstop.trainers.models.adapter import add_adapter
from pitstop.trainers.tasks.rank import scoring
from pitstop.trainers.tasks.rank.letters import prompt
from pitstop.trainers.tasks.rank.scoring import retrieved_share
from pitstop.trainers.tasks.rank.task import RankTask
from support.rating_files import item_line, write_movielens

CPU = torch.device("cpu")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Thirty users with eight films each, of twenty-four."""
    return write_movielens(tmp_path / "films")


@pytest.fixture
def make_task(tokenizer: Any, rank_settings: Callable[..., Settings]) -> Callable[..., RankTask]:
    """Makes the task with small settings."""
    return lambda other=None, **rank: RankTask(tokenizer, rank_settings(other, **rank))


def _records(task: RankTask, films: Path, split: str = "train") -> list[Record]:
    return list(task.records(str(films), BadRows(False), split=split, token=None))


def _load(task: RankTask, films: Path, split: str, **options: Any) -> Dataset:
    return load_dataset([str(films)], task, ReadOptions(**{"max_length": 300, "packing": False, "split": split, **options}))


# Rows ----------------------------------------------------------------------------------------------------------------


def _taken(user: int) -> list[str]:
    return [f"Film {number} (199{number % 10})" for number in ((5 * user + place) % 24 + 1 for place in range(8))]


def test_every_prefix_of_two_or_more_is_a_training_row(make_task: Callable[..., RankTask], films: Path) -> None:
    records = _records(make_task(history=3), films)
    assert len(records) == 30 * 5, "six items are in the training part; the first has nothing before it"
    for number, record in enumerate(records):
        user, place = divmod(number, 5)
        taken = _taken(user)
        fields = record.fields
        assert fields["history"] == taken[: place + 1][-3:]
        assert fields["candidates"][fields["answer"]] == taken[place + 1]
        others = [title for title in fields["candidates"] if title != taken[place + 1]]
        assert len(set(fields["candidates"])) == 5
        assert not set(others) & set(taken[:6]), "a candidate that the user took while training would be no wrong answer"
    assert len({record.fields["answer"] for record in records}) == 5, "the right answer stands anywhere"


def test_held_out_items_may_be_wrong_answers_of_training(make_task: Callable[..., RankTask], films: Path) -> None:
    """Leaving them out would tell the model which items are held out."""
    records = _records(make_task(candidates=19), films)
    assert any(_taken(n // 5)[7] in record.fields["candidates"] for n, record in enumerate(records))


def test_rows_are_a_function_of_the_seed(make_task: Callable[..., RankTask], films: Path) -> None:
    first, again, other = (
        [record.fields for record in _records(make_task({"training.seed": seed}), films)] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_choice_of_rows_is_part_of_all_rows(make_task: Callable[..., RankTask], films: Path) -> None:
    whole = {json.dumps(record.fields) for record in _records(make_task(), films)}
    some = [json.dumps(record.fields) for record in _records(make_task(max_train_rows=20), films)]
    assert len(set(some)) == 20
    assert set(some) <= whole


@pytest.mark.parametrize(("split", "held_out"), [("validation", 2), ("test", 1)])
def test_evaluation_rows_are_the_users_whose_item_was_retrieved(
    make_task: Callable[..., RankTask], films: Path, split: str, held_out: int
) -> None:
    task = make_task(history=20)
    records = _records(task, films, split)
    assert 0 < len(records) < 30
    for record in records:
        user = int(record.place.split(" user ")[1].split()[0]) - 1
        fields = record.fields
        assert fields["history"] == _taken(user)[:-held_out]
        assert fields["candidates"][fields["answer"]] == _taken(user)[-held_out]
        assert not set(fields["candidates"]) & set(fields["history"])
        assert fields["users"] == 30
    places = [(record.fields["answer"], record.fields["retriever_rank"] - 1) for record in records]
    assert any(answer != found for answer, found in places), "not in the retriever's order"


def test_nothing_retrieved_is_an_error_and_an_unknown_split_is_one(make_task: Callable[..., RankTask], films: Path) -> None:
    with pytest.raises(DataError, match="no split 'dev'"):
        _records(make_task(), films, "dev")
    with pytest.raises(DataError, match="found the next item of none of 1 users"):
        for seed in range(40):  # most single users are missed by popularity
            _records(make_task({"training.seed": seed}, eval_users=1, candidates=2), films, "test")


def test_the_data_is_read_once_and_bad_rows_count_in_every_split(make_task: Callable[..., RankTask], films: Path) -> None:
    with (films / "u.data").open("a") as file:
        file.write("1\t2\tbad\t3\n" * 4)
    task = make_task()
    train = _load(task, films, "train", skip_bad_rows=True)
    (films / "u.data").unlink()
    evaluation = _load(task, films, "validation", skip_bad_rows=True)
    assert (train.counts.bad, evaluation.counts.bad) == (4, 4)
    assert len(train.counts.bad_reasons) == 3 and "u.data line 241" in train.counts.bad_reasons[0]


# Prompts -------------------------------------------------------------------------------------------------------------


def _record(history: Sequence[str], candidates: Sequence[str], answer: int) -> Record:
    return Record({"history": list(history), "candidates": list(candidates), "answer": answer}, "here")


@pytest.mark.parametrize("chat", [True, False])
def test_an_example_is_prompt_letter_and_end(tokenizer: Any, rank_settings: Callable[..., Settings], chat: bool) -> None:
    if not chat:
        tokenizer.chat_template = None
    task = RankTask(tokenizer, rank_settings())
    (example,) = task.examples(_record(["One", "Two"], ["Three", "Four", "Five"], 1))
    question = prompt(["One", "Two"], ["Three", "Four", "Five"])
    text = tokenizer.decode(example.input_ids.tolist())
    around = ("<|start|>user\n", "<|end|>\n<|start|>assistant\n") if chat else ("", "\n\nAnswer:\n")
    assert text == around[0] + question + around[1] + "B<|end|>"
    assert tokenizer.decode(example.input_ids[example.supervised].tolist()) == "B<|end|>"
    assert example.supervised.sum() == 2
    assert example.reference == "" and not example.cut
    assert example.prompt.tolist() == tokenizer(around[0] + question + around[1], add_special_tokens=False)["input_ids"]
    assert "One\nTwo" in question and "A. Three\nB. Four\nC. Five" in question


def test_long_titles_end_after_so_many_tokens(make_task: Callable[..., RankTask], tokenizer: Any) -> None:
    title = "Abcdefgh Ijklmnop Qrstuvwx é"
    ids = tokenizer(title)["input_ids"]
    task = make_task(title_tokens=len(ids) - 1)  # in the middle of é, which is two bytes
    (example,) = task.examples(_record([title], ["Short", "Other"], 0))
    assert "Qrstuvwx\n" in tokenizer.decode(example.input_ids.tolist())
    task = make_task(title_tokens=len(ids))
    (example,) = task.examples(_record([title], ["Short", "Other"], 0))
    assert f"{title}\n" in tokenizer.decode(example.input_ids.tolist())


def test_the_oldest_titles_go_where_a_prompt_is_too_long(make_task: Callable[..., RankTask], tokenizer: Any) -> None:
    history, candidates = [f"Title number {n}" for n in range(12)], ["Three", "Four"]
    (whole,) = make_task({"data.max_length": 2048}, title_tokens=40).examples(_record(history, candidates, 0))
    assert not whole.cut
    kept = set()
    for length in range(len(whole), 90, -7):
        (example,) = make_task({"data.max_length": length}, title_tokens=40).examples(_record(history, candidates, 0))
        if len(example) > length:
            assert not example.cut, "left out and counted as too long"
            continue
        text = tokenizer.decode(example.input_ids.tolist())
        titles = [title for title in history if f"{title}\n" in text]
        assert titles == history[-len(titles) :]
        assert example.cut == (len(titles) < 12)
        if len(titles) < 12:  # one more would not have fitted
            more = make_task({"data.max_length": 2048}, title_tokens=40).examples(
                _record(history[-len(titles) - 1 :], candidates, 0)
            )[0]
            assert len(more) > length
        kept.add(len(titles))
    assert {12, 1} <= kept and len(kept) > 5


def test_a_prompt_that_cannot_fit_is_left_out_and_its_user_a_miss(make_task: Callable[..., RankTask], films: Path) -> None:
    with (films / "u.item").open("r+") as file:
        lines = file.read().splitlines(keepends=True)
        file.seek(0)
        file.truncate()
        file.writelines([item_line(1, "Very long title " * 8), *lines[1:]])
    task = make_task({"data.max_length": 240}, title_tokens=1024)
    whole = _load(make_task(), films, "test")
    some = _load(task, films, "test", max_length=240)
    assert some.counts.too_long > 0
    assert len(some.examples) == len(whole.examples) - some.counts.too_long
    assert retrieved_share(some.examples) == len(some.examples) / 30


def test_cut_prompts_are_counted(make_task: Callable[..., RankTask], films: Path) -> None:
    task = make_task({"data.max_length": 230}, history=20)
    assert _load(task, films, "train", max_length=230).counts.cut > 0


# Letters -------------------------------------------------------------------------------------------------------------


class Sentencepieces:
    """Like Llama 2's: a word that begins a text gets a mark in front, and what follows a newline does not."""

    chat_template = None
    bos_token_id = None
    eos_token_id, unk_token_id = 1, 0
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012
    all_special_ids = (0, 1)

    def __init__(self, *, joins: bool = False) -> None:
        self.joins = joins
        self.known: dict[str, int] = {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        pieces = ["▁" + text[:1], *text[1:]] if text else []
        if self.joins and pieces[-1] in ascii_uppercase and len(pieces) > 1:
            pieces[-2:] = ["".join(pieces[-2:])]
        return {"input_ids": [self.known.setdefault(piece, 2 + len(self.known)) for piece in pieces]}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        names = {number: piece for piece, number in self.known.items()}
        return "".join(names.get(number, "") for number in ids).replace("▁", "")


def test_letters_are_the_tokens_behind_the_prompt_and_not_bare_ones(rank_settings: Callable[..., Settings]) -> None:
    tokenizer = Sentencepieces()
    task = RankTask(tokenizer, rank_settings())
    (example,) = task.examples(_record(["One"], ["Two", "Three"], 1))
    letter = int(example.input_ids[-2])
    assert letter == tokenizer.known["B"] != tokenizer("B")["input_ids"][0]
    assert example.input_ids[-1] == tokenizer.eos_token_id


def test_letters_that_melt_into_the_prompt_are_refused(rank_settings: Callable[..., Settings]) -> None:
    with pytest.raises(ModelError, match="melts into the prompt"):
        RankTask(Sentencepieces(joins=True), rank_settings())


def test_letters_that_are_one_token_are_refused(tokenizer: Any, rank_settings: Callable[..., Settings]) -> None:
    class Lower:
        """Knows no capitals."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **options: Any) -> Any:
            return tokenizer("".join("a" if c in ascii_uppercase else c for c in text), **options)

    with pytest.raises(ModelError, match="not one token each"):
        RankTask(Lower(), rank_settings())


def test_what_a_template_puts_before_an_answer_stands_before_the_letter(
    tokenizer: Any, rank_settings: Callable[..., Settings]
) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ message['content'] }}", "{% if message['role'] == 'assistant' %}ok: {% endif %}{{ message['content'] }}"
    )
    (example,) = RankTask(tokenizer, rank_settings()).examples(_record(["One"], ["Two", "Three"], 1))
    assert tokenizer.decode(example.input_ids.tolist()).endswith("<|start|>assistant\nok: B<|end|>")
    assert tokenizer.decode(example.input_ids[-2:].tolist()).strip() == "B<|end|>"


# Scores --------------------------------------------------------------------------------------------------------------


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
