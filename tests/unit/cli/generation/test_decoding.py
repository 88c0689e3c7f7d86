"""The options that say how answers are decoded."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.cli.generation.decoding import Decoding
from pitstop.configs.errors import SettingsError


def decoding(**values: Any) -> Decoding:
    defaults: dict[str, Any] = {"max_new_tokens": None, "temperature": 0.0, "top_p": None, "seed": None, "batch_size": 8}
    return Decoding(**{**defaults, **values})


def test_greedy_unless_a_temperature_is_given() -> None:
    answering = decoding().answering()
    assert (answering.max_new_tokens, answering.batch_size, answering.sampling) == (256, 8, None)
    sampling = decoding(temperature=0.7, seed=3).answering().sampling
    assert sampling is not None and (sampling.temperature, sampling.top_p, sampling.seed) == (0.7, 1.0, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_p": 0.0, "temperature": 1.0}, "above 0 and at most 1"),
        ({"top_p": 1.5, "temperature": 1.0}, "above 0 and at most 1"),
        ({"top_p": 0.9}, "--top-p means nothing without sampling"),
        ({"seed": 0}, "--seed means nothing without sampling"),
    ],
)
def test_options_that_would_change_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        decoding(**values).check()


def test_flags_name_only_what_was_given() -> None:
    assert decoding(seed=1).flags == {"--max-new-tokens": None, "--temperature": None, "--top-p": None}
    assert decoding(temperature=0.5, max_new_tokens=9).flags["--temperature"] == 0.5
