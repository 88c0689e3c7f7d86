"""A base without a chat template, given one: it is part of the run, of its copies and exports, and outlives its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pitstop.trainers.data.chat.shipped import PLAIN
from support.forked import pitstop
from support.json_lines import write_rows
from support.tiny_model import make_tiny_model
from support.training import arguments, assert_same_end

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """A model whose tokenizer has no chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("model"), chat=False, hidden=16)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    for name, count in (("train", 8), ("eval", 2)):
        rows = [
            {"messages": [{"role": "user", "content": f"Case {n}?"}, {"role": "assistant", "content": f"- drug {n}"}]}
            for n in range(count)
        ]
        write_rows(directory / f"{name}.jsonl", rows)
    return directory


def _chat_template(directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory, local_files_only=True).chat_template


def test_messages_without_a_template_are_a_stop(bare: Path, chats: Path, tmp_path: Path) -> None:
    for more in ([], ["--skip-bad-rows"]):
        ended = pitstop(*arguments(bare, chats, tmp_path / "runs"), *more)
        assert ended.code not in (0, 1), ended.output
        assert f"The tokenizer of {bare.name} has no chat template." in ended.output
        assert "Give one: --chat-template plain, chatml, a .jinja file or the Hub id of the chat model." in ended.output


def test_a_run_has_the_template_it_was_given(bare: Path, chats: Path, tmp_path: Path) -> None:
    runs = ("--base-dir", tmp_path / "runs")
    words = arguments(bare, chats, tmp_path / "runs", epochs=1, chat_template="plain")
    assert "plain, " in pitstop("preview", *words[1:5], "--chat-template", "plain").output
    ended = pitstop(*words)
    assert ended.code == 0, ended.output
    run = tmp_path / "runs/run_001"
    data = json.loads((run / "config.json").read_text())["data"]
    assert (data["chat_template"], json.loads(data["chat_template_text"])) == ("plain", PLAIN)
    assert _chat_template(run / "base_model") == PLAIN

    answers = pitstop("generate", 1, *runs, "--prompt", "Case 1?", "--max-new-tokens", 4, "--json")
    assert answers.code == 0, answers.output
    assert pitstop("evaluate", 1, *runs, "--json").code == 0
    for form in ("adapter", "merged"):
        ended = pitstop("export", 1, *runs, "--format", form, "--output", tmp_path / form)
        assert ended.code == 0, ended.output
        assert _chat_template(tmp_path / form) == PLAIN
    refused = pitstop("resume", 1, *runs, "--epochs", 2, "--chat-template", "none")
    assert refused.code == 2 and "--chat-template cannot change in a resumed run" in refused.output
    assert pitstop("resume", 1, *runs, "--epochs", 2, "--chat-template", "plain").code == 0


def test_a_copy_of_the_base_is_shared_only_by_runs_with_its_template(bare: Path, chats: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(PLAIN.replace("User", "Ask"))
    for name in ("plain", tmp_path / "mine.jinja"):
        ended = pitstop(*arguments(bare, chats, tmp_path / "runs", epochs=1, chat_template=name))
        assert ended.code == 0, ended.output
    first, second = (_chat_template(tmp_path / f"runs/run_00{number}/base_model") for number in (1, 2))
    assert (first, second) == (PLAIN, PLAIN.replace("User", "Ask"))


@pytest.mark.parametrize(
    "more",
    [{}, {"save_base_model": None, "no_save_base_model": True}, {"method": "full", "lora_rank": None, "lora_dropout": None}],
)
def test_a_resume_is_exact_after_the_file_is_gone(bare: Path, chats: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(PLAIN.replace("{{ eos_token }}", "<|im_end|>"))
    words = [*arguments(bare, chats, tmp_path / "runs", chat_template=file, **more)]
    whole = pitstop(*words)
    assert whole.code == 0, whole.output
    assert "tokens here; generation stops at '<|end|>' behind it" in whole.output and "'<|im_end|>' is " in whole.output
    group = tmp_path / "runs" / ("base_training" if "method" in more else "")
    assert str(tmp_path) not in json.loads((group / "run_001/config.json").read_text())["data"]["chat_template"]
    ended = pitstop(*words)
    assert ended.code == 0, ended.output
    file.unlink()
    reference = "base_training/2" if "method" in more else "2"
    ended = pitstop("resume", f"{reference}@epoch_001", "--base-dir", tmp_path / "runs")
    assert ended.code == 0, ended.output
    assert "changed" not in ended.output
    files = ("model.safetensors", "chat_template.jinja") if "method" in more else ("adapter_model.safetensors",)
    assert_same_end(group / "run_001", group / "run_002", files)

    evaluated = pitstop("evaluate", f"{reference}@epoch_002", "--base-dir", tmp_path / "runs", "--json")
    assert evaluated.code == 0, evaluated.output
    (metrics,) = evaluated.json()["metrics"].values()
    assert metrics == evaluated.json()["recorded"]
    ended = pitstop("export", reference, "--base-dir", tmp_path / "runs", "--format", "merged", "--output", tmp_path / "export")
    if "method" not in more:
        assert ended.code == 0, ended.output
        assert _chat_template(tmp_path / "export") == PLAIN.replace("{{ eos_token }}", "<|im_end|>")
