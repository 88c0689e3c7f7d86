"""Records from tables: Parquet files, and whatever else comes as Arrow batches.

Files are read by pyarrow itself. ``datasets`` would keep a copy under a key of path and time, and hand out the rows of a file that was
since replaced with its old time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.configs.errors import DataError, first_line
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.data.row_json import parse_json

if TYPE_CHECKING:
    import pyarrow

_BATCH = 256
"""Rows at a time: what is in memory as Python objects."""
_UNREADABLE = (ValueError, ArithmeticError)
"""What a cell raises that Python cannot hold: text that is no UTF-8, the year 300,000, JSON past our limits."""

Decode = Callable[[Any], Any]


def read_parquet(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    """Yield the rows of a Parquet file. Raises ``DataError`` where it is damaged, with the row up to which it could be read."""
    import pyarrow.parquet

    def batches() -> Iterator[pyarrow.RecordBatch]:
        # Without a buffer, or read ahead, a row group of gigabytes would be in memory whole.
        options = {"buffer_size": 1 << 20, "pre_buffer": False, "page_checksum_verification": True}
        with path.open("rb") as raw, pyarrow.parquet.ParquetFile(raw, **options) as file:
            yield from file.iter_batches(batch_size=_BATCH, use_threads=False)

    yield from records_of(batches(), name, bad_rows, lambda number: f"{name} row {number}")


def read_arrow(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    """Yield the rows of an Arrow file, in its stream or file form (Feather). Raises ``DataError`` where it is damaged."""

    def batches() -> Iterator[pyarrow.RecordBatch]:
        from pyarrow import ipc

        with path.open("rb") as raw:
            start = raw.read(6)
            raw.seek(0)
            if start.startswith(b"FEA1"):
                raise ValueError("Feather of version 1, which is not read; pyarrow.feather.write_feather writes version 2")
            if start != b"ARROW1":
                yield from ipc.open_stream(raw)
                return
            reader = ipc.open_file(raw)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))

    yield from records_of(batches(), name, bad_rows, lambda number: f"{name} row {number}")


def records_of(batches: Iterator[Any], name: str, bad_rows: BadRows, place_of: Callable[[int], str]) -> Iterator[Record]:
    """The records of record batches or tables of one schema; ``place_of`` names a row by its number, from 1.

    An empty cell is a field that the record does not have. Raises ``DataError`` where the next batch cannot be had, and for columns
    whose names are not text or not different.
    """
    number, decode = 0, None
    while (batch := _next(batches, name, number)) is not None:
        decode = decode or _row_decoder(batch.schema, name)
        for row in chain.from_iterable(_rows(batch.slice(start, _BATCH), decode) for start in range(0, batch.num_rows, _BATCH)):
            number += 1
            if isinstance(row, Exception):
                bad_rows.report(place_of(number), f"a cell that cannot be read: {first_line(row)}")
            else:
                yield Record({key: value for key, value in row.items() if value is not None}, place_of(number), fills_nulls=True)


def _next(batches: Iterator[Any], name: str, number: int) -> Any:
    """The next batch behind row ``number``; None at the end. What fails here is the file's fault and no row's."""
    import pyarrow

    try:
        return next(batches, None)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not a decompressor's
            raise
        place = f" behind row {number}" if number else ""
        raise DataError(f"{name}: damaged{place}: {first_line(error)}", hint="Fetch or make the file again.") from error


def _rows(batch: Any, decode: Decode) -> Iterator[dict[str, Any] | Exception]:
    """The rows of a batch, each as a dict or as what makes it unreadable."""
    try:
        rows = batch.to_pylist()
    except _UNREADABLE:
        rows = None  # which row it is shows when each is taken by itself
    for index in range(batch.num_rows):
        try:
            row = decode(batch.slice(index, 1).to_pylist()[0] if rows is None else rows[index])
        except _UNREADABLE as error:
            yield error
        else:
            yield row


def _row_decoder(schema: pyarrow.Schema, name: str) -> Decode:
    try:
        names = schema.names
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: the names of the columns are not UTF-8 text.", hint="Make the file again.") from error
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise DataError(f"{name}: two columns have the name {twice[0]!r}.", hint="Rename one, and make the file again.")
    return _struct_decoder({field.name: field.type for field in schema}) or (lambda row: row)


def _struct_decoder(types: dict[str, pyarrow.DataType]) -> Decode | None:
    decoders = {name: decode for name, type_ in types.items() if (decode := _decoder(type_)) is not None}
    if not decoders:
        return None
    return lambda struct: {key: decoders[key](value) if key in decoders else value for key, value in struct.items()}


def _decoder(type_: pyarrow.DataType) -> Decode | None:
    """What ``to_pylist`` leaves to do: JSON columns (``datasets.Json``) are parsed, maps become dicts. None for nothing."""
    from pyarrow import types

    decode: Decode | None = None
    if getattr(type_, "extension_name", "") == "arrow.json":
        decode = parse_json
    elif types.is_struct(type_):
        decode = _struct_decoder({type_.field(index).name: type_.field(index).type for index in range(type_.num_fields)})
    elif types.is_map(type_):
        key, item = _decoder(type_.key_type), _decoder(type_.item_type)
        decode = lambda pairs: _dict_of((key(k) if key else k, item(v) if item else v) for k, v in pairs)  # noqa: E731
    elif hasattr(type_, "value_type") and (value := _decoder(type_.value_type)) is not None:  # lists of all kinds
        decode = lambda values: [value(member) for member in values]  # noqa: E731
    return decode and _unless_null(decode)


def _unless_null(decode: Decode) -> Decode:
    return lambda value: None if value is None else decode(value)


def _dict_of(pairs: Iterator[tuple[Any, Any]]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"a map with the key {key!r} twice")
        result[key] = value
    return result
