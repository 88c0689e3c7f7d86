"""Text and Python values → the type and range of a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import Leaf, by_path, leaves
from pitstop.configs.load import load_settings
from pitstop.configs.values import InvalidValue, describe, parse


def value(path: str, raw: Any) -> Any:
    return parse(by_path()[path], raw)


def complaint(path: str, raw: Any) -> str:
    with pytest.raises(InvalidValue) as caught:
        value(path, raw)
    return str(caught.value)


@pytest.mark.parametrize("raw", ["true", "TRUE", "yes", "on", "1", " on ", True, 1])
def test_words_for_true(raw: Any) -> None:
    assert value("data.packing", raw) is True


@pytest.mark.parametrize("raw", ["false", "no", "OFF", "0", False, 0])
def test_words_for_false(raw: Any) -> None:
    assert value("data.packing", raw) is False


@pytest.mark.parametrize(
    ("path", "raw", "expected"),
    [
        ("lora.rank", "8", 8),
        ("lora.rank", " 8 ", 8),
        ("lora.rank", 8, 8),
        ("lora.rank", "8.0", 8),
        ("training.max_steps", "1e3", 1000),
        ("training.learning_rate", "5e-5", 5e-5),
        ("training.learning_rate", "1E-4", 1e-4),
        ("training.learning_rate", 1, 1.0),
        ("training.seed", str(2**32 - 1), 2**32 - 1),
        ("training.checkpoint.keep_last_n", "none", None),
        ("training.checkpoint.keep_last_n", "Null", None),
        ("training.checkpoint.keep_last_n", "", None),
        ("quantization.quant_type", "NF4", "nf4"),
        ("lora.target_modules", "q_proj, v_proj,", ["q_proj", "v_proj"]),
        ("lora.target_modules", ["q_proj"], ["q_proj"]),
        ("data.train", "", []),
        ("model.id", " org/name ", "org/name"),
    ],
)
def test_values_are_read_as_their_setting_wants_them(path: str, raw: Any, expected: Any) -> None:
    assert value(path, raw) == expected


@pytest.mark.parametrize(
    ("path", "raw", "words"),
    [
        ("lora.rank", "2.5", "'2.5' is not a whole number from 1 to 4096"),
        ("lora.rank", "-1", "'-1' is not a whole number from 1 to 4096"),
        ("lora.rank", "abc", "'abc' is not a whole number from 1 to 4096"),
        ("lora.rank", True, "'True' is not a whole number"),
        ("lora.rank", "none", "'none' is not a whole number"),
        ("lora.rank", "", "empty; it must be a whole number from 1 to 4096"),
        ("lora.rank", "inf", "'inf'"),
        ("lora.dropout", "1.0", "a number of at least 0.0 and below 1.0"),
        ("training.learning_rate", "0", "a number above 0.0 and at most 10.0"),
        ("training.learning_rate", "nan", "'nan' is not a number"),
        ("training.learning_rate", "1e999", "'1e999' is not a number"),
        ("training.max_grad_norm", "inf", "'inf' is not a number of at least 0.0"),
        ("training.save_steps", "0", "at least 1"),
        ("data.packing", "maybe", "'maybe' is not true or false"),
        ("quantization.quant_type", "int8", "one of nf4, fp4"),
        ("lora.target_modules", ",", "at least one entry"),
        ("training.checkpoint.base_dir", " ", "empty"),
        ("model.id", {"a": 1}, "is not text"),
        ("training.checkpoint.keep_last_n", "0", "of at least 1 or 'none'"),
    ],
)
def test_a_value_that_does_not_fit_says_what_would(path: str, raw: Any, words: str) -> None:
    path = path.replace("training.save_steps", "training.checkpoint.save_steps")
    assert words in complaint(path, raw)


def test_a_huge_value_is_cut_in_the_message() -> None:
    assert len(complaint("lora.rank", "9" * 10_000)) < 200


def test_home_is_expanded_in_paths_only() -> None:
    assert value("training.checkpoint.base_dir", "~/runs") == str(Path.home() / "runs")
    assert value("data.train", "~/a.jsonl") == [str(Path.home() / "a.jsonl")]
    assert value("naming.experiment_name", "~/x") == "~/x"


@pytest.mark.parametrize("raw", ["hf_ x", "hf_é", "hf_\n\x00", 5])
def test_a_bad_token_is_never_part_of_the_message(raw: Any) -> None:
    assert str(raw) not in complaint("hub.token", raw)


LATER = (
    *("training.method", "quantization.load_in_4bit", "model.config", "model.tokenizer", "model.from_scratch"),
    *("data.train", "data.eval"),  # weights
    *("data.columns", "data.roles", "data.template_options", "data.prompt_template", "data.group_by", "data.template_date"),
    *("data.system_prompt", "data.overlap"),  # a file, and the length that it is compared with
    "tracking.report_to",
    *("data.classes", "data.label", "lora.stage_ranks"),  # the task
    *("diffusion.conditional_classes", "diffusion.flip", "diffusion.fid_images"),
)
"""Settings that other settings must agree with, or whose words are looked at where all sources are."""


@given(st.sampled_from(leaves()), st.text(max_size=20) | st.integers() | st.floats() | st.booleans() | st.none())
def test_any_value_is_taken_or_refused_and_what_is_taken_makes_settings(leaf: Leaf, raw: Any) -> None:
    try:
        parsed = parse(leaf, raw)
    except InvalidValue as error:
        assert describe(leaf) in str(error)
        return
    if leaf.path in LATER:
        return
    environ_like = {"lora.rank": 8, leaf.path: parsed}
    try:
        load_settings(flags=environ_like, environ={})
    except SettingsError as error:
        pytest.fail(f"{leaf.path}: {parsed!r} was taken and then refused: {error}")


def test_a_list_given_in_parts_is_cut_at_commas_unless_it_holds_paths() -> None:
    assert value("lora.target_modules", ["q_proj,v_proj", "k_proj"]) == ["q_proj", "v_proj", "k_proj"]
    assert value("ner.entity_types", ["chemical, disease"]) == ["chemical", "disease"]
    assert value("data.train", ["a,b.jsonl"]) == ["a,b.jsonl"]
