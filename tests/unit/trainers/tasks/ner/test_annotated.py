"""Which of the two formats a file has, and what both have in common."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.sft import SftTask
from support.annotated_files import IOB, PUBTATOR, in_files, read_place, read_text, refusal


@pytest.mark.parametrize("text", [PUBTATOR.replace("rats", "r\udcfets"), IOB.replace("eased", "e\udcfeed")])
def test_bytes_that_are_no_text_are_a_bad_row_with_its_line(tmp_path: Path, text: str) -> None:
    raw = text.encode(errors="surrogateescape")
    number = next(i for i, line in enumerate(raw.splitlines(), start=1) if b"\xfe" in line)
    assert f"line {number}: not UTF-8 text" in refusal(tmp_path / "a.txt", raw)
    rows, bad = read_place(tmp_path / "a.txt", skip=True)
    assert len(rows) == 1 and bad.count == 1


def test_text_of_neither_format_is_refused_but_passed_over_in_a_directory(tmp_path: Path) -> None:
    message = refusal(tmp_path / "LICENCE.txt", "You may use this data.\n")
    assert "LICENCE.txt: neither PubTator nor IOB text." in message
    (tmp_path / "a.txt").write_text(PUBTATOR)
    (tmp_path / "b.tsv").write_text(IOB)
    (tmp_path / "c.jsonl").write_text('{"text": "t", "entities": {}}\n')
    rows, _ = read_place(tmp_path)
    assert [row.get("id") for row in rows] == ["2004", "77", f"{tmp_path}/b.tsv line 3", f"{tmp_path}/b.tsv line 10", None]


def test_other_tasks_say_who_reads_such_a_file_and_similar_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "train.pubtator").write_text(PUBTATOR)
    with pytest.raises(DataError) as caught:
        list(SftTask(None).records(str(tmp_path / "train.pubtator"), BadRows(False), split="train", token=None))
    assert "--task ner" in str(caught.value.hint)
    for spec in (tmp_path / "trian.pubtator", Path("data/train.conll")):
        with pytest.raises(DataError, match="No data at") as caught:
            read_place(spec)
    with pytest.raises(DataError) as caught:
        read_place(tmp_path / "trian.pubtator")
    assert caught.value.hint == f"Did you mean {tmp_path}/train.pubtator?"


@in_files
@given(st.binary(max_size=200), st.sampled_from([".pubtator", ".conll", ".txt"]))
def test_any_bytes_are_records_bad_rows_or_a_refusal(raw: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            rows, _ = read_text(Path(directory) / f"a{suffix}", raw, skip=True)
        except DataError as error:
            assert "neither PubTator nor IOB" in error.message
        else:
            assert all(row["text"] is not None for row in rows)


@pytest.mark.parametrize(
    ("name", "text", "count"), [("x.PubTator", PUBTATOR, 2), ("x.TXT", PUBTATOR, 2), ("x.IOB", IOB, 2), ("x.Tsv", IOB, 2)]
)
def test_endings_are_known_in_any_case(tmp_path: Path, name: str, text: str, count: int) -> None:
    assert len(read_text(tmp_path / name, text)[0]) == count
    (tmp_path / "LICENSE.TXT").write_text("Do what you like.")
    assert len(read_place(tmp_path)[0]) == count
