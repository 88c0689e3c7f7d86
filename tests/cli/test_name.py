"""``pitstop name``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.cli import Cli, pitstop_process

PHI = {"MODEL_ID": "microsoft/Phi-3-mini-4k-instruct", "DATASET_PATH": "dataset_minimal.jsonl", "NUM_TRAIN_EPOCHS": "20"}
ORACLE = "phi3mini4k-minimal-r32-a64-e20-20240914-143022"
AT = ("--at", "2024-09-14T14:30:22")


@pytest.fixture
def phi(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PHI.items():
        monkeypatch.setenv(name, value)


def test_the_oracle_in_a_process_of_its_own_and_nothing_else() -> None:
    result = pitstop_process("name", "--simple", *AT, env=PHI)
    assert (result.code, result.stdout, result.stderr) == (0, f"{ORACLE}\n", "")


def test_the_timestamped_oracle(pitstop: Cli) -> None:
    flags = ("--name-scheme", "timestamped", "--name-prefix", "llama3-medical-ner-lora")
    result = pitstop("name", "--simple", *flags, "--at", "2024-01-15T14:30:22")
    assert result.stdout == "llama3-medical-ner-lora-20240115_143022\n"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ((), "llama3-medical-ner-lora-20240115_143022"),
        (("--experiment-name", "high-lr-test"), "llama3-medical-ner-lora-high-lr-test-20240115_143022"),
        (("--custom-id", "experiment-v1"), "llama3-medical-ner-lora-experiment-v1"),
        (("--short",), "llama3-medical-ner-lora-0115_1430"),
    ],
)
def test_the_preset_of_the_medical_documents(pitstop: Cli, flags: tuple[str, ...], name: str) -> None:
    words = ("name", "--config", "medical_ner", "--simple", "--at", "2024-01-15T14:30:22", *flags)
    assert pitstop(*words).stdout == f"{name}\n"
    assert pitstop(*words, "--hub", "--hf-username", "your-username").stdout == f"your-username/{name}\n"


def test_a_config_file_and_an_env_file_are_read(pitstop: Cli) -> None:
    Path("a.yaml").write_text("lora: {rank: 8}\n", encoding="utf-8")
    Path("x.env").write_text("LORA_ALPHA=16\nMODEL_ID=org/m\nDATASET_PATH=d.jsonl\n", encoding="utf-8")
    result = pitstop("name", "--simple", "--config", "a.yaml", "--env-file", "x.env", "--no-timestamp")
    assert result.stdout == "m-d-r8-a16-e5\n"


@pytest.mark.usefixtures("phi")
@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--short"], "phi3mini4k-minimal-r32-a64-e20-0914_1430"),
        (["--no-timestamp"], "phi3mini4k-minimal-r32-a64-e20"),
        (["--simple", "--lora-rank", "8", "--lora-alpha=16", "--epochs", "3"], "phi3mini4k-minimal-r8-a16-e3-20240914-143022"),
        (["--simple", "--custom-id", "v1"], "phi3mini4k-minimal-r32-a64-e20-v1"),
        (["--hub", "--hf-username", "me"], f"me/{ORACLE}"),
        (["--simple", "--dataset", "a.jsonl", "--dataset", "b.jsonl"], "phi3mini4k-a-r32-a64-e20-20240914-143022"),
    ],
)
def test_one_line_for_what_was_asked(pitstop: Cli, flags: list[str], name: str) -> None:
    assert pitstop("name", *AT, *flags).stdout == f"{name}\n"


@pytest.mark.usefixtures("phi")
def test_with_hash_gives_one_line_too(pitstop: Cli) -> None:
    result = pitstop("name", *AT, "--with-hash")
    assert re.fullmatch(r"phi3mini4k-minimal-r32-a64-e20-[0-9a-f]{8}-20240914-143022\n", result.stdout)


@pytest.mark.usefixtures("phi")
def test_without_flags_every_scheme_is_listed(pitstop: Cli) -> None:
    lines = pitstop("name", *AT, "--hf-username", "me", "--name-template", "mine-{rank}").stdout.splitlines()
    assert lines[0].split() == ["Scheme", "Name", "How"]
    text = "\n".join(lines)
    for name in ("mine-32", ORACLE, "phi3mini4k-minimal-lora-20240914_143022", "me/mine-32", "--no-timestamp", "--with-hash"):
        assert name in text


@pytest.mark.usefixtures("phi")
def test_full_config_shows_every_setting_with_its_source(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret12")
    result = pitstop("name", "--full-config", *AT, "--lora-rank", "8")
    assert ORACLE.replace("r32", "r8") in result.stdout
    assert re.search(r"lora\.rank +8 +--lora-rank", result.stdout)
    assert re.search(r"training\.epochs +20 +NUM_TRAIN_EPOCHS", result.stdout)
    assert re.search(r"hub\.token +<hidden> +HF_TOKEN", result.stdout)
    assert "secretsecret" not in result.stdout + result.stderr


@pytest.mark.usefixtures("phi")
def test_json_has_stable_keys_and_no_token(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret12")
    monkeypatch.setenv("HF_USERNAME", "me")
    result = pitstop("name", "--json", *AT)
    report = result.json()
    assert list(report) == ["name", "hub_id", "at", "schemes", "settings", "sources", "notes", "saved_to"]
    assert (report["name"], report["hub_id"], report["saved_to"]) == (ORACLE, f"me/{ORACLE}", None)
    assert report["settings"]["training"]["epochs"] == 20
    assert report["sources"]["training.epochs"] == {"kind": "environment", "where": "NUM_TRAIN_EPOCHS"}
    assert "secretsecret" not in result.stdout


@pytest.mark.usefixtures("phi")
def test_save_metadata_keeps_a_record_and_never_overwrites_one(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret12")
    first = pitstop("name", "--simple", "--save-metadata", *AT, "--base-dir", "runs")
    second = pitstop("name", "--json", "--save-metadata", *AT, "--base-dir", "runs")
    path = Path("runs/names") / f"{ORACLE}.json"
    assert first.stdout == f"{ORACLE}\n"
    assert str(path) in first.stderr
    assert second.json()["saved_to"] == str(path.with_name(f"{ORACLE}-2.json"))
    record = json.loads(path.read_text(encoding="utf-8"))
    assert (record["format_version"], record["name"], record["settings"]["lora"]["rank"]) == (1, ORACLE, 32)
    assert "secretsecret" not in path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("phi")
def test_a_preview_writes_nothing(pitstop: Cli) -> None:
    for flags in ([], ["--simple"], ["--json"], ["--full-config"]):
        assert pitstop("name", *flags).code == 0
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("phi")
def test_a_name_that_a_run_has_is_counted_up_as_train_would(pitstop: Cli) -> None:
    Path("checkpoints/by-name").mkdir(parents=True)
    Path("checkpoints/by-name", ORACLE).symlink_to("../run_001")
    result = pitstop("name", "--simple", *AT)
    assert result.stdout == f"{ORACLE}-2\n"
    assert ORACLE in result.stderr


@pytest.mark.usefixtures("phi")
def test_a_name_that_is_too_long_is_shortened_and_says_so(pitstop: Cli) -> None:
    result = pitstop("name", "--simple", "--name-scheme", "timestamped", "--experiment-name", "x" * 90, *AT)
    assert len(result.stdout.strip()) == 96
    assert "characters long" in result.stderr


def test_without_model_and_data_it_names_the_demo_and_says_so(pitstop: Cli) -> None:
    result = pitstop("name", "--simple", *AT)
    assert result.stdout == "smollm2135-medicalner-r16-a32-e2-20240914-143022\n"
    assert "demo" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--at", "yesterday"], ["--at", "yesterday", "2024-09-14T14:30:22"]),
        (["--lora-rank", "-1"], ["--lora-rank", "-1", "from 1 to 4096"]),
        (["--learning-rate", "abc"], ["--learning-rate", "abc", "above 0"]),
        (["--max-length", "0"], ["--max-length", "from 8 to"]),
        (["--name-template", "{modle}"], ["{modle}", "{model}"]),
        (["--hub"], ["HF_USERNAME"]),
        (["--lora-rnak", "8"], ["--lora-rnak", "--lora-rank"]),
        (["--packing", "--no-packing"], ["--packing", "--no-packing"]),
        (["--config", "demmo"], ["demmo", "demo"]),
        (["--env-file", "no.env"], ["no.env"]),
    ],
)
def test_mistakes_are_one_message_with_exit_code_2(pitstop: Cli, arguments: list[str], words: list[str]) -> None:
    result = pitstop("name", "--simple", *arguments) if arguments != ["--hub"] else pitstop("name", *arguments)
    assert result.code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_a_misspelt_name_in_the_env_file_is_one_message(pitstop: Cli) -> None:
    Path(".env").write_text("LORA_RNAK=8\n", encoding="utf-8")
    result = pitstop("name", "--simple")
    assert result.code == 2
    assert ".env line 1" in result.stderr
    assert "LORA_RANK" in result.stderr
