"""Which text an answer is learnt behind, and how much of it: the oracles of the specification, by their numbers.

⟦…⟧ is learnt, ↵ a line break, ‖ parts the examples of one conversation; … stands for what a test leaves out.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from pitstop.trainers.data.chat.conversation import Conversation
from pitstop.trainers.data.chat.fitting import fitted
from pitstop.trainers.data.chat.options import THINKING_VARIABLES
from pitstop.trainers.data.chat.rendering import ConversationRenderer
from pitstop.trainers.data.records import BadRecord
from support.chat_templates import (
    INLINE,
    LOOP,
    OWN,
    SECOND_THOUGHT,
    SEVEN,
    SYSTEM_TWO,
    THINK,
    TWO,
    assistant,
    byte_tokenizer,
    conversation,
    renderer,
    renderer_of,
    shown,
    system,
    user,
    wheel_templates,
)

ONE = conversation(user("Q1"), assistant("A1"))
WITH_SYSTEM = conversation(system("S"), user("Q1"), assistant("A1"))
BASE_TWO = "<|user|>Q1<|end|><|assistant|>⟦A1<|end|>⟧<|user|>Q2<|end|><|assistant|>⟦A2<|end|>⟧"
ONLY_SECOND = "<|user|>Q1<|end|><|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|>⟦A2<|end|>⟧"


def _rendered(template: str, messages: Conversation, **options: Any) -> str:
    return shown(renderer(template, **options).render(messages).examples)


def _told(template: str, messages: Conversation, **options: Any) -> list[str]:
    rendering = renderer(template, **options).render(messages)
    return [str(notice) for notice in (*rendering.unlearnt, *rendering.notices)]


def _refusal(template: str, messages: Conversation, **options: Any) -> str:
    with pytest.raises(BadRecord) as caught:
        renderer(template, **options).render(messages)
    return str(caught.value)


def _fits(text: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("…")), text) is not None


ORACLES: dict[str, tuple[str, Conversation, dict[str, Any], str]] = {
    "1": ("base", TWO, {}, BASE_TWO),
    "2": ("base", replace(TWO, learnt=[False, False, False, True]), {}, ONLY_SECOND),
    "3": ("inst", TWO, {}, "[INST] Q1 [/INST]⟦ A1</s>⟧[INST] Q2 [/INST]⟦ A2</s>⟧"),
    "4": ("nocue", TWO, {}, BASE_TWO),
    "5": ("strict", WITH_SYSTEM, {}, "<|user|>S↵↵Q1<|end|><|assistant|>⟦A1<|end|>⟧"),
    "6": (
        "strict",
        conversation(user("Q1"), user("Q2"), assistant("A1")),
        {"merge_turns": True},
        "<|user|>Q1↵↵Q2<|end|><|assistant|>⟦A1<|end|>⟧",
    ),
    "7": (
        "forgets",
        THINK,
        {},
        "<|user|>Q1<|end|><|assistant|>⟦<think>R1</think>A1<|end|>⟧ ‖ "
        "<|user|>Q1<|end|><|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|>⟦<think>R2</think>A2<|end|>⟧",
    ),
    "7, skip": (
        "forgets",
        THINK,
        {"rewritten_turns": "skip"},
        "<|user|>Q1<|end|><|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|>⟦<think>R2</think>A2<|end|>⟧",
    ),
    "8": ("forgets", TWO, {}, BASE_TWO),
    "8, only R2": (
        "forgets",
        SECOND_THOUGHT,
        {},
        "<|user|>Q1<|end|><|assistant|>⟦A1<|end|>⟧<|user|>Q2<|end|><|assistant|>⟦<think>R2</think>A2<|end|>⟧",
    ),
    "9": (
        "opens",
        THINK,
        {},
        "<|user|>Q1<|end|><|assistant|><think>↵⟦R1↵</think>↵↵A1<|end|>⟧"
        "<|user|>Q2<|end|><|assistant|><think>↵⟦R2↵</think>↵↵A2<|end|>⟧",
    ),
    "10": (
        "opens",
        TWO,
        {},
        "<|user|>Q1<|end|><|assistant|><think>↵⟦↵</think>↵↵A1<|end|>⟧"
        "<|user|>Q2<|end|><|assistant|><think>↵⟦↵</think>↵↵A2<|end|>⟧",
    ),
    "11": ("hides", INLINE, {}, "<|user|>Q1<|end|><|assistant|><think>↵⟦R1↵</think>↵↵A1<|end|>⟧"),
    "12": (
        "hides",
        TWO,
        {},
        "<|user|>Q1<|end|><|assistant|><think>↵⟦↵</think>↵↵A1<|end|>⟧ ‖ "
        "<|user|>Q1<|end|><|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|><think>↵⟦↵</think>↵↵A2<|end|>⟧",
    ),
    "13": (
        "empties",
        TWO,
        {},
        "…<|assistant|><think></think>⟦A1<|end|>⟧ ‖ "
        "…<|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|><think></think>⟦A2<|end|>⟧",
    ),
    "16": (
        "eosend",
        TWO,
        {},
        "<|user|>Q1<|end|><|assistant|>⟦A1<|end|>⟧<|user|>Q2<|end|><|assistant|>⟦A2<|end|></s>⟧",
    ),
    "17": ("lastend", TWO, {}, "…<|assistant|>⟦A1⟧<|end|><|user|>Q2<|end|><|assistant|>⟦A2<|return|>⟧"),
    "18": ("noend", TWO, {}, "<|user|>Q1<|assistant|>⟦A1⟧<|user|>Q2<|assistant|>⟦A2</s>⟧"),
    "19": (
        "moves",
        SYSTEM_TWO,
        {},
        "[INST] S Q1 [/INST]⟦ A1</s>⟧ ‖ [INST] Q1 [/INST] A1</s>[INST] S Q2 [/INST]⟦ A2</s>⟧",
    ),
    "20": ("tagged", THINK, {}, "…<|assistant|>R1⟦A1<|end|>⟧…<|assistant|>R2⟦A2<|end|>⟧"),
    "21": ("widetag", TWO, {}, BASE_TWO),
    "22": ("macro", TWO, {}, BASE_TWO),
    "23": ("llama3", TWO, {}, "<s>…assistant<|end_header_id|>↵↵⟦A1<|eot_id|>⟧…⟦A2<|eot_id|>⟧"),
    "24": (
        "gemma",
        WITH_SYSTEM,
        {},
        "<s><start_of_turn>user↵S↵↵Q1<end_of_turn>↵<start_of_turn>model↵⟦A1<end_of_turn>⟧",
    ),
    "25": (
        "phi3",
        TWO,
        {},
        "<|user|>↵Q1<|end|>↵<|assistant|>↵⟦A1<|end|>⟧↵<|user|>↵Q2<|end|>↵<|assistant|>↵⟦A2<|end|>↵</s>⟧",
    ),
    "26": (
        "qwen3",
        TWO,
        {},
        "<|im_start|>user↵Q1<|im_end|>↵<|im_start|>assistant↵⟦<think>↵↵</think>↵↵A1<|im_end|>⟧ ‖ …assistant↵A1<|im_end|>↵"
        "<|im_start|>user↵Q2<|im_end|>↵<|im_start|>assistant↵⟦<think>↵↵</think>↵↵A2<|im_end|>⟧",
    ),
    "26, think": (
        "qwen3",
        THINK,
        {},
        "…assistant↵⟦<think>↵R1↵</think>↵↵A1<|im_end|>⟧ ‖ …assistant↵A1<|im_end|>↵…assistant↵⟦<think>↵R2↵</think>↵↵A2<|im_end|>⟧",
    ),
    "27": (
        "qwen3",
        TWO,
        {"thinking": "off"},
        "…assistant↵<think>↵↵</think>↵↵⟦A1<|im_end|>⟧ ‖ …assistant↵A1<|im_end|>↵…assistant↵<think>↵↵</think>↵↵⟦A2<|im_end|>⟧",
    ),
    "28": ("qwen3_training", TWO, {}, "…⟦<think>↵↵</think>↵↵A1<|im_end|>⟧…⟦<think>↵↵</think>↵↵A2<|im_end|>⟧"),
    "29": (
        "qwen3_5_think",
        TWO,
        {},
        "…assistant↵<think>↵⟦↵</think>↵↵A1<|im_end|>⟧ ‖ …assistant↵A1<|im_end|>↵…assistant↵<think>↵⟦↵</think>↵↵A2<|im_end|>⟧",
    ),
    "30": ("qwen3_5_nothink", TWO, {}, "…<think>↵↵</think>↵↵⟦A1<|im_end|>⟧ ‖ …<think>↵↵</think>↵↵⟦A2<|im_end|>⟧"),
    "30, think": (
        "qwen3_5_nothink",
        THINK,
        {},
        "…<think>↵⟦R1↵</think>↵↵A1<|im_end|>⟧ ‖ …<think>↵⟦R2↵</think>↵↵A2<|im_end|>⟧",
    ),
    "32": ("nemotron_3_nano", TWO, {}, "…assistant↵<think></think>⟦A1<|im_end|>⟧…<think></think>⟦A2<|im_end|>⟧"),
    "32, think": (
        "nemotron_3_nano",
        THINK,
        {},
        "…<think>↵⟦R1↵</think>↵A1<|im_end|>⟧ ‖ …<think></think>↵A1<|im_end|>…<think>↵⟦R2↵</think>↵A2<|im_end|>⟧",
    ),
    "32, thinking on": ("nemotron_3_nano", ONE, {"thinking": "on"}, "…<think>↵⟦</think>A1<|im_end|>⟧"),
    "33": (
        "gptoss",
        TWO,
        {},
        "…<|start|>assistant⟦<|channel|>final<|message|>A1⟧<|end|>…<|start|>assistant⟦<|channel|>final<|message|>A2<|return|>⟧",
    ),
    "33, think": (
        "gptoss",
        THINK,
        {},
        "…assistant⟦<|channel|>analysis<|message|>R1<|end|><|start|>assistant<|channel|>final<|message|>A1<|return|>⟧ ‖ …"
        "assistant⟦<|channel|>analysis<|message|>R2<|end|><|start|>assistant<|channel|>final<|message|>A2<|return|>⟧",
    ),
    "34": ("glm4moe", TWO, {}, "…<|assistant|>⟦↵<think></think>↵A1⟧<|user|>↵Q2<|assistant|>⟦↵<think></think>↵A2</s>⟧"),
    "34, with a stop": (
        "glm4moe",
        TWO,
        {"stops": frozenset({"<|user|>"})},
        "…<|assistant|>⟦↵<think></think>↵A1<|user|>⟧↵Q2<|assistant|>⟦↵<think></think>↵A2</s>⟧",
    ),
    "35": ("qwen2_5_training", TWO, {}, "…assistant↵⟦A1<|im_end|>⟧…⟦A2<|im_end|>⟧"),
    "36": (
        "qwen2_5",
        LOOP,
        {},
        '…⟦<tool_call>↵{"name": "add", "arguments": {"a": 1}}↵</tool_call><|im_end|>⟧↵<|im_start|>user↵<tool_response>↵3↵'
        "</tool_response><|im_end|>↵<|im_start|>assistant↵⟦A2<|im_end|>⟧",
    ),
    "37": (
        "deepseekv3",
        LOOP,
        {},
        "…<think>↵⟦↵</think>↵↵<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add↵```json↵"
        '{"a": 1}↵```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>⟧ ‖ '
        "…<｜tool▁outputs▁end｜>⟦A2<｜end▁of▁sentence｜>⟧",
    ),
    "38": (
        "gemma4_v5",
        LOOP,
        {},
        "…<|turn>model↵⟦<|tool_call>call:add{a:1}<tool_call|><|tool_response>⟧"
        'response:add{value:<|"|>3<|"|>}<tool_response|>⟦A2<turn|>⟧',
    ),
}
_FIRST = "<s><｜User｜>Q1<｜Assistant｜>"
for _name in ("deepseek_r1_distill", "deepseekv3", "deepseek_r1_distill_training"):
    ORACLES[f"31, {_name}, inline"] = (_name, INLINE, {}, _FIRST + "<think>↵⟦R1↵</think>↵↵A1<｜end▁of▁sentence｜>⟧")
    ORACLES[f"31, {_name}"] = (
        _name,
        TWO,
        {},
        "…<think>↵⟦↵</think>↵↵A1<｜end▁of▁sentence｜>⟧ ‖ …<｜Assistant｜>A1<｜end▁of▁sentence｜><｜User｜>Q2<｜Assistant｜>"
        "<think>↵⟦↵</think>↵↵A2<｜end▁of▁sentence｜>⟧",
    )


@pytest.mark.parametrize("number", ORACLES)
def test_examples_are_those_of_the_oracle(number: str) -> None:
    template, messages, options, expected = ORACLES[number]
    text = _rendered(template, messages, **options)
    assert _fits(text, expected), text


@pytest.mark.parametrize(
    ("number", "template", "messages", "options", "reason"),
    [
        ("5", "strict", WITH_SYSTEM, {"system_role": "keep"}, "roles must alternate"),
        ("6", "strict", conversation(user("Q1"), user("Q2"), assistant("A1")), {}, "--merge-turns"),
        ("14", "prefills", TWO, {}, "the generation prompt ends in 'Sure:'"),
        ("15", "differs", TWO, {}, "writes earlier messages differently"),
        ("30", "qwen3_5_nothink", replace(THINK, options={"enable_thinking": False}), {}, "the generation prompt ends in"),
        ("40", "llama3", LOOP, {}, "the chat template does not render tool calls"),
    ],
)
def test_what_cannot_be_learnt_by_the_rule_is_refused(
    number: str, template: str, messages: Conversation, options: dict[str, Any], reason: str
) -> None:
    assert reason in _refusal(template, messages, **options), number


@pytest.mark.parametrize(
    ("number", "template", "messages", "options", "reason"),
    [
        ("5", "strict", WITH_SYSTEM, {}, "1 record: the chat template takes no system message; it stands in front of the first"),
        ("7", "forgets", THINK, {"rewritten_turns": "skip"}, "1 answer is not learnt, since the chat template renders earlier"),
        ("7", "forgets", THINK, {}, "1 record gives several examples"),
        ("12", "hides", ONE, {}, "the chat template opens a thought when it asks"),
        ("13", "empties", ONE, {}, "1 answer is learnt behind an empty thought"),
        ("17", "lastend", TWO, {}, "1 answer is learnt in place without its end token"),
        ("18", "noend", TWO, {}, "1 answer is learnt in place without its end token"),
        ("20", "tagged", THINK, {}, "1 answer begins with text that the chat template tags as not generated"),
        ("30", "qwen3_5_nothink", THINK, {}, "ask with enable_thinking=true"),
        ("32", "nemotron_3_nano", TWO, {}, "ask with enable_thinking=false"),
        ("32", "nemotron_3_nano", ONE, {"thinking": "on"}, "1 answer is learnt behind white space"),
        ("34", "glm4moe", TWO, {}, "1 answer is learnt in place without its end token"),
    ],
)
def test_each_case_is_told(number: str, template: str, messages: Conversation, options: dict[str, Any], reason: str) -> None:
    told = _told(template, messages, **options)
    assert any(reason in notice for notice in told), (number, told)


@pytest.mark.parametrize("template", ["base", "inst", "llama3", "phi3", "qwen2_5", "gemma", "eosend"])
def test_of_a_conversation_that_needs_none_of_this_nothing_is_told(template: str) -> None:
    assert _told(template, TWO) == []


def test_a_template_without_a_generation_prompt_is_told_once_with_its_header() -> None:
    assert [str(notice) for notice in renderer("nocue").template_notices()] == [
        "The chat template has no generation prompt; answers are learnt behind '<|assistant|>', and generate starts there."
    ]
    assert renderer("inst").template_notices() == []


def test_a_system_text_of_the_templates_own_is_told_by_its_first_words() -> None:
    (notice,) = renderer("qwen2_5").template_notices()
    assert str(notice).startswith("The chat template writes a system text of its own: 'You are Qwen, created by Alibaba Cloud")


@pytest.mark.parametrize(("template", "count"), [("qwen3_5_think", 1), ("qwen3", 2)])
def test_a_tool_loop_is_one_example_where_the_template_keeps_its_turns(template: str, count: int) -> None:
    """Oracle 39."""
    assert len(renderer(template).render(LOOP).examples) == count


def test_text_goes_as_parts_where_it_only_comes_out_so() -> None:
    """Oracle 40."""
    text = _rendered("smolvlm", ONE)
    assert text == "<|im_start|>User: Q1<end_of_utterance>↵Assistant:⟦ A1<end_of_utterance>⟧"


def test_everything_is_all_of_the_rendering_as_one_example() -> None:
    (example,) = renderer("hides", everything=True).render(TWO).examples
    assert shown([example]) == "⟦<|user|>Q1<|end|><|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|>A2<|end|>⟧"
    assert not example.add_eos
    assert renderer("noend", everything=True).render(TWO).examples[0].add_eos


def test_good_and_bad_answers_have_one_prompt() -> None:
    """Oracle 45."""
    for template, prompt, before in (("base", "", ""), ("hides", "<think>↵", "↵</think>↵↵")):
        for word in ("good", "bad"):
            text = _rendered(template, conversation(user("Q"), assistant(word)))
            assert text == f"<|user|>Q<|end|><|assistant|>{prompt}⟦{before}{word}<|end|>⟧"


def test_an_answer_whose_question_alone_is_refused_is_counted() -> None:
    needs_two = "{% if messages|length < 3 %}{{ raise_exception('too few') }}{% endif %}" + OWN["base"]
    rendering = renderer_of(byte_tokenizer(), needs_two, renderer("base").options)
    rendering.probe.text = True
    done = rendering.render(TWO)
    assert shown(done.examples) == ONLY_SECOND
    assert [str(notice) for notice in done.unlearnt] == ["1 answer is not learnt: the chat template refuses it: too few."]


def test_a_text_that_the_template_changes_is_told() -> None:
    shouts = OWN["base"].replace("{{ m.content }}", "{{ m.content | replace('bad', 'good') }}")
    rendering = renderer_of(byte_tokenizer(), shouts, renderer("base").options)
    assert rendering.render(ONE).notices == []
    told = rendering.render(conversation(user("a bad one"), assistant("A1"))).notices
    assert [str(notice) for notice in told] == ["in 1 record the chat template changes a text."]


@pytest.mark.parametrize(
    ("template", "options", "expected"),
    [
        ("base", {"reasoning": "inline"}, "<|user|>Q1<|end|><|assistant|>⟦<think>↵R1↵</think>↵↵A1<|end|>⟧"),
        ("base", {"reasoning": "drop"}, "<|user|>Q1<|end|><|assistant|>⟦A1<|end|>⟧"),
        ("hides", {}, "<|user|>Q1<|end|><|assistant|><think>↵⟦R1↵</think>↵↵A1<|end|>⟧"),
    ],
)
def test_a_thought_that_the_template_does_not_render_follows_the_setting(
    template: str, options: dict[str, Any], expected: str
) -> None:
    messages = conversation(user("Q1"), assistant("A1", "R1"))
    assert _rendered(template, messages, **options) == expected


def test_a_thought_that_nothing_renders_is_refused() -> None:
    assert "does not render thoughts" in _refusal("base", conversation(user("Q1"), assistant("A1", "R1")))


def test_thinking_off_leaves_thoughts_out_and_counts_them() -> None:
    assert _rendered("qwen3", THINK, thinking="off") == _rendered("qwen3", TWO, thinking="off")
    assert "2 thoughts are left out." in _told("qwen3", THINK, thinking="off")


def test_options_of_a_record_that_the_template_does_not_use_are_told() -> None:
    messages = replace(ONE, options={"enable_thinking": True})
    assert _told("base", messages) == ["1 record names an option that the chat template does not use: enable_thinking."]


def test_generation_starts_where_training_put_the_answer() -> None:
    for template in ("base", "nocue", "inst", "hides", "qwen3", "phi3"):
        rendering = renderer(template)
        question = Conversation(messages=[user("Q1")], learnt=[False])
        (example,) = rendering.render(ONE).examples
        assert rendering.prompt(question) == example.stretches[0].text, template


def test_generation_asks_as_training_did_unless_the_conversation_says_otherwise() -> None:
    question = Conversation(messages=[user("Q1")], learnt=[False])
    front = "<|im_start|>assistant\n"
    for asked, cue in ((None, "<think></think>"), ({}, "<think>\n"), ({"enable_thinking": False}, "<think></think>")):
        assert renderer("nemotron_3_nano", asked=asked).prompt(question).endswith(front + cue)
    of_its_own = replace(question, options={"enable_thinking": False})
    assert renderer("nemotron_3_nano", asked={}).prompt(of_its_own).endswith(front + "<think></think>")


def test_a_dated_template_answers_the_day_that_is_given() -> None:
    """Oracle 33."""
    dated = renderer_of(byte_tokenizer(), wheel_templates()["gptoss"], renderer("base").options, day=date(2024, 2, 3))
    assert "Current date: 2024-02-03" in shown(dated.render(ONE).examples)


# All templates of the wheel --------------------------------------------------------------------------------------------------


def _learnt_answers(rendering: ConversationRenderer, template: str, name: str) -> tuple[int, int, int]:
    """Records rendered, answers learnt and answers left out, each of the former checked against what generation is given."""
    messages = SEVEN[name]
    try:
        done = rendering.render(messages)
    except BadRecord as error:
        assert "the chat template does not render tool calls" in str(error), (template, name)
        return 0, 0, 0
    left_out = sum(notice.count for notice in done.unlearnt)
    learnt = [behind for example in done.examples for behind in _contexts(example)]
    messages = fitted(messages, rendering.probe, rendering.options, lambda notice: None)
    asked = {number: _asked(rendering, messages, number) for number, learn in enumerate(messages.learnt) if learn}
    matched = [number for number, prompts in asked.items() for behind in learnt if behind in prompts]
    if (template, name) == ("diffusion_gemma_training", "loop"):  # its tags say that an answer behind a result begins later
        assert matched == [1] and learnt[1].removesuffix("<|turn>model\n") in asked[3]
    else:
        assert len(matched) == len(set(matched)) == len(learnt), (template, name)
    assert len(learnt) + left_out == sum(messages.learnt), (template, name)
    return 1, len(learnt), left_out


def _asked(rendering: ConversationRenderer, messages: Conversation, number: int) -> set[str]:
    """What transformers itself makes of the messages in front of an answer, asked with each of the options there are."""
    template = rendering.template
    fields = [dict(template.form.of(message)) for message in messages.messages[:number]]
    options = [{}, *({name: value} for name in THINKING_VARIABLES if name in template.variables for value in (True, False))]
    return {
        str(
            byte_tokenizer().apply_chat_template(
                fields, chat_template=template.text, add_generation_prompt=True, tokenize=False, **option
            )
        )
        for option in options
    }


def _contexts(example: Any) -> list[str]:
    texts: list[str] = []
    behind = ""
    for stretch in example.stretches:
        if stretch.learnt:
            texts.append(behind)
        behind += stretch.text
    return texts


def test_each_answer_is_learnt_once_behind_what_generation_gives_or_is_left_out() -> None:
    """Oracle 42, over all templates of the wheel and seven conversations."""
    renderers = {template: renderer(template, reasoning="drop") for template in wheel_templates()}
    counts = [
        (template, name, *_learnt_answers(rendering, template, name))
        for template, rendering in renderers.items()
        for name in SEVEN
    ]
    refused = [name for _, name, rendered, _, _ in counts if not rendered]
    learnt, left_out = (sum(count[column] for count in counts) for column in (3, 4))
    assert (len(counts), refused) == (504, ["loop"] * 26)
    assert (learnt, left_out) == (1_028, 0)
    several = [name for name in wheel_templates() if len(renderer(name).render(TWO).examples) > 1]
    assert len(several) == 8


def test_answers_of_different_weight_are_not_merged() -> None:
    messages = conversation(user("Q1"), assistant("A1"), assistant("A2"), learnt=[False, False, True])
    assert _rendered("base", messages, merge_turns=True).endswith("<|assistant|>A1<|end|><|assistant|>⟦A2<|end|>⟧")
    assert _rendered("base", replace(messages, learnt=[False, True, True]), merge_turns=True).endswith("⟦A1↵↵A2<|end|>⟧")
