"""The ids of a question and its two answers; 45 is an oracle of the specification."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from pitstop.trainers.data.chat.conversation import Preference, TextPair
from pitstop.trainers.data.chat.preferences import encode_preferences
from pitstop.trainers.data.chat.renderer import ChatRenderer, Encoded
from pitstop.trainers.data.example import Example, PreferenceExample
from pitstop.trainers.data.records import BadRecord
from support.chat_templates import OWN, assistant, byte_tokenizer, conversation, user, wheel_templates

GOOD, BAD = conversation(user("Q"), assistant("good")), conversation(user("Q"), assistant("bad"))


def _chat(template: str | None, *, puts_bos: bool = False) -> ChatRenderer:
    tokenizer = deepcopy(byte_tokenizer())
    if template is not None:
        tokenizer.chat_template = OWN.get(template) or wheel_templates()[template]
    if puts_bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    return ChatRenderer(tokenizer)


def _encoded(chat: ChatRenderer, chosen: Any, rejected: Any) -> tuple[PreferenceExample, Encoded]:
    (item,) = encode_preferences(chat, [Preference(chosen, rejected)])
    assert isinstance(item, Encoded), item
    (example,) = item.examples
    assert isinstance(example, PreferenceExample)
    return example, item


def _shown(chat: ChatRenderer, example: PreferenceExample) -> list[str]:
    """The prompt, and of each answer what is learnt in brackets."""
    front = example.prompt_length
    lines = [chat.tokenizer.decode(example.input_ids[:front])]
    for side in example.sides.values():
        assert not side.supervised[:front].any()
        text = ""
        for number in range(front, len(side)):
            if side.supervised[number] != side.supervised[number - 1]:
                text += "⟦" if side.supervised[number] else "⟧"
            text += chat.tokenizer.decode(side.input_ids[number : number + 1])
        lines.append(text + "⟧" * bool(side.supervised[-1]))
    return [line.replace("\n", "↵") for line in lines]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("base", ["<|user|>Q<|end|><|assistant|>", "⟦good<|end|>⟧", "⟦bad<|end|>⟧"]),
        (
            "hides",
            ["<|user|>Q<|end|><|assistant|><think>↵", "⟦↵</think>↵↵good<|end|>⟧", "⟦↵</think>↵↵bad<|end|>⟧"],
        ),
        ("noend", ["<|user|>Q<|assistant|>", "⟦good</s>⟧", "⟦bad</s>⟧"]),
        ("nocue", ["<|user|>Q<|end|><|assistant|>", "⟦good<|end|>⟧", "⟦bad<|end|>⟧"]),
    ],
)
def test_oracle_45_one_prompt_and_both_answers_with_their_ends(template: str, expected: list[str]) -> None:
    chat = _chat(template)
    example, _ = _encoded(chat, GOOD, BAD)
    assert _shown(chat, example) == expected
    assert example.answers == 2


def test_bos_stands_in_front_of_the_prompt_alone() -> None:
    for chat, chosen, rejected in (
        (_chat("base", puts_bos=True), GOOD, BAD),
        (_chat(None, puts_bos=True), TextPair("a", "b"), TextPair("a", "c")),
    ):
        example, _ = _encoded(chat, chosen, rejected)
        bos = chat.tokenizer.bos_token_id
        assert example.input_ids[0] == bos and example.input_ids.tolist().count(bos) == 1
        assert all(side.input_ids[0] == bos for side in example.sides.values())


def test_the_prompt_is_not_shortened_to_what_the_answers_share() -> None:
    chat = _chat(None)
    example, _ = _encoded(chat, TextPair("It is", " 12"), TextPair("It is", " 13"))
    assert _shown(chat, example) == ["It is", "⟦ 12</s>⟧", "⟦ 13</s>⟧"]
    assert len(example) == len("It is 12") + 1 and example.input_ids.size == len("It is 12 13") + 2


def test_both_answers_are_learnt_behind_the_prompt_of_one_option() -> None:
    chat = _chat("qwen3_5_nothink")
    thoughtful = conversation(user("Q"), assistant("good", "R"))
    example, item = _encoded(chat, thoughtful, conversation(user("Q"), assistant("bad", "S")))
    assert _shown(chat, example)[0].endswith("<think>↵") and _shown(chat, example)[1].startswith("⟦R↵</think>")
    assert [str(notice) for notice in item.notices] == [
        "1 answer is learnt behind another prompt than the chat template's usual one; ask with enable_thinking=true."
    ] * 2


def test_an_option_that_fits_one_answer_alone_is_not_taken() -> None:
    tokenizer = deepcopy(byte_tokenizer())
    tokenizer.chat_template = OWN["base"].replace(
        "<|assistant|>", "<|assistant|>{% if enable_thinking is not defined %}x{% endif %}"
    )
    chat = ChatRenderer(tokenizer)
    assert _shown(chat, _encoded(chat, conversation(user("Q"), assistant("xa")), BAD)[0]) == [
        "<|user|>Q<|end|><|assistant|>",
        "⟦xa<|end|>⟧",
        "⟦bad<|end|>⟧",
    ]


def test_further_answers_are_learnt_only_in_place() -> None:
    more = conversation(user("Q"), assistant("good"), user("Q2"), assistant("more"))
    chat = _chat("base")
    example, item = _encoded(chat, more, BAD)
    assert _shown(chat, example)[1] == "⟦good<|end|>⟧<|user|>Q2<|end|><|assistant|>⟦more<|end|>⟧"
    assert example.answers == 3 and not item.unlearnt
    chat = _chat("hides")  # a later prompt has the first answer without its thought
    example, item = _encoded(chat, more, BAD)
    assert _shown(chat, example)[1] == "⟦↵</think>↵↵good<|end|>⟧"
    assert example.answers == 2 and sum(notice.count for notice in item.unlearnt) == 1


def test_answers_that_a_template_writes_alike_are_none() -> None:
    (item,) = encode_preferences(_chat("hides"), [Preference(GOOD, conversation(user("Q"), assistant("x</think>good")))])
    assert isinstance(item, BadRecord)


def test_a_record_that_has_no_example_leaves_the_others_theirs() -> None:
    chat = _chat("base")
    unknown = conversation(user("Q"), assistant("bad"), tools=[{"type": "function", "function": {"name": "f"}}])
    forms = [Preference(GOOD, BAD), Preference(unknown, unknown), Preference(None, BAD), Preference(GOOD, None)]
    first, second, third, fourth = encode_preferences(chat, forms)
    assert isinstance(second, BadRecord) and "tools" in str(second)
    sides = [list(item.examples[0].sides) for item in (first, third, fourth)]  # type: ignore[union-attr,attr-defined]
    assert sides == [["chosen", "rejected"], ["rejected"], ["chosen"]]


def test_every_template_has_one_prompt_for_both_answers_or_a_reason() -> None:
    rendered = 0
    for name, source in wheel_templates().items():
        tokenizer = deepcopy(byte_tokenizer())
        tokenizer.chat_template = source
        chat = ChatRenderer(tokenizer)
        (item,) = encode_preferences(chat, [Preference(GOOD, BAD)])
        if isinstance(item, BadRecord):
            continue
        rendered += 1
        (example,) = item.examples
        assert isinstance(example, PreferenceExample)
        alone = [chat.examples(answer)[-1] for answer in (GOOD, BAD)]
        for side, own in zip(example.sides.values(), alone, strict=True):
            assert isinstance(side, Example) and side.input_ids.tolist() == own.input_ids.tolist(), name
            assert side.supervised.tolist() == own.supervised.tolist(), name
    assert rendered > 60
