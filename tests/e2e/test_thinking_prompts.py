"""A run is asked with the options of its chat template that all of its answers are learnt behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.forked import pitstop
from support.json_lines import write_rows
from support.tiny_model import make_tiny_model
from support.tokenizers_of_kinds import tokenizer_of
from support.training import arguments, metadata

pytestmark = pytest.mark.usefixtures("warm")

TEMPLATE = (
    "{% set thinks = enable_thinking if enable_thinking is defined else true %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% else %}<think></think>{% endif %}{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if thinks %}<think>\n{% else %}<think></think>{% endif %}{% endif %}"
)
"""As that of Nemotron: the usual prompt opens a thought, and an answer without one stands behind a thought that is empty."""


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), hidden=16, tokenizer=tokenizer_of("byte-level", TEMPLATE))


def _write(path: Path, thoughts: list[str]) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Question {number}?"},
                {"role": "assistant", "content": "Yes.", **({"reasoning_content": thought} if thought else {})},
            ]
        }
        for number, thought in enumerate(thoughts)
    ]
    return write_rows(path, rows)


def _watch_prompts(place: Path) -> Any:
    """Have the texts that answers are generated behind written to ``place``."""

    def prepare() -> None:
        from pitstop.trainers.models import generation

        real = generation.answer_batch

        def answer_batch(model: Any, tokenizer: Any, prompts: Any, **options: Any) -> Any:
            with place.open("a") as file:
                file.writelines(json.dumps(tokenizer.decode(ids)) + "\n" for ids in prompts.values())
            return real(model, tokenizer, prompts, **options)

        generation.answer_batch = answer_batch

    return prepare


def _prompts(place: Path) -> set[str]:
    return {json.loads(line) for line in place.read_text().splitlines()}


@pytest.mark.parametrize(
    ("thoughts", "recorded", "cue"),
    [
        (["a", "b", "c", "d"], [{"options": {}, "answers": 4}], "<think>\n"),
        (["", "", "", ""], [{"options": {"enable_thinking": False}, "answers": 4}], "<think></think>"),
        (
            ["a", "b", "c", ""],
            [{"options": {"enable_thinking": False}, "answers": 1}, {"options": {}, "answers": 3}],
            "<think></think>",
        ),
    ],
)
def test_samples_and_generate_ask_as_all_answers_are_learnt(
    thinking: Path, tmp_path: Path, thoughts: list[str], recorded: Any, cue: str
) -> None:
    data, seen = _write(tmp_path / "train.jsonl", thoughts), tmp_path / "samples.jsonl"
    (tmp_path / "prompts.txt").write_text("Why?\n")
    samples = {"sample_prompts": tmp_path / "prompts.txt", "eval_max_new_tokens": 2}
    words = arguments(thinking, tmp_path, tmp_path / "runs", dataset=data, eval_dataset=data, **samples)
    ended = pitstop(*words, prepare=_watch_prompts(seen))
    assert ended.code == 0, ended.output
    counts = metadata(tmp_path / "runs/run_001")["data"]["counts"]
    assert counts["template_options"] == recorded
    expected = {f"<s><|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n{cue}"}
    assert _prompts(seen) == expected

    asked = tmp_path / "generate.jsonl"
    ended = pitstop(
        "generate", 1, "--prompt", "Why?", "--base-dir", tmp_path / "runs", "--max-new-tokens", 2, prepare=_watch_prompts(asked)
    )
    assert ended.code == 0, ended.output
    assert _prompts(asked) == expected
