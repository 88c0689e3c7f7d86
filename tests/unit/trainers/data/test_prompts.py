"""Prompts from files and command lines."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.chat.renderer import ChatRenderer
from pitstop.trainers.data.prompts import read_prompts, room_for_prompt, tokenised


def test_each_line_that_is_not_blank_is_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufefffirst\r\n\n  second, with\u2028a separator \n\t\nthird".encode())
    assert read_prompts(path) == ["first", "  second, with\u2028a separator ", "third"]


def test_records_have_their_prompt_under_that_name(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "two\nlines", "completion": "x"}) + "\n\n" + json.dumps({"prompt": "b"}))
    assert read_prompts(path) == ["two\nlines", "b"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"\n \n", "no prompt"),
        ("a.txt", b"caf\xe9", "a.txt line 1: not UTF-8 text"),
        ("a.txt", b"a\r\nb\n\ncaf\xe9\nd", "a.txt line 4: not UTF-8 text"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": ' + b"9" * 5000 + b"}", "a.jsonl line 2: JSON that cannot be used"),
        ("a.jsonl", b'{"prompt": "x"}\n{"text": "y"}', "line 2: 'prompt' is missing"),
        ("a.jsonl", b'{"prompt": 3}', "line 1: 'prompt' is missing or no text"),
        ("a.jsonl", b'{"prompt"', "line 1: not valid JSON"),
        ("a.jsonl", b"", "no prompt"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_prompts(tmp_path / name)
    assert said in caught.value.message and str(tmp_path / name) in caught.value.message and caught.value.hint


@pytest.mark.parametrize("name", ["missing.txt", "missing.jsonl"])
def test_a_missing_file_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}"):
        read_prompts(tmp_path / name)


def test_prompts_are_rendered_as_in_training_and_one_that_is_too_long_is_named(tokenizer: Any) -> None:
    chat = ChatRenderer(tokenizer)
    (ids,) = tokenised(["hello"], chat.prompt_ids, longest=None, noun="prompt")
    assert ids == chat.encode(chat.pair("hello", "x")).prompt.tolist()
    with pytest.raises(DataError, match=f"line 2: it is .* and there is room for {len(ids)}"):
        tokenised(["hello", "hello " * 9], chat.prompt_ids, longest=len(ids), noun="line")


def test_the_room_for_a_prompt_is_what_the_new_tokens_leave() -> None:
    def model(**config: Any) -> Any:
        return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(**config)))

    assert room_for_prompt(model(max_position_embeddings=512), 100) == 412
    assert room_for_prompt(model(max_position_embeddings=512), 600) == 0
    assert room_for_prompt(model(), 100) is None
