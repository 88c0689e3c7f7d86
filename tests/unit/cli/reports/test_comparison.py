"""Which values are best, and how runs of one number are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.cli.reports.comparison import best_of, direction, distinct_labels


@pytest.mark.parametrize(
    ("name", "monitored", "expected"),
    [
        ("val_loss", [], "min"),
        ("val_perplexity", [], "min"),
        ("val_token_accuracy", [], "max"),
        ("ner_f1", [], "max"),
        ("glossary", [], None),
        ("f1_loss", [], None),
        ("val_loss", [("val_loss", "max")], "max"),
        ("val_loss", [("val_loss", "max"), ("val_loss", "min")], None),
        ("score", [("score", "max"), ("val_loss", "min")], "max"),
    ],
)
def test_whether_more_or_less_is_better(name: str, monitored: list[tuple[str, str]], expected: str | None) -> None:
    assert direction(name, monitored) == expected


def test_the_best_values() -> None:
    assert best_of([0.5, None, 0.25, 0.25], "min") == [2, 3]
    assert best_of([0.5, None, 0.25], "max") == [0]
    assert best_of([0.5, None], "min") == best_of([0.5, 0.25], None) == []


def test_labels_have_as_much_of_the_path_as_it_takes_to_tell_them_apart() -> None:
    paths = [Path("/x/base_training/run_001"), Path("/y/base_training/run_001"), Path("/y/run_002")]
    labels = ["base_training/run_001", "base_training/run_001", "run_002"]
    assert distinct_labels(paths, labels) == ["x/base_training/run_001", "y/base_training/run_001", "run_002"]
