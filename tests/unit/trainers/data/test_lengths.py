"""What is longer than MAX_LENGTH: split, shortened by whole exchanges, left out; counted in each case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.data_settings import DataSettings
from pitstop.configs.schema import Settings
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.lengths import LengthFitter, LengthRule, OverlongExamples
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.tasks.sft import SftTask
from support.chat_templates import OWN, assistant, tokenizer_of_bytes, user

TWO = [user("q1"), assistant("a1"), user("q2"), assistant("a2")]
LETTERS = "abcdefghijklmnopqrst"


@pytest.fixture(scope="module")
def characters() -> Any:
    """A tokenizer of bytes with the marks of the oracles' template as special tokens, and no BOS of its own."""
    return _characters(bos=False)


def _characters(*, bos: bool) -> Any:
    tokenizer = tokenizer_of_bytes(["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], bos=bos)
    tokenizer.chat_template = OWN["base"]
    return tokenizer


def _shown(tokenizer: Any, example: Example) -> str:
    text, learnt = "", False
    for token, learns in zip(example.input_ids.tolist(), example.supervised.tolist(), strict=True):
        if learns != learnt:
            text += "⟦" if learns else "⟧"
        learnt = learns
        text += tokenizer.decode([token])
    return text + ("⟧" if learnt else "")


def _examples(tokenizer: Any, fields: dict[str, Any], max_length: int, **settings: Any) -> tuple[list[str], BadRows]:
    """What a record becomes, without the examples that are still too long."""
    task = SftTask(tokenizer, Settings(data=DataSettings(max_length=max_length, **settings)))
    bad_rows = BadRows(skip=True)
    (examples,) = task.examples_of([Record(fields, "a.jsonl line 7")], bad_rows)
    if isinstance(examples, BadRecord):
        raise examples
    task.conclude(bad_rows)
    return [_shown(tokenizer, example) for example in examples if len(example) <= max_length], bad_rows


def _told(bad_rows: BadRows) -> list[str]:
    return [str(notice) for notice in bad_rows.notices]


# Oracles ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("too_long", "wanted"),
    [
        ("drop", []),
        ("auto", []),
        ("right", ["<|user|>q1<|end|><|assistant|>⟦a1<|end|>⟧"]),
        ("left", ["<|user|>q2<|end|><|assistant|>⟦a2<|end|>⟧"]),
    ],
)
def test_oracle_51_whole_exchanges_go(characters: Any, too_long: str, wanted: list[str]) -> None:
    examples, bad_rows = _examples(characters, {"messages": TWO}, 12, too_long=too_long)
    assert examples == wanted
    if wanted:
        assert bad_rows.answers_left_out == 1
        assert _told(bad_rows)[0] == "1 conversation was shortened to fit MAX_LENGTH = 12 tokens: a.jsonl line 7."
    whole, _ = _examples(characters, {"messages": TWO}, 16, too_long=too_long)
    assert whole == ["<|user|>q1<|end|><|assistant|>⟦a1<|end|>⟧<|user|>q2<|end|><|assistant|>⟦a2<|end|>⟧"]


def test_oracle_52_one_exchange_that_does_not_fit(characters: Any) -> None:
    record = {"prompt": "0123456789", "completion": "a1"}
    examples, _ = _examples(characters, record, 12, too_long="left")
    assert examples == ["<|user|>456789<|end|><|assistant|>⟦a1<|end|>⟧"]
    examples, bad_rows = _examples(characters, record, 14, too_long="right")
    assert examples == ["<|user|>0123456789<|end|><|assistant|>⟦a⟧"]
    assert _told(bad_rows)[-1].startswith("1 answer was cut to fit MAX_LENGTH = 14 tokens")
    assert _examples(characters, record, 12, too_long="right")[0] == []


@pytest.mark.parametrize(
    ("bos", "overlap", "wanted"),
    [
        (True, 0, ["<s>⟦abcdefg⟧", "<s>h⟦ijklmn⟧", "<s>o⟦pqrst</s>⟧"]),
        (True, 2, ["<s>⟦abcdefg⟧", "<s>fg⟦hijkl⟧", "<s>kl⟦mnopq⟧", "<s>pq⟦rst</s>⟧"]),
        (False, 2, ["a⟦bcdefgh⟧", "gh⟦ijklmn⟧", "mn⟦opqrst⟧", "st⟦</s>⟧"]),
    ],
)
def test_oracle_53_a_document_is_split(bos: bool, overlap: int, wanted: list[str]) -> None:
    examples, bad_rows = _examples(_characters(bos=bos), {"text": LETTERS}, 8, overlap=overlap)
    assert examples == wanted
    assert _told(bad_rows) == [
        f"1 document was split into {len(wanted)} pieces of at most MAX_LENGTH = 8 tokens: a.jsonl line 7."
    ]


# Documents -------------------------------------------------------------------------------------------------------------


def _document(tokens: int, *, bos: bool) -> Example:
    ids = np.arange(1, tokens + 1, dtype=np.int32)
    return Example(np.concatenate([[0], ids]).astype(np.int32) if bos else ids, np.arange(tokens + bos) > 0, answers=0)


@given(tokens=st.integers(2, 400), longest=st.integers(8, 40), share=st.floats(0, 0.5), bos=st.booleans())
def test_every_token_of_a_document_is_learnt_exactly_once(tokens: int, longest: int, share: float, bos: bool) -> None:
    overlap = int(share * longest)
    fitter = LengthFitter(LengthRule(longest, "split", overlap), lambda form: [], None)
    vars(fitter)["_bos_id"] = 0 if bos else None
    document = _document(tokens, bos=bos)
    parts = fitter.pieces(document)
    learnt = np.concatenate([part.input_ids[part.supervised] for part in parts]).tolist()
    unlearnt = [] if bos else [1]
    if not overlap:  # the first token of a later piece has nothing in front of it
        unlearnt += [int(part.input_ids[int(bos)]) for part in parts[1:]]
    assert learnt == sorted(set(learnt)) and sorted(learnt + unlearnt) == list(range(1, tokens + 1))
    assert all(len(part) <= longest and not part.supervised[0] for part in parts)
    assert len(parts) == 1 or all(len(part) == longest for part in parts[:-1])
    assert not bos or all(part.input_ids[0] == 0 for part in parts)


def test_a_document_is_cut_where_that_is_wanted() -> None:
    tokenizer = _characters(bos=True)
    examples, bad_rows = _examples(tokenizer, {"text": LETTERS}, 8, too_long="right")
    assert examples == ["<s>⟦abcdefg⟧"]
    assert _told(bad_rows) == ["1 document was cut to MAX_LENGTH = 8 tokens: a.jsonl line 7."]
    assert _examples(tokenizer, {"text": LETTERS}, 8, too_long="left")[0] == ["<s>o⟦pqrst</s>⟧"]
    assert _examples(tokenizer, {"text": LETTERS}, 8, too_long="drop")[0] == []


def test_a_last_piece_with_nothing_to_learn_is_left_out_and_told() -> None:
    examples, bad_rows = _examples(_characters(bos=True), {"text": "abcdefg"}, 8)
    assert examples == ["<s>⟦abcdefg⟧"]
    assert any("ends in a piece of one token" in text for text in _told(bad_rows))


def test_pieces_are_held_out_together(characters: Any, tmp_path: Any) -> None:
    from pitstop.trainers.data.splits import hold_out

    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "{letter * 30}"}}\n' for letter in LETTERS))
    task = SftTask(characters, Settings(data=DataSettings(max_length=8)))
    data = load_dataset([str(path)], task, ReadOptions(max_length=8, packing=False))
    assert data.counts.read.used == len(LETTERS) and data.counts.used == 4 * len(LETTERS)
    train, held = hold_out(data, 0.3, seed=1, max_length=8, packing=False)
    letters = [{int(example.input_ids[1]) for example in part.examples} for part in (train, held)]
    assert not letters[0] & letters[1] and len(held.examples) == 4 * 6


# Conversations -----------------------------------------------------------------------------------------------------------


def test_the_system_message_stays_and_as_many_exchanges_as_fit(characters: Any) -> None:
    many = [{"role": "system", "content": "S"}, *TWO, *TWO]
    examples, bad_rows = _examples(characters, {"messages": many}, 24, too_long="left")
    assert examples == ["<|system|>S<|end|><|user|>q1<|end|><|assistant|>⟦a1<|end|>⟧<|user|>q2<|end|><|assistant|>⟦a2<|end|>⟧"]
    assert bad_rows.answers_left_out == 2
    examples, _ = _examples(characters, {"messages": many}, 10, too_long="left")
    assert examples == ["<|system|>S<|end|><|user|>2<|end|><|assistant|>⟦a2<|end|>⟧"]


def test_what_cannot_be_made_to_fit_is_left_out(characters: Any) -> None:
    record = {"prompt": "q", "completion": "a" * 30}
    assert _examples(characters, record, 12, too_long="left")[0] == []


def test_split_is_for_documents(characters: Any) -> None:
    with pytest.raises(BadRecord, match="split is for documents"):
        _examples(characters, {"messages": TWO}, 12, too_long="split")
    assert len(_examples(characters, {"messages": TWO}, 16, too_long="split")[0]) == 1


def test_a_pair_without_a_template_loses_the_beginning_of_its_question() -> None:
    tokenizer = _characters(bos=False)
    tokenizer.chat_template = None
    assert _examples(tokenizer, {"prompt": "0123456789", "completion": " a"}, 8, too_long="left")[0] == ["56789⟦ a</s>⟧"]
    assert _examples(tokenizer, {"prompt": "01", "completion": " abcdefgh"}, 8, too_long="right")[0] == ["01⟦ abcde⟧"]


@given(
    exchanges=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    longest=st.integers(8, 40),
    too_long=st.sampled_from(["left", "right"]),
)
def test_answers_and_records_add_up_and_all_fits(
    characters: Any, exchanges: Sequence[tuple[int, int]], longest: int, too_long: str
) -> None:
    messages = [
        {"role": role, "content": "x" * count}
        for question, answer in exchanges
        for role, count in (("user", question), ("assistant", answer))
    ]
    task = SftTask(characters, Settings(data=DataSettings(max_length=longest, too_long=too_long)))  # type: ignore[arg-type]
    bad_rows = BadRows(skip=True)
    (examples,) = task.examples_of([Record({"messages": messages}, "a")], bad_rows)
    assert not isinstance(examples, BadRecord)
    learnt = sum(example.answers for example in examples)
    assert learnt + bad_rows.answers_left_out == len(exchanges)
    if all(len(example) <= longest for example in examples):
        assert all(example.supervised.any() for example in examples)


# What is told -----------------------------------------------------------------------------------------------------------


def test_what_is_told_of_records_that_are_left_out() -> None:
    too_long = OverlongExamples(2048)
    for number in range(56):
        too_long.add(f"a.jsonl line {number + 4}", 2049 + 10 * number)
    too_long.add("a.jsonl line 99", 9310)
    assert str(too_long.notice(10_000, "--too-long left shortens them.")) == (
        "57 of 10,000 records are longer than MAX_LENGTH = 2048 tokens and were left out "
        "(longest 9,310; 16,384 would fit 99 % of them), first a.jsonl line 4. --too-long left shortens them."
    )
    for _ in range(100):
        too_long.add("b", 4096)
    assert "; 4,096 would fit 99 % of them" in str(too_long.notice(10_000, ""))


def test_refuse_stops_at_the_first(characters: Any, tmp_path: Any) -> None:
    from pitstop.configs.errors import DataError

    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "abc"}\n{"text": "abcdefghijkl"}\n')
    task = SftTask(characters, Settings(data=DataSettings(max_length=8, too_long="refuse")))
    with pytest.raises(DataError, match=r"a\.jsonl line 2: 13 tokens, and MAX_LENGTH is 8"):
        load_dataset([str(path)], task, ReadOptions(max_length=8, packing=False, refuse_too_long=True, skip_bad_rows=True))
