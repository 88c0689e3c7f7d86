"""The table of public formats in docs/data.md: each command trains on records of that form as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.forked import pitstop
from support.json_lines import json_lines
from support.tiny_model import CHAT_TEMPLATE
from support.training import metadata

pytestmark = pytest.mark.usefixtures("warm")

CALLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHAT_TEMPLATE.replace(
    "{{ message['content'] }}",
    "{{ message['content'] }}{% for call in message['tool_calls'] %}{{ call['function'] | tojson }}{% endfor %}",
)
Q, A = {"role": "user", "content": "Which drug?"}, {"role": "assistant", "content": "- aspirin"}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


class Form(NamedTuple):
    """A record of a format, the answers in it, and the fields that are not used."""

    record: dict[str, Any]
    answers: int = 1
    unused: tuple[str, ...] = ()


FORMS = {
    "alpaca.json": Form(
        {"instruction": "Name it.", "input": "Aspirin", "output": "- aspirin", "text": "Name it. - aspirin"}, 1, ("text",)
    ),
    "dolly.jsonl": Form(
        {"instruction": "Name it.", "context": "Aspirin", "response": "- aspirin", "category": "closed_qa"}, 1, ("category",)
    ),
    "sharegpt.json": Form(
        {"id": "1", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "none"}] * 2}, 2, ("id",)
    ),
    "chat.jsonl": Form({"messages": [{"role": "system", "content": "Brief."}, Q, A, Q, {**A, "weight": 0}]}, 2),
    "tools.jsonl": Form(
        {
            "messages": [
                Q,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "3"},
                A,
            ],
            "tools": [TOOL],
        },
        2,
    ),
    "functions.jsonl": Form(
        {
            "messages": [
                Q,
                {"role": "assistant", "function_call": CALL["function"]},
                {"role": "function", "name": "add", "content": "3"},
                A,
            ],
            "functions": [TOOL["function"]],
        },
        2,
    ),
    "trl.jsonl": Form({"prompt": [Q], "completion": [A]}),
    "documents.jsonl": Form({"text": "Metformin is used to treat diabetes."}, 0),
    "squad.jsonl": Form(
        {
            "id": "1",
            "title": "Drugs",
            "context": "Aspirin helps.",
            "question": "What helps?",
            "answers": {"text": ["aspirin"], "answer_start": [0]},
        },
        1,
        ("id", "title"),
    ),
    "ultrafeedback.jsonl": Form(
        {"prompt": "Which drug?", "prompt_id": "p", "chosen": [Q, A], "rejected": [Q, {**A, "content": "-"}], "messages": [Q, A]}
        | {"score_chosen": 8.0, "score_rejected": 2.0},
        1,
        ("prompt", "prompt_id", "chosen", "rejected", "score_chosen", "score_rejected"),
    ),
    "preferences.jsonl": Form({"chosen": [Q, A], "rejected": [Q, {**A, "content": "-"}]}, 1, ("rejected",)),
    "hh.jsonl": Form(
        {"chosen": "\n\nHuman: Which drug?\n\nAssistant: aspirin", "rejected": "\n\nHuman: Which drug?\n\nAssistant: -"},
        0,
        ("rejected",),
    ),
}

PREFERENCES = {
    "ultrafeedback.jsonl": FORMS["ultrafeedback.jsonl"].record,
    "hh.jsonl": FORMS["hh.jsonl"].record,
    "openai_preferences.jsonl": {
        "input": {"messages": [Q], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [A],
        "non_preferred_output": [{**A, "content": "-"}],
    },
    "kto.jsonl": {"prompt": "Which drug?", "completion": "- aspirin", "label": True},
}
"""A record of each format of preferences, whose answers are ``- aspirin`` or ``aspirin``, and ``-``."""


def _commands(name: str = "train") -> Iterator[Any]:
    """The command ``name`` of each row of the table, by the file that it reads."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page[page.index("## Public formats") :]
    section = section[: section.index("\n## ")]
    for command in re.findall(rf"`(pitstop {name} [^`]*)` \|$", section, re.MULTILINE):
        words = shlex.split(command)
        yield pytest.param(words, id=words[words.index("--dataset") + 1])


@pytest.fixture
def files(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a model in ``model`` whose template writes calls, and three records of each form and format."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(CALLS)
    for name, record in {**PREFERENCES, **{name: form.record for name, form in FORMS.items()}}.items():
        records = [record] * 3
        text = json.dumps(records) if name.endswith(".json") else json_lines(*records)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_form_has_a_row() -> None:
    assert {parameter.id for parameter in _commands()} == set(FORMS)
    assert {parameter.id for parameter in _commands("preview")} == set(PREFERENCES)


@pytest.mark.parametrize("words", list(_commands()))
def test_the_command_of_a_format_trains_on_it(words: list[str], files: Path) -> None:
    form = FORMS[words[words.index("--dataset") + 1]]
    ended = pitstop(*words[1:], "--max-length", 256, "--dry-run")
    assert ended.code == 0, ended.output
    for name in form.unused:
        assert f'3 records have a field "{name}" that is not used' in ended.output
    assert ended.output.count("that is not used") == len(form.unused)
    assert "Nothing was started" in ended.output


@pytest.mark.parametrize("words", list(_commands("preview")))
def test_the_command_of_a_format_of_preferences_shows_its_answers(words: list[str], files: Path) -> None:
    ended = pitstop(*words[1:], "-n", 1)
    assert ended.code == 0, ended.output
    assert re.search(r"records +3 = 3 used \+ 0 left out \+ 0 malformed", ended.output)
    assert re.search(r"    chosen    ⟦(- )?aspirin", ended.output)
    judged = "kto.jsonl" in words
    assert ("    rejected  ⟦-" in ended.output) is not judged
    assert re.search(rf"answers +{3 if judged else 6} = ", ended.output)


def test_a_run_on_sharegpt_and_chat_records_has_its_sums_on_record(files: Path) -> None:
    words = [
        "--model-id",
        "model",
        "--dataset",
        "sharegpt.json",
        "--dataset",
        "chat.jsonl",
        "--max-steps",
        1,
        "--max-length",
        256,
    ]
    ended = pitstop("train", *words, "--base-dir", "runs")
    assert ended.code == 0, ended.output
    counts = metadata(files / "runs" / "run_001")["data"]["counts"]
    assert counts["records"] == {"read": 6, "used": 6, "left_out": 0, "malformed": 0}
    assert counts["answers"] == {"read": 12, "used": 9, "left_out": 3, "malformed": 0}
    told = {notice["reason"]: notice for notice in counts["notices"]}
    weightless = next(notice for reason, notice in told.items() if "the weight 0" in reason)
    assert (weightless["count"], weightless["place"]) == (3, "chat.jsonl line 1")
