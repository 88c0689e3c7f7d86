"""Token ids and positions that a model does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pitstop.configs.errors import ModelError, SettingsError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import in_memory
from pitstop.trainers.models.limits import ModelLimits
from pitstop.trainers.models.source import ModelSource

SOURCE = ModelSource("my/model", Path("model"), None)


def architecture(model_type: str, positions: int = 32) -> Any:
    """A small model of this type on the device ``meta``."""
    sizes = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = {"n_positions": positions} if model_type in ("gpt2", "gptj") else {"max_position_embeddings": positions}
    more = {"ffn_dim": 32, "word_embed_proj_dim": 16} if model_type == "opt" else {}
    more |= {"rotary_dim": 4} if model_type == "gptj" else {}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes, **names, **more))


def data(*lengths: int, token: int = 5) -> Dataset:
    """Examples of these lengths, all of one token."""
    ids = [np.full(length, token, dtype=np.int32) for length in lengths]
    examples = [Example(tokens, np.ones(len(tokens), dtype=bool)) for tokens in ids]
    return Dataset(examples, max_length=64, packing=True, counts=Counts.of(in_memory(examples)))


@pytest.mark.parametrize("model_type", ["gpt2", "gptj", "opt"])
def test_records_longer_than_learnt_positions_are_refused_with_both_numbers(model_type: str, tokenizer: Any) -> None:
    """GPT-J looks its rotations up in a table, and OPT's table has two rows for no position."""
    limits = ModelLimits.of(architecture(model_type), tokenizer, SOURCE)
    assert (limits.positions, limits.learnt) == (32, True)
    limits.check_data(data(32, 7), "the training data", 64, pytest.fail)
    with pytest.raises(
        SettingsError, match=r"MAX_LENGTH = 64 is more than the 32 positions .* 2 longer records, up to 40 tokens"
    ):
        limits.check_data(data(33, 40, 32), "the training data", 64, pytest.fail)


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
def test_where_positions_are_computed_long_records_are_told(model_type: str, tokenizer: Any) -> None:
    limits = ModelLimits.of(architecture(model_type), tokenizer, SOURCE)
    notices: list[Notice] = []
    limits.check_data(data(33, 40, 32), "the training data", 64, notices.append)
    (notice,) = notices
    assert notice.count == 2 and "40 tokens, 32 were trained" in str(notice)


def test_answers_that_would_go_beyond_learnt_positions_are_refused_before_training(tokenizer: Any) -> None:
    limits = ModelLimits.of(architecture("gpt2"), tokenizer, SOURCE)
    ids, supervised = np.full(20, 5, dtype=np.int32), np.arange(20) >= 12
    prompts = [Example(ids, supervised)]
    limits.check_answers(prompts, 20)
    limits.check_answers([], 100)
    with pytest.raises(SettingsError, match=r"EVAL_MAX_NEW_TOKENS = 21 and a prompt .* 12 tokens .* 32 positions") as refused:
        limits.check_answers(prompts, 21)
    assert refused.value.hint == "Give --eval-max-new-tokens 20."
    ModelLimits.of(architecture("llama"), tokenizer, SOURCE).check_answers(prompts, 100)


def test_a_token_that_has_no_row_is_refused_where_it_is_used(tokenizer: Any) -> None:
    """Gemma 3's small models come with one token for pictures that their embeddings lack: no text has it."""
    tokenizer.add_tokens(["<image_soft_token>"])
    model = architecture("llama")
    limits = ModelLimits.of(model, tokenizer, SOURCE)
    notices: list[Notice] = []
    limits.check_tokenizer(notices.append)
    assert [(notice.count, notice.place) for notice in notices] == [(1, "'<image_soft_token>'")]
    limits.check_data(data(3, token=319), "the training data", 64, pytest.fail)
    with pytest.raises(
        ModelError, match="321 tokens and the model's embeddings 320 rows: '<image_soft_token>', which occurs in the"
    ):
        limits.check_data(data(3, token=320), "the training data", 64, pytest.fail)
    with pytest.raises(ModelError, match="prompt 2"):
        limits.check_ids([5, 320], "prompt 2")


def test_an_end_token_without_a_row_is_refused_at_once(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    with pytest.raises(ModelError, match=r"321 tokens .* 320 rows: <end> \(eos_token\) has number 320"):
        ModelLimits.of(architecture("llama"), tokenizer, SOURCE).check_tokenizer(pytest.fail)


def test_a_model_from_scratch_needs_a_row_for_every_token(tokenizer: Any) -> None:
    tokenizer.add_tokens(["<one>"])
    source = ModelSource("new", Path("tokenizer"), None, config=Path("small.json"))
    with pytest.raises(ModelError, match=r"small\.json: vocab_size is 320, the tokenizer has 321 tokens"):
        ModelLimits.of(architecture("llama"), tokenizer, source).check_tokenizer(pytest.fail)
