"""Tokenised data on disk: the same as in memory, made once, and made again whenever anything that it follows from changes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitstop.checkpointing.disk import locking
from pitstop.configs.errors import DataError, ResourceError
from pitstop.trainers.data.cache import entry, key
from pitstop.trainers.data.cache.table import TableExamples, TableWriter
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.data.splits import hold_out
from pitstop.trainers.tasks.sft import SftTask
from pitstop.trainers.tasks.text import TextTask
from support.cached_data import NamedTask, RecordingCache, load


def _same(one: Dataset, other: Dataset) -> bool:
    pairs = zip(one.examples, other.examples, strict=True)
    fields = ("reference", "group", "cut")
    return (
        (one.fingerprint, one.counts) == (other.fingerprint, other.counts)
        and [one.packs[n].tolist() for n in range(len(one))] == [other.packs[n].tolist() for n in range(len(other))]
        and all(
            a.input_ids.tolist() == b.input_ids.tolist()
            and a.supervised.tolist() == b.supervised.tolist()
            and [getattr(a, name) for name in fields] == [getattr(b, name) for name in fields]
            for a, b in pairs
        )
    )


def _must_not_read(*arguments: Any, **named: Any) -> Any:
    raise AssertionError("it was tokenised again")


# The same --------------------------------------------------------------------------------------------------------------------


def test_small_data_in_a_table_and_in_the_cache_are_the_same(
    file: Path, sft: SftTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = RecordingCache(tmp_path / "cache")
    table, kept = load(file, sft, None), load(file, sft, cache)
    monkeypatch.setattr(key, "SMALL_BYTES", 10**9)
    small = load(file, sft, cache)
    assert type(small.examples).__name__ == "InMemory" and isinstance(table.examples, TableExamples)
    assert isinstance(kept.examples, entry.KeptExamples) and _same(small, table) and _same(small, kept)
    ids = [3, 0, 1]
    assert [e.input_ids.tolist() for e in kept.sequence_examples(ids)] == [
        e.input_ids.tolist() for e in small.sequence_examples(ids)
    ]


def test_the_second_time_nothing_is_tokenised_or_packed(
    file: Path, sft: SftTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = RecordingCache(tmp_path / "cache"), RecordingCache(tmp_path / "cache")
    one = load(file, sft, first)
    halves = hold_out(one, 0.2, seed=3, max_length=64, packing=True)
    assert first.said == [f"Data: 60 examples of {file} tokenised; they are kept for the next time"]
    for name in ("pack", "_fingerprint"):
        monkeypatch.setattr(f"pitstop.trainers.data.dataset.{name}", _must_not_read)
    monkeypatch.setattr(SftTask, "examples_of", _must_not_read)
    other = load(file, sft, again)
    assert _same(one, other) and again.said == [f"Data: 60 examples of {file} from the cache"]
    for half, kept in zip(halves, hold_out(other, 0.2, seed=3, max_length=64, packing=True), strict=True):
        assert _same(half, kept)
    with pytest.raises(AssertionError, match="again"):
        hold_out(other, 0.2, seed=4, max_length=64, packing=True)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text("amz", min_size=2, max_size=9), st.sampled_from(["", "x", "yy"])), min_size=1, max_size=30)
)
def test_references_groups_and_cuts_survive_tables_of_any_batches(rows: list[tuple[str, str]]) -> None:
    task = NamedTask.__new__(NamedTask)
    examples = [e for text, group in rows for e in task.examples(Record({"text": text, "group": group}, ""))]
    writer = TableWriter()
    for number, example in enumerate(examples):
        writer.add(example)
        if number % 3 == 1:
            writer._flush()
    writer.close()
    table = TableExamples(writer.batches)
    for found in (list(table), list(table.scan()), [table[n - len(table)] for n in range(len(table))]):
        for one, other in zip(examples, found, strict=True):
            assert one.input_ids.tolist() == other.input_ids.tolist() and one.supervised.tolist() == other.supervised.tolist()
            assert (one.reference, one.group, one.cut) == (other.reference, other.group, other.cut)
    assert table.learnt.tolist() == [int(e.supervised.sum()) for e in examples]
    numbers, names = table.groups()
    assert [names[n] if n >= 0 else "" for n in numbers] == [e.group for e in examples]


def test_the_file_is_one_that_datasets_opens(file: Path, sft: SftTask, tmp_path: Path) -> None:
    import datasets

    cache = RecordingCache(tmp_path / "cache")
    data = load(file, sft, cache)
    rows = datasets.Dataset.from_file(str(cache.entries()[0] / entry.EXAMPLES))
    assert rows.column_names == ["input_ids", "supervised", "learnt", "reference", "group", "cut", "answers", "opens", "hash64"]
    assert rows[7]["input_ids"] == data.examples[7].input_ids.tolist() and len(rows) == 60


@pytest.mark.parametrize("skip", [True, False])
def test_bad_rows_are_told_in_the_order_of_the_file_however_many_are_tokenised_at_once(
    tmp_path: Path, sft: SftTask, skip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    good, empty, broken = json.dumps({"text": "x"}), json.dumps({"text": ""}), "{"
    path.write_text("\n".join([good, empty, good, broken, empty, good, broken]))
    found = []
    for batch in (1, 3, 512):
        monkeypatch.setattr("pitstop.trainers.data.reading._BATCH", batch)
        try:
            counts = load(path, sft, None, skip_bad_rows=skip).counts
            found.append((counts.bad, *(reason.split(": ")[0] for reason in counts.bad_reasons)))
        except DataError as error:
            found.append((0, str(error)))
    lines = [f"{path} line {number}" for number in (2, 4, 5)]
    assert found == [(4, *lines) if skip else (0, f"{lines[0]}: 'text' is empty")] * 3


def test_tokenising_many_at_once_gives_what_one_after_the_other_does(sft: SftTask) -> None:
    texts = ["", " ", "Aspirin eased her migraine.", "größe \U0001f9ea", "<|end|>", "x\n\n", "\ud800"]
    rows: list[dict[str, Any]] = [{"text": text} for text in texts] + [
        {"prompt": a, "completion": b} for a in texts for b in texts[2:]
    ]
    rows += [
        {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}] * 2} for a in texts for b in texts
    ]
    for chosen in (rows, [row for row in rows if "\ud800" not in repr(row) and "\\ud800" not in repr(row)]):
        records = [Record(row, str(number)) for number, row in enumerate(chosen)]
        one_by_one = TextTask.examples_of(sft, records, BadRows(False))
        for alone, together in zip(one_by_one, sft.examples_of(records, BadRows(False)), strict=True):
            if isinstance(alone, list):
                assert isinstance(together, list) and alone[0].input_ids.tolist() == together[0].input_ids.tolist()
                assert alone[0].supervised.tolist() == together[0].supervised.tolist()
            else:
                assert str(alone) == str(together)


def test_a_digest_is_remembered_until_the_file_changes(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RecordingCache(tmp_path / "cache")
    first = cache.digest(file)
    assert not cache.directory.exists()  # it is new, and may change again within one tick of its clock
    file.write_text("more")  # right after: its time may be the same
    assert cache.digest(file) != first
    monkeypatch.setattr("pitstop.trainers.data.cache.cache._SETTLED_NS", -1)
    second = cache.digest(file)
    hashed: list[Path] = []
    monkeypatch.setattr("pitstop.trainers.data.cache.cache.file_sha256", lambda path: hashed.append(path) or "again")
    assert cache.digest(file) == second and not hashed
    kept = file.stat()
    file.write_text("mare")
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # the time of its content is the old one
    assert cache.digest(file) == "again" and hashed == [file]


@pytest.mark.parametrize("way", ["cp -p", "rename over", "same size in place"])
def test_a_digest_follows_the_content_whatever_time_the_file_claims(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("pitstop.trainers.data.cache.cache._SETTLED_NS", -1)
    cache, kept = RecordingCache(tmp_path / "cache"), file.stat()
    first, other = cache.digest(file), tmp_path / "other"
    other.write_bytes(bytes(reversed(file.read_bytes())))
    os.utime(other, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    if way == "cp -p":
        shutil.copy2(other, file)
    elif way == "rename over":
        other.replace(file)
    else:
        file.write_bytes(other.read_bytes())
        os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert file.stat().st_mtime_ns == kept.st_mtime_ns and file.stat().st_size == kept.st_size
    assert cache.digest(file) == hashlib.sha256(file.read_bytes()).hexdigest() != first


def test_data_that_changes_while_it_is_read_is_refused_and_not_kept(file: Path, sft: SftTask, tmp_path: Path) -> None:
    cache = RecordingCache(tmp_path / "cache")
    records = sft.records

    def changing(*arguments: Any, **named: Any) -> Iterator[Record]:
        yield from records(*arguments, **named)
        file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")

    sft.records = changing  # type: ignore[method-assign]
    with pytest.raises(DataError, match="changed while it was read"):
        load(file, sft, cache)
    assert not cache.entries()


# Damage, room, and others ----------------------------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 1
    path.write_bytes(bytes(raw))


def _count_otherwise(path: Path) -> None:
    """Change how many tokens are said to be learnt in the first row, in a table that stays a sound one."""
    import pyarrow as pa

    raw = bytearray(path.read_bytes())
    with pa.ipc.open_stream(bytes(raw)) as reader:
        counted = reader.read_next_batch().column("learnt").to_numpy().tobytes()
    raw[raw.index(counted)] ^= 1
    path.write_bytes(bytes(raw))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "examples cut": lambda e: _cut(e / entry.EXAMPLES),
    "examples gone": lambda e: (e / entry.EXAMPLES).unlink(),
    "examples of zeros": lambda e: (e / entry.EXAMPLES).write_bytes(bytes((e / entry.EXAMPLES).stat().st_size)),
    "a count in the examples": lambda e: _count_otherwise(e / entry.EXAMPLES),
    "index cut": lambda e: _cut(e / entry.INDEX),
    "a bit of the index": lambda e: _flip(e / entry.INDEX),
    "index gone": lambda e: (e / entry.INDEX).unlink(),
    "index of another": lambda e: (e / entry.INDEX).write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_noticed_and_made_anew(
    file: Path, sft: SftTask, tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    whole = load(file, sft, RecordingCache(tmp_path / "cache"))
    expected = load(file, sft, None)
    cache = RecordingCache(tmp_path / "cache")
    del whole  # its map of the file that is damaged now
    damage(cache.entries()[0])
    assert _same(load(file, sft, cache), expected)
    assert len(cache.said) == 2 and "is damaged and is made again" in cache.said[0] and "tokenised" in cache.said[1]
    again = RecordingCache(tmp_path / "cache")
    assert _same(load(file, sft, again), expected) and "from the cache" in again.said[0]


def _other_member(path: Path, data: Dataset) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(data.packs.members.astype("<i8").tobytes())] ^= 1
    path.write_bytes(bytes(raw))


PACKS_DAMAGE: dict[str, Callable[[Path, Dataset], Any]] = {
    "cut": lambda path, data: _cut(path),
    "empty": lambda path, data: path.write_bytes(b""),
    "another example in a sequence": _other_member,
}


@pytest.mark.parametrize("damage", PACKS_DAMAGE.values(), ids=PACKS_DAMAGE)
def test_damaged_packs_are_found_anew(file: Path, sft: SftTask, tmp_path: Path, damage: Callable[[Path, Dataset], Any]) -> None:
    cache = RecordingCache(tmp_path / "cache")
    expected = load(file, sft, cache)
    (packs,) = cache.entries()[0].glob("packs-*.arrow")
    damage(packs, expected)
    assert _same(load(file, sft, cache), expected) and "from the cache" in cache.said[-1]
    assert len(list(cache.entries()[0].glob("packs-*"))) == 1


def test_a_full_disk_ends_it_with_code_6_and_a_hint_and_leaves_nothing(
    file: Path, sft: SftTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: TableWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TableWriter, "_flush", refuse)
    cache = RecordingCache(tmp_path / "cache")
    with pytest.raises(ResourceError, match="the disk is full") as caught:
        load(file, sft, cache)
    assert (
        caught.value.exit_code == 6 and "--no-data-cache" in str(caught.value.hint) and str(cache.directory) in str(caught.value)
    )
    assert cache.entries() == []


def test_a_full_disk_met_at_a_bad_row_is_not_taken_for_an_unreadable_file(
    tmp_path: Path, sft: SftTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{\n')

    def refuse(self: TableWriter, example: Example) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TableWriter, "add", refuse)
    with pytest.raises(ResourceError, match="the disk is full"):
        load(path, sft, RecordingCache(tmp_path / "cache"), skip_bad_rows=True)


def test_a_bad_record_ends_it_as_without_a_cache_and_leaves_nothing(tmp_path: Path, sft: SftTask) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{"text": ""}\n')
    cache = RecordingCache(tmp_path / "cache")
    with pytest.raises(DataError, match="line 2: 'text' is empty"):
        load(path, sft, cache)
    assert cache.entries() == []


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(file: Path, sft: SftTask, tmp_path: Path) -> None:
    cache = RecordingCache(tmp_path / "cache")
    names = []
    for length in (61, 62, 63):
        before = set(cache.entries()) if cache.directory.exists() else set()
        load(file, sft, cache, max_length=length)
        (new,) = set(cache.entries()) - before
        names.append(new)
        os.utime(new / entry.INDEX, (length, length))
        for other in new.iterdir():
            os.utime(other, (length, length))
    load(file, sft, cache, max_length=61)  # used again: now it is the newest
    size = sum(each.stat().st_size for each in names[0].iterdir())
    load(file, sft, RecordingCache(tmp_path / "cache", limit_bytes=round(2.5 * size)), max_length=61)
    assert cache.entries() == sorted([names[0], names[2]])
    with locking.exclusive(names[2].with_suffix(".lock"), "it"):
        load(file, sft, RecordingCache(tmp_path / "cache", limit_bytes=0), max_length=61)
        assert cache.entries() == sorted([names[0], names[2]])
    load(file, sft, RecordingCache(tmp_path / "cache", limit_bytes=0), max_length=61)
    assert cache.entries() == [names[0]]  # however little there may be: it is in use


def test_leftovers_of_a_killed_process_are_removed(file: Path, sft: SftTask, tmp_path: Path) -> None:
    cache = RecordingCache(tmp_path / "cache")
    load(file, sft, cache)
    own, other = cache.entries()[0].with_suffix(".tmp"), cache.directory / ("0" * 32 + ".tmp")
    for leftover in (own, other):
        leftover.mkdir()
        (leftover / entry.EXAMPLES).write_bytes(b"half")
    load(file, sft, cache)
    assert not own.exists() and not other.exists() and len(cache.entries()) == 1


def test_of_two_that_start_together_one_tokenises_and_the_other_waits(
    file: Path, sft: SftTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, begun, go = [], threading.Event(), threading.Event()
    original = SftTask.examples_of

    def slowly(self: SftTask, *arguments: Any) -> Any:
        calls.append(1)
        begun.set()
        assert go.wait(30)
        return original(self, *arguments)

    monkeypatch.setattr(SftTask, "examples_of", slowly)
    caches = [RecordingCache(tmp_path / "cache") for _ in range(2)]
    found: list[Dataset] = []
    threads = [threading.Thread(target=lambda cache=cache: found.append(load(file, sft, cache))) for cache in caches]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    deadline = time.monotonic() + 30
    while not caches[1].said and time.monotonic() < deadline:
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join(30)
    assert len(calls) == 1 and _same(*found)
    assert caches[1].said == [
        f"Another process is tokenising {file}; waiting for it.",
        f"Data: 60 examples of {file} from the cache",
    ]


def test_files_of_the_cache_are_private(file: Path, sft: SftTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pitstop.trainers.data.cache.cache._SETTLED_NS", -1)
    cache = RecordingCache(tmp_path / "cache")
    load(file, sft, cache)
    found = [*cache.directory.rglob("*"), cache.directory]
    assert all(path.stat().st_mode & 0o077 == 0 for path in found)


def test_a_cache_that_cannot_be_made_is_told_with_code_6(file: Path, sft: SftTask, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ResourceError, match="cannot be kept in") as caught:
        load(file, sft, RecordingCache(tmp_path / "cache"))
    assert "--no-data-cache" in str(caught.value.hint)
