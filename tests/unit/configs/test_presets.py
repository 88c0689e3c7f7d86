"""The shipped presets of the ranking data sets say what the documents say."""

from __future__ import annotations

import pytest

from pitstop.configs.load import load_settings

CODES = ["beauty", "games", "yelp2020", "ml-100k"]


@pytest.mark.parametrize("code", CODES)
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
