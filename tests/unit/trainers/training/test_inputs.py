"""What is read before anything is spent: model files, data with what was left out of it, and a metric that there will be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from pitstop.configs.errors import DataError, ModelError, SettingsError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.models.source import ModelSource, NoModel
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.sft import SftTask
from pitstop.trainers.training.inputs import Inputs, read_inputs, read_split
from support.displays import Lines
from support.fake_training import settings_with
from support.tiny_model import write_records


@pytest.fixture
def display() -> Lines:
    return Lines()


def _read(tiny: Path, display: Lines, **flags: Any) -> Inputs:
    settings = settings_with(**{"model__id": str(tiny), "data__train": ["train.jsonl"], "data__max_length": 128, **flags})
    return read_inputs(settings, Reporter(display))


def test_the_data_is_described_as_the_metadata_has_it(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 6)
    write_records(Path("eval.jsonl"), 2, start=100)
    inputs = _read(tiny, display, data__eval=["eval.jsonl"], data__packing=False)
    record = inputs.data_record()
    assert (record["sequences"], record["records"], record["eval"]["sequences"]) == (6, 6, 2)
    assert record["fingerprint"] == inputs.train.fingerprint != record["eval"]["fingerprint"]
    assert inputs.source.path == tiny and inputs.task.name == "sft" and not display.warnings


def test_several_data_sets_are_recorded_one_by_one(tiny: Path, display: Lines) -> None:
    write_records(Path("a.jsonl"), 6)
    write_records(Path("b.jsonl"), 3, start=50)
    inputs = _read(tiny, display, data__train=["a.jsonl:1", "b.jsonl:2"], data__packing=False)
    sources = inputs.data_record()["sources"]
    assert [(source["name"], source["sequences"], source["sequences_per_epoch"]) for source in sources] == [
        ("a", 6, 3),
        ("b", 3, 6),
    ]


def test_what_is_left_out_is_counted_with_its_reason(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 4)
    with Path("train.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "long " * 200, "completion": "x"}) + "\n")
        file.write(json.dumps({"question": "?"}) + "\n")
    inputs = _read(tiny, display, data__skip_bad_rows=True)
    assert (inputs.train.counts.records, inputs.train.counts.used) == (6, 4)
    assert display.warnings[1].startswith(
        "Training data: 1 of 6 records is longer than MAX_LENGTH = 128 tokens and was left out (longest "
    )
    assert display.warnings[1].endswith("train.jsonl line 5. Raise --max-length, or shorten them with --too-long left or right.")
    assert display.warnings[0] == (
        "Training data: 1 malformed row was left out: no known record shape; its fields: question: train.jsonl line 6. "
        "Name it, for example --column text=question."
    )


def test_what_is_decided_while_data_is_read_is_told_and_recorded(
    tiny: Path, display: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SftTask.examples_of

    def noting(self: SftTask, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        for record in records:
            for number in range(11):
                reason = "{count} [record has|records have] a field {subject} that is not used"
                bad_rows.notices.add(Notice(reason, f'"x{number}"', place=record.place, loss=True))
        bad_rows.notices.add(Notice("all is well"))
        return original(self, records, bad_rows)

    monkeypatch.setattr(SftTask, "examples_of", noting)
    write_records(Path("train.jsonl"), 4)
    inputs = _read(tiny, display)
    assert display.warnings[0] == 'Training data: 4 records have a field "x0" that is not used, first train.jsonl line 1.'
    assert display.warnings[10:] == ["Training data: and 1 more field."] and "Training data: all is well." in display.lines
    counts = inputs.data_record()["counts"]
    assert counts["records"] == counts["answers"] == {"read": 4, "used": 4, "left_out": 0, "malformed": 0}
    assert len(counts["notices"]) == 12


def test_a_bad_row_is_named_unless_it_may_be_skipped(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 1)
    with Path("train.jsonl").open("a") as file:
        file.write("{oops\n")
    with pytest.raises(DataError, match=r"train\.jsonl line 2"):
        _read(tiny, display)


def test_a_model_is_found_before_data_is_read(display: Lines) -> None:
    with pytest.raises(NoModel):
        _read(Path("no-model"), display, data__train=["no-data.jsonl"])


def test_a_model_that_is_found_already_is_not_looked_for(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 2)
    settings = settings_with(model__id="no-model", data__train=["train.jsonl"])
    inputs = read_inputs(settings, Reporter(display), lambda: ModelSource("no-model", tiny, None, is_copy=True))
    assert inputs.source.is_copy


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"training__checkpoint__monitor": "val_perplexity"}, "MONITOR = val_perplexity needs evaluation data."),
        ({"training__checkpoint__monitor": "f2", "data__eval_fraction": 0.5}, "MONITOR = f2: there is no such metric."),
        (
            {"training__checkpoint__monitor": "val_token_accuracy", "data__eval_fraction": 0.5},
            "MONITOR = val_token_accuracy with MODE = min would keep the worst checkpoint.",
        ),
    ],
)
def test_a_metric_that_there_will_not_be_is_refused_before_training(
    tiny: Path, display: Lines, flags: dict[str, Any], message: str
) -> None:
    write_records(Path("train.jsonl"), 8)
    with pytest.raises(SettingsError) as caught:
        _read(tiny, display, **flags)
    assert caught.value.message == message and caught.value.hint


def test_each_split_is_read_as_training_reads_it(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 10)
    inputs = _read(tiny, display, data__eval_fraction=0.2, data__packing=False)
    settings = inputs.task.settings

    def split(name: str, *specs: str) -> Any:
        return read_split(settings, inputs.task, Reporter(display), packing=True, model=tiny, split=name, specs=specs)

    assert split("train").fingerprint == inputs.train.fingerprint
    assert inputs.eval is not None and split("validation").fingerprint == inputs.eval.fingerprint
    assert (len(split("train")), len(split("validation"))) == (8, 2)
    write_records(Path("other.jsonl"), 3)
    assert len(split("test", "other.jsonl")) == 3
    with pytest.raises(SettingsError, match="have no test split"):
        split("test")


def test_a_run_without_evaluation_data_has_no_validation_split(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 4)
    inputs = _read(tiny, display)
    with pytest.raises(SettingsError, match="no evaluation data"):
        read_split(inputs.task.settings, inputs.task, Reporter(display), packing=True, model=tiny, split="validation")


DATED = "{{ strftime_now('%d %B %Y') }}\n"


def _retemplated(tiny: Path, change: Callable[[str], str]) -> Path:
    """The tiny model with another chat template."""
    shutil.copytree(tiny, "other")
    path = Path("other/chat_template.jinja")
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    return Path("other")


def test_a_template_that_writes_the_date_is_told_the_day_and_that_is_said(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 6)
    model = _retemplated(tiny, lambda template: DATED + template)
    settings = settings_with(model__id=str(model), data__train=["train.jsonl"], data__max_length=128)
    inputs = read_inputs(settings, Reporter(display), day=date(2026, 1, 5))
    assert inputs.task.settings.data.template_date == "2026-01-05"
    assert "05 January 2026" in inputs.tokenizer.decode(inputs.train.examples[0].input_ids)
    assert display.lines == ["The chat template writes the date and is told 2026-01-05. --template-date sets another day."]
    again = read_inputs(inputs.task.settings, Reporter(display), day=date(2026, 1, 6))
    assert again.train.fingerprint == inputs.train.fingerprint
    assert inputs.task.relevant_settings() == {
        "rendering": 2,
        "template_date": "2026-01-05",
        "options": ANY,
        "stops": ["<|end|>"],
        "shapes": ANY,
        "too_long": "auto",
        "overlap": 0,
    }
    assert len(str(inputs.data_record()["template"])) == 64


def test_a_template_that_does_not_write_it_leaves_the_day_unset_and_says_that_one_is_not_used(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 6)
    inputs = _read(tiny, display)
    assert inputs.task.settings.data.template_date is None
    assert inputs.task.relevant_settings() == {
        "rendering": 2,
        "template_date": None,
        "options": ANY,
        "stops": ["<|end|>"],
        "shapes": ANY,
        "too_long": "auto",
        "overlap": 0,
    }
    assert not display.warnings
    _read(tiny, display, data__template_date="2026-01-05")
    assert display.warnings == ["The chat template does not write the date: --template-date 2026-01-05 is not used."]


def test_a_text_that_is_no_template_is_the_models_fault_and_not_the_first_records(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 6)
    model = _retemplated(tiny, lambda template: "line\n{% for x %}")
    with pytest.raises(ModelError, match=r"is no template: .* \(line 2\)"):
        _read(model, display)


def test_a_template_that_draws_at_random_is_refused(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 6)
    model = _retemplated(tiny, lambda template: template + "{{ ['a', 'b'] | random }}")
    with pytest.raises(ModelError, match=r"draws at random \(random\)"):
        _read(model, display)


def test_a_split_of_a_single_file_is_told_as_not_used(tiny: Path, display: Lines) -> None:
    write_records(Path("train.jsonl"), 6)
    _read(tiny, display, data__split="validation")
    assert display.warnings == ["--split validation is not used for 1 data set, which is a file and has one split: train.jsonl."]
