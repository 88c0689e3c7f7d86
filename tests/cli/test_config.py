"""``pitstop config show`` and ``pitstop config validate``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pitstop.configs.leaves import leaves
from support.cli import Cli

TOKEN = "hf_" + "a1B2" * 8


def test_show_lists_every_setting_with_its_source(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARNING_RATE", "1e-4")
    Path(".env").write_text("SAVE_TOTAL_LIMIT=none\n", encoding="utf-8")
    Path("a.yaml").write_text("data:\n  train: [a.jsonl, b.jsonl]\n", encoding="utf-8")
    lines = pitstop("config", "show", "--config", "a.yaml", "--no-packing", "--model-id", "org/m").stdout.splitlines()
    assert len(lines) == 1 + len(leaves())
    text = "\n".join(lines)
    assert re.search(r"training\.learning_rate +0\.0001 +LEARNING_RATE", text)
    assert re.search(r"training\.checkpoint\.keep_last_n +none +\.env line 1 \(SAVE_TOTAL_LIMIT\)", text)
    assert re.search(r"data\.train +a\.jsonl,b\.jsonl +a\.yaml line 2", text)
    assert re.search(r"data\.packing +false +--no-packing", text)
    assert re.search(r"lora\.rank +32 +default", text)


def test_show_as_json_gives_settings_and_sources_and_no_token(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = pitstop("config", "show", "--json", "--lora-rank", "8")
    report = result.json()
    assert list(report) == ["settings", "sources", "notes"]
    assert report["settings"]["lora"]["rank"] == 8
    assert report["sources"]["lora.rank"] == {"kind": "flag", "where": "--lora-rank"}
    assert report["sources"]["hub.token"] == {"kind": "environment", "where": "HF_TOKEN"}
    assert TOKEN not in result.stdout + result.stderr
    assert TOKEN not in pitstop("config", "show").stdout


def test_validate_counts_what_it_checked(pitstop: Cli) -> None:
    result = pitstop("config", "validate", "--config", "training/lora_finetuning", "--lora-rank", "8")
    assert result.code == 0
    assert f"{len(leaves())} settings are valid" in result.stdout
    report = pitstop("config", "validate", "--json", "--lora-rank", "8").json()
    assert list(report) == ["valid", "settings", "from", "notes"]
    assert (report["valid"], report["settings"], report["from"]["flag"]) == (True, len(leaves()), 1)
    assert sum(report["from"].values()) == len(leaves())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lora-rank", "0"], ["--lora-rank", "from 1 to 4096"]),
        (["--model-id", "x"], ["training data", "--dataset"]),
        (["--dataset", "x"], ["no model", "--model-id"]),
        (["--name-template", "{x}"], ["{x}"]),
        (["--hf-username", "a/b"], ["a/b"]),
        (["--method", "lora", "--load-in-4bit"], ["--method", "--load-in-4bit", "contradicts"]),
    ],
)
def test_validate_refuses_with_exit_code_2(pitstop: Cli, arguments: list[str], words: list[str]) -> None:
    result = pitstop("config", "validate", *arguments)
    assert result.code == 2
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def test_validate_looks_under_stronger_sources_too(pitstop: Cli) -> None:
    Path(".env").write_text("LORA_RANK=many\n", encoding="utf-8")
    assert pitstop("config", "show", "--lora-rank", "8").code == 0
    result = pitstop("config", "validate", "--lora-rank", "8")
    assert result.code == 2
    assert ".env line 1 (LORA_RANK)" in result.stderr


def test_without_a_sub_command_the_help_is_shown(pitstop: Cli) -> None:
    result = pitstop("config")
    assert "show" in result.stdout + result.stderr
    assert "validate" in result.stdout + result.stderr


def test_names_of_other_tools_in_env_are_told_in_one_line(pitstop: Cli) -> None:
    Path(".env").write_text("KAGGLE_KEY=k\nLORA_RANK=8\nDEBUG=1\nHF_HOME=/data\n", encoding="utf-8")
    result = pitstop("config", "validate", "--model-id", "some/model", "--dataset", "data.jsonl")
    assert result.code == 0
    assert result.stderr == ".env: passed on, since they are no settings of Pitstop: KAGGLE_KEY, DEBUG.\n"


def test_rank_in_env_is_not_taken_for_a_launchers(pitstop: Cli) -> None:
    Path(".env").write_text("RANK=3\n", encoding="utf-8")
    result = pitstop("config", "validate")
    assert (result.code, result.stdout) == (2, "")
    assert (
        result.stderr
        == "error: .env line 1: RANK is not a setting.\nhint: Did you mean LORA_RANK? If it is another program's, set it in the environment instead of this file.\n"
    )
