"""What the cache knows tokenised data by: its content, the settings that matter, the tokenizer and the libraries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk.storage import file_sha256
from pitstop.configs.load import load_settings
from pitstop.configs.schema import Settings
from pitstop.trainers.data.cache.key import identify, tokenizer_key
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.tasks.sft import SftTask
from pitstop.trainers.tasks.text import TextTask
from support.cached_data import NamedTask, RecordingCache, load


class _Reads(NamedTask):
    """One that reads its data itself, from who knows where."""

    def records(self, spec: str, bad_rows: BadRows, **more: Any) -> Iterator[Record]:
        yield Record({"text": "abc", "group": ""}, "nowhere")


def test_another_content_length_split_task_or_tokenizer_is_tokenised_anew(file: Path, sft: SftTask, tmp_path: Path) -> None:
    def entries(path: Path = file, task: TextTask = sft, around: str = "", **options: Any) -> int:
        cache = RecordingCache(tmp_path / "cache", around=around)
        load(path, task, cache, **options)
        return len(cache.entries())

    assert entries() == entries() == 1
    assert entries(packing=False) == 1  # the examples are the same
    assert entries(max_length=65) == 2
    assert entries(skip_bad_rows=True) == 3
    assert entries(split="validation") == 4
    assert entries(around="another") == 5
    copy = tmp_path / "elsewhere.jsonl"
    copy.write_bytes(file.read_bytes())
    assert entries(copy) == 5  # the content counts, not the place
    copy.write_bytes(file.read_bytes().replace(b"case 3", b"case 4"))
    assert entries(copy) == 6
    (tmp_path / "both").mkdir()
    for name, path in (("1.jsonl", file), ("2.jsonl", copy)):
        (tmp_path / "both" / name).write_bytes(path.read_bytes())
    assert entries(tmp_path / "both") == 7

    class Other(SftTask):
        name = "other"

    assert entries(task=Other(sft.tokenizer)) == 8


def test_the_key_of_the_tokenizer_follows_from_every_file_of_the_tokenizer_its_template_and_the_libraries(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    found = [tokenizer_key(tokenizer, tmp_path)]
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert tokenizer_key(tokenizer, tmp_path) == found[0]
    (tmp_path / "tokenizer.json").write_text("{ }")
    found.append(tokenizer_key(tokenizer, tmp_path))
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages }}")
    found.append(tokenizer_key(tokenizer, tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"9 of {name}")
    found.append(tokenizer_key(tokenizer, tmp_path))
    assert len({json.dumps(each) for each in found}) == 4
    assert set(found[0]["versions"]) == {"pitstop", "tokenizers", "transformers", "jinja2"}


def test_settings_that_a_task_may_look_at_are_part_of_the_key_unless_it_says_which_it_does(sft: SftTask) -> None:
    def of(**flags: Any) -> str:
        given = {name.replace("__", "."): value for name, value in flags.items()}
        loaded = load_settings(flags={"model.id": "m", "data.train": ["d"], **given}, environ={}).settings
        return json.dumps(NamedTask(sft.tokenizer, loaded).relevant_settings(), sort_keys=True)

    assert of() == of(lora__rank=4) == of(data__train=["e"]) == of(data__packing=False) == of(training__epochs=9)
    assert len({of(), of(training__seed=1), of(evaluation__max_new_tokens=7)}) == 3


def test_data_that_a_task_reads_itself_is_not_kept(file: Path, tmp_path: Path, sft: SftTask) -> None:
    cache = RecordingCache(tmp_path / "cache")
    assert len(load(file, _Reads(None, Settings()), cache).examples) == 2 and not cache.directory.exists()
    load(_named(tmp_path), NamedTask(sft.tokenizer, Settings()), cache)
    assert len(cache.entries()) == 1


def _named(directory: Path) -> Path:
    path = directory / "named.jsonl"
    path.write_text(json.dumps({"text": "abz", "group": "g"}) + "\n")
    return path


def test_a_hub_data_set_is_known_by_its_commit_alone() -> None:
    known = [
        identify(f"owner/name@{commit}{rest}", split="train", token=None, digest=file_sha256)
        for commit, rest in (("a" * 40, ""), ("b" * 40, ""), ("a" * 40, ":en"), ("a" * 40, ":en:test"))
    ]
    assert len({*known}) == 4 and None not in known
    for spec in ("owner/name", "owner/name@main", "owner/name@v1:en"):
        assert identify(spec, split="train", token=None, digest=file_sha256) is None
