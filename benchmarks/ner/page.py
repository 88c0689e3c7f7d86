"""The results as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import machine
from benchmarks.ner.trained import FIRST

NAME = "ner"
_SCORES = ("ner_precision", "ner_recall", "ner_f1", "ner_chemical_f1", "ner_disease_f1", "ner_exact_match")


def table(result: Mapping[str, Any]) -> str:
    """Return the results in words and tables, as Markdown."""
    packages = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join(
        [
            f"`{result['command']}` on {result['date']}, on {machine.in_words(result['machine'])}, {result['threads']} threads; {packages}.",
            "",
            *_trainings(result["methods"]),
            "",
            *_scores(result),
        ]
    )


def _trainings(methods: Mapping[str, Any]) -> list[str]:
    head = ["| method | records | tokens | training, minutes | tokens/s |", "|---|---|---|---|---|"]
    return head + [
        f"| {method} | {run['records']} | {run['tokens']:,} | {run['seconds'] / 60:.1f} | {run['tokens'] / run['seconds']:.0f} |"
        for method, run in methods.items()
    ]


def _scores(result: Mapping[str, Any]) -> list[str]:
    head = [
        "| method | scored on | | precision | recall | micro-F1 | F1 chemicals | F1 diseases | exact match |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    names = {"all": f"all {result['validation']} records", "first": f"the first {min(FIRST, result['validation'])}"}
    rows = []
    for method, run in result["methods"].items():
        for part, name in names.items():
            for when in ("before", "after"):
                figures = " | ".join(f"{run['scores'][when][part][score]:.3f}" for score in _SCORES)
                rows.append(f"| {method} | {name} | {when} | {figures} |")
    return head + rows


def in_short(methods: Sequence[str], scores: Mapping[str, Any]) -> str:
    """Return one line a method: micro-F1 before and after."""
    return "\n".join(
        f"{method}: micro-F1 {scores[method]['before']['all']['ner_f1']:.3f} before, {scores[method]['after']['all']['ner_f1']:.3f} after"
        for method in methods
    )
