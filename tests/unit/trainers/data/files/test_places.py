"""Every form that data comes in, and what is said about data that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files import places
from pitstop.trainers.data.files.places import read_records
from pitstop.trainers.data.records import BadRows
from support.json_lines import write_rows

ROWS = [{"prompt": "Is it 007?", "completion": "- none"}, {"prompt": "Größe, “quoted”\nand a line", "completion": "1"}]


def _read(spec: str | Path, *, skip: bool = False) -> tuple[list[dict[str, Any]], BadRows]:
    bad = BadRows(skip)
    return [record.fields for record in read_records(str(spec), bad)], bad


def _error(spec: str | Path, *, skip: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        _read(spec, skip=skip)
    return caught.value


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_same_records(tmp_path: Path, suffix: str) -> None:
    rows, bad = _read(_write(tmp_path / f"rows{suffix}", ROWS))
    assert rows == ROWS and bad.count == 0


@given(st.lists(st.dictionaries(st.sampled_from(["prompt", "completion", "other"]), st.text()), max_size=5))
def test_json_lines_come_back_whatever_their_text(rows: list[dict[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        write_rows(path, rows)
        assert _read(path)[0] == rows


@pytest.mark.parametrize("suffix", [".JSONL", ".Json", ".CSV", ".Parquet"])
def test_endings_are_known_in_any_case(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"rows{suffix.lower()}", ROWS)
    path.rename(tmp_path / f"rows{suffix}")
    assert _read(tmp_path / f"rows{suffix}")[0] == _read(tmp_path)[0] == ROWS


@pytest.mark.parametrize("cell", ["None", "NA", "null", "nan", "007", "1.0", "True", "2024-01-01"])
def test_a_csv_cell_is_the_text_that_stands_there(tmp_path: Path, cell: str) -> None:
    assert _read(_write(tmp_path / "rows.csv", [{"prompt": "p", "completion": cell}]))[0] == [{"prompt": "p", "completion": cell}]


def test_a_csv_row_with_other_cells_than_the_header_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\na,b\nc\nd,e,f\ng,h\n")
    assert str(_error(path)) == f"{path} line 3: not as many cells as the header's 2"
    rows, bad = _read(path, skip=True)
    assert [row["prompt"] for row in rows] == ["a", "g"]
    assert bad.count == 2


def test_a_csv_record_longer_than_a_page_is_read(tmp_path: Path) -> None:
    long = "x" * 200_000
    assert _read(_write(tmp_path / "rows.csv", [{"text": long}]))[0] == [{"text": long}]


def test_a_broken_csv_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\na,b\nc,"d"e\n')
    assert str(_error(path)).startswith(f"{path} line 3: not valid CSV")


def test_a_directory_is_read_file_by_file_in_the_order_of_names(tmp_path: Path) -> None:
    _write(tmp_path / "b.jsonl", [{"text": "second"}])
    _write(tmp_path / "a.csv", [{"text": "first"}])
    (tmp_path / "notes.txt").write_text("no data")
    (tmp_path / "c.jsonl").mkdir()
    assert [row["text"] for row in _read(tmp_path)[0]] == ["first", "second"]


def test_a_directory_without_data(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no data")
    assert str(_error(tmp_path)) == f"No data files in {tmp_path}. There are: notes.md."


def test_shipped_data_is_read_by_name() -> None:
    rows, _ = _read("example:medical_ner/train.jsonl")
    assert len(rows) >= 100 and {"prompt", "completion"} <= rows[0].keys()


@pytest.mark.parametrize("name", ["example:nothing.jsonl", "example:medical_ner"])
def test_what_is_not_shipped_is_named(name: str) -> None:
    error = _error(name)
    assert name in str(error) and "example:medical_ner/train.jsonl" in str(error.hint)


def test_wrong_json_on_line_7_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n' * 5 + "\n" + '{"text": "a"\n' + '{"text": "b"}\n')
    error = _error(path)
    assert str(error) == f"{path} line 7: not valid JSON: Expecting ',' delimiter at column 13"
    assert "--skip-bad-rows" in str(error.hint)


def test_bad_rows_are_counted_and_the_first_three_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{\n[1]\n"text"\nnull\n{"text": "b"}\n')
    rows, bad = _read(path, skip=True)
    assert [row["text"] for row in rows] == ["a", "b"]
    assert bad.count == 4
    assert [reason.split(": ")[0] for reason in bad.reasons] == [f"{path} line {n}" for n in (2, 3, 4)]
    assert bad.reasons[1].endswith("wanted a JSON object with named fields, found list")


def test_a_line_that_is_not_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 2000 + '{"text": "Größe"}\n'.encode("latin-1") + b'{"text": "b"}\n')
    assert str(_error(path)) == f"{path} line 2001: not UTF-8 text"
    rows, bad = _read(path, skip=True)
    assert len(rows) == 2001 and bad.count == 1


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_other_text_that_is_not_utf_8_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes("text\nGröße\n".encode("latin-1"))
    assert "not UTF-8" in str(_error(path))


DIGITS, DEEP = '{"text": "a", "n": ' + "9" * 5000 + "}", '{"text": "a", "n": ' + "[" * 100_000 + "]" * 100_000 + "}"
LATIN = '{"text": "Größe"}'.encode("latin-1").decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (DIGITS, "JSON that cannot be used: Exceeds the limit"),
        (DEEP, "JSON nested more than 200 deep"),
        (LATIN, "not UTF-8 text"),
        ('{"text": "a", "text": "b"}', "JSON that cannot be used: the key 'text' stands twice in one object"),
    ],
    ids=["digits", "depth", "bytes", "a key twice"],
)
@pytest.mark.parametrize("form", [".jsonl", ".json", "data.json"])
def test_what_the_parser_cannot_take_is_the_fault_of_its_row(tmp_path: Path, row: str, reason: str, form: str) -> None:
    rows = ['{"text": "first"}', row, '{"text": "last, [2] \\"{"}']
    path = tmp_path / f"rows{Path(form).suffix or form}"
    text = {
        ".jsonl": "\n".join(rows),
        ".json": f"[{', '.join(rows)}]",
        "data.json": '{{"n": [1], "data": [{}]}}'.format(",\n".join(rows)),
    }[form]
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    place = f"{path} {'line' if form == '.jsonl' else 'record'} 2"
    assert str(_error(path)).startswith(f"{place}: {reason}") and "--skip-bad-rows" in str(_error(path).hint)
    records_read, bad = _read(path, skip=True)
    assert records_read == [{"text": "first"}, {"text": 'last, [2] "{'}]
    assert bad.count == 1 and bad.reasons[0].startswith(f"{place}: {reason}")


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_the_limit_of_depth_is_the_same_where_the_parser_gets_deeper(tmp_path: Path, suffix: str) -> None:
    row = '{"text": ' + "[" * 300 + "]" * 300 + "}"
    path = tmp_path / f"rows{suffix}"
    path.write_text(row if suffix == ".jsonl" else f"[{row}]")
    assert str(_error(path)).endswith("1: JSON nested more than 200 deep")


def test_a_json_file_that_is_cut_off_behind_such_a_row_is_refused_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(f'[{DEEP}, {{"text": "a"}}, {{"text"')
    assert str(_error(path, skip=True)) == f"{path}: not valid JSON: it does not end."


def test_a_csv_row_that_is_not_utf_8_or_breaks_its_quotes_is_bad_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,n\na,1\nGr\xf6\xdfe,2\n"b\nc"d,3\ne,4\n"g\x00h",5\n')
    assert str(_error(path)) == f"{path} line 3: not UTF-8 text"
    rows, bad = _read(path, skip=True)
    assert rows == [{"text": "a", "n": "1"}, {"text": "e", "n": "4"}, {"text": "g\x00h", "n": "5"}]
    assert bad.count == 2
    assert bad.reasons[1] == f"{path} line 5: not valid CSV: ',' expected after '\"' in the row that begins in line 4"


def test_a_quote_that_is_never_closed_is_no_single_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,n\na,1\n"b,2\nc,3\n')
    assert str(_error(path, skip=True)) == f"{path} line 3: not valid CSV: its quote is not closed before the file ends."


def test_a_csv_header_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("Größe\na\n".encode("latin-1"))
    assert str(_error(path, skip=True)) == f"{path} line 1: the names of the columns are not UTF-8 text."


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"rows{suffix}", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert _read(path)[0] == ROWS


def test_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\r\n\r\n{"text": "b"}\r\n')
    assert _read(path)[0] == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_empty_file_has_no_records(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.touch()
    assert _read(path) == ([], BadRows(False))


def test_json_may_hold_its_records_under_data(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": ROWS}))
    assert _read(path)[0] == ROWS


@pytest.mark.parametrize("content", ["{}", '"text"', '{"data": 3}', "null"])
def test_json_without_a_list_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    assert "wanted a list of records" in str(_error(path))


def test_json_lines_in_a_json_file_get_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    error = _error(path)
    assert f"{path} line 2" in str(error) and ".jsonl" in str(error.hint)


def test_a_record_of_a_json_list_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "a"}, 3]')
    assert str(_error(path)) == f"{path} record 2: wanted a JSON object with named fields, found int"


def test_a_missing_file_gets_the_name_that_was_meant(tmp_path: Path) -> None:
    _write(tmp_path / "train.jsonl", ROWS)
    error = _error(tmp_path / "trian.jsonl")
    assert str(error) == f"No data at {tmp_path / 'trian.jsonl'}: no such file or directory."
    assert str(error.hint) == f"Did you mean {tmp_path / 'train.jsonl'}?"


def test_a_missing_file_like_no_other_gets_what_is_there(tmp_path: Path) -> None:
    _write(tmp_path / "train.jsonl", ROWS)
    assert "there are: train.jsonl" in str(_error(tmp_path / "quite-different.csv").hint)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert "does not exist either" in str(_error(tmp_path / "no" / "such.jsonl").hint)


@pytest.mark.parametrize("spec", ["data/train.jsonl", "./owner/name", "train", "a/b/c", "/owner/name"])
def test_these_are_files_not_hub_ids(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "read_hub", lambda *a: pytest.fail("went to the Hub"))
    assert "No data at" in str(_error(spec))


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.gz", "rows.jsonl.lz4", "rows.parquet.gz"])
def test_a_file_of_an_unknown_format_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    error = _error(tmp_path / name)
    assert "cannot tell the format" in str(error) and ".parquet" in str(error.hint)


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("https://a.org/x.jsonl", "Pitstop reads local files and Hub data sets", "curl -LO https://a.org/x.jsonl"),
        ("s3://bucket/x.jsonl", "Pitstop reads local files and Hub data sets", "aws s3 cp s3://bucket/x.jsonl ."),
        ("gs://bucket/x.jsonl", "Pitstop reads local files and Hub data sets", "gcloud storage cp gs://bucket/x.jsonl ."),
        ("https://huggingface.co/datasets/owner/name/tree/main", "is no data set", "Did you mean --dataset owner/name?"),
        ("hf://datasets/owner/name/a.jsonl", "is no data set", "Did you mean --dataset owner/name?"),
    ],
)
def test_places_on_the_net_are_told_how_to_be_had(spec: str, message: str, hint: str) -> None:
    error = _error(spec)
    assert message in str(error) and hint in str(error.hint)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text("text,text\na,b\n".replace(",", "\t" if suffix == ".tsv" else ","))
    assert str(_error(path)) == f"{path} line 1: two columns have the name 'text'."


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "an empty document"), (b" \n", "an empty document"), (b"\xff", "not UTF-8 text")]
)
def test_a_document_without_text_is_bad(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert str(_error(tmp_path / "a.txt")) == f"{tmp_path}/a.txt: {reason}"
