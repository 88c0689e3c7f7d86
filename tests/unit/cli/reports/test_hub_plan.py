"""Before anything is spent, a plan says where the run would be pushed and what is missing for that, without a network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pitstop.cli.reports import hub_plan
from pitstop.configs.load import load_settings
from pitstop.configs.schema import HubSettings, Settings
from pitstop.configs.secrets import Secret
from support.cli import Cli

NAME = "smollm2135-train-r16-a32-e5-20260101-120000"
TOKEN = "hf_" + "C" * 34


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in, and the network may be used as far as the plan is concerned."""
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)


def planned(**hub: Any) -> dict[str, Any]:
    """The plan of a run that is pushed with these settings."""
    plan = hub_plan.push_plan(Settings(hub=HubSettings(push=True, **hub)), NAME)
    assert plan is not None
    return plan


def test_a_run_that_is_not_pushed_has_no_place() -> None:
    assert hub_plan.push_plan(Settings(hub=HubSettings(username="me", token=Secret(TOKEN))), NAME) is None


@pytest.mark.parametrize(
    ("hub", "repo", "words"),
    [
        ({}, None, f"{NAME} of the token's account (private)"),
        ({"username": "me"}, f"me/{NAME}", f"me/{NAME} (private)"),
        ({"username": "me", "repo": "team/ner", "private": False}, "team/ner", "team/ner (public)"),
        ({"repo": "team/ner", "keep_last_n": 3}, "team/ner", "team/ner (private, the best and the newest 3 kept)"),
    ],
)
def test_the_repository_is_said_as_far_as_it_is_known(hub: dict[str, Any], repo: str | None, words: str) -> None:
    plan = planned(token=Secret(TOKEN), **hub)
    assert (plan["repo"], plan["missing"], hub_plan.in_words(plan)) == (repo, [], words)
    assert plan["private"] is hub.get("private", True)


def test_what_keeps_it_from_being_pushed_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned()["missing"] == ["no token found: set HF_TOKEN, or log in with `hf auth login`"]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    assert planned()["missing"] == []
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    plan = planned(username="no such--name")
    assert plan["missing"] == ["HF_HUB_OFFLINE is set", "HF_USERNAME 'no such--name' is not a Hub user name"]
    assert plan["repo"] is None
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    assert planned(repo="ownerless")["missing"] == ["'ownerless' is not a repository id: write owner/name"]


@pytest.fixture
def forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without a model."""
    figures = dict.fromkeys(("parameters", "trainable_parameters", "records", "tokens_per_epoch", "sequences"), 1)
    figures |= dict.fromkeys(("steps_per_epoch", "total_steps", "peak_memory_bytes", "checkpoint_bytes", "disk_bytes"), 1)
    plan = SimpleNamespace(
        **figures,
        data="one record",
        sources=(),
        device="cpu",
        base_bytes=1,
        free_disk_bytes=10,
        time_s=1.0,
        to_dict=lambda: figures,
    )
    monkeypatch.setattr("pitstop.trainers.training.planning.forecast", lambda settings, reporter: plan)


@pytest.mark.usefixtures("forecast")
def test_the_plan_shows_it_and_warns_of_what_is_missing(pitstop: Cli) -> None:
    pushed = pitstop("plan", "--push-to-hub", "--hub-repo", "team/ner")
    assert pushed.code == 0 and "team/ner (private)" in pushed.stdout
    assert "checkpoints could not be pushed: no token found: set HF_TOKEN" in pushed.stderr
    plain = pitstop("plan")
    assert "not pushed" in plain.stdout and "could not be pushed" not in plain.stderr


@pytest.mark.usefixtures("forecast")
def test_the_plan_has_it_in_json(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = pitstop("train", "--dry-run", "--json", "--push-to-hub", "--hf-username", "me", "--no-hub-private")
    hub, name = done.json()["hub"], done.json()["name"]
    assert hub == {"repo": f"me/{name}", "name": name, "private": False, "keep_last_n": None, "missing": []}
    assert TOKEN not in done.stdout + done.stderr
    assert pitstop("plan", "--json").json()["hub"] is None


def test_where_the_token_comes_from_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PITSTOP_HF_TOKEN", TOKEN)
    assert hub_plan.has_token(load_settings().settings)
