"""What ``--dataset`` takes: places, weights, and the names that data sets have in metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.configs.datasets import DataSource, parse_sources, source_names, split_weight, without_weight
from pitstop.configs.errors import SettingsError
from pitstop.configs.load import load_settings


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.jsonl", ("a.jsonl", "")),
        ("a.jsonl:0.7", ("a.jsonl", ":0.7")),
        ("owner/name:3", ("owner/name", ":3")),
        ("example:medical_ner/train.jsonl", ("example:medical_ner/train.jsonl", "")),
        ("example:medical_ner/train.jsonl:.5", ("example:medical_ner/train.jsonl", ":.5")),
        ("a:1:2e-3", ("a:1", ":2e-3")),
        ("C:\\data\\a.jsonl", ("C:\\data\\a.jsonl", "")),
        ("a.jsonl:-1", ("a.jsonl", ":-1")),
        ("a.jsonl:NaN", ("a.jsonl", ":NaN")),
        ("a:b", ("a:b", "")),
        (":0.5", (":0.5", "")),
    ],
)
def test_a_weight_is_a_number_behind_the_last_colon(text: str, parts: tuple[str, str]) -> None:
    assert split_weight(text) == parts and without_weight(text) == parts[0]


def test_weights_need_not_add_up_to_one() -> None:
    assert parse_sources(["a.jsonl:7", "b.jsonl:0.3"]) == (DataSource("a.jsonl", 7.0), DataSource("b.jsonl", 0.3))


def test_a_text_that_is_a_path_as_it_stands_has_no_weight(tmp_path: Path) -> None:
    path = tmp_path / "a:0.7"
    path.mkdir()
    assert parse_sources([str(path)]) == (DataSource(str(path)),)
    assert parse_sources([f"{path}:2", "b:1"]) == (DataSource(str(path), 2.0), DataSource("b", 1.0))


def test_a_weight_beside_nothing_else_is_dropped() -> None:
    assert parse_sources(["a.jsonl:0.7"]) == (DataSource("a.jsonl"),)


@pytest.mark.parametrize("weight", ["0", "-0.3", "nan", "inf", "0.0"])
def test_a_weight_must_be_a_number_above_zero(weight: str) -> None:
    with pytest.raises(SettingsError, match=f"b.jsonl:{weight}: the weight must be a number above 0"):
        parse_sources(["a.jsonl:1", f"b.jsonl:{weight}"])


def test_either_all_have_weights_or_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data.train \(--dataset\): b.jsonl has no weight") as caught:
        load_settings(flags={"data.train": ["a.jsonl:0.7", "b.jsonl"], "model.id": "m"})
    assert caught.value.exit_code == 2 and "b.jsonl:1" in str(caught.value.hint)


@pytest.mark.parametrize("given", [["e.jsonl:0.5"], ["e.jsonl:1", "f.jsonl:1"]])
def test_evaluation_data_has_no_weights(given: list[str]) -> None:
    with pytest.raises(SettingsError, match="evaluation reads every record once"):
        load_settings(flags={"data.train": ["a.jsonl"], "data.eval": given, "model.id": "m"})


def test_weights_come_from_the_environment_and_from_yaml(tmp_path: Path) -> None:
    loaded = load_settings(environ={"DATASET_PATH": "a.jsonl:0.7, b.jsonl:0.3", "MODEL_ID": "m"})
    assert loaded.settings.data.train == ["a.jsonl:0.7", "b.jsonl:0.3"]
    file = tmp_path / "c.yaml"
    file.write_text("model: {id: m}\ndata:\n  train:\n    - a.jsonl:0.7\n    - b.jsonl:0.3\n")
    assert load_settings(config_files=[str(file)], environ={}).settings.data.train == ["a.jsonl:0.7", "b.jsonl:0.3"]


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["x/train.jsonl", "y/train.jsonl", "train.csv"], ["train", "train-2", "train-3"]),
        (["owner/name", "dir/", "example:medical_ner/train.jsonl"], ["name", "dir", "train"]),
        (["a b.jsonl.gz", "C:\\x\\größe.json", "..."], ["a-b", "größe", "data"]),
        (["docs_s.jsonl", "per_s.json", "s.jsonl", "gas.jsonl"], ["docs-s", "per-s", "data-s", "gas"]),
        (["a.jsonl", "a-2.jsonl", "b/a.jsonl"], ["a", "a-2", "a-3"]),
    ],
)
def test_names_are_short_unique_and_never_end_like_timings(specs: list[str], names: list[str]) -> None:
    found = source_names(specs)
    assert len(set(found)) == len(found) and not any(f"loss_{name}".endswith("_s") for name in found)
    assert found == names


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hub:owner/name", "owner/name"), ("owner/name@" + "a" * 40, "owner/name"), ("owner/name:en:train[:10%]", "owner/name"),
        ("owner/name@v1:en:0.5", "owner/name"), ("owner/name", "owner/name"), ("data/a@b.jsonl", "data/a@b.jsonl"),
        ("/data/a:b", "/data/a:b"), ("data/a/b:c", "data/a/b:c"), ("C:/data", "C:/data"),
    ],
)  # fmt: skip
def test_lists_and_names_call_a_hub_data_set_by_its_id(text: str, place: str) -> None:
    assert without_weight(text) == place
    assert source_names([text]) == source_names([place])
