"""What runs of the first rendering were trained on, and are resumed with."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.trainers.data.chat.renderer import ChatRenderer
from pitstop.trainers.data.records import BadRecord
from support.forms import form_of
from support.tiny_model import CHAT_TEMPLATE
from support.tokenizers_of_kinds import tokenizer_of

TEMPLATE = CHAT_TEMPLATE.replace("<|start|>", "<|im_start|>").replace("<|end|>", "<|im_end|>")
CHAT = [
    {"role": "user", "content": "Aspirin?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Metformin?"},
    {"role": "assistant", "content": "No."},
]


def _words(tokenizer: Any, ids: Any) -> str:
    return "|".join(tokenizer.convert_ids_to_tokens(list(map(int, ids))))


@pytest.mark.parametrize("kind", ["metaspace always", "legacy"])
def test_each_segment_is_tokenised_by_itself(kind: str) -> None:
    tokenizer = tokenizer_of(kind, TEMPLATE)
    chat = ChatRenderer(tokenizer, version=1)
    example = chat.encode({"messages": CHAT})
    segments = ("<|im_start|>user\nAspirin?<|im_end|>\n<|im_start|>assistant\n", "Yes.<|im_end|>\n")
    segments += ("<|im_start|>user\nMetformin?<|im_end|>\n<|im_start|>assistant\n", "No.<|im_end|>")
    pieces = [tokenizer(segment, add_special_tokens=False)["input_ids"] for segment in segments]
    assert example.input_ids.tolist() == [tokenizer.bos_token_id, *(token for piece in pieces for token in piece)]
    learnt = _words(tokenizer, example.input_ids[example.supervised])
    assert learnt.startswith("▁Yes") and "▁No" in learnt
    assert "▁" not in _words(
        tokenizer, (again := ChatRenderer(tokenizer).encode(form_of(tokenizer, {"messages": CHAT}))).input_ids[again.supervised]
    )
    assert chat.conversation_ids(CHAT[:3]) == [tokenizer.bos_token_id, *pieces[0], *pieces[1], *pieces[2]]
    assert chat.prompt_ids("Aspirin?") == [tokenizer.bos_token_id, *pieces[0]]
    assert chat.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_byte_level_tokens_are_the_same_in_both_versions(template: str | None) -> None:
    tokenizer = tokenizer_of("byte-level", template)
    records: list[dict[str, Any]] = [
        {"prompt": "Aspirin?\n", "completion": "Yes.\n"},
        {"prompt": "Q", "completion": "Yes.<|im_end|> \n"},
        {"text": "Yes, it is. "},
        {"prompt": "", "completion": "x"},
    ]
    for fields in records:
        first = ChatRenderer(tokenizer, version=1).encode(fields)
        second = ChatRenderer(tokenizer).encode(form_of(tokenizer, fields))
        assert (first.input_ids.tolist(), first.supervised.tolist()) == (second.input_ids.tolist(), second.supervised.tolist())
        assert first.answers == second.answers


def test_messages_win_over_other_fields_and_prompts_over_text() -> None:
    fields = {"prompt": "p", "completion": "from the prompt", "text": "from the text"}
    chat = ChatRenderer(tokenizer := tokenizer_of("byte-level", TEMPLATE), version=1)
    assert "from the prompt" in tokenizer.decode(chat.encode(fields).input_ids.tolist())
    assert "Metformin" in tokenizer.decode(chat.encode({**fields, "messages": CHAT}).input_ids.tolist())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "none of the known record shapes"),
        ({"question": "q", "answer": "a"}, "its fields: answer, question"),
        ({"prompt": "p", "completion": " \n"}, "the completion is empty"),
        ({"prompt": "p", "completion": 3}, "'completion' is not text but int"),
        ({"prompt": None, "completion": "c"}, "'prompt' is not text but NoneType"),
        ({"instruction": "i", "response": "r", "input": 5}, "'input' is not text but int"),
        ({"text": ""}, "'text' is empty"),
        ({"messages": []}, "not a list with at least one message"),
        ({"messages": "hello"}, "not a list with at least one message"),
        ({"messages": [{"role": "user"}]}, "message 1 needs a 'role' and a 'content'"),
        ({"messages": [CHAT[0], {"role": 3, "content": "x"}]}, "message 2 needs a 'role' and a 'content'"),
        ({"messages": ["hello"]}, "message 1 needs"),
        ({"messages": [{"role": "user", "content": None}]}, "message 1 needs"),
        ({"messages": CHAT[:1]}, "nothing to learn"),
        ({"prompt": "p", "completion": "half \ud83d"}, "half of a surrogate pair"),
        ({"text": "\ud83d"}, "half of a surrogate pair"),
    ],
)
def test_a_bad_record_has_its_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        ChatRenderer(tokenizer_of("byte-level", TEMPLATE), version=1).encode(fields)
    assert reason in str(caught.value)
