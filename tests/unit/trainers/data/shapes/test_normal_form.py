"""Every shape becomes a conversation, a text pair or a document, and nothing of a record vanishes without a word.

46 to 50 are oracles of the specification.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop.trainers.data.chat.conversation import Conversation, Document, TextPair
from pitstop.trainers.data.records import BadRecord, Record
from support.forms import TEMPLATE, Shapes

S = {"role": "system", "content": "S"}
Q1, A1 = {"role": "user", "content": "Q1"}, {"role": "assistant", "content": "A1"}
Q2, A2 = {"role": "user", "content": "Q2"}, {"role": "assistant", "content": "A2"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
LOOP = [Q1, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "3"}, A2]


def _conversation(**fields: Any) -> Conversation:
    form = Shapes().read(**fields)
    assert isinstance(form, Conversation)
    return form


def _messages(**fields: Any) -> list[Any]:
    return list(_conversation(**fields).messages)


# Shapes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [Q1, A1]},
        {"conversations": [{"from": "human", "value": "Q1"}, {"from": "gpt", "value": "A1"}]},
        {"messages": ["Q1", "A1"]},
        {"messages": [{"input": "Q1", "output": "A1"}]},
        {"messages": json.dumps([Q1, A1])},
        {"prompt": [Q1], "completion": [A1]},
        {"prompt": Q1, "completion": A1},
        {"prompt": "Q1", "completion": "A1"},
        {"prompt": "Q1", "response": "A1"},
        {"instruction": "Q1", "output": "A1"},
        {"instruction": "Q1", "response": "A1", "input": ""},
        {"instruction": "Q1", "completion": "A1", "input": None},
        {"instruction": "", "input": "Q1", "output": "A1"},
        {"question": "Q1", "answer": "A1"},
        {"query": "Q1", "response": "A1"},
        {
            "messages": [
                Q1,
                {"role": "assistant", "content": [{"type": "text", "text": "A"}, {"type": "output_text", "text": "1"}]},
            ]
        },
    ],
)
def test_oracle_47_one_question_and_its_answer_in_any_shape_is_one_conversation(fields: dict[str, Any]) -> None:
    assert _conversation(**fields) == Conversation([Q1, A1], [False, True], [], [], {})


def test_oracle_46_an_input_goes_behind_its_instruction_and_a_text_that_holds_the_answer_loses() -> None:
    fields = {"instruction": "I", "input": "X", "output": "O", "text": "I O"}
    assert _conversation(**fields) == _conversation(prompt="I\n\nX", completion="O")


def test_oracle_48_messages_beside_prompt_and_completion_are_a_stop() -> None:
    assert Shapes().reason(messages=[Q1, A1], prompt="Q1", completion="A1") == (
        "can be read as messages and as prompt+completion"
        " · Choose with --shape messages or --shape prompt, or name the fields with --column."
    )


def test_oracle_49_calls_of_sharegpt_are_those_of_chat_apis() -> None:
    call = {"from": "function_call", "value": json.dumps({"name": "add", "arguments": {"a": 1}})}
    turns = [{"from": "human", "value": "Q1"}, call, {"from": "observation", "value": 3}, {"from": "gpt", "value": "A2"}]
    loop = _conversation(messages=LOOP)
    assert _conversation(conversations=turns) == loop == Conversation(LOOP, [False, True, False, True], [], [], {})


def test_oracle_50_squad() -> None:
    squad = {"id": "1", "title": "t", "context": "C", "question": "Q", "answers": {"text": ["A", "B"], "answer_start": [0, 2]}}
    shapes = Shapes(columns={"completion": "answers.text[0]"}, prompt_template="{context}{question}")
    assert shapes.read(**squad) == Conversation(
        [{"role": "user", "content": "CQ"}, {"role": "assistant", "content": "A"}], [False, True], [], [], {}
    )


def test_the_answers_of_a_conversation_are_learnt_and_those_of_a_prompt_are_not() -> None:
    assert _conversation(messages=[S, Q1, A1, Q2, A2]).learnt == [False, False, True, False, True]
    assert _conversation(prompt=[Q1, A1, Q2], completion=[A2]).learnt == [False, False, False, True]


def test_fields_of_alpaca_and_dolly_in_both_frames() -> None:
    alpaca = {"instruction": "I", "input": "X", "output": "O", "text": "I O"}
    shapes = Shapes()
    assert shapes.read(**alpaca) == Conversation(
        [{"role": "user", "content": "I\n\nX"}, {"role": "assistant", "content": "O"}], [False, True], [], [], {}
    )
    assert shapes.told() == ['1 record has a field "text" that is not used: a line 1.']
    frame = "### Instruction:\nI\n\n### Input:\nX\n\n### Response:\n"
    assert Shapes(None).read(**alpaca) == TextPair(frame, "O")
    dolly = {"instruction": "I", "context": "X", "response": "O", "category": "qa"}
    assert Shapes(None).read(**dolly) == TextPair(frame, "O")
    assert _messages(**dolly)[0]["content"] == "I\n\nX"
    assert Shapes(None).read(question="Q?", context="C", answer="A") == TextPair("Q?\n\nC", "A")


def test_a_pair_has_system_history_tools_and_the_thought_of_its_answer() -> None:
    form = Shapes(TEMPLATE + "{{ documents }}").read(
        prompt="Q2", completion="A2", system="S", history=[["Q1", "A1"]], tools="[]", thinking="hm", documents=[{"text": "d"}]
    )
    assert isinstance(form, Conversation)
    assert list(form.messages) == [S, Q1, A1, Q2, {**A2, "reasoning_content": "hm"}]
    assert form.learnt == [False, False, True, False, True] and form.tools == [] and form.documents == [{"text": "d"}]
    assert _messages(prompt="Q1", completion="A1", system_prompt="S") == [S, Q1, A1]
    assert _conversation(prompt="Q1", completion="A1", chat_template_kwargs='{"deep": true}').options == {"deep": True}


def test_a_text_is_a_document() -> None:
    assert Shapes().read(text="all of it") == Document("all of it")


def test_several_shapes_in_one_data_set_are_told() -> None:
    shapes = Shapes()
    for fields in ({"messages": [Q1, A1]}, {"prompt": "Q1", "completion": "A1"}, {"messages": [Q1, A1]}, {"text": "t"}):
        shapes.read(**fields)
    assert shapes.told() == ["The records are 2 messages, 1 question and answer, 1 text."]
    shapes.read(text="t")
    shapes.rows.notices.__init__()
    assert shapes.told() == []  # the next data set has one shape


@given(
    prompt=st.text(max_size=4), completion=st.text(max_size=4) | st.just("A<|end|>"), template=st.sampled_from([TEMPLATE, None])
)
def test_a_plain_pair_is_read_as_one_with_fields_that_are_absent(prompt: str, completion: str, template: str | None) -> None:
    results = []
    for absent in ({}, {"input": None}):
        shapes = Shapes(template)
        try:
            form: Any = shapes.read(prompt=prompt, completion=completion, **absent)
        except BadRecord as error:
            form = str(error)
        results.append((form, shapes.told(), shapes.rows.answers_left_out))
    assert results[0] == results[1]


# Answers that are not learnt -----------------------------------------------------------------------------------------------


def test_answers_that_are_not_learnt_are_counted_by_their_reason() -> None:
    shapes = Shapes()
    form = shapes.read(
        messages=[A1, Q1, {**A1, "weight": 0}, Q2, {"role": "assistant", "content": " "}, Q1, A1, Q2, {**A2, "train": True}]
    )
    assert isinstance(form, Conversation) and [n for n, learn in enumerate(form.learnt) if learn] == [6, 8]
    assert not any(key in message for message in form.messages for key in ("weight", "train"))
    assert shapes.rows.answers_left_out == 3
    assert shapes.told() == [
        "1 answer opens a conversation and is not learnt: a line 1.",
        "1 answer has the weight 0 and is not learnt: a line 1.",
        "1 answer is empty and is not learnt: a line 1.",
    ]
    assert [notice.loss for notice in shapes.rows.notices] == [True, False, True]  # the record says so of the second


def test_the_last_answer_alone() -> None:
    shapes = Shapes(learn="last")
    form = shapes.read(messages=[Q1, A1, Q2, A2])
    assert isinstance(form, Conversation) and form.learnt == [False, False, False, True]
    assert shapes.told() == ["1 answer is not the last of its record and is not learnt: a line 1."]


def test_messages_behind_the_last_answer_are_taken_off_and_told() -> None:
    shapes = Shapes()
    assert list(shapes.read(messages=[Q1, A1, Q2]).messages) == [Q1, A1]
    assert shapes.told() == ["1 record ends with a message that nothing answers; it is not used: a line 1."]
    shapes = Shapes()
    form = shapes.read(messages=[Q1, A1, Q2, {**A2, "loss": False}])
    assert isinstance(form, Conversation) and list(form.messages) == [Q1, A1]
    assert shapes.told() == ["1 answer has the weight 0 and is not learnt: a line 1."]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": [Q1]}, "no answer to learn"),
        ({"messages": [A1]}, "no answer to learn"),
        ({"messages": [Q1, {**A1, "weight": 0}]}, "no answer to learn"),
        ({"messages": []}, "'messages' is not a list with at least one message"),
        ({"messages": "hello"}, "'messages' is text and not valid JSON"),
        ({"messages": [Q1, 3]}, "message 2 is not an object but int"),
        ({"prompt": "p", "completion": " \n"}, "the completion is empty"),
        ({"prompt": "p", "completion": 3}, "'completion' is not text but int"),
        ({"instruction": "i", "response": "r", "input": 5}, "'input' is not text but int"),
        ({"text": ""}, "'text' is empty"),
        (
            {"prompt": [Q1], "completion": "A1"},
            "'prompt' is a list of messages and 'completion' is text · Give both in one form.",
        ),
        (
            {"prompt": "Q1", "completion": [A1]},
            "'completion' is a list of messages and 'prompt' is text · Give both in one form.",
        ),
        ({"prompt": [Q1, A1], "completion": [A2]}, "the prompt ends with an answer"),
        ({"instruction": "i", "output": "o", "input": "x", "context": "y"}, "has both 'input' and 'context'"),
        ({"prompt": "p", "completion": "c", "history": ["Q1", "A1"]}, "'history' is not a list of [question, answer]"),
        ({"messages": [Q1, A1], "tools": "add"}, "'tools' is text and not valid JSON"),
        ({"messages": [Q1, A1], "chat_template_kwargs": [1]}, "'chat_template_kwargs' is not an object"),
        ({"messages": [Q1, A1], "documents": {"a": 1}}, "'documents' is not a list"),
    ],
)
def test_a_record_that_cannot_be_used_has_its_reason(fields: dict[str, Any], reason: str) -> None:
    assert reason in Shapes().reason(**fields)


def test_without_a_template_only_pairs_and_documents_can_be_used() -> None:
    shapes = Shapes(None)
    assert "no chat template; give prompt and completion" in shapes.reason(messages=[Q1, A1])
    assert "'system' needs one" in shapes.reason(prompt="Q1", completion="A1", system="S")
    assert "'history' needs one" in shapes.reason(prompt="Q1", completion="A1", history=[["a", "b"]])
    assert "'--system-prompt' needs one" in Shapes(None, system_prompt="S").reason(prompt="Q1", completion="A1")


def test_a_joint_without_white_space_in_most_records_is_told() -> None:
    shapes = Shapes(None)
    for prompt in ("ab", "ab", "a "):
        shapes.read(prompt=prompt, completion="c")
    assert shapes.told() == ["In 2 of 3 records the answer follows its question without a space or line break."]
    shapes = Shapes(None)
    for prompt in ("ab", "ab\n"):
        shapes.read(prompt=prompt, completion="c")
    assert shapes.told() == []


# Other fields --------------------------------------------------------------------------------------------------------------


def test_fields_that_are_not_used_are_counted_with_their_first_place() -> None:
    shapes = Shapes()
    shapes.read(prompt="Q1", completion="A1", source="x", empty="", nothing=None)
    shapes.read(prompt="Q1", completion="A1", source="y", label=False)
    assert shapes.told() == [
        '2 records have a field "source" that is not used, first a line 1.',
        '1 record has a field "label" that is not used: a line 2.',
    ]


def test_what_ultrafeedback_has_beside_its_messages_is_told() -> None:
    shapes = Shapes()
    row = {"prompt": "Q1", "prompt_id": "7", "chosen": [Q1, A1], "rejected": [Q1, A2], "messages": [Q1, A1]}
    assert list(shapes.read(**row, score_chosen=1.0, score_rejected=0.5).messages) == [Q1, A1]
    told = [notice.subject for notice in shapes.rows.notices] if shapes.told() else []
    assert told == ['"prompt"', '"prompt_id"', '"chosen"', '"rejected"', '"score_chosen"', '"score_rejected"']


@pytest.mark.parametrize("name", ["image", "images", "videos", "audio"])
def test_pictures_and_sounds_are_refused(name: str) -> None:
    assert Shapes().reason(messages=[Q1, A1], **{name: ["x.png"]}) == (
        f"it has a field '{name}', and Pitstop trains on text · --skip-bad-rows leaves such records out."
    )
    assert Shapes().read(messages=[Q1, A1], **{name: []})
    assert Shapes(columns={name: ""}).read(messages=[Q1, A1], **{name: ["x.png"]})


def test_a_system_field_beside_a_system_message_must_say_the_same() -> None:
    assert _messages(messages=[S, Q1, A1], system="S") == [S, Q1, A1]
    assert _messages(messages=[Q1, A1], system="S") == [S, Q1, A1]
    assert Shapes().reason(messages=[S, Q1, A1], system="T") == (
        "has a system message and a field 'system' that says something else · Leave one out: --column system="
    )


def test_the_system_prompt_of_the_settings_is_for_records_without_one() -> None:
    shapes = Shapes(system_prompt="P")
    assert shapes.read(prompt="Q1", completion="A1").messages[0] == {"role": "system", "content": "P"}
    assert shapes.read(messages=[S, Q1, A1]).messages[0] == S
    assert "1 record keeps its own system message." in shapes.told()[1]


def test_beyond_200_names_fields_that_are_not_used_are_counted_together() -> None:
    shapes = Shapes()
    for _ in range(2):
        shapes.read(prompt="Q1", completion="A1", **{f"f{number}": 1 for number in range(203)})
    assert shapes.told()[199:] == [
        '2 records have a field "f199" that is not used, first a line 1.',
        "6 fields of other names are not used, first a line 1.",
    ]


def test_a_malformed_record_is_not_counted_among_those_with_their_own_system_message() -> None:
    shapes = Shapes(system_prompt="Be kind.")
    shapes.read(messages=[S, Q1, A1])
    assert shapes.reason(messages=[S, Q1]) == shapes.reason(messages=[Q1]) == "no answer to learn"
    shapes.read(messages=[Q1, A1])
    remedy = "The system prompt of the settings is in the other 1."
    assert shapes.told() == [f"1 record keeps its own system message. {remedy}"]


# Settings --------------------------------------------------------------------------------------------------------------------


def test_columns_go_by_names_and_paths_and_win_over_a_field_of_the_name() -> None:
    shapes = Shapes(None, columns={"prompt": "q", "completion": "answers.text[0]"})
    assert shapes.read(q="Q1", answers={"text": ["A1", "A2"], "start": [1]}) == TextPair("Q1", "A1")
    assert shapes.read(q="Q1", answers={"text": ["A1"]}, prompt="another") == TextPair("Q1", "A1")
    assert shapes.told()[0] == '1 record has a field "prompt" that is not used: a line 2.'
    assert "--column names 'answers.text[0]', which it does not have" in shapes.reason(q="Q1", answers={"text": []})


def test_a_column_that_no_record_has_is_told_with_those_there_are() -> None:
    shapes = Shapes(columns={"system": "persona"})
    shapes.read(prompt="Q1", completion="A1", id=3)
    assert shapes.told()[-1] == "--column: no record has a field 'persona'; there are: prompt, completion, id."


def test_a_field_that_only_malformed_records_have_is_not_told_to_be_in_none() -> None:
    shapes = Shapes(columns={"completion": "a"}, prompt_template="{title} {q} {completion?}", group_by="doc")
    shapes.reason(q="Q1", a="A1", doc="d")  # without a title
    assert shapes.told() == ["--prompt-template: no record has a field 'title'; there are: q, a, doc."]


def test_a_prompt_template_makes_the_question() -> None:
    shapes = Shapes(None, prompt_template="{context}{{}}\n{question}{hint?}: ", columns={"completion": "answers.text[0]"})
    squad = {"id": "1", "title": "t", "context": "C", "question": "Q", "answers": {"text": ["A"], "answer_start": [0]}}
    assert shapes.read(**squad) == TextPair("C{}\nQ: ", "A")
    assert [notice.subject for notice in shapes.rows.notices] == []
    assert '"title"' in shapes.told()[1]
    assert "it has no field 'question'" in Shapes(None, prompt_template="{question}").reason(answer="A")
    assert Shapes(None, prompt_template="{tags} {n}").read(tags=["a"], n=2, output="A") == TextPair('["a"] 2', "A")


def test_a_shape_that_is_set_decides() -> None:
    both = {"messages": [Q1, A1], "prompt": "Q2", "completion": "A2"}
    assert list(Shapes(shape="messages").read(**both).messages) == [Q1, A1]
    assert list(Shapes(shape="prompt").read(**both).messages) == [Q2, A2]
    assert Shapes(shape="text").read(text="t", prompt="Q", completion="another") == Document("t")
    assert "not of the shape 'text'" in Shapes(shape="text").reason(**both)


def test_records_are_grouped_by_the_value_of_a_field() -> None:
    reader = Shapes(group_by="doc.id").reader
    groups = [reader.group(Record(fields, "here")) for fields in ({"doc": {"id": 7}}, {"doc.id": "7"}, {"doc": None}, {})]
    assert groups == ["7", "7", "", ""]
    shapes = Shapes(group_by="doc")
    shapes.read(prompt="Q1", completion="A1", doc="d")
    assert shapes.told() == []
    shapes.read(prompt="Q1", completion="A1")
    assert shapes.told() == ["--group-by: no record has a field 'doc'; there are: prompt, completion."]


# Control tokens ----------------------------------------------------------------------------------------------------------------


def test_an_end_token_that_an_answer_brings_is_taken_off_once() -> None:
    shapes = Shapes()
    form = shapes.read(messages=[Q1, {**A1, "content": "A1<|end|>\n"}])
    assert isinstance(form, Conversation) and form.messages[1] == A1
    assert shapes.told() == ["1 answer ends in the template's end token, which is there once more and is taken off: a line 1."]


def test_control_tokens_in_messages_are_told_with_the_first_of_them() -> None:
    shapes = Shapes()
    shapes.read(messages=[{**Q1, "content": "write <s> and <|user|>"}, A1])
    shapes.read(messages=[{**Q1, "content": "a < b"}, A1])
    assert shapes.told() == ["1 record holds control tokens in a message: a line 1: '<s>'."]


# Tables of structs ---------------------------------------------------------------------------------------------------------------


def test_nulls_that_a_table_fills_in_go_from_tools_calls_and_messages() -> None:
    tools = [
        {"type": "function", "function": {"name": "w", "parameters": {"properties": {"city": {"type": "string"}, "n": None}}}}
    ]
    shapes = Shapes()
    form = shapes.read(fills_nulls=True, messages=[{**Q1, "name": None, "tool_calls": None}, A1], tools=tools)
    assert isinstance(form, Conversation) and list(form.messages) == [Q1, A1]
    assert form.tools[0]["function"]["parameters"]["properties"] == {"city": {"type": "string"}}
    assert shapes.told() == [
        "1 record has null keys in tools or calls, which are left out: a line 1. "
        "A null that was meant cannot be told apart; give tools as JSON text."
    ]
    assert _conversation(messages=[Q1, A1], tools=tools).tools == tools


# The sum --------------------------------------------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", " ", "a", "b c", "A1"])
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "gpt", "critic"])},
        optional={
            "content": TEXTS | st.none(),
            "value": TEXTS,
            "weight": st.sampled_from([0, 1, 0.5]),
            "tool_calls": st.just([CALL]),
        },
    ),
    max_size=5,
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("prompt", "completion", "response", "instruction", "output", "question", "answer", "text", "system"), TEXTS
        ),
        **dict.fromkeys(("messages", "conversations"), MESSAGES),
        "tools": st.sampled_from(["[]", "[", []]),
        "source": TEXTS,
    },
)


@given(fields=RECORDS, template=st.sampled_from([TEMPLATE, None]))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_every_answer_of_a_conversation_is_learnt_or_counted(fields: dict[str, Any], template: str | None) -> None:
    shapes = Shapes(template)
    try:
        form = shapes.read(**fields)
    except BadRecord as error:
        assert str(error) and not shapes.rows.answers_left_out
        return
    if isinstance(form, Conversation):
        messages = fields.get("messages") or fields.get("conversations")
        answers = sum(m["role"] in ("assistant", "gpt") for m in messages) if messages else 1
        assert sum(form.learnt) + shapes.rows.answers_left_out == answers and form.learnt[-1]
        assert len(form.learnt) == len(form.messages)


@pytest.mark.parametrize("end", ["<|end|>", " <|end|>\n"])
def test_an_answer_that_is_the_end_token_alone_is_empty(end: str) -> None:
    only = {"role": "assistant", "content": end}
    assert Shapes().reason(messages=[Q1, only]) == "no answer to learn"
    assert Shapes().reason(prompt="Q1", completion=end) == "no answer to learn"
    assert Shapes(None).reason(prompt="Q1", completion=end) == "the completion is empty"
    assert Shapes(None).read(prompt="Q1", completion=f"A1{end}") == TextPair("Q1", f"A1{end}")
    shapes = Shapes()
    form = shapes.read(messages=[Q1, only, Q2, A2])
    assert isinstance(form, Conversation)
    assert form.learnt == [False, False, False, True]
    assert shapes.rows.answers_left_out == 1
    assert "1 answer is empty and is not learnt: a line 1." in shapes.told()


def test_a_prompt_that_a_template_of_the_question_does_not_use_is_told() -> None:
    shapes = Shapes(prompt_template="{question}")
    shapes.read(prompt="P", question="Q1", answer="A1")
    assert shapes.told() == ['1 record has a field "prompt" that is not used: a line 1.']
    shapes = Shapes(prompt_template="{question} {prompt}")
    shapes.read(prompt="P", question="Q1", answer="A1")
    assert shapes.told() == []


def test_documents_that_the_template_does_not_name_are_refused() -> None:
    fields = {"prompt": "Q1", "completion": "A1", "documents": [{"title": "T"}]}
    assert Shapes().reason(**fields) == (
        "the chat template does not render documents · --column documents= learns the answers without them."
    )
    form = Shapes(TEMPLATE + "{{ documents }}").read(**fields)
    assert isinstance(form, Conversation) and form.documents == [{"title": "T"}]
    assert isinstance(Shapes(columns={"documents": ""}).read(**fields), Conversation)
