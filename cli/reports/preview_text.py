"""A previewed record and the figures of a data set as people read them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pitstop.cli.terminal.output import ellipsis, is_terminal, paint, print_facts, say, use_color
from pitstop.cli.terminal.streams import can_show
from pitstop.configs.notices import Notice, shortened
from pitstop.trainers.data.duplicates import REPEATED
from pitstop.trainers.data.preview.tokens import LEARNT, TokenText, part_texts, shown

if TYPE_CHECKING:
    from pitstop.configs.data_settings import DataSettings
    from pitstop.trainers.data.counts import Tally
    from pitstop.trainers.data.preview.figures import LengthBin
    from pitstop.trainers.data.preview.oddities import PreviewedRecord
    from pitstop.trainers.using.previewing import Previewed

_LONGEST_STRETCH = 80
"""Tokens of a stretch that are shown, unless all of a record is wanted."""
_LONGEST_FIELDS = 300
_BAR = 30
_WIDTH = 14  # of a label
_PART_WIDTH = 10  # of the name of an answer


def print_record(record: PreviewedRecord, tokenizer: Any, spec: str, *, full: bool, ids: bool) -> None:
    """Print where a record stands, what it is, and its tokens; of a malformed one why it is, and its fields."""
    outcome = record.outcome
    facts = [outcome.place.removeprefix(spec).strip(" /") or outcome.place, record.shape]
    say()
    say("  " + " · ".join([paint(facts[0], "bold"), *filter(None, facts[1:])]))
    for reason in () if outcome.malformed else record.reasons:  # which say it, too
        _print_wrapped([(shown(reason), "cyan")], indent=2)
    if outcome.malformed:
        _print_wrapped([("malformed", "red"), (f": {shown(outcome.malformed)}", "")], indent=2)
        if outcome.record is not None:
            _print_wrapped([(_in_short(outcome.record.fields), "")])
    number = len(outcome.examples) + len(outcome.too_long)
    for index, example in enumerate((*outcome.examples, *outcome.too_long), start=1):
        words = f"{example.input_ids.size:,} tokens, {int(example.supervised.sum()):,} learnt"
        if index > len(outcome.examples):
            words += ": left out, it is too long"
        say(f"  {f'example {index} of {number}, ' if number > 1 else ''}{words}")
        longest = None if full else _LONGEST_STRETCH
        for name, texts in part_texts(example, tokenizer, single=ids, longest=longest).items():
            label = [(f"{name:<{_PART_WIDTH}}", "dim")] if name else []
            _print_wrapped([*label, *_spans(texts, ids=ids)])


def _spans(texts: Sequence[TokenText], *, ids: bool) -> list[tuple[str, str]]:
    """Text and style of what is printed one behind the other."""
    colour = use_color()
    opening, closing = LEARNT if can_show("".join(LEARNT)) else ("[[", "]]")
    spans: list[tuple[str, str]] = []
    learnt = False
    for part in texts:
        if part.learnt != learnt and not colour:
            spans.append((closing if learnt else opening, ""))
        learnt = part.learnt
        style = "green" if part.learnt else ""
        if part.omitted:
            spans.append((f" … {part.omitted:,} tokens … ", "dim"))
        else:
            spans.append((_visible(part.text), style))
            if ids:
                spans.append((f" {part.ids[0]}│", "dim"))
    if learnt and not colour:
        spans.append((closing, ""))
    return spans


def _in_short(fields: Mapping[str, Any]) -> str:
    text = shown(json.dumps(fields, ensure_ascii=False, default=str))
    return text if len(text) <= _LONGEST_FIELDS else text[:_LONGEST_FIELDS] + ellipsis()


def _visible(text: str) -> str:
    text = shown(text)
    return text if can_show("↵⇥") else text.replace("↵", "\\n").replace("⇥", "\\t")


def _print_wrapped(spans: Sequence[tuple[str, str]], indent: int = 4) -> None:
    """Print in one line; on a terminal in as many as its width asks for, all of them indented."""
    if not is_terminal():
        say(" " * indent + "".join(text for text, _ in spans))
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    text = Text()
    for part, style in spans:
        text.append(part, style or None)
    console = Console(file=sys.stdout, no_color=not use_color(), highlight=False)
    console.print(Padding(text, (0, 0, 0, indent)))


def print_figures(previewed: Previewed, template: str, settings: DataSettings) -> None:
    """Print the figures of a data set, and what was decided about its records."""
    data = previewed.data
    say()
    print_facts(_facts(previewed, template), width=_WIDTH)
    for line in _histogram(data.figures.histogram(), settings.max_length):
        say(line)
    lines = [str(notice) for notice in shortened(data.counts.notices)]
    if not previewed.learnt:
        lines.append("train refuses preference records: --column completion=chosen learns the chosen answers.")
    elif data.counts.bad:
        lines.append("train stops at the first malformed record, unless --skip-bad-rows leaves them out.")
    if previewed.learnt and data.counts.too_long and settings.too_long == "refuse":
        lines.append("train stops at the first record that is too long, since --too-long is refuse.")
    for line in lines:
        _print_wrapped([(f"- {shown(line)}", "")], indent=2)


def _facts(previewed: Previewed, template: str) -> Iterator[tuple[str, str]]:
    counts, figures = previewed.data.counts, previewed.data.figures
    yield "records", _sum(counts.read)
    if counts.answers.read:
        yield "answers", _sum(counts.answers)
    if previewed.data.shapes:
        yield "shapes", ", ".join(f"{count:,} {shape}" for shape, count in previewed.data.shapes.items())
    yield "template", template
    if counts.tokens:
        share = 100 * counts.supervised_tokens / counts.tokens
        yield "tokens", f"{counts.tokens:,}, of them {counts.supervised_tokens:,} learnt ({share:.1f} %)"
    if any(number > 1 for number in figures.of_records):
        parts = (
            f"{count:,} record{' gives' if count == 1 else 's give'} {number}" for number, count in figures.of_records.items()
        )
        yield "examples", f"{counts.used:,}: {', '.join(parts)}"
    repeated = figures.duplicates
    yield "duplicates", str(Notice(REPEATED, count=repeated)).removesuffix(".") if repeated else "none"
    if number := previewed.in_training:
        yield "in training", f"{number:,} example{' is' if number == 1 else 's are'} in the training data, too"
    yield "longest", f"{figures.longest:,} tokens"


def _sum(tally: Tally) -> str:
    return f"{tally.read:,} = {tally.used:,} used + {tally.left_out:,} left out + {tally.malformed:,} malformed"


def _histogram(bins: Sequence[LengthBin], max_length: int) -> Iterator[str]:
    """A line for each bin of lengths: tokens, examples, a bar, and where MAX_LENGTH lies."""
    if not bins:
        return
    labels = [f"{part.low:,}" if part.low == part.high else f"{part.low:,}–{part.high:,}" for part in bins]
    if not can_show("–"):
        labels = [label.replace("–", "-") for label in labels]
    numbers = [f"{part.count:,}" for part in bins]
    block = "█" if can_show("█") else "#"
    most = max(part.count for part in bins)
    label_width, number_width = max(map(len, (*labels, "tokens"))), max(map(len, (*numbers, "examples")))
    yield f"  {'lengths':<{_WIDTH}}{'tokens':>{label_width}}  {'examples':>{number_width}}"
    for part, label, number in zip(bins, labels, numbers, strict=True):
        bar = block * (max(1, round(_BAR * part.count / most)) if part.count else 0)
        mark = f"MAX_LENGTH = {max_length:,}" if part.low <= max_length <= part.high else ""
        room = shutil.get_terminal_size().columns - _WIDTH - label_width - number_width - 8 - len(mark) if is_terminal() else _BAR
        bar = bar[: max(1, room)]
        yield f"  {'':<{_WIDTH}}{label:>{label_width}}  {number:>{number_width}}  {bar}{'  ' if bar and mark else ''}{mark}".rstrip()
