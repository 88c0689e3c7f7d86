"""Formats of ratings: each is told by its content, and a row that it cannot take is named with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.rank.reading import read_ratings
from support.json_lines import json_lines
from support.rating_files import AMAZON, YELP, rating_rows, read_place, write_two_ratings


def test_movielens_1m(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n")
    (tmp_path / "movies.dat").write_bytes("1193::Amélie (2001)::Comedy\n2::Unrated (1990)::Drama\n".encode("latin-1"))
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    ratings = read_place(tmp_path)
    assert rating_rows(ratings) == [("1", "1193", 978300760.0)]
    assert ratings.titles == {"1193": "Amélie (2001)"}, "titles of items that nobody rated are not kept"


def test_recbole_columns_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("timestamp:float\titem_id:token\tuser_id:token\n5.5\ti1\tu1\n", encoding="utf-8-sig")
    (tmp_path / "x.item").write_text("item_id:token\tmovie_title:token_seq\trelease_year:token\ni1\tToy  Story\t1995\n")
    (tmp_path / "x.user").write_text("user_id:token\tage:token\nu1\t24\n")
    (tmp_path / "x.link").write_text("item_id:token\tentity_id:token\ni1\tm.0\n")
    ratings = read_place(tmp_path)
    assert rating_rows(ratings) == [("u1", "i1", 5.5)]
    assert ratings.titles == {"i1": "Toy Story (1995)"}


def test_amazon_reviews_packed_and_plain(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "reviews.json.gz", "wt") as file:
        file.write(json_lines(AMAZON, {**AMAZON, "reviewerID": "A2", "unixReviewTime": 7}))
    (tmp_path / "meta.json").write_text(json_lines({"asin": "B7", "title": "Soap &amp; Co\n"}, {"asin": "B8"}))
    ratings = read_place(tmp_path)
    assert rating_rows(ratings) == [("A1", "B7", 1400000000.0), ("A2", "B7", 7.0)]
    assert ratings.titles == {"B7": "Soap & Co"}


def test_yelp_reviews_among_the_release_s_other_files(tmp_path: Path) -> None:
    (tmp_path / "review.json").write_text(json_lines(YELP))
    (tmp_path / "business.json").write_text(json_lines({"business_id": "b", "name": "Café Müller", "city": "Bonn"}))
    (tmp_path / "user.json").write_text(json_lines({"user_id": "U", "name": "Ann"}))
    (tmp_path / "tip.json").write_text(
        json_lines({"user_id": "U", "business_id": "b", "text": "x", "date": "2019-05-01 12:00:00"})
    )
    ratings = read_place(tmp_path)
    assert rating_rows(ratings) == [("U", "b", 1556712000.0)]  # 2019-05-01 12:00 UTC
    assert ratings.titles == {"b": "Café Müller"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1\t2\t3", "3 cells where 4 are wanted"),
        ("1\t2\t3\tnever", "the time is not a number: 'never'"),
        ("1\t2\t3\tinf", "the time is not a number: 'inf'"),
        ("1\t2\tgood\t5", "the rating is not a number: 'good'"),
        ("\t2\t3\t5", "the user is empty"),
        ("1\t2\t3\t5\xff", "not UTF-8 text"),
    ],
)
def test_a_bad_row_of_text_is_named_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    write_two_ratings(tmp_path)
    (tmp_path / "u.data").write_bytes(f"1\t242\t3\t5\n\n{line}\n1\t302\t3\t6\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 3") as caught:
        read_place(tmp_path)
    assert reason in caught.value.message and "u.data" in caught.value.message
    bad_rows = BadRows(skip=True)
    assert len(read_ratings(str(tmp_path), bad_rows)) == 2
    assert bad_rows.count == 1 and reason in bad_rows.reasons[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reviewerID": None}, "the user is empty"),
        ({"reviewerID": 5}, "'user' is not text but int"),
        ({"unixReviewTime": True}, "the time is not a number"),
        ({"unixReviewTime": "1e999"}, "the time is not a number"),
        ({"overall": [5]}, "the rating is not a number"),
    ],
)
def test_a_bad_review_is_named_with_its_line(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    (tmp_path / "reviews.json").write_text(json_lines(AMAZON, {**AMAZON, **change}))
    (tmp_path / "meta.json").write_text(json_lines({"asin": "B7", "title": "Soap"}))
    with pytest.raises(DataError, match="line 2") as caught:
        read_place(tmp_path)
    assert reason in caught.value.message


def test_fields_that_are_missing_and_lines_that_are_no_json_are_counted(tmp_path: Path) -> None:
    lines = [
        *json_lines(YELP).splitlines(),
        "{broken",
        "[1]",
        json.dumps({**YELP, "date": "May"}),
        '{"user_id": "U"}',
        "[" * 100_000,
    ]
    (tmp_path / "review.json").write_text("\n".join(lines))
    (tmp_path / "business.json").write_text(json_lines({"business_id": "b", "name": "Café"}, {"business_id": "b", "name": 7}))
    bad_rows = BadRows(skip=True)
    assert len(read_ratings(str(tmp_path), bad_rows)) == 1
    assert bad_rows.count == 6


def test_a_dump_of_python_dicts_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "reviews.json").write_text(json_lines(AMAZON))
    with gzip.open(tmp_path / "meta_Beauty.json.gz", "wt") as file:
        file.write("{'asin': 'B7', 'title': __import__('os').mkdir('run')}\n")
    with pytest.raises(DataError, match="a Python dict, not JSON") as caught:
        read_place(tmp_path)
    assert "meta_Beauty.json.gz line 1" in caught.value.message
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (json.dumps(AMAZON)[:-1] + ', "n": ' + "9" * 5000 + "}", "JSON that cannot be used"),
        (json.dumps(AMAZON)[:-1] + ', "n": ' + "[" * 100_000, "JSON nested more than 200 deep"),
        (json.dumps(AMAZON | {"asin": "B\ud800"}), "'item' has half of a surrogate pair"),
        (json.dumps(AMAZON | {"overall": 10**400}), "the rating is not a number"),
    ],
    ids=["digits", "depth", "surrogate", "overflow"],
)
def test_a_review_that_the_parser_cannot_take_is_a_bad_row(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "reviews.json").write_text(f"{json.dumps(AMAZON)}\n{line}\n{json.dumps(AMAZON | {'reviewerID': 'A2'})}\n")
    (tmp_path / "meta.json").write_text(json_lines({"asin": "B7", "title": "Game"}))
    with pytest.raises(DataError, match=f"reviews.json line 2: {reason}"):
        read_place(tmp_path)
    bad = BadRows(skip=True)
    assert list(read_ratings(str(tmp_path), bad).users) == ["A1", "A2"] and bad.count == 1
