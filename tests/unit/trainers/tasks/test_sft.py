"""The task sft learns the same of a conversation in whatever shape it comes, and counts what it does not learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pitstop.configs.datasets import DataSource
from pitstop.configs.errors import DataError, ModelError, SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.chat.conversation import Conversation
from pitstop.trainers.data.reading import ReadOptions
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.tasks.sft import SftTask
from support.fake_training import settings_with
from support.json_lines import write_rows

Q1, A1 = {"role": "user", "content": "Q1"}, {"role": "assistant", "content": "A1"}
Q2, A2 = {"role": "user", "content": "Q2"}, {"role": "assistant", "content": "A2"}
CALLS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content if loop.last or m.role == 'user' else m.content[:1] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def task(tokenizer: Any) -> SftTask:
    """The task with a template that writes calls."""
    tokenizer.chat_template = CALLS
    return SftTask(tokenizer)


def _tokens(task: SftTask, **fields: Any) -> tuple[list[int], list[bool]]:
    (example,) = task.examples(Record(fields, "here"))
    return example.input_ids.tolist(), example.supervised.tolist()


def test_a_conversation_has_the_same_tokens_in_any_shape(task: SftTask) -> None:
    tokens = _tokens(task, messages=[Q1, A1])
    for fields in (
        {"conversations": [{"from": "human", "value": "Q1"}, {"from": "gpt", "value": "A1"}]},
        {"messages": ["Q1", "A1"]},
        {"prompt": [Q1], "completion": [A1]},
        {"question": "Q1", "answer": "A1"},
        {"messages": [Q1, {"role": "assistant", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "1"}]}]},
    ):
        assert _tokens(task, **fields) == tokens


def test_calls_of_other_dialects_are_the_calls_of_chat_apis(task: SftTask) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    loop = [Q1, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "3"}, A2]
    foreign = [
        {"from": "human", "value": "Q1"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": 3},
        {"from": "gpt", "value": "A2"},
    ]
    ids, learnt = _tokens(task, messages=loop)
    assert _tokens(task, conversations=foreign) == (ids, learnt)
    text = task.tokenizer.decode([token for token, learn in zip(ids, learnt, strict=True) if learn])
    assert text == 'add{"a": 1}<|end|>A2<|end|>'


def test_answers_that_are_not_learnt_are_left_out_of_the_sum(task: SftTask) -> None:
    rows = BadRows(skip=True)
    records = [
        Record({"messages": [Q1, {**A1, "weight": 0}, Q2, A2]}, "a line 1"),
        Record({"messages": [Q1, A1, Q2, {"role": "critic", "content": "x"}]}, "a line 2"),
        Record({"text": "all"}, "a line 3"),
    ]
    first, second, third = task.examples_of(records, rows)
    assert isinstance(first, list) and first[0].answers == 1 and rows.answers_left_out == 1
    assert isinstance(second, BadRecord) and second.answers == 1
    assert isinstance(third, list) and third[0].answers == 0


def test_answers_that_the_template_rewrites_have_an_example_each_in_one_group(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL
    rows = BadRows(skip=True)
    (examples,) = SftTask(tokenizer).examples_of([Record({"messages": [Q1, A1, Q2, A2]}, "a line 1")], rows)
    assert not isinstance(examples, BadRecord)
    assert [(example.answers, example.group) for example in examples] == [(1, "a line 1"), (1, "a line 1")]
    assert [str(notice) for notice in rows.notices] == [
        "1 record gives several examples, since the chat template renders earlier answers differently: a line 1. "
        "--learn last takes the last answer only."
    ]
    assert rows.answers_left_out == 0


def test_what_several_examples_cost_is_told_behind_the_last_record(tokenizer: Any) -> None:
    """The tokens of all examples over those of the last of each record, which alone would be there with --learn last."""
    tokenizer.chat_template = FORGETFUL
    task, rows = SftTask(tokenizer), BadRows(skip=True)
    records = [Record({"messages": [Q1, A1] * count + [Q2, A2]}, f"a line {count}") for count in (0, 1, 2)]
    of_records = [examples for examples in task.examples_of(records, rows) if not isinstance(examples, BadRecord)]
    several = [[len(example) for example in examples] for examples in of_records if len(examples) > 1]
    ratio = sum(map(sum, several)) / sum(sizes[-1] for sizes in several)
    assert [len(sizes) for sizes in several] == [2, 3] and 1.5 < ratio < 2
    task.conclude(rows)
    assert (
        "2 records give one example for each of 5 answers, since the chat template renders earlier answers differently: "
        f"{ratio:.1f} times the tokens, first a line 1. --learn last takes the last answer only."
    ) in [str(notice) for notice in rows.notices]
    another = BadRows(skip=True)
    task.examples_of(records[1:2], another)
    task.conclude(another)
    assert any("1 record gives one example for each of 2 answers" in str(notice) for notice in another.notices)


def test_they_are_counted_where_they_are_skipped(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL
    rows = BadRows(skip=True)
    task = _with(tokenizer, rewritten_turns="skip")
    (examples,) = task.examples_of([Record({"messages": [Q1, A1, Q2, A2]}, "a line 1")], rows)
    assert not isinstance(examples, BadRecord) and len(examples) == 1 and not examples[0].group
    assert [str(notice) for notice in rows.notices] == [
        "1 answer is not learnt, since the chat template renders earlier answers differently: a line 1."
    ]
    assert rows.answers_left_out == 1


def test_a_run_of_the_first_rendering_reads_records_as_it_did(tokenizer: Any) -> None:
    first = _with(tokenizer, rendering=1, too_long="drop")
    weighted = {"messages": [Q1, {**A1, "weight": 0}, Q2, A2]}
    assert sum(_tokens(first, **weighted)[1]) > sum(_tokens(SftTask(tokenizer), **weighted)[1])
    with pytest.raises(BadRecord, match="none of the known record shapes"):
        first.examples(Record({"question": "q", "answer": "a"}, "here"))


# Settings -----------------------------------------------------------------------------------------------------------------


def _with(tokenizer: Any, **data: Any) -> SftTask:
    chosen = Settings()
    return SftTask(tokenizer, replace(chosen, data=replace(chosen.data, **data)))


def test_the_settings_of_shapes_are_followed_and_are_part_of_the_key(tokenizer: Any) -> None:
    mapped = _with(tokenizer, columns=["prompt=q", "completion=a"], system_prompt="S")
    plain = SftTask(tokenizer)
    system = {"role": "system", "content": "S"}
    assert _tokens(mapped, q="Q1", a="A1") == _tokens(plain, messages=[system, Q1, A1])
    assert _tokens(_with(tokenizer, learn="last"), messages=[Q1, A1, Q2, A2]) == _tokens(
        plain, messages=[Q1, {**A1, "weight": 0}, Q2, A2]
    )
    assert _tokens(_with(tokenizer, roles=["critic=assistant"]), messages=[Q1, {**A1, "role": "critic"}]) == _tokens(
        plain, messages=[Q1, A1]
    )
    assert mapped.relevant_settings() != plain.relevant_settings()


def test_records_of_one_value_are_one_group(tokenizer: Any) -> None:
    task = _with(tokenizer, group_by="doc")
    records = [Record({"prompt": "Q1", "completion": "A1", "doc": doc}, "here") for doc in (1, "1", None)]
    groups = [examples[0].group for examples in task.examples_of(records, BadRows(False)) if isinstance(examples, list)]
    assert groups == ["1", "1", ""]


def test_a_field_that_no_data_set_has_stops(tokenizer: Any, tmp_path: Path) -> None:
    for name, fields in (("a", {"prompt": "Q", "completion": "A"}), ("b", {"prompt": "Q", "completion": "A", "persona": "S"})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(fields) + "\n")
    task = _with(tokenizer, columns=["system=persona"])
    options = ReadOptions(max_length=256, packing=True)
    sources = [DataSource(str(tmp_path / f"{name}.jsonl")) for name in "ab"]
    with pytest.raises(DataError, match=r"--column: no record has a field 'persona'; there are: prompt, completion\."):
        task.load(sources[:1], options, None)
    told = [str(notice) for notice in task.load(sources, options, None).counts.notices]
    assert told == ["--column: no record has a field 'persona'; there are: prompt, completion."]


@pytest.mark.parametrize(
    ("settings", "learnt"),
    [
        ({}, ["A1<|end|>", "A2<|end|>"]),
        ({"learn": "last"}, ["A2<|end|>"]),
        ({"learn": "everything"}, ["|user|>Q1<|end|><|assistant|>A1<|end|><|user|>Q2<|end|><|assistant|>A2<|end|>"]),
        ({"system_prompt": "S", "system_role": "fold"}, ["A1<|end|>", "A2<|end|>"]),
    ],
)
def test_settings_say_what_is_learnt(tokenizer: Any, settings: dict[str, Any], learnt: list[str]) -> None:
    tokenizer.chat_template = CALLS
    ids, supervised = _tokens(_with(tokenizer, **settings), messages=[Q1, A1, Q2, A2])
    parts: list[list[int]] = [[]]
    for token, learn in zip(ids, supervised, strict=True):
        if learn:
            parts[-1].append(token)
        elif parts[-1]:
            parts.append([])
    assert [tokenizer.decode(part) for part in parts if part] == learnt
    folded = "<|user|>S\n\nQ1" in tokenizer.decode(ids)
    assert folded == ("system_role" in settings)


def test_neighbours_are_merged_and_thoughts_put_in_front_on_request(tokenizer: Any) -> None:
    tokenizer.chat_template = CALLS
    messages = [Q1, Q2, {**A1, "reasoning_content": "R1"}]
    with pytest.raises(BadRecord, match="does not render thoughts"):
        _tokens(_with(tokenizer), messages=messages)
    ids, _ = _tokens(_with(tokenizer, merge_turns=True, reasoning="inline"), messages=messages)
    assert tokenizer.decode(ids) == "<|user|>Q1\n\nQ2<|end|><|assistant|><think>\nR1\n</think>\n\nA1<|end|>"
    ids, _ = _tokens(_with(tokenizer, reasoning="drop"), messages=messages)
    assert tokenizer.decode(ids) == "<|user|>Q1<|end|><|user|>Q2<|end|><|assistant|>A1<|end|>"


def test_options_of_the_template_are_those_of_the_settings_and_of_generation(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ mood }}" + CALLS
    task = _with(tokenizer, template_options=["mood=calm"])
    ids, supervised = _tokens(task, messages=[Q1, A1])
    assert tokenizer.decode(ids) == "calm<|user|>Q1<|end|><|assistant|>A1<|end|>"
    assert task.prompt_ids("Q1") == ids[: supervised.index(True)]
    assert task.relevant_settings() != _with(tokenizer).relevant_settings()
    with pytest.raises(SettingsError, match="uses no option 'tone'"):
        _with(tokenizer, template_options=["tone=calm"]).chat  # noqa: B018
    tokenizer.chat_template = None
    with pytest.raises(SettingsError, match="has no chat template, which the setting of template options is for"):
        _with(tokenizer, template_options=["mood=calm"]).chat  # noqa: B018


def test_messages_for_a_base_without_template_stop_whatever_is_skipped(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    task = SftTask(tokenizer, settings_with(model__id="/models/owner/base"))
    records = [Record({"prompt": "Q1", "completion": "A1"}, "a line 1"), Record({"messages": [Q1, A1]}, "a line 2")]
    with pytest.raises(ModelError) as caught:
        task.examples_of(records, BadRows(skip=True))
    assert caught.value.message == "The tokenizer of base has no chat template."
    assert caught.value.hint == "Give one: --chat-template plain, chatml, a .jinja file or the Hub id of the chat model."
    with pytest.raises(SettingsError, match="--chat-template none: a line 2 has messages, which need one"):
        SftTask(tokenizer, settings_with(data__chat_template="none")).examples_of(records, BadRows(skip=True))
    assert len(task.examples_of(records[:1], BadRows(skip=False))[0]) == 1  # type: ignore[arg-type]


def test_a_template_in_place_of_the_tokenizers_is_named(tokenizer: Any) -> None:
    assert _with(tokenizer).chat.template.in_words.startswith("the tokenizer's, ")
    task = _with(tokenizer, chat_template="mine.jinja", chat_template_text='"{{ messages }}"')
    assert task.chat.template.in_words.startswith("mine.jinja, ")
    assert task.relevant_settings() == _with(tokenizer).relevant_settings(), "the cache's key has the tokenizer's template"


def test_a_run_of_the_first_rendering_takes_no_settings_of_the_template(tokenizer: Any) -> None:
    with pytest.raises(SettingsError, match="as earlier versions did"):
        _tokens(_with(tokenizer, rendering=1, merge_turns=True), prompt="Q1", completion="A1")


def test_a_run_of_the_first_rendering_takes_no_settings_of_fields(tokenizer: Any) -> None:
    with pytest.raises(SettingsError, match="as earlier versions did"):
        _tokens(_with(tokenizer, rendering=1, too_long="drop", columns=["prompt=q"]), q="Q1", completion="A1")


def test_each_data_set_is_read_by_settings_of_its_own(tokenizer: Any, tmp_path: Path) -> None:
    records = {"a": [{"q": "Q1", "a": "A1"}] * 3, "b": [{"messages": [Q1, A1, Q2, A2]}] * 2}
    for name, rows in records.items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
    own = {"a": {"columns": ["prompt=q", "completion=a"], "max_records": 2}, "b": {"learn": "last"}}
    sources = [DataSource(str(tmp_path / f"{name}.jsonl"), None, own[name]) for name in "ab"]
    task = _with(tokenizer, max_records=1)
    data = task.load(sources, ReadOptions(max_length=256, packing=False, max_records=1), None)
    assert [part.counts.read.used for part in data.parts] == [2, 1] and data.counts.answers.left_out == 1
    assert data.examples[0].input_ids.tolist() == _tokens(task, messages=[Q1, A1])[0]
    assert task.normal_form is not task.with_settings({"learn": "last"}).normal_form


# Whole data sets ------------------------------------------------------------------------------------------------------------

ROWS = st.sampled_from(
    [
        {"messages": [Q1, A1, Q2, {**A2, "weight": 0}]},
        {"messages": [A1, Q1, {**A1, "content": ""}, Q2, A2, Q1]},
        {"conversations": [{"from": "human", "value": "Q1"}, {"from": "gpt", "value": "A1" * 200}]},
        {"conversations": [{"from": "human", "value": "Q1"}, {"from": "critic", "value": "A1"}]},
        {"messages": ["Q1", "A1"], "prompt": "Q1", "chosen": "x", "rejected": "y"},
        {"instruction": "Q1", "output": "A1", "text": "Q1 A1", "input": ""},
        {"prompt": "Q1", "completion": " "},
        {"prompt": [Q1], "completion": "A1"},
        {"prompt": "Q1", "completion": "A1", "messages": [Q1, A1]},
        {"text": "a document"},
        {"chosen": "x", "rejected": "y"},
        {},
        "{",
    ]
)


@given(rows=st.lists(ROWS, max_size=12))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_any_mix_of_shapes_all_records_are_used_left_out_or_malformed(tiny: Path, tmp_path: Path, rows: list[Any]) -> None:
    rows = [*rows, {"question": "Q1", "answer": "A1"}]
    path = tmp_path / "a.jsonl"
    write_rows(path, rows)
    task = SftTask(AutoTokenizer.from_pretrained(tiny))
    counts = task.load([DataSource(str(path))], ReadOptions(max_length=128, packing=True, skip_bad_rows=True), None).counts
    good = [row for row in rows if row != "{" and ROW_ANSWERS.get(json.dumps(row), (0, 0))[0]]
    assert counts.read.read == len(rows) and counts.read.used + counts.read.left_out == len(good)
    assert counts.answers.read == sum(ROW_ANSWERS[json.dumps(row)][1] for row in rows if row != "{")
    assert sum(notice.count for notice in counts.notices if "malformed" in notice.reason) == counts.read.malformed


# Whether a row is good, and how many answers it has.
ROW_ANSWERS = {
    json.dumps(row): (good, answers)
    for row, good, answers in (
        ({"messages": [Q1, A1, Q2, {**A2, "weight": 0}]}, True, 2),
        ({"messages": [A1, Q1, {**A1, "content": ""}, Q2, A2, Q1]}, True, 3),
        ({"conversations": [{"from": "human", "value": "Q1"}, {"from": "gpt", "value": "A1" * 200}]}, True, 1),
        ({"conversations": [{"from": "human", "value": "Q1"}, {"from": "critic", "value": "A1"}]}, False, 0),
        ({"messages": ["Q1", "A1"], "prompt": "Q1", "chosen": "x", "rejected": "y"}, True, 1),
        ({"instruction": "Q1", "output": "A1", "text": "Q1 A1", "input": ""}, True, 1),
        ({"prompt": "Q1", "completion": " "}, False, 1),
        ({"prompt": [Q1], "completion": "A1"}, False, 1),
        ({"prompt": "Q1", "completion": "A1", "messages": [Q1, A1]}, False, 1),
        ({"text": "a document"}, True, 0),
        ({"chosen": "x", "rejected": "y"}, False, 0),
        ({}, False, 0),
        ({"question": "Q1", "answer": "A1"}, True, 1),
    )
}


def test_nulls_that_a_table_of_structs_fills_in_go_and_those_of_json_stay(tokenizer: Any, tmp_path: Path) -> None:
    def tool(**properties: Any) -> dict[str, Any]:
        return {"type": "function", "function": {"name": "w", "parameters": {"properties": properties}}}

    kind = {"type": "string"}
    rows = [{"messages": [Q1, A1], "tools": [tool(city=kind)]}, {"messages": [Q1, A1], "tools": [tool(n=kind)]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(json.dumps({"messages": [Q1, A1], "tools": [tool(city=kind, n=None)]}) + "\n")
    task, bad_rows = SftTask(tokenizer), BadRows(False)

    def properties(name: str) -> list[Any]:
        records = task.records(str(tmp_path / name), bad_rows, split="train", token=None)
        forms = [task.normal_form.read(record, bad_rows) for record in records]
        return [form.tools[0]["function"]["parameters"]["properties"] for form in forms if isinstance(form, Conversation)]

    assert properties("a.parquet") == [{"city": kind}, {"n": kind}]
    assert properties("b.jsonl") == [{"city": kind, "n": None}]
    assert [notice.count for notice in bad_rows.notices if "null keys" in notice.reason] == [2]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_keys_that_a_table_fills_with_null_go_from_tools(tokenizer: Any, tmp_path: Path, form: str) -> None:
    """Oracle 44: two rows whose tools have the properties city and n; from JSON the second is a null that was meant."""
    kind = {"type": "string"}
    properties: list[dict[str, Any]] = [{"city": kind, "n": None}, {"city": None, "n": kind}]
    rows = [
        {
            "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
            "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": each}}}],
        }
        for each in properties
    ]
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_rows(path, rows)
    task, bad_rows = SftTask(tokenizer), BadRows(skip=False)
    first = next(iter(task.records(str(path), bad_rows, split="train", token=None)))
    assert first.fields["tools"][0]["function"]["parameters"]["properties"] == {"city": kind, "n": None}
    conversation = task.normal_form.read(first, bad_rows)
    assert isinstance(conversation, Conversation)
    expected = {"city": kind} if form == "parquet" else {"city": kind, "n": None}
    assert conversation.tools[0]["function"]["parameters"]["properties"] == expected
