"""Compressed texts: the same records and places as without, and a damaged or cut stream stops with its place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.places import read_records
from pitstop.trainers.data.records import BadRows


def _zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue().to_pybytes())


PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": _zst, ".xz": lzma.compress, ".bz2": bz2.compress}
LINES = "".join(json.dumps({"text": f"größe {n * n}"}, ensure_ascii=False) + "\n" for n in range(20_000)).encode()


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("form", [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt"])
def test_a_compressed_text_has_the_records_of_the_text(tmp_path: Path, form: str, ending: str) -> None:
    content = {
        ".json": b'[{"text": "a"}, {"text": "b"}]', ".csv": b"text,n\na,1\nb,2\n", ".tsv": b"text\tn\na,b\t1\n\"b\tc\"\t2\n",
        ".txt": "\ufeffOne.\r\nTwo.".encode(),
    }.get(form, b'\n{"text": "a"}\n{"text": "b"}\n')  # fmt: skip
    plain, packed = tmp_path / f"a{form}", tmp_path / f"a{form}{ending}"
    plain.write_bytes(content)
    packed.write_bytes(PACK[ending](content))
    expected = [record.fields for record in read_records(str(plain), BadRows(False))]
    records = list(read_records(str(packed), BadRows(False)))
    assert [record.fields for record in records] == expected != []
    assert records[0].place == f"{packed}" + {".json": " record 1", ".csv": " line 2", ".tsv": " line 2", ".txt": ""}.get(
        form, " line 2"
    )


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("harm", ["cut", "damaged"])
def test_a_stream_that_is_cut_or_damaged_stops_there(tmp_path: Path, ending: str, harm: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    content = bytearray(PACK[ending](LINES))
    if harm == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 3 : 2 * len(content) // 3] = b"\x55" * (2 * len(content) // 3 - len(content) // 3)
    path.write_bytes(content)
    bad, records = BadRows(True), []
    with pytest.raises(DataError, match=f"^{path}: damaged or cut off") as caught:
        records.extend(read_records(str(path), bad))
    assert len(records) < 20_000
    if harm == "cut":  # what is damaged may give some letters before it shows
        assert f" behind line {len(records)}: " in str(caught.value) or not records
        assert bad.count == 0
        assert [record.fields["text"] for record in records] == [f"größe {n * n}" for n in range(len(records))]


@pytest.mark.parametrize("ending", PACK)
def test_several_streams_in_one_file_are_read_all(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(PACK[ending](b'{"text": "a"}\n') + PACK[ending](b'{"text": "b"}\n'))
    assert [record.fields["text"] for record in read_records(str(path), BadRows(False))] == ["a", "b"]


def test_zeros_behind_a_stream_of_xz_are_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    streams = [lzma.compress(b'{"text": "a"}\n'), b"\0" * 20_000, lzma.compress(b'{"text": "b"}\n'), b"\0" * 8]
    path.write_bytes(b"".join(streams))
    assert [record.fields["text"] for record in read_records(str(path), BadRows(False))] == ["a", "b"]


@pytest.mark.parametrize("ending", PACK)
def test_a_stream_behind_another_that_is_damaged_where_it_begins_is_not_taken_for_the_end(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    stream = PACK[ending](b'{"text": "a"}\n')
    path.write_bytes(stream + b"XX" + stream[2:])
    with pytest.raises(DataError, match=f"{path}: damaged or cut off"):
        list(read_records(str(path), BadRows(True)))


@pytest.mark.parametrize("ending", PACK)
def test_what_is_not_packed_as_its_name_says_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(b'{"text": "a"}\n')
    with pytest.raises(DataError, match=f"{path}: damaged or cut off: "):
        list(read_records(str(path), BadRows(True)))


def test_a_compressed_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(DataError, match="cannot tell the format"):
        list(read_records(str(tmp_path / "a.parquet.gz"), BadRows(True)))
