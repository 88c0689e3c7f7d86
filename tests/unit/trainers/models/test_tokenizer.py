"""Files of a tokenizer that cannot be one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pitstop.configs.errors import ModelError
from pitstop.trainers.models.tokenizer import load_tokenizer


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"added_tokens": [], "model": 5}', '{"added_tokens": 5}'])
def test_a_tokenizer_json_that_holds_none_is_a_fault_of_the_model(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "x"}))
    with pytest.raises(ModelError, match=f"Cannot load a tokenizer from {tmp_path}: ") as caught:
        load_tokenizer(tmp_path)
    assert "tokenizer.json" in str(caught.value.hint)
