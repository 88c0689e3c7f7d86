"""Entity scores agree with counts done by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.tasks.ner.scores import EntityCounts, ParsedAnswer, parse_items, score_answers, score_completions

ITEMS = st.lists(st.sampled_from(["a", "b", "c", "d", "E", "f g"]))


def test_two_of_three_found_and_nothing_wrong() -> None:
    counts = EntityCounts.of(gold=["a", "b", "c"], predicted=["a", "b"])
    assert (counts.precision, counts.recall, counts.f1) == (1.0, pytest.approx(0.667, abs=5e-4), pytest.approx(0.8))


@pytest.mark.parametrize(
    ("gold", "predicted", "scores"),
    [
        ([], [], (1.0, 1.0, 1.0)),
        (["a"], [], (0.0, 0.0, 0.0)),
        ([], ["a"], (0.0, 0.0, 0.0)),
        (["a"], ["b"], (0.0, 0.0, 0.0)),
        (["a", "b"], ["b", "c", "d", "e"], (0.25, 0.5, 1 / 3)),
    ],
)
def test_scores_of_one_answer(gold: list[str], predicted: list[str], scores: tuple[float, float, float]) -> None:
    counts = EntityCounts.of(gold, predicted)
    assert (counts.precision, counts.recall, counts.f1) == pytest.approx(scores)


def test_repeats_case_and_spacing_count_once() -> None:
    assert EntityCounts.of(["Type 2  diabetes"], ["type 2 diabetes", "TYPE 2 DIABETES"]) == EntityCounts(1, 1, 1)


def test_counts_are_added_before_they_are_divided() -> None:
    scores = score_answers(
        [
            ParsedAnswer("chemical", ["a", "b", "c"], ["a", "b"]),
            ParsedAnswer("disease", ["x"], ["y"]),
            ParsedAnswer("chemical", ["d"], ["d", "e"]),
            ParsedAnswer("disease", [], []),
        ]
    )
    assert scores.by_type == {"chemical": EntityCounts(3, 4, 4), "disease": EntityCounts(0, 1, 1)}
    assert scores.micro == EntityCounts(3, 5, 5)
    metrics = scores.as_metrics()
    assert metrics["ner_chemical_f1"] == 0.75 and metrics["ner_disease_f1"] == 0.0
    assert metrics["ner_precision"] == metrics["ner_recall"] == metrics["ner_f1"] == pytest.approx(0.6)
    assert metrics["ner_exact_match"] == 0.25


def test_the_same_item_in_another_record_is_no_match() -> None:
    scores = score_answers([ParsedAnswer("chemical", ["a"], ["b"]), ParsedAnswer("chemical", ["b"], ["a"])])
    assert scores.micro == EntityCounts(0, 2, 2)


def test_no_answers_score_as_nothing_to_find() -> None:
    scores = score_answers([])
    assert scores.micro.f1 == 1.0 and scores.as_metrics()["ner_exact_match"] == 0.0


@pytest.mark.parametrize(
    ("completion", "items"),
    [
        ("- aspirin\n- ibuprofen", ["aspirin", "ibuprofen"]),
        ("- none", []),
        ("- None.", []),
        ("none", []),
        ("", []),
        ("- aspirin\n- none", ["aspirin"]),
        ("Here is the list:\n-aspirin\n\n  * Vitamin  K.\n- Aspirin\n- aspirin\nThat is all.", ["aspirin", "Vitamin K"]),
        ("- l - dopa\r\n- 5-fluorouracil,", ["l - dopa", "5-fluorouracil"]),
        ("-\n- \n---\n- ...", []),
        ("- parkinson ' s disease\n- HLA-B*15:02", ["parkinson ' s disease", "HLA-B*15:02"]),
    ],
)
def test_items_of_a_completion(completion: str, items: list[str]) -> None:
    assert parse_items(completion) == items


def test_generated_text_is_scored_against_the_reference_text() -> None:
    scores = score_completions(
        [
            ("chemical", "- a\n- b\n- c", "- a\n- b\n- b"),
            ("disease", "- none", "- none"),
            ("disease", "- none", "I see nothing."),
        ]
    )
    assert scores.by_type["chemical"] == EntityCounts(2, 2, 3)
    assert scores.by_type["disease"] == EntityCounts(0, 0, 0)
    assert (scores.exact, scores.answers) == (2, 3)


@given(ITEMS, ITEMS)
def test_scores_stay_within_bounds_and_swap_with_the_sides(gold: list[str], predicted: list[str]) -> None:
    counts, swapped = EntityCounts.of(gold, predicted), EntityCounts.of(predicted, gold)
    assert 0.0 <= counts.precision <= 1.0 and 0.0 <= counts.recall <= 1.0
    assert counts.f1 == swapped.f1
    assert min(counts.precision, counts.recall) <= counts.f1 + 1e-12
    assert counts.f1 <= max(counts.precision, counts.recall) + 1e-12


@given(st.text())
def test_any_text_can_be_parsed_and_parses_the_same_again(text: str) -> None:
    items = parse_items(text)
    assert parse_items("\n".join(f"- {item}" for item in items)) == items


def test_scoring_needs_no_torch() -> None:
    code = "import sys, pitstop.trainers.tasks.ner.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
