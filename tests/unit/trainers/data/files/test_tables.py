"""Tables: the values of every kind of column, cells and files that cannot be read, and files that are replaced."""

from __future__ import annotations

import datetime
import os
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Features, Json, List, Value

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.places import read_records
from pitstop.trainers.data.records import BadRows


def _read(path: Path, *, skip: bool = False) -> tuple[list[dict[str, Any]], BadRows]:
    bad = BadRows(skip)
    return [record.fields for record in read_records(str(path), bad)], bad


def _error(path: Path, *, skip: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        _read(path, skip=skip)
    return caught.value


def _written(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pyarrow.parquet.write_table(pa.table(columns), path, **options)
    return path


TEXT = pa.array(["a", None, "c"])
COLUMNS: dict[str, Any] = {
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "nanoseconds": pa.array([1, 1000, 3], pa.timestamp("ns")),
    "microseconds": pa.array([1, 1000, 3], pa.timestamp("us", tz="UTC")),
    "duration": pa.array([1000, 2000, 3000], pa.duration("us")),
    "date": pa.array([datetime.date(2026, 1, 1)] * 3),
    "nested": pa.array([{"a": {"b": 1, "c": None}}, {"a": None}, {"a": {"b": 2, "c": ["x"]}}]),
    "list": pa.array([[{"x": 1}], [{"x": None}], []]),
    "fixed": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2)),
    "large": pa.array(["a", "b", "c"], pa.large_string()),
    "view": pa.array(["a", "b", "c"], pa.string_view()),
    "large_list": pa.array([["a"], [], ["b", None]], pa.large_list(pa.string())),
    "binary": pa.array([b"a", b"", b"c"]),
    "decimal": pa.array([Decimal("1.5"), Decimal("2.0"), Decimal("3.0")]),
    "half": pa.array([1.5, 2.0, float("inf")], pa.float16()),
    "unsigned": pa.array([2**64 - 1, 0, 1], pa.uint64()),
    "null": pa.nulls(3),
    "json": pa.array(['{"a": [1, null]}', '"text"', "3"], pa.json_()),
}


@pytest.fixture
def _library_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("_library_cache")
def test_values_of_every_column_are_those_that_datasets_gives(tmp_path: Path) -> None:
    path = _written(tmp_path / "rows.parquet", {"text": TEXT, **COLUMNS})
    rows, bad = _read(path)
    theirs = datasets.load_dataset("parquet", data_files=str(path), split="train")
    assert rows == [{key: value for key, value in row.items() if value is not None} for row in theirs]
    assert [list(map(type, row.values())) for row in rows] == [
        [type(value) for value in row.values() if value is not None] for row in theirs
    ]
    assert bad.count == 0 and "text" not in rows[1]


@pytest.mark.usefixtures("_library_cache")
def test_a_file_that_datasets_wrote_gives_the_values_that_went_in(tmp_path: Path) -> None:
    rows = [
        {"calls": [{"b": 0}, {"c": [1, None]}], "free": {"z": 1}, "mixed": {"k": {"x": 1}, "t": "u"}, "label": 1},
        {"calls": [], "free": "text", "mixed": {"k": None, "t": "v"}, "label": 0},
    ]
    features = Features({
        "calls": List(Json()), "free": Json(), "mixed": {"k": Json(), "t": Value("string")},
        "label": datasets.ClassLabel(names=["p", "q"]),
    })  # fmt: skip
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    assert _read(path)[0] == rows == list(datasets.load_dataset("parquet", data_files=str(path), split="train"))


def test_a_map_is_an_object(tmp_path: Path) -> None:
    maps = pa.array([[("a", [("x", 1)]), ("b", None)], None, []], pa.map_(pa.string(), pa.map_(pa.string(), pa.int64())))
    rows, _ = _read(_written(tmp_path / "rows.parquet", {"text": TEXT, "map": maps}))
    assert rows == [{"text": "a", "map": {"a": {"x": 1}, "b": None}}, {}, {"text": "c", "map": {}}]


def test_a_map_with_a_key_twice_is_a_bad_row(tmp_path: Path) -> None:
    maps = pa.array([[("a", 1), ("a", 2)], [("a", 1)]], pa.map_(pa.string(), pa.int64()))
    path = _written(tmp_path / "rows.parquet", {"map": maps})
    assert str(_error(path)) == f"{path} row 1: a cell that cannot be read: a map with the key 'a' twice"
    assert _read(path, skip=True)[0] == [{"map": {"a": 1}}]


@pytest.mark.parametrize("name", ["rsync", "rename", "in place"])
def test_a_file_that_is_replaced_with_its_old_time_is_read_as_it_is_now(tmp_path: Path, name: str) -> None:
    path, other = tmp_path / "rows.parquet", tmp_path / "other.parquet"
    _written(path, {"text": ["old"]})
    assert _read(path)[0] == [{"text": "old"}]
    status = path.stat()
    _written(other, {"text": ["new"]})
    if name == "in place":
        path.write_bytes(other.read_bytes())
    else:
        other.replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert _read(path)[0] == [{"text": "new"}]


def test_an_empty_table_has_no_records(tmp_path: Path) -> None:
    assert _read(_written(tmp_path / "rows.parquet", {"text": pa.array([], pa.string())}))[0] == []


def test_rows_count_on_across_batches_and_row_groups(tmp_path: Path) -> None:
    path = _written(tmp_path / "rows.parquet", {"n": list(range(1000))}, row_group_size=300)
    records = list(read_records(str(path), BadRows(False)))
    assert [record.fields["n"] for record in records] == list(range(1000))
    assert records[999].place == f"{path} row 1000"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 not really", b"PAR1" + b"\0" * 100 + b"\xff\xff\xff\x7fPAR1"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    assert str(_error(path, skip=True)).startswith(f"{path}: damaged: ")


def test_a_file_with_a_damaged_page_is_read_up_to_it(tmp_path: Path) -> None:
    path = _written(
        tmp_path / "rows.parquet", {"text": [f"{n:08}" * 8 for n in range(1000)]}, row_group_size=512, use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    start = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    error = _error(path, skip=True)
    assert str(error).startswith(f"{path}: damaged behind row 512: ") and error.hint


def test_a_page_that_is_not_what_its_checksum_says_is_damage(tmp_path: Path) -> None:
    path = _written(
        tmp_path / "rows.parquet", {"text": ["right"]}, write_page_checksum=True, write_statistics=False, compression="none"
    )
    path.write_bytes(path.read_bytes().replace(b"right", b"wrong", 1))
    assert str(_error(path, skip=True)).startswith(f"{path}: damaged: ")


def test_a_large_row_group_is_not_held_whole(tmp_path: Path) -> None:
    text = [os.urandom(20_000).hex() for _ in range(3_000)]
    path = _written(tmp_path / "rows.parquet", {"text": text}, use_dictionary=False, compression="none")
    del text
    before, peak = pa.total_allocated_bytes(), 0
    for record in read_records(str(path), BadRows(False)):
        del record
        peak = max(peak, pa.total_allocated_bytes())
    assert path.stat().st_size > 110e6 and peak - before < 80e6


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    assert str(_error(path)) == f"{path}: two columns have the name 'a'."


def _table(kind: str) -> Any:
    if kind == "text":  # a file by another library, which does not look at its bytes
        offsets, data = pa.py_buffer(struct.pack("<5i", 0, 1, 3, 4, 5)), pa.py_buffer(b"a\xff\xfebc")
        return pa.table({"text": pa.Array.from_buffers(pa.string(), 4, [None, offsets, data])})
    text = ["a", "x", "b", "c"]
    if kind == "json":
        return pa.table({"text": text, "free": pa.array(["1", "[" * 300 + "]" * 300, "{}", "null"], pa.json_())})
    kinds = {"date": (pa.date32(), 2**30), "time": (pa.timestamp("us"), 2**62)}
    arrow, far = kinds[kind]
    return pa.table({"text": text, "when": pa.array([0, far, 1, 2], arrow)})


@pytest.mark.parametrize("kind", ["text", "date", "time", "json"])
def test_a_cell_of_a_table_that_cannot_be_read_is_the_fault_of_its_row(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(_table(kind), path)
    assert str(_error(path)).startswith(f"{path} row 2: a cell that cannot be read: ")
    rows, bad = _read(path, skip=True)
    assert [row["text"] for row in rows] == ["a", "b", "c"] and bad.count == 1


@pytest.mark.parametrize("form", ["stream", "file", "feather"])
def test_arrow_files_of_either_form_are_read_like_parquet(tmp_path: Path, form: str) -> None:
    from pyarrow import feather, ipc

    columns = {"text": TEXT, **COLUMNS}
    table, path = pa.table(columns), tmp_path / ("rows.feather" if form == "feather" else "rows.arrow")
    if form == "feather":
        feather.write_feather(table, path, compression="zstd")
    else:
        with (ipc.new_stream if form == "stream" else ipc.new_file)(path, table.schema) as writer:
            writer.write_table(table)
    rows, bad = _read(path)
    assert rows == _read(_written(tmp_path / "rows.parquet", columns))[0] and bad.count == 0
    path.write_bytes(path.read_bytes()[:-300])
    assert str(_error(path)).startswith(f"{path}: damaged")


def test_feather_of_its_first_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.feather").write_bytes(b"FEA1" + bytes(100))
    assert "version 2" in str(_error(tmp_path / "rows.feather"))
