"""Which files a directory and a pattern stand for; the others are counted and named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pitstop.checkpointing.store.portable_paths import portable
from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.listing import split_of
from pitstop.trainers.data.files.places import hub_place, read_records
from pitstop.trainers.data.records import BadRows, NoData


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = f'{{"text": "{text}"}}\n'.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _read(spec: object, split: str = "train") -> tuple[list[str], list[str]]:
    bad = BadRows(False)
    texts = [record.fields["text"] for record in read_records(str(spec), bad, split=split)]
    return texts, [str(notice) for notice in bad.notices]


def test_a_directory_is_read_whole_whatever_the_endings_and_their_case(tmp_path: Path) -> None:
    for number, name in enumerate(["a.jsonl", "b.jsonl.gz", "c.ndjson", "d.JSONL", "e.NDJSON.GZ"]):
        _write(tmp_path / name.replace(".GZ", ".gz"), str(number))
    (tmp_path / "e.NDJSON.gz").rename(tmp_path / "e.NDJSON.GZ")
    _write(tmp_path / "more" / "f.jsonl", "deep")
    for name in ("README.md", "notes.txt", ".hidden.jsonl"):
        (tmp_path / name).write_text("x")
    texts, told = _read(tmp_path)
    assert texts == ["0", "1", "2", "3", "4"]
    assert told == [
        f"1 directory is not looked into: more: {tmp_path}/more. A pattern in quotes, DIRECTORY/**/*, names the files in them too.",
        f"2 files are not read: README.md, notes.txt, first {tmp_path}/README.md.",
    ]


def test_of_names_that_mark_splits_only_the_wanted_one_is_read(tmp_path: Path) -> None:
    for name in ("train-0.jsonl", "train-1.jsonl", "validation.jsonl", "test.jsonl"):
        _write(tmp_path / name, name)
    texts, told = _read(tmp_path)
    assert texts == ["train-0.jsonl", "train-1.jsonl"]
    assert told == [
        f"2 files of other splits are not read: test.jsonl, validation.jsonl, first {tmp_path}/test.jsonl. "
        "Names say that they are not of train; a pattern in quotes chooses."
    ]
    assert _read(tmp_path, "validation")[0] == ["validation.jsonl"] and _read(tmp_path, "test")[0] == ["test.jsonl"]


def test_files_without_a_mark_are_for_training_where_none_has_its_mark(tmp_path: Path) -> None:
    for name in ("part1.jsonl", "part2.jsonl", "dev.jsonl"):
        _write(tmp_path / name, name)
    texts, told = _read(tmp_path)
    assert texts == ["part1.jsonl", "part2.jsonl"] and len(told) == 1
    with pytest.raises(NoData, match="no file is of the split test; there are validation"):
        _read(tmp_path, "test")


def test_files_that_all_have_one_mark_are_read_for_any_split(tmp_path: Path) -> None:
    _write(tmp_path / "test-a.jsonl", "a")
    _write(tmp_path / "eval-b.jsonl", "b")
    assert _read(tmp_path, "validation") == (["b", "a"], [])


@pytest.mark.parametrize(
    ("name", "split"),
    [("train.jsonl", "train"), ("my_val-01.csv", "validation"), ("DEV.tsv", "validation"), ("a.test.jsonl.gz", "test"),
     ("eval2024.json", "test"), ("training.jsonl", None), ("latest.jsonl", None), ("train-test.jsonl", None), ("contest.csv", None)],
)  # fmt: skip
def test_a_mark_is_a_word_between_what_is_no_letter(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_pattern_names_files_in_folders_too_and_tells_what_of_them_is_not_read(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "1.jsonl.gz", "1")
    _write(tmp_path / "b" / "c" / "2.jsonl", "2")
    (tmp_path / "b" / "x.log").write_text("x")
    assert _read(f"{tmp_path}/**/*") == (["1", "2"], [f"1 file is not read: b/x.log: {tmp_path}/b/x.log."])
    assert _read(f"{tmp_path}/**/*.jsonl.gz") == (["1"], [])
    with pytest.raises(NoData, match="No file fits the pattern"):
        _read(f"{tmp_path}/*.csv")


def test_a_pattern_reads_a_file_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    _write(tmp_path / "data" / "b" / "a.jsonl", "once")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "b")
    (tmp_path / "data" / "c.jsonl").symlink_to(tmp_path / "data" / "b" / "a.jsonl")
    texts, told = _read(f"{tmp_path}/data/**/*.jsonl")
    assert texts == ["once"]
    assert told == [
        f"2 paths lead to a file that is read already: again/a.jsonl, b/a.jsonl, first {tmp_path}/data/again/a.jsonl."
    ]
    (tmp_path / "data" / "c.jsonl").unlink()
    (tmp_path / "data" / "again").unlink()
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    texts, told = _read(f"{tmp_path}/data/**/*.jsonl")
    assert texts == ["once"]
    assert len(told) == 1


def test_an_existing_path_wins_over_a_pattern(tmp_path: Path) -> None:
    _write(tmp_path / "a[1].jsonl", "itself")
    _write(tmp_path / "a1.jsonl", "by pattern")
    assert _read(tmp_path / "a[1].jsonl")[0] == ["itself"]


def test_documents_are_read_from_a_directory_that_has_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("First.\nSecond.\n")
    (tmp_path / "b.TXT").write_text("Third.")
    assert _read(tmp_path) == (["First.\nSecond.\n", "Third."], [])
    _write(tmp_path / "c.jsonl", "c")
    assert _read(tmp_path) == (["c"], [f"2 files are not read: a.txt, b.TXT, first {tmp_path}/a.txt."])


def test_a_directory_without_data_names_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert str(caught.value) == f"No data files in {tmp_path}. There are: a.xlsx."


def test_a_directory_may_have_a_split_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train.jsonl", "dev.jsonl"):
        _write(tmp_path / "data" / "chats" / name, name)
    monkeypatch.chdir(tmp_path)
    assert _read("data/chats::validation", "train")[0] == ["dev.jsonl"]
    assert hub_place("data/chats::validation") is None and hub_place("owner/chats::validation") is not None


def test_what_is_told_of_a_directory_names_its_path_only_where_a_push_shortens_it(tmp_path: Path) -> None:
    """``portable`` shortens texts that begin with a path: of the recorded parts of a notice that is the place alone."""
    for name in ("train.jsonl", "test.jsonl", "more/a.jsonl"):
        _write(tmp_path / name, name)
    (tmp_path / "README.md").touch()
    bad = BadRows(False)
    assert len(list(read_records(str(tmp_path), bad))) == 1 and len(bad.notices) == 3
    for notice in bad.notices:
        assert str(tmp_path) not in notice.reason + notice.subject + notice.remedy
        assert portable(notice.place) == notice.place.rpartition("/")[2]


def test_a_run_of_the_first_rendering_reads_the_files_of_a_directory_that_it_read(tmp_path: Path) -> None:
    for name in ("a.JSONL", "b.ndjson", "c.jsonl.gz", "test.jsonl", "train.jsonl", "d.txt"):
        _write(tmp_path / name, name)
    bad = BadRows(False)
    texts = [record.fields["text"] for record in read_records(str(tmp_path), bad, first=True)]
    assert texts == ["a.JSONL", "test.jsonl", "train.jsonl"]
    assert [notice.subject for notice in bad.notices] == ["b.ndjson, c.jsonl.gz, d.txt"]
