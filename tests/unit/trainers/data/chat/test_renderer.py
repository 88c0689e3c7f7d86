"""What becomes of a record: which tokens the model sees, and which of them it is to learn."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.data.chat.conversation import Conversation, Document, Form, TextPair
from pitstop.trainers.data.chat.options import RenderingOptions
from pitstop.trainers.data.chat.renderer import ChatRenderer, Encoded
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord
from support.chat_templates import assistant, byte_tokenizer, conversation, tokenizer_of_bytes, user
from support.forms import form_of
from support.tiny_model import CHAT_TEMPLATE

# Drops the reasoning of every turn but the last, as templates of reasoning models do.
FORGETFUL = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{{ m['content'] if loop.last or m['role'] != 'assistant' else m['content'].split('#')[-1] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Aspirin?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Metformin?"},
    {"role": "assistant", "content": "No."},
]


def _encode(tokenizer: Any, **fields: Any) -> Example:
    return ChatRenderer(tokenizer).encode(form_of(tokenizer, fields))


def _text(tokenizer: Any, example: Example) -> str:
    return str(tokenizer.decode(example.input_ids.tolist()))


def _learnt(tokenizer: Any, example: Example) -> str:
    """The supervised text, with ``|`` between parts that do not touch."""
    parts: list[list[int]] = [[]]
    for token, learn in zip(example.input_ids.tolist(), example.supervised, strict=True):
        if learn:
            parts[-1].append(token)
        elif parts[-1]:
            parts.append([])
    return "|".join(tokenizer.decode(part) for part in parts if part)


def _reason(tokenizer: Any, **fields: Any) -> str:
    with pytest.raises(BadRecord) as caught:
        _encode(tokenizer, **fields)
    return str(caught.value)


@pytest.fixture
def plain(tokenizer: Any) -> Any:
    """The tokenizer without its chat template."""
    tokenizer.chat_template = None
    return tokenizer


@pytest.fixture
def with_bos(tokenizer: Any) -> Any:
    """A tokenizer that puts a BOS in front, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


# Shapes ------------------------------------------------------------------------------------------------------------------


def test_prompt_and_completion_in_the_chat_template(tokenizer: Any) -> None:
    example = _encode(tokenizer, prompt="Aspirin?", completion="Yes.")
    assert _text(tokenizer, example) == "<|start|>user\nAspirin?<|end|>\n<|start|>assistant\nYes.<|end|>"
    assert _learnt(tokenizer, example) == "Yes.<|end|>"


def test_prompt_and_completion_without_a_template(plain: Any) -> None:
    example = _encode(plain, prompt="Aspirin? ", completion="Yes.")
    assert _text(plain, example) == "Aspirin? Yes.<|end|>"
    assert _learnt(plain, example) == "Yes.<|end|>"


@pytest.mark.parametrize(
    ("extra", "prompt"),
    [
        ({}, "### Instruction:\nName it.\n\n### Response:\n"),
        ({"input": ""}, "### Instruction:\nName it.\n\n### Response:\n"),
        ({"input": None}, "### Instruction:\nName it.\n\n### Response:\n"),
        ({"input": "Aspirin"}, "### Instruction:\nName it.\n\n### Input:\nAspirin\n\n### Response:\n"),
    ],
)
def test_instruction_and_response_without_a_template(plain: Any, extra: dict[str, Any], prompt: str) -> None:
    example = _encode(plain, instruction="Name it.", response="Yes.", **extra)
    assert _text(plain, example) == prompt + "Yes.<|end|>"
    assert _learnt(plain, example) == "Yes.<|end|>"


def test_instruction_and_response_in_the_chat_template(tokenizer: Any) -> None:
    example = _encode(tokenizer, instruction="Name it.", input="Aspirin", response="Yes.")
    assert _text(tokenizer, example) == "<|start|>user\nName it.\n\nAspirin<|end|>\n<|start|>assistant\nYes.<|end|>"
    assert _learnt(tokenizer, example) == "Yes.<|end|>"


@pytest.mark.parametrize("template", [True, False])
def test_all_of_a_text_is_learnt_but_its_first_token(tokenizer: Any, template: bool) -> None:
    if not template:
        tokenizer.chat_template = None
    example = _encode(tokenizer, text="Aspirin helps. \n")
    assert _text(tokenizer, example) == "Aspirin helps. \n<|end|>"
    assert example.supervised.tolist() == [False] + [True] * (len(example) - 1)


def test_each_assistant_turn_is_learnt_with_its_end(tokenizer: Any) -> None:
    example = _encode(tokenizer, messages=CHAT)
    rendered = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert _text(tokenizer, example) == rendered.removesuffix("\n")
    assert _learnt(tokenizer, example) == "Yes.<|end|>|No.<|end|>"


def test_what_follows_the_last_assistant_turn_is_left_out(tokenizer: Any) -> None:
    more = [*CHAT, {"role": "user", "content": "Thanks."}]
    assert _encode(tokenizer, messages=more).input_ids.tolist() == _encode(tokenizer, messages=CHAT).input_ids.tolist()


def test_a_turn_that_is_rendered_differently_later_on_has_an_example_of_its_own(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL
    messages = [{**m, "content": "hmm #" + m["content"]} if m["role"] == "assistant" else m for m in CHAT]
    (encoded,) = ChatRenderer(tokenizer).encode_all([form_of(tokenizer, {"messages": messages})])
    assert isinstance(encoded, Encoded)
    first, second = encoded.examples
    assert (first.answers, second.answers) == (1, 1)
    assert _learnt(tokenizer, first) == "hmm #Yes.<|end|>"
    assert "hmm #Yes" not in _text(tokenizer, second) and "Yes." in _text(tokenizer, second)
    assert _learnt(tokenizer, second) == "hmm #No.<|end|>"


def test_a_turn_that_opens_the_conversation_answers_nothing(tokenizer: Any) -> None:
    greeting = {"role": "assistant", "content": "Hello."}
    example = _encode(tokenizer, messages=[greeting, *CHAT[1:3]])
    assert _text(tokenizer, example).startswith("<|start|>assistant\nHello.<|end|>\n<|start|>user")
    assert _learnt(tokenizer, example) == "Yes.<|end|>"


# The end token -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [True, False])
def test_the_end_token_is_learnt_also_where_it_is_the_padding_token(tokenizer: Any, template: bool) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    if not template:
        tokenizer.chat_template = None
    example = _encode(tokenizer, prompt="Aspirin?", completion="Yes.")
    assert example.input_ids[-1] == tokenizer.eos_token_id and example.supervised[-1]


def test_an_end_token_that_the_record_brings_is_not_doubled(plain: Any) -> None:
    example = _encode(plain, prompt="Aspirin? ", completion="Yes.<|end|>\n")
    assert _text(plain, example) == "Aspirin? Yes.<|end|>"


def test_an_unknown_word_at_the_end_ends_nothing() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1, "yes": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>")
    example = _encode(tokenizer, prompt="yes ", completion="yes never")
    assert example.input_ids.tolist() == [2, 2, 0, 1]
    assert example.supervised.tolist() == [False, True, True, True]


@given(prompt=st.text(max_size=20), completion=st.text(max_size=20).filter(lambda t: t.strip() and "<" not in t))
def test_the_last_token_is_the_end_and_learnt_whatever_the_text(tiny: Any, prompt: str, completion: str) -> None:
    from transformers import AutoTokenizer

    if tiny not in _CACHE:
        _CACHE[tiny] = AutoTokenizer.from_pretrained(tiny)
    tokenizer = _CACHE[tiny]
    example = _encode(tokenizer, prompt=prompt, completion=completion)
    assert example.input_ids[-1] == tokenizer.eos_token_id and example.supervised[-1]
    assert _learnt(tokenizer, example) == completion + "<|end|>"
    assert not example.supervised[0]


_CACHE: dict[Any, Any] = {}


# BOS ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"prompt": "p", "completion": "c"}, {"messages": CHAT}, {"text": "some text"}])
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, WITH_BOS, "{{ bos_token }}" + WITH_BOS, None])
def test_there_is_exactly_one_bos_and_nobody_learns_it(with_bos: Any, template: str | None, fields: dict[str, Any]) -> None:
    with_bos.chat_template = template or (CHAT_TEMPLATE if "messages" in fields else None)  # which need one
    example = _encode(with_bos, **fields)
    assert (example.input_ids == with_bos.bos_token_id).tolist() == [True] + [False] * (len(example) - 1)
    assert not example.supervised[0] and example.supervised[-1]


def test_a_bos_moves_no_supervision(with_bos: Any) -> None:
    expected = "Yes.<|end|>"
    assert _learnt(with_bos, _encode(with_bos, prompt="Aspirin?", completion="Yes.")) == expected
    with_bos.chat_template = WITH_BOS
    assert _learnt(with_bos, _encode(with_bos, prompt="Aspirin?", completion="Yes.")) == expected
    with_bos.chat_template = "{{ bos_token }}" + WITH_BOS
    assert _learnt(with_bos, _encode(with_bos, prompt="Aspirin?", completion="Yes.")) == expected


def test_the_text_after_a_bos_is_learnt_from_its_first_token(with_bos: Any) -> None:
    example = _encode(with_bos, text="Aspirin helps.")
    assert example.supervised.tolist() == [False] + [True] * (len(example) - 1)
    assert _learnt(with_bos, example) == "Aspirin helps.<|end|>"


def test_no_bos_where_the_tokenizer_adds_none(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    assert tokenizer.bos_token_id not in _encode(tokenizer, prompt="p", completion="c").input_ids


# Generation --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("kind", ["tokenizer", "with_bos"])
def test_generation_starts_from_the_tokens_that_training_put_before_the_answer(
    kind: str, template: bool, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(kind)
    if not template:
        tokenizer.chat_template = None
    example = _encode(tokenizer, prompt="List the chemicals.\n", completion="- aspirin")
    first = example.supervised.tolist().index(True)
    assert ChatRenderer(tokenizer).prompt_ids("List the chemicals.\n") == example.input_ids[:first].tolist()


def test_they_are_the_tokens_of_the_templates_generation_prompt(tokenizer: Any) -> None:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Aspirin?"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert ChatRenderer(tokenizer).prompt_ids("Aspirin?") == list(ids)


def test_a_conversation_is_tokenised_turn_by_turn_as_in_training(tokenizer: Any) -> None:
    chat = ChatRenderer(tokenizer)
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    example = chat.encode(form_of(tokenizer, {"messages": [*messages, {"role": "assistant", "content": "four"}]}))
    ids = chat.conversation_ids(messages)
    assert ids == example.input_ids[: len(ids)].tolist()
    assert example.supervised[len(ids) :].all()
    assert chat.conversation_ids(messages[:1]) == chat.prompt_ids("one")


def test_the_end_token_is_the_templates_or_the_tokenizers(tokenizer: Any) -> None:
    assert ChatRenderer(tokenizer).end_id == tokenizer.convert_tokens_to_ids("<|end|>")
    tokenizer.eos_token = "<pad>"
    assert ChatRenderer(tokenizer).end_id == tokenizer.convert_tokens_to_ids("<|end|>")
    tokenizer.chat_template = None
    assert ChatRenderer(tokenizer).end_id == tokenizer.convert_tokens_to_ids("<pad>")


def test_records_rendered_together_are_as_each_alone(tokenizer: Any) -> None:
    chat = ChatRenderer(tokenizer)
    bad = Conversation(CHAT, [True, False, False, False, False])
    forms: list[Form] = [
        bad,
        form_of(tokenizer, {"messages": CHAT}),
        TextPair("half", "\ud83d"),
        Document("a text"),
        TextPair("", "x"),
    ]
    for encoded, form in zip(chat.encode_all(forms), forms, strict=True):
        if isinstance(encoded, BadRecord):
            with pytest.raises(BadRecord, match=re.escape(str(encoded))):
                chat.encode(form)
        else:
            (together,), alone = encoded.examples, chat.encode(form)
            assert together.input_ids.tolist() == alone.input_ids.tolist()
            assert together.supervised.tolist() == alone.supervised.tolist()


@pytest.mark.parametrize(
    ("behind", "told"),
    [
        ("<|im_end|>", "'<|im_end|>' is 10 tokens here; generation stops at '</s>' behind it."),
        ("#", "'#' is 1 token here; generation stops at '</s>' behind it."),
        ("{{ eos_token }}", ""),
        ("#{{ eos_token }}\n", ""),
        ("\n", ""),
        ("{{ raise_exception('no') }}", ""),
    ],
)
def test_a_template_whose_answers_end_in_ordinary_text_is_told(behind: str, told: str) -> None:
    letters = tokenizer_of_bytes(["<s>", "</s>"])
    letters.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}" + behind + "{% endfor %}"
    assert [str(notice) for notice in ChatRenderer(letters).end_notices()] == ([told] if told else [])


# Bad records -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"prompt": "p", "completion": "half \ud83d"}, {"text": "\ud83d"}])
def test_half_of_a_surrogate_pair_is_no_character(tokenizer: Any, fields: dict[str, Any]) -> None:
    assert "half of a surrogate pair" in _reason(tokenizer, **fields)


def test_a_pair_needs_an_answer(tokenizer: Any) -> None:
    with pytest.raises(BadRecord, match="the completion is empty"):
        ChatRenderer(tokenizer).pair("p", " \n")


def test_messages_need_a_template(plain: Any) -> None:
    assert "no chat template" in _reason(plain, messages=CHAT)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system role') }}",
        "{{ messages[0]['content'] + 3 }}",
        "{{ nothing.at.all }}",
        "{{ 1 // 0 }}",
        "{{ [].pop() }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_a_template_that_refuses_a_record_says_why(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    assert "the chat template refuses it" in _reason(tokenizer, messages=CHAT)


def test_a_template_that_hides_where_an_answer_starts_is_not_guessed_at(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}##{% endif %}"
    assert "the generation prompt ends in '##'" in _reason(tokenizer, messages=CHAT)


def test_all_of_a_conversation_counts_its_answers(tokenizer: Any) -> None:
    chat = ChatRenderer(tokenizer, options=RenderingOptions(everything=True))
    example = chat.encode(form_of(tokenizer, {"messages": CHAT}))
    assert example.answers == 2 and example.supervised[1:].all() and not example.supervised[0]


def test_of_named_templates_tool_use_serves_conversations_with_tools(tokenizer: Any) -> None:
    tools = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHAT_TEMPLATE
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "tool_use": tools}
    chat = ChatRenderer(tokenizer)
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    form = form_of(tokenizer, {"messages": CHAT})
    assert _text(tokenizer, chat.encode(form)).startswith("<|start|>system")
    assert isinstance(form, Conversation)
    assert _text(tokenizer, chat.encode(replace(form, tools=[tool]))).startswith('[{"type": "function"')


def test_without_a_template_a_pair_is_one_text_between_bos_and_eos() -> None:
    """Oracle 43."""
    from tokenizers import processors

    tokenizer = deepcopy(byte_tokenizer())
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    example = ChatRenderer(tokenizer).encode(TextPair("ab", "c"))
    assert tokenizer.convert_ids_to_tokens(example.input_ids.tolist()) == ["<s>", "a", "b", "c", "</s>"]
    assert example.supervised.tolist() == [False, False, False, True, True]


def test_the_mask_of_transformers_takes_in_a_question_that_ours_leaves_out() -> None:
    """Oracle 41: a span that ends at the first token makes all behind it learnt."""
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    messages = [assistant("A"), user("B")]
    tokenizer = byte_tokenizer()
    masked = tokenizer.apply_chat_template(messages, chat_template=template, return_assistant_tokens_mask=True, return_dict=True)
    assert masked["assistant_masks"] == [1, 1]
    tokenizer = deepcopy(tokenizer)
    tokenizer.chat_template = template
    example = ChatRenderer(tokenizer).encode(conversation(user("B"), assistant("A"), user("B"), assistant("A")))
    assert example.supervised.tolist()[:3] == [False, True, False]
