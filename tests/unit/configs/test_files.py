"""``--config`` files and shipped presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pitstop.configs.errors import SettingsError
from pitstop.configs.files import preset_names
from pitstop.configs.load import load_settings


def load(text: str, name: str = "conf.yaml") -> Any:
    Path(name).write_text(text, encoding="utf-8")
    return load_settings(config_files=[name], environ={}).settings


def refused(text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert caught.value.message.startswith("conf.yaml")
    return caught.value


def test_a_misspelt_nested_key_gives_its_line_and_the_nearest_key() -> None:
    error = refused("lora:\n  rank: 8\ntraining:\n  checkpoint:\n    keep_lastn: 3\n")
    assert "conf.yaml line 5" in error.message
    assert error.hint == "Did you mean training.checkpoint.keep_last_n?"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("lroa: {rank: 8}", "lora"),
        ("lora_rank: 8", "lora.rank"),
        ("epochs: 3", "training.epochs"),
        ("training: {num_train_epochs: 3}", "training.epochs"),
        ("training: {rank: 3}", "lora.rank"),
        ("training: {rank: {candidates: 3}}", "rank"),
        ("lora: {r_ank: 3}", "lora.rank"),
        ("checkpoint: {mode: min}", "training.checkpoint"),
    ],
)
def test_a_key_in_the_wrong_place_is_led_to_the_right_one(text: str, path: str) -> None:
    hint = str(refused(text).hint)
    assert hint == f"Did you mean {path}?"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lora: 8", ["line 1", "group", "rank"]),
        ("lora: {rank: {value: 8}}", ["line 1", "lora.rank"]),
        ("data:\n  train: [[a]]", ["line 2", "data.train"]),
        ("- a\n- b", ["key: value"]),
        ("just words", ["key: value"]),
        ("lora:\n  rank: 8\n  rank: 9", ["line 3", "line 2"]),
        ("lora: {rank: 8}\nlora: {alpha: 8}", ["line 2", "line 1"]),
        ("lora: {rank: [8", ["line 1", "YAML"]),
        ("a: b: c", ["line 1", "YAML"]),
        ("lora:\n\trank: 8", ["line 2", "YAML"]),
        ("model: {id: !!python/object/apply:os.getcwd []}", ["line 1", "model.id"]),
        ("model: {id: !!python/name:os.system x}", ["line 1", "tag"]),
        ("lora: {rank: 0}", ["line 1", "'0'", "from 1 to 4096"]),
        ("? [a, b]\n: 1", ["line 1", "key"]),
        ("lora: {rank: 8}\n---\nlora: {rank: 9}", ["line 2", "YAML"]),
        ("<<: {a: 1}", ["line 1", "<<"]),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, words: list[str]) -> None:
    error = refused(text)
    for word in words:
        assert word in error.message + str(error.hint)


@pytest.mark.parametrize("text", ["training: " + "[" * 5000, "{a: " * 5000], ids=["lists", "mappings"])
def test_settings_nested_past_what_the_parser_takes_are_refused(text: str) -> None:
    assert refused(text).message == "conf.yaml: lists and mappings are nested too deeply for settings."


def test_scalars_mean_what_their_setting_wants() -> None:
    settings = load(
        """
training: {learning_rate: 5e-5, epochs: "7", checkpoint: {strategy: no, enabled: on, keep_last_n: none}}
naming: {custom_id: 007, experiment_name: 2024-01-15}
lora: {target_modules: [q_proj, v_proj]}
data: {train: "a.jsonl, b.jsonl"}
model:
hub: {username: null}
"""
    )
    assert (settings.training.learning_rate, settings.training.epochs) == (5e-5, 7)
    assert (settings.training.checkpoint.strategy, settings.training.checkpoint.keep_last_n) == ("no", None)
    assert (settings.naming.custom_id, settings.naming.experiment_name) == ("007", "2024-01-15")
    assert settings.lora.target_modules == ["q_proj", "v_proj"]
    assert settings.data.train == ["a.jsonl", "b.jsonl"]


def test_an_empty_file_sets_nothing() -> None:
    empty = load("# nothing yet\n")
    assert empty == load_settings(environ={}).settings


def test_a_token_in_a_file_is_used_and_never_shown() -> None:
    token = "hf_" + "x1Y2" * 8
    assert load(f"hub: {{token: {token}}}").hub.token_value == token
    error = refused(f"hub: {{token: {token}, tokn: 1}}")
    assert token not in error.message + str(error.hint)
    assert token not in refused(f"hub: {{token: '{token} {token}'}}").message


class TestPresets:
    @pytest.mark.parametrize("name", preset_names())
    def test_every_shipped_preset_loads(self, name: str) -> None:
        of_images = {"training.task": "diffusion"} if name == "lora/blockwise_config" else {}
        loaded = load_settings(config_files=[name], flags=of_images, environ={})
        assert any(source.place.startswith(f"preset {name} line") for source in loaded.sources.values())

    def test_the_demo_pins_its_model(self) -> None:
        settings = load_settings(config_files=["demo"], environ={}).settings
        assert len(settings.model.revision or "") == 40

    def test_the_documented_block_of_the_checkpoint_settings_works(self) -> None:
        checkpoint = load_settings(config_files=["training/lora_finetuning"], environ={}).settings.training.checkpoint
        assert (checkpoint.strategy, checkpoint.base_dir, checkpoint.run_number) == ("epoch", "checkpoints", None)
        assert (checkpoint.keep_last_n, checkpoint.monitor, checkpoint.mode) == (5, "val_loss", "min")

    def test_the_preset_of_base_training_trains_all_weights(self) -> None:
        training = load_settings(config_files=["configs/training/base_training.yaml"], environ={}).settings.training
        assert (training.method, training.epochs, training.checkpoint.keep_last_n) == ("full", 3, 3)

    def test_the_path_that_the_documents_use_means_the_preset(self) -> None:
        loaded = load_settings(config_files=["configs/training/lora_finetuning.yaml"], environ={})
        assert loaded.sources["training.checkpoint.monitor"].kind == "preset"

    def test_a_file_of_ones_own_at_that_path_wins(self) -> None:
        Path("configs/training").mkdir(parents=True)
        Path("configs/training/lora_finetuning.yaml").write_text("lora: {rank: 3}\n", encoding="utf-8")
        loaded = load_settings(config_files=["configs/training/lora_finetuning.yaml"], environ={})
        assert loaded.settings.lora.rank == 3

    def test_the_medical_preset_is_the_set_up_of_the_document(self) -> None:
        settings = load_settings(config_files=["medical_ner"], environ={}).settings
        assert settings.model.id == "meta-llama/Llama-3.2-3B-Instruct"
        assert (settings.training.task, settings.training.method, settings.hub.push) == ("ner", "qlora", True)
        checkpoint = settings.training.checkpoint
        assert (checkpoint.strategy, checkpoint.save_steps) == ("steps", 100)
        assert settings.data.train == settings.data.eval == [], "the data is the user's"

    def test_an_unknown_word_lists_the_presets(self) -> None:
        with pytest.raises(SettingsError, match="demmo") as caught:
            load_settings(config_files=["demmo"], environ={})
        assert "Did you mean demo?" in str(caught.value.hint)
        assert "training/lora_finetuning" in str(caught.value.hint)

    def test_a_missing_file_is_not_taken_for_a_preset(self) -> None:
        with pytest.raises(SettingsError, match=r"no file demo\.yaml"):
            load_settings(config_files=["demo.yaml"], environ={})

    def test_a_file_without_a_suffix_is_read(self) -> None:
        Path("mine").write_text("lora: {rank: 3}\n", encoding="utf-8")
        assert load_settings(config_files=["mine"], environ={}).settings.lora.rank == 3


# Presets of the ranking data sets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["beauty", "games", "yelp2020", "ml-100k"])
def test_a_data_set_s_code_is_the_name_of_its_preset(code: str) -> None:
    loaded = load_settings(config_files=[code], environ={}, require_model_and_data=True)
    settings = loaded.settings
    training, checkpoint, lora, rank = settings.training, settings.training.checkpoint, settings.lora, settings.rank
    assert settings.model.id == "meta-llama/Llama-2-7b-hf"
    assert settings.data.train == [f"data/{code}"]
    assert (training.task, training.method, training.learning_rate) == ("rank", "qlora", 1e-4)
    assert (lora.rank, lora.alpha, lora.dropout, lora.target_modules) == (8, 32, 0.05, ["q_proj", "v_proj"])
    assert (checkpoint.strategy, checkpoint.save_steps, checkpoint.keep_last_n) == ("steps", 500, 3)
    assert (checkpoint.monitor, checkpoint.mode) == ("ndcg@10", "max")
    assert (rank.candidates, rank.history, rank.title_tokens, rank.min_interactions) == (20, 20, 32, 5)
    assert settings.evaluation.score_examples is None


def test_what_the_documents_change_can_be_changed() -> None:
    flags = {"training.learning_rate": 5e-5, "training.epochs": 5, "training.batch_size": 2}
    training = load_settings(config_files=["beauty"], flags=flags, environ={}).settings.training
    assert (training.learning_rate, training.epochs, training.batch_size) == (5e-5, 5, 2)


def test_columns_and_roles_may_be_mappings() -> None:
    text = "data: {columns: {prompt: question, completion: 'answers.text[0]', system: }, roles: {critic: assistant}}"
    Path("conf.yaml").write_text(text)
    data = load_settings(config_files=["conf.yaml"], environ={}).settings.data
    assert data.columns == ["prompt=question", "completion=answers.text[0]", "system="] and data.roles == ["critic=assistant"]
    assert "data.train must be a value or a list" in refused("data: {train: {a: b}}").message


@pytest.mark.parametrize("value", ["[low, high]", "{roles: user}", "[]"])
def test_what_stands_behind_a_name_is_a_single_value(value: str) -> None:
    complaint = refused(f"data: {{template_options: {{effort: {value}}}}}")
    assert complaint.message == "conf.yaml line 1: data.template_options.effort must be a single value."
    assert complaint.hint == "Write one text or number behind each name."
