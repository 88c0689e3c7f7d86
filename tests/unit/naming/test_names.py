"""Names by example: the schemes, their parts, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pitstop.configs.errors import SettingsError
from pitstop.configs.load import load_settings
from pitstop.configs.schema import Settings
from pitstop.naming.names import (
    SCHEMES,
    all_names,
    clean,
    hub_id,
    inputs_from,
    model_part,
    run_name,
    settings_digest,
    shorten,
    task_part,
    unique,
)

AT = datetime(2024, 9, 14, 14, 30, 22)
PHI = {"model.id": "microsoft/Phi-3-mini-4k-instruct", "data.train": "dataset_minimal.jsonl", "training.epochs": 20}


def settings(**flags: Any) -> Settings:
    """Settings of the oracle, with ``naming.`` settings by their last part and others by ``group__name``."""
    paths = {(key.replace("__", ".") if "__" in key else f"naming.{key}"): value for key, value in flags.items()}
    return load_settings(flags={**PHI, **paths}, environ={}).settings


def named(**flags: Any) -> str:
    return run_name(settings(**flags), AT).text


def test_the_derived_oracle() -> None:
    assert run_name(settings(), AT) == ("phi3mini4k-minimal-r32-a64-e20-20240914-143022", ())


def test_the_timestamped_oracle() -> None:
    given = settings(scheme="timestamped", prefix="llama3-medical-ner-lora")
    assert run_name(given, datetime(2024, 1, 15, 14, 30, 22)).text == "llama3-medical-ner-lora-20240115_143022"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"short": True}, "phi3mini4k-minimal-r32-a64-e20-0914_1430"),
        ({"timestamp": False}, "phi3mini4k-minimal-r32-a64-e20"),
        ({"custom_id": "experiment-v1"}, "phi3mini4k-minimal-r32-a64-e20-experiment-v1"),
        ({"custom_id": "v1", "timestamp": False}, "phi3mini4k-minimal-r32-a64-e20-v1"),
        ({"experiment_name": "x"}, "phi3mini4k-minimal-r32-a64-e20-20240914-143022"),
        ({"scheme": "timestamped"}, "phi3mini4k-minimal-lora-20240914_143022"),
        ({"scheme": "timestamped", "short": True}, "phi3mini4k-minimal-lora-0914_1430"),
        ({"scheme": "timestamped", "experiment_name": "high-lr-test"}, "phi3mini4k-minimal-lora-high-lr-test-20240914_143022"),
        ({"scheme": "timestamped", "custom_id": "v1"}, "phi3mini4k-minimal-lora-v1"),
        ({"scheme": "timestamped", "prefix": "a{rank}", "timestamp": False}, "a32"),
        ({"template": "{prefix}_{lr}-{method}-{experiment}-{timestamp}"}, "phi3mini4k-minimal-lora_5e-5-qlora-20240914-143022"),
        ({"template": "fixed"}, "fixed"),
        ({"template": "{model}{task}{rank}{alpha}{epochs}"}, "phi3mini4kminimal326420"),
        ({"template": "{experiment}", "experiment_name": "{model} & co"}, "model-co"),
    ],
)
def test_schemes(flags: dict[str, Any], name: str) -> None:
    assert named(**flags) == name


def test_the_hash_stands_before_the_timestamp_and_follows_what_is_trained() -> None:
    digest = settings_digest(settings())
    assert named(with_hash=True) == f"phi3mini4k-minimal-r32-a64-e20-{digest}-20240914-143022"
    assert named(template="x", with_hash=True) == f"x-{digest}"
    assert named(template="{hash}-x", with_hash=True) == f"{digest}-x"
    assert settings_digest(settings(training__learning_rate=1e-4)) != digest
    assert settings_digest(settings(experiment_name="x", training__checkpoint__base_dir="y", hub__username="z")) == digest


@pytest.mark.parametrize(
    ("model_id", "part"),
    [
        ("microsoft/Phi-3-mini-4k-instruct", "phi3mini4k"),
        ("Qwen/Qwen2.5-0.5B", "qwen2505b"),
        ("./models/My Model/", "mymodel"),
        (r"C:\models\Phi-3", "phi3"),
        ("gpt2", "gpt2"),
        ("org/模型", "model"),
        ("/", "model"),
        (None, "model"),
    ],
)
def test_model_part(model_id: str | None, part: str) -> None:
    assert model_part(model_id) == part


@pytest.mark.parametrize(
    ("dataset", "part"),
    [
        ("dataset_minimal.jsonl", "minimal"),
        ("/data/Dataset_Minimal.JSONL", "minimal"),
        ("data/train.jsonl.gz", "train"),
        ("user/medical_ner-v1.2", "medicalner"),
        ("records.d/", "recordsd"),
        ("dataset_.jsonl", "data"),
        ("данные.jsonl", "data"),
        ("example:medical_ner/train.jsonl", "medicalner"),
        (None, "data"),
    ],
)
def test_task_part(dataset: str | None, part: str) -> None:
    assert task_part(dataset) == part


def test_a_label_of_the_data_stands_for_its_place() -> None:
    images = {"training__task": "diffusion", "data__train": "CIFAR100", "model__id": "base", "training__epochs": 2}
    assert named(**images, data__label="Trees").startswith("base-trees-r32-")
    assert named(**images, data__classes=["oak_tree"]).startswith("base-cifar100-r32-")
    assert named(**images, data__label="My photos!").startswith("base-myphotos-r32-")


def test_of_several_data_sets_the_first_gives_the_name() -> None:
    assert "-first-" in named(data__train="first.jsonl,second.jsonl")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CON", "CON-run"),
        ("nul.txt", "nul-txt"),
        ("Com7", "Com7-run"),
        ("console", "console"),
        ("3", "3-run"),
        ("run_003", "run_003-run"),
        ("base_training", "base_training-run"),
        ("by-name", "by-name-run"),
        ("a.git", "a-git"),
        ("a.GIT", "a-GIT"),
        ("..", "run"),
        ("", "run"),
        ("a/../b", "a-b"),
        ("a--b", "a-b"),
        ("-a-.", "a"),
        ("hällo wörld", "h-llo-w-rld"),
        ("2.5e-4", "2.5e-4"),
    ],
)
def test_clean(text: str, name: str) -> None:
    assert clean(text) == name
    assert clean(name) == name


class TestTooLong:
    def test_the_short_timestamp_comes_first_and_the_user_is_told(self) -> None:
        name = run_name(settings(scheme="timestamped", prefix="p" * 83), AT)
        assert name.text == "p" * 83 + "-0914_1430"
        assert "99 characters" in name.notes[0]
        assert "short timestamp" in name.notes[0]

    def test_then_a_hash_takes_the_place_of_the_tail(self) -> None:
        name = run_name(settings(scheme="timestamped", prefix="p" * 200), AT)
        assert len(name.text) == 96
        assert name.text.startswith("p" * 87 + "-")
        assert "hash" in name.notes[0]

    def test_two_long_names_of_different_seconds_stay_apart(self) -> None:
        given = settings(scheme="timestamped", prefix="p" * 200)
        assert run_name(given, AT).text != run_name(given, AT.replace(second=23)).text

    def test_a_long_custom_id_gets_the_hash(self) -> None:
        name = run_name(settings(custom_id="c" * 100), AT)
        assert len(name.text) == 96
        assert "hash" in name.notes[0]

    def test_exactly_96_stays(self) -> None:
        assert shorten("a" * 96) == ("a" * 96, ())
        assert shorten("a" * 97).text != "a" * 97


class TestUnique:
    def test_a_free_name_stays(self) -> None:
        assert unique("a", lambda name: False) == "a"

    def test_a_taken_name_counts_up(self) -> None:
        taken = {"a", "a-2", "a-3"}
        assert unique("a", taken.__contains__) == "a-4"

    def test_a_long_name_makes_room_for_the_number(self) -> None:
        name = "a" * 93 + "-bc"
        assert unique(name, {name}.__contains__) == "a" * 93 + "-2"


class TestHubId:
    def test_user_and_name(self) -> None:
        assert hub_id("your-username", "a") == "your-username/a"

    @pytest.mark.parametrize("username", [None, ""])
    def test_without_a_user_it_says_how_to_set_one(self, username: str | None) -> None:
        with pytest.raises(SettingsError) as caught:
            hub_id(username, "a")
        assert "HF_USERNAME" in str(caught.value.hint)

    @pytest.mark.parametrize("username", ["a/b", "-a", "a--b", "a..b", "a b", "é", "a" * 97, "a."])
    def test_an_impossible_user_is_refused(self, username: str) -> None:
        with pytest.raises(SettingsError, match="HF_USERNAME"):
            hub_id(username, "a")


class TestTemplates:
    def test_an_unknown_field_suggests_the_nearest_and_lists_all(self) -> None:
        with pytest.raises(SettingsError, match=r"\{ranks\}") as caught:
            named(template="{model}-{ranks}")
        assert "Did you mean {rank}?" in str(caught.value.hint)
        assert "{timestamp}" in str(caught.value.hint)

    @pytest.mark.parametrize(
        "template", ["{model", "model}", "{{model}", "{}", "{0}", "{model!r}", "{model.__class__}", "{rank:>9}"]
    )
    def test_what_is_no_plain_field_is_refused(self, template: str) -> None:
        with pytest.raises(SettingsError, match=r"naming\.template"):
            named(template=template)

    def test_a_prefix_cannot_hold_itself(self) -> None:
        with pytest.raises(SettingsError, match=r"naming\.prefix"):
            named(scheme="timestamped", prefix="{prefix}")

    @pytest.mark.parametrize(("rate", "text"), [(5e-5, "5e-5"), (1e-4, "1e-4"), (2.5e-4, "2.5e-4"), (1.0, "1e0"), (10.0, "1e1")])
    def test_learning_rates_are_short(self, rate: float, text: str) -> None:
        assert named(template="{lr}", training__learning_rate=rate) == text


def test_all_schemes_are_listed_and_the_template_where_there_is_one() -> None:
    assert list(all_names(settings(), AT)) == list(SCHEMES)
    names = all_names(settings(template="mine-{rank}"), AT)
    assert list(names) == [*SCHEMES, "template"]
    assert names["template"].text == "mine-32"
    assert names["derived"].text == "phi3mini4k-minimal-r32-a64-e20-20240914-143022"
    assert len({name.text for name in names.values()}) == len(names)


def test_a_moment_with_a_time_zone_is_named_by_its_own_clock() -> None:
    assert run_name(settings(), AT.replace(tzinfo=UTC)).text == named()


def test_an_early_year_keeps_its_zeros() -> None:
    assert run_name(settings(), datetime(24, 1, 2)).text.endswith("-00240102-000000")


def test_the_digest_is_made_only_where_it_is_used() -> None:
    assert inputs_from(settings()).digest is None
    assert inputs_from(settings(template="{hash}")).digest
