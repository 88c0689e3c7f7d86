"""The report of ``pitstop preview``: records with what is learnt of them, and the figures of each data set."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pitstop.cli.reports.preview_text import print_figures, print_record
from pitstop.cli.terminal.output import heading, print_json
from pitstop.cli.terminal.progress import PlainDisplay
from pitstop.configs.errors import SettingsError
from pitstop.configs.load import Loaded
from pitstop.configs.notices import Notice
from pitstop.trainers.data.preview.gathering import Wish
from pitstop.trainers.data.preview.oddities import PreviewedRecord
from pitstop.trainers.data.preview.tokens import part_texts

if TYPE_CHECKING:
    from pitstop.trainers.data.example import Example
    from pitstop.trainers.using.previewing import Previewed, Previewer

_WITHOUT_TORCH = ("sft", "ner")


def show_preview(loaded: Loaded, early: Sequence[Notice], wish: Wish, *, ids: bool, json_output: bool) -> int:
    """Print the preview; returns the exit code. ``early`` is what was noticed before. Raises ``PitstopError``."""
    from pitstop.trainers.machine.launch import prepare_environment
    from pitstop.trainers.machine.libraries import do_without_torch

    environment = prepare_environment()
    if loaded.settings.training.task in _WITHOUT_TORCH:
        do_without_torch()
    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.using.previewing import Previewer

    reporter = Reporter(PlainDisplay(sys.stderr), [*early, *environment, *loaded.notices()])
    previewer = Previewer(loaded.settings, reporter.line)
    data: list[Previewed] = []
    for previewed in previewer.previews(wish):
        data.append(previewed)
        if not json_output:
            _print(previewed, previewer, loaded, full=wish.number is not None, ids=ids)
    if wish.number is not None and not any(previewed.data.records for previewed in data):
        raise SettingsError(
            f"--record {wish.number}: no data set has a record of that number.",
            hint="The number is that of the line in a file of lines, else that of the record: messages name it.",
        )
    if json_output:
        print_json(_as_json(data, previewer, loaded, ids=ids))
    return 0


def _print(previewed: Previewed, previewer: Previewer, loaded: Loaded, *, full: bool, ids: bool) -> None:
    heading(f"{previewed.data.spec} (evaluation)" if previewed.evaluates else previewed.data.spec)
    for record in previewed.data.records:
        print_record(record, previewer.tokenizer, previewed.data.spec, full=full, ids=ids)
    print_figures(previewed, previewer.task.chat.template.in_words, loaded.settings.data)


def _as_json(data: list[Previewed], previewer: Previewer, loaded: Loaded, *, ids: bool) -> dict[str, Any]:
    return {
        "task": loaded.settings.training.task,
        "max_length": loaded.settings.data.max_length,
        "template": previewer.task.chat.template.in_words,
        "data": [_data_as_json(previewed, previewer, ids=ids) for previewed in data],
    }


def _data_as_json(previewed: Previewed, previewer: Previewer, *, ids: bool) -> dict[str, Any]:
    data, figures = previewed.data, previewed.data.figures
    return {
        "name": data.spec,
        "evaluates": previewed.evaluates,
        **data.counts.as_dict(),
        "shapes": data.shapes,
        "examples_per_record": {str(number): count for number, count in figures.of_records.items()},
        "duplicates": figures.duplicates,
        "in_training": previewed.in_training,
        "longest": figures.longest,
        "lengths": [{"low": part.low, "high": part.high, "count": part.count} for part in figures.histogram()],
        "preview": [_record_as_json(record, previewer.tokenizer, ids=ids) for record in data.records],
    }


def _record_as_json(record: PreviewedRecord, tokenizer: Any, *, ids: bool) -> dict[str, Any]:
    outcome = record.outcome
    return {
        "place": outcome.place,
        "shape": record.shape,
        "reasons": list(record.reasons),
        "malformed": outcome.malformed or None,
        "examples": [
            *(_example_as_json(example, tokenizer, left_out=False, ids=ids) for example in outcome.examples),
            *(_example_as_json(example, tokenizer, left_out=True, ids=ids) for example in outcome.too_long),
        ],
    }


def _example_as_json(example: Example, tokenizer: Any, *, left_out: bool, ids: bool) -> dict[str, Any]:
    return {
        "tokens": example.input_ids.size,
        "learnt": int(example.supervised.sum()),
        "left_out": left_out,
        "parts": list(_parts_as_json(example, tokenizer, ids=ids)),
    }


def _parts_as_json(example: Example, tokenizer: Any, *, ids: bool) -> Iterator[dict[str, Any]]:
    for name, texts in part_texts(example, tokenizer, single=ids).items():
        of_part = {"part": name} if name else {}
        for text in texts:
            yield {**of_part, "text": text.text, "learnt": text.learnt, **({"id": text.ids[0]} if ids else {})}
