"""Names and lines of ``.env`` and of the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import leaves
from pitstop.configs.load import load_settings
from pitstop.configs.sources import apply_foreign, is_foreign, unknown_names

TOKEN = "hf_" + "AbCd1234" * 4

ANOTHER_PROGRAMS = "If it is another program's, set it in the environment instead of this file."


def env(text: str | bytes, environ: dict[str, str] | None = None) -> object:
    Path(".env").write_bytes(text.encode() if isinstance(text, str) else text)
    return load_settings(environ=environ or {})


def refused(text: str | bytes) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        env(text)
    return caught.value


def test_a_misspelt_name_gives_its_line_and_the_nearest_name() -> None:
    error = refused("# a comment\n\nLORA_ALPHA=8\nLORA_RNAK=8\n")
    assert ".env line 4" in error.message
    assert "LORA_RNAK" in error.message
    assert error.hint == f"Did you mean LORA_RANK? {ANOTHER_PROGRAMS}"


@pytest.mark.parametrize("line", ["LORA_RNAK=8", "just words", "LORA_RANK=0"])
def test_blank_lines_and_comments_count(line: str) -> None:
    assert ".env line 6" in refused(f"\n# a comment\nLORA_ALPHA=8\n\n  \n{line}\n").message


def test_a_token_in_the_wrong_place_is_not_shown() -> None:
    error = refused(f"LORA_RANK={TOKEN}\n")
    assert TOKEN not in error.message
    assert "LORA_RANK" in error.message


def test_a_misspelt_prefixed_name_is_suggested_with_its_prefix() -> None:
    assert refused("PITSTOP_LORA_RNAK=8\n").hint == "Did you mean PITSTOP_LORA_RANK?"


def test_a_misspelt_name_in_the_environment_matters_with_the_prefix() -> None:
    with pytest.raises(SettingsError, match="PITSTOP_EPOCSH") as caught:
        load_settings(environ={"PITSTOP_EPOCSH": "3"})
    assert caught.value.hint


def test_a_bare_name_that_is_not_documented_needs_the_prefix() -> None:
    error = refused("LORA_RANK=8\nSEED=7\n")
    assert ".env line 2" in error.message
    assert error.hint == f"Write PITSTOP_SEED. {ANOTHER_PROGRAMS}"


@pytest.mark.parametrize(
    "name", ["KAGGLE_USERNAME", "GITHUB_TOKEN", "DEBUG", "DATABASE_URL", "LR", "kaggle_key", "FAVOURITE_COLOUR"]
)
def test_a_name_like_no_setting_is_another_tools(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    env(f"LORA_RANK=8\n{name}=1\n")
    assert unknown_names() == [name]
    assert apply_foreign() == [name]
    assert os.environ == {name: "1"}


def test_a_nul_is_no_part_of_a_line() -> None:
    assert ".env line 2 is not NAME=value" in refused("LORA_RANK=8\nKAGGLE_KEY=a\0b\n").message


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("RANK", "LORA_RANK"),
        ("LOCAL_RANK", "LORA_RANK"),
        ("WORLD_SIZE", "PITSTOP_NUM_PROCESSES"),
        ("EPOCHS", "NUM_TRAIN_EPOCHS"),
        ("NUM_EPOCHS", "NUM_TRAIN_EPOCHS"),
        ("BATCH_SIZE", "TRAIN_BATCH_SIZE"),
        ("BATCHSIZE", "TRAIN_BATCH_SIZE"),
        ("MODEL", "MODEL_ID"),
        ("lora_rank", "LORA_RANK"),
        ("LORA_R", "LORA_RANK"),
        ("MAX_SEQ_LENGTH", "MAX_LENGTH"),
        ("SAVE_STEP", "PITSTOP_SAVE_STEPS"),
    ],
)
def test_a_name_that_resembles_a_setting_is_refused_with_it(name: str, setting: str) -> None:
    error = refused(f"{name}=8\n")
    assert ".env line 1" in error.message and name in error.message
    assert error.hint == f"Did you mean {setting}? {ANOTHER_PROGRAMS}"
    with pytest.raises(SettingsError):
        apply_foreign()


def test_the_same_name_twice_names_both_lines() -> None:
    error = refused("LORA_RANK=8\n# and\nLORA_RANK=16\n")
    assert ".env line 3" in error.message
    assert "line 1" in error.message


def test_a_line_that_is_no_assignment_is_named_and_not_shown() -> None:
    error = refused(f"LORA_RANK=8\n{TOKEN}\n")
    assert ".env line 2" in error.message
    assert TOKEN not in error.message + str(error.hint)


@pytest.mark.parametrize(
    "line", [f"HF_TOKEN='{TOKEN} x'", f"HF_TOKNE={TOKEN}", f'HF_TOKEN="{TOKEN}', f"{TOKEN}=x", f"export {TOKEN}"]
)
def test_no_message_shows_a_token(line: str) -> None:
    error = refused(f"LORA_RANK=8\n{line}\n")
    assert TOKEN not in error.message + str(error.hint)
    assert "line 2" in error.message


def test_a_slip_of_the_token_name_is_not_taken_for_a_variable_of_the_hub_client() -> None:
    assert refused(f"HF_TOKNE={TOKEN}\n").hint == f"Did you mean HF_TOKEN? {ANOTHER_PROGRAMS}"


@pytest.mark.parametrize(
    "name",
    [
        "HF_HOME",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "HF_ENDPOINT",
        "HUGGING_FACE_HUB_TOKEN",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "WANDB_API_KEY",
        "MLFLOW_TRACKING_URI",
        "TRACKIO_DIR",
        "NCCL_DEBUG",
        "GLOO_SOCKET_IFNAME",
        "TORCH_HOME",
        "TORCHINDUCTOR_CACHE_DIR",
        "PYTORCH_CUDA_ALLOC_CONF",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "KMP_AFFINITY",
        "TOKENIZERS_PARALLELISM",
        "TRANSFORMERS_VERBOSITY",
        "ACCELERATE_USE_CPU",
        "BITSANDBYTES_NOWELCOME",
        "BNB_CUDA_VERSION",
        "XDG_CACHE_HOME",
        "http_proxy",
        "HTTPS_PROXY",
        "No_Proxy",
        "TMPDIR",
        "PYTHONUNBUFFERED",
        "PYTHONPATH",
        "AWS_PROFILE",
    ],
)
def test_well_known_names_of_other_tools_are_allowed(name: str) -> None:
    assert is_foreign(name)
    env(f"{name}=1\n")


def test_no_setting_passes_for_a_foreign_name_when_it_is_written_bare() -> None:
    undocumented = [leaf.env for leaf in leaves() if not leaf.documented]
    assert not [name for name in undocumented if is_foreign(name)]


def test_quotes_export_comments_crlf_and_a_byte_order_mark_are_read() -> None:
    text = "export LORA_RANK='8'  # eight\r\n\r\nEXPERIMENT_NAME=\"high lr\"\r\nLEARNING_RATE = 1e-4\r\n"
    loaded = env(b"\xef\xbb\xbf" + text.encode())
    settings = loaded.settings  # type: ignore[attr-defined]
    assert (settings.lora.rank, settings.naming.experiment_name, settings.training.learning_rate) == (8, "high lr", 1e-4)
    assert loaded.sources["training.learning_rate"].place == ".env line 4 (LEARNING_RATE)"  # type: ignore[attr-defined]


def test_variables_are_filled_in_from_earlier_lines_and_the_environment() -> None:
    loaded = env("HF_HOME=/data\nOUTPUT_DIR=${HF_HOME}/${WHO:-nobody}/runs\n", {"WHO": "me"})
    assert loaded.settings.training.checkpoint.base_dir == "/data/me/runs"  # type: ignore[attr-defined]


def test_a_name_template_keeps_its_braces() -> None:
    loaded = env("PITSTOP_NAME_TEMPLATE={model}-{timestamp}\n")
    assert loaded.settings.naming.template == "{model}-{timestamp}"  # type: ignore[attr-defined]


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"no file nowhere\.env"):
        load_settings(env_file=Path("nowhere.env"), environ={})


def test_a_directory_and_other_encodings_are_one_message() -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(env_file=Path(), environ={})
    assert "UTF-8" in refused(b"EXPERIMENT_NAME=\xff\xfe\n").message


def test_foreign_names_are_exported_and_the_environment_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HF_HOME": "/mine"})
    Path(".env").write_text("HF_HOME=/theirs\nCUDA_VISIBLE_DEVICES=1\nLORA_RANK=8\nHF_TOKEN=x\n", encoding="utf-8")
    assert apply_foreign() == ["CUDA_VISIBLE_DEVICES"]
    assert os.environ == {"HF_HOME": "/mine", "CUDA_VISIBLE_DEVICES": "1"}


def test_without_a_file_nothing_is_exported() -> None:
    assert apply_foreign() == []
