"""What runs of the first rendering were trained on, and are resumed with."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.trainers.data.chat.renderer import ChatRenderer
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
    assert "▁" not in _words(tokenizer, (again := ChatRenderer(tokenizer).encode({"messages": CHAT})).input_ids[again.supervised])
    assert chat.conversation_ids(CHAT[:3]) == [tokenizer.bos_token_id, *pieces[0], *pieces[1], *pieces[2]]
    assert chat.prompt_ids("Aspirin?") == [tokenizer.bos_token_id, *pieces[0]]
    assert chat.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_byte_level_tokens_are_the_same_in_both_versions(template: str | None) -> None:
    tokenizer = tokenizer_of("byte-level", template)
    records: list[dict[str, Any]] = [
        {"prompt": "Aspirin?\n", "completion": "Yes.\n"},
        {"prompt": "Q", "completion": "<|im_end|> \n"},
        {"text": "Yes, it is. "},
        {"prompt": "", "completion": "x"},
    ]
    for first, second in zip(*(ChatRenderer(tokenizer, version=version).encode_all(records) for version in (1, 2)), strict=True):
        assert (first.input_ids.tolist(), first.supervised.tolist()) == (second.input_ids.tolist(), second.supervised.tolist())
        assert first.answers == second.answers
