"""Which source wins, and what is remembered about it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import leaves
from pitstop.configs.load import load_recorded, load_settings, settings_to_dict
from pitstop.configs.sources import Source


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def refused(**arguments: object) -> SettingsError:
    arguments.setdefault("environ", {})
    with pytest.raises(SettingsError) as caught:
        load_settings(**arguments)  # type: ignore[arg-type]
    return caught.value


def test_each_source_beats_the_ones_below_it() -> None:
    write("a.yaml", "lora: {rank: 1, alpha: 1, dropout: 0.1}\ntraining: {epochs: 1, seed: 1, batch_size: 1}\n")
    write("b.yaml", "lora: {alpha: 2, dropout: 0.2}\ntraining: {epochs: 2, seed: 2}\n")
    write(".env", "LORA_DROPOUT=0.3\nNUM_TRAIN_EPOCHS=3\nPITSTOP_SEED=3\n")
    loaded = load_settings(
        flags={"training.seed": "5"},
        config_files=["a.yaml", "b.yaml"],
        environ={"MODEL_ID": "m", "NUM_TRAIN_EPOCHS": "4", "PITSTOP_SEED": "4"},
    )
    lora, training = loaded.settings.lora, loaded.settings.training
    assert (lora.rank, lora.alpha, lora.dropout, training.epochs, training.seed) == (1, 2, 0.3, 4, 5)
    assert training.gradient_accumulation_steps == 2
    where = {path: source.place for path, source in loaded.sources.items()}
    assert where["lora.rank"] == "a.yaml line 1"
    assert where["training.batch_size"] == "a.yaml line 2"
    assert where["lora.alpha"] == "b.yaml line 1"
    assert where["lora.dropout"] == ".env line 1 (LORA_DROPOUT)"
    assert where["training.epochs"] == "NUM_TRAIN_EPOCHS"
    assert where["training.seed"] == "--seed"
    assert loaded.sources["training.gradient_accumulation_steps"] == Source("default", "default")
    kinds = {path: source.kind for path, source in loaded.sources.items()}
    assert [kinds[p] for p in ("lora.rank", "lora.dropout", "training.epochs", "training.seed")] == [
        "config",
        "env-file",
        "environment",
        "flag",
    ]


def test_every_setting_has_a_source() -> None:
    assert list(load_settings(environ={}).sources) == [leaf.path for leaf in leaves()]


def test_the_prefixed_name_beats_the_bare_one_in_the_environment_and_in_the_file() -> None:
    environ = {"LORA_RANK": "4", "PITSTOP_LORA_RANK": "8"}
    assert load_settings(environ=environ).settings.lora.rank == 8
    for order in ("LORA_RANK=4\nPITSTOP_LORA_RANK=8\n", "PITSTOP_LORA_RANK=8\nLORA_RANK=4\n"):
        write(".env", order)
        loaded = load_settings(environ={})
        assert loaded.settings.lora.rank == 8
        assert "PITSTOP_LORA_RANK" in loaded.sources["lora.rank"].place


def test_the_bare_name_in_the_environment_beats_the_prefixed_one_in_the_file() -> None:
    write(".env", "PITSTOP_LORA_RANK=8\n")
    assert load_settings(environ={"LORA_RANK": "4"}).settings.lora.rank == 4


def test_bare_names_that_are_not_documented_are_none_of_our_business_in_the_environment() -> None:
    loaded = load_settings(environ={"SEED": "7", "MODE": "max", "TASK": "build", "LORA_RNAK": "8"})
    assert loaded.settings.training.seed == 42
    assert loaded.settings.training.checkpoint.mode == "min"


def test_a_named_env_file_is_read_instead_of_the_default_one() -> None:
    write(".env", "LORA_RANK=4\n")
    other = write("other.env", "LORA_ALPHA=8\n")
    lora = load_settings(env_file=other, environ={"MODEL_ID": "m"}).settings.lora
    assert (lora.rank, lora.alpha) == (32, 8)


def test_a_false_flag_is_named_as_it_was_written() -> None:
    assert load_settings(flags={"data.packing": False}, environ={}).sources["data.packing"].place == "--no-packing"


def test_an_unknown_flag_path_suggests_the_nearest() -> None:
    error = refused(flags={"lora.rnak": 8})
    assert "lora.rnak" in error.message
    assert error.hint == "Did you mean lora.rank?"


@pytest.mark.parametrize(
    ("given", "method", "in_4bit"),
    [
        ({}, "qlora", True),
        ({"training.method": "lora"}, "lora", False),
        ({"training.method": "qlora"}, "qlora", True),
        ({"quantization.load_in_4bit": False}, "lora", False),
        ({"quantization.load_in_4bit": True}, "qlora", True),
        ({"training.method": "lora", "quantization.load_in_4bit": False}, "lora", False),
    ],
)
def test_method_and_4bit_follow_from_each_other(given: dict[str, object], method: str, in_4bit: bool) -> None:
    loaded = load_settings(flags=given, environ={})
    assert (loaded.settings.training.method, loaded.settings.quantization.load_in_4bit) == (method, in_4bit)
    if given:
        assert loaded.sources["training.method"].kind == loaded.sources["quantization.load_in_4bit"].kind == "flag"


def test_method_and_4bit_that_contradict_each_other_name_both_sources() -> None:
    write(".env", "LOAD_IN_4BIT=true\n")
    error = refused(flags={"training.method": "lora"})
    assert "--method" in error.message
    assert ".env line 1 (LOAD_IN_4BIT)" in error.message


def test_a_base_that_is_not_saved_cannot_be_pushed() -> None:
    write("push.yaml", "hub:\n  push_base: true\n")
    error = refused(config_files=["push.yaml"], environ={"PITSTOP_SAVE_BASE_MODEL": "false"})
    assert "hub.push_base (push.yaml" in error.message
    assert "PITSTOP_SAVE_BASE_MODEL" in error.message


def test_checkpoints_turned_off_are_the_strategy_no() -> None:
    write("off.yaml", "training: {checkpoint: {enabled: false, strategy: epoch}}")
    loaded = load_settings(config_files=["off.yaml"], environ={"SAVE_STRATEGY": "steps"})
    assert loaded.settings.training.checkpoint.strategy == "no"
    assert loaded.sources["training.checkpoint.strategy"].place == "off.yaml line 1"
    assert (
        strategy(config_files=["off.yaml"], environ={"PITSTOP_CHECKPOINT_ENABLED": "true", "SAVE_STRATEGY": "steps"}) == "steps"
    )
    assert strategy(environ={"PITSTOP_CHECKPOINT_ENABLED": "false"}) == "no"
    assert strategy(config_files=["off.yaml"], flags={"training.checkpoint.strategy": "steps"}) == "steps"
    assert "PITSTOP_CHECKPOINT_ENABLED: 'maybe'" in refused(environ={"PITSTOP_CHECKPOINT_ENABLED": "maybe"}).message


def strategy(environ: Mapping[str, str] | None = None, **sources: Any) -> str:
    return load_settings(environ=environ or {}, **sources).settings.training.checkpoint.strategy


@pytest.mark.parametrize("enabled", [True, False])
def test_a_run_of_an_earlier_version_has_the_strategy_that_it_was_started_with(enabled: bool) -> None:
    started = {"training": {"checkpoint": {"enabled": enabled, "strategy": "epoch" if enabled else "no"}}}
    loaded = load_recorded(started, environ={})
    assert loaded.settings.training.checkpoint.strategy == ("epoch" if enabled else "no") and loaded.notes == []
    assert "enabled" not in settings_to_dict(loaded.settings)["training"]["checkpoint"]
    other = load_recorded(started, flags={"training.checkpoint.strategy": "steps"}, environ={})
    assert other.settings.training.checkpoint.strategy == "steps"


class TestDemo:
    def test_neither_model_nor_data_takes_the_demo_and_says_so(self) -> None:
        loaded = load_settings(environ={}, require_model_and_data=True)
        assert loaded.settings.model.id == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert loaded.settings.data.train == ["example:medical_ner/train.jsonl"]
        assert loaded.sources["model.id"].kind == "preset"
        (note,) = loaded.notes
        for part in ("demo", "MODEL_ID", "DATASET_PATH", "--model-id", "--dataset"):
            assert part in note
        assert "\n" not in note

    def test_the_demo_is_beneath_every_other_source(self) -> None:
        write("a.yaml", "data: {eval: mine.jsonl}\n")
        loaded = load_settings(config_files=["a.yaml"], environ={"PITSTOP_MODEL_REVISION": "main"})
        assert loaded.settings.data.eval == ["mine.jsonl"]
        assert loaded.settings.model.revision == "main"

    def test_empty_names_count_as_not_set(self) -> None:
        loaded = load_settings(environ={"MODEL_ID": "", "DATASET_PATH": ""})
        assert loaded.settings.model.id == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert loaded.settings.data.train == ["example:medical_ner/train.jsonl"]

    def test_named_as_a_preset_it_says_nothing(self) -> None:
        assert load_settings(config_files=["demo"], environ={}).notes == []

    @pytest.mark.parametrize(("name", "missing"), [("MODEL_ID", "--dataset"), ("DATASET_PATH", "--model-id")])
    def test_one_without_the_other_is_refused_for_training_only(self, name: str, missing: str) -> None:
        environ = {name: "x"}
        assert missing in str(refused(environ=environ, require_model_and_data=True).hint)
        loaded = load_settings(environ=environ)
        assert (loaded.settings.model.id == "x") != (loaded.settings.data.train == ["x"])
        assert loaded.notes == []


class TestResume:
    base: ClassVar = {
        "lora": {"rank": 8},
        "model": {"id": "m"},
        "data": {"train": ["d"]},
        "training": {"method": "qlora", "epochs": 10},
    }

    def test_only_flags_override_the_run_and_the_environment_gives_the_token(self) -> None:
        write(".env", "LORA_ALPHA=1\n")
        loaded = load_recorded(
            self.base,
            "run_003/config.json",
            flags={"training.epochs": "15"},
            environ={"LORA_RANK": "4", "LEARNING_RATE": "1", "HF_TOKEN": "hf_token"},
        )
        settings = loaded.settings
        assert (settings.lora.rank, settings.lora.alpha, settings.training.learning_rate) == (8, 64, 5e-5)
        assert settings.training.epochs == 15
        assert settings.hub.token_value == "hf_token"
        assert loaded.sources["lora.rank"] == Source("run", "run_003/config.json")
        assert loaded.notes == []

    def test_a_run_without_model_and_data_does_not_turn_into_the_demo(self) -> None:
        assert load_recorded({}, environ={}).settings.model.id is None

    def test_settings_survive_the_way_through_a_run(self) -> None:
        settings = load_settings(flags={"lora.target_modules": ["q", "v"], "training.eval_steps": 7}, environ={}).settings
        again = load_recorded(settings_to_dict(settings), environ={}).settings
        assert again == settings

    @pytest.mark.parametrize("flags", [{"training.method": "lora"}, {"quantization.load_in_4bit": False}])
    def test_a_flag_decides_method_and_4bit_against_what_the_run_recorded(self, flags: dict[str, object]) -> None:
        base = {"training": {"method": "qlora"}, "quantization": {"load_in_4bit": True}}
        loaded = load_recorded(base, flags=flags, environ={})
        assert (loaded.settings.training.method, loaded.settings.quantization.load_in_4bit) == ("lora", False)
        assert loaded.sources["training.method"].kind == loaded.sources["quantization.load_in_4bit"].kind == "flag"

    def test_an_unknown_key_of_the_run_is_named(self) -> None:
        with pytest.raises(SettingsError, match=r"run_003/config\.json") as caught:
            load_recorded({"lora": {"rankk": 8}}, "run_003/config.json", environ={})
        assert caught.value.hint == "Did you mean lora.rank?"


def test_values_under_a_stronger_source_are_checked_on_request_only() -> None:
    write(".env", "LORA_RANK=many\n")
    assert load_settings(environ={"LORA_RANK": "4"}).settings.lora.rank == 4
    assert ".env line 1 (LORA_RANK)" in refused(environ={"LORA_RANK": "4"}, check_overridden=True).message


def test_the_dictionary_has_every_setting_but_the_secrets() -> None:
    settings = load_settings(environ={"HF_TOKEN": "hf_secretsecretsecret1"}).settings
    nested = settings_to_dict(settings)
    assert "token" not in nested["hub"]
    assert "secretsecret" not in repr(nested)
    assert "secretsecret" not in repr(settings)
    found, paths = set(), {leaf.path for leaf in leaves()}
    for path in paths:
        value = nested
        for part in path.split("."):
            value = value.get(part, KeyError) if isinstance(value, dict) else KeyError
        if value is not KeyError:
            found.add(path)
    assert paths - found == {"hub.token"}


class TestWhatIsRecordedAndNotSet:
    def test_a_run_of_before_lengths_were_settings_leaves_long_documents_out(self) -> None:
        assert load_recorded({}).settings.data.too_long == "drop" and load_recorded({}).settings.data.overlap == 0
        assert load_recorded(settings_to_dict(load_settings(environ={}).settings)).settings.data.too_long == "auto"

    def test_a_new_run_has_the_present_rendering_and_one_without_a_record_the_first(self) -> None:
        assert settings_to_dict(load_settings(environ={}).settings)["data"]["rendering"] == 2
        assert load_recorded({}, environ={}).settings.data.rendering == 1
        assert load_recorded({"data": {"rendering": 2}}, environ={}).settings.data.rendering == 2

    def test_nobody_sets_it(self) -> None:
        write("a.yaml", "data:\n  rendering: 1\n")
        assert "rendering is not a setting" in refused(config_files=["a.yaml"], environ={}).message
        assert "data.rendering is not a setting" in refused(flags={"data.rendering": 1}, environ={}).message


def test_the_day_that_templates_are_told_is_a_day() -> None:
    assert load_settings(flags={"data.template_date": "2026-01-05"}, environ={}).settings.data.template_date == "2026-01-05"
    for text in ("yesterday", "20260105", "2026-02-30"):
        assert f"'{text}' is not a day such as 2026-01-31" in refused(flags={"data.template_date": text}, environ={}).message
    images = refused(flags={"data.template_date": "2026-01-05", "training.task": "diffusion"}, environ={})
    assert "--template-date) is for text" in images.message
