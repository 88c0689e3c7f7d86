"""Tokens never reach what is printed."""

from __future__ import annotations

import dataclasses

import pytest

from pitstop.configs import secrets
from pitstop.configs.load import load_settings
from pitstop.configs.secrets import HIDDEN, Secret, is_secret_name, mask


def test_given_values_and_the_shape_of_a_token_are_hidden() -> None:
    token = "hf_" + "a1B2c3D4e5" * 3
    assert mask(f"Authorization: Bearer {token}!") == f"Authorization: Bearer {HIDDEN}!"
    assert mask("key=s3cretvalue", ["s3cretvalue"]) == f"key={HIDDEN}"


def test_a_longer_secret_that_holds_a_shorter_one_is_hidden_whole() -> None:
    assert mask("abcdefghij", ["abcdef", "abcdefghij"]) == HIDDEN


def test_short_values_do_not_blank_out_ordinary_words() -> None:
    assert mask("a run", ["a", ""]) == "a run"


def test_a_token_that_was_loaded_is_hidden_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_remembered", set())
    assert mask("unusual-token-value") == "unusual-token-value"
    load_settings(environ={"HF_TOKEN": "unusual-token-value"})
    assert mask("x unusual-token-value y") == f"x {HIDDEN} y"


def test_a_token_that_is_refused_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_remembered", set())
    with pytest.raises(Exception, match="HF_TOKEN"):
        load_settings(environ={"HF_TOKEN": "two words here"})
    assert mask("two words here") == HIDDEN


def test_secrets_of_other_tools_in_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    assert mask("wandb 0123456789abcdef") == f"wandb {HIDDEN}"


def test_a_secret_shows_its_value_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_remembered", set())
    settings = load_settings(environ={"HF_TOKEN": "unusual-token-value"}).settings
    assert settings.hub.token_value == "unusual-token-value" and settings.hub.token == Secret("unusual-token-value")
    assert "unusual" not in f"{settings} {settings.hub.token} {settings.hub.token!r} {dataclasses.asdict(settings)}"
    assert load_settings(environ={}).settings.hub.token_value is None


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "mlflow_tracking_password"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["HF_TOKEN_PATH", "TOKENIZERS_PARALLELISM", "HOME"])
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)
