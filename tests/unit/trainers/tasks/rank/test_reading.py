"""Ratings and titles from files: which of a place are read, and how their bytes are."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.records import NoData
from support.json_lines import json_lines
from support.rating_files import AMAZON, item_line, rating_rows, read_place, write_two_ratings


def test_movielens_100k_with_its_other_files_beside_it(tmp_path: Path) -> None:
    write_two_ratings(tmp_path)
    (tmp_path / "u1.base").write_text("1\t1\t5\t874965758\n")
    (tmp_path / "u.user").write_text("1|24|M|technician|85711\n")
    (tmp_path / "u.genre").write_text("unknown|0\n")
    ratings = read_place(tmp_path)
    assert rating_rows(ratings) == [("196", "242", 881250949.0), ("186", "302", 891717742.0)]
    assert ratings.titles == {"242": "Kolya (1996)", "302": "Misérables, Les"}


def test_one_file_of_the_directory_can_be_named(tmp_path: Path) -> None:
    write_two_ratings(tmp_path)
    (tmp_path / "u1.base").write_text("1\t242\t5\t874965758\n")
    assert rating_rows(read_place(tmp_path / "u1.base")) == [("1", "242", 874965758.0)]


def test_what_is_missing_or_not_unique_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoData, match="no such file"):
        read_place(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "picture").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="no ratings in any known format"):
        read_place(tmp_path)
    (tmp_path / "a.data").write_text("1\t2\t3\t4\n")
    with pytest.raises(DataError, match="no file with the titles"):
        read_place(tmp_path)
    (tmp_path / "b.data").write_text("1\t2\t3\t4\n")
    with pytest.raises(DataError, match=r"several files with ratings: a\.data, b\.data"):
        read_place(tmp_path)


def test_a_damaged_archive_is_an_error_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json_lines({"asin": "B7", "title": "Soap"}))
    whole = gzip.compress(json_lines(*[AMAZON] * 5000).encode())
    (tmp_path / "reviews.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        read_place(tmp_path)


AMELIE = "1193::Amélie (2001)::Comedy\n"


@pytest.mark.parametrize(
    ("content", "titles"),
    [
        (AMELIE.encode(), {"1193": "Amélie (2001)"}),
        (AMELIE.encode("utf-8-sig"), {"1193": "Amélie (2001)"}),
        (AMELIE.encode("latin-1"), {"1193": "Amélie (2001)"}),
        ("7::東京物語 (1953)::Drama\n".encode() + AMELIE.encode("latin-1"), {"1193": "Amélie (2001)", "7": "東京物語 (1953)"}),
        (gzip.compress(AMELIE.encode()), {"1193": "Amélie (2001)"}),
    ],
    ids=["UTF-8", "with a mark", "Latin-1", "both", "packed"],
)
def test_the_encoding_of_titles_is_decided_by_their_bytes(tmp_path: Path, content: bytes, titles: dict[str, str]) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::7::5::978300761\n")
    (tmp_path / "movies.dat").write_bytes(content)
    assert read_place(tmp_path).titles == titles


def test_movielens_100k_titles_in_utf_8(tmp_path: Path) -> None:
    (write_two_ratings(tmp_path) / "u.item").write_text(
        item_line(242, "Kolya (1996)") + item_line(302, "Misérables, Les"), encoding="utf-8"
    )
    assert read_place(tmp_path).titles == {"242": "Kolya (1996)", "302": "Misérables, Les"}
