"""Rows and prompts of stage two, and the scores of its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pitstop.configs.errors import DataError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.tasks.rank.letters import prompt
from pitstop.trainers.tasks.rank.scoring import retrieved_share
from pitstop.trainers.tasks.rank.task import RankTask
from support.rating_files import item_line


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
