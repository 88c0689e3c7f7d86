"""Small data sets of ratings, made on the spot, and what is read of them."""

from __future__ import annotations

from pathlib import Path

from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.rank.ratings import Ratings
from pitstop.trainers.tasks.rank.reading import read_ratings

AMAZON = {"reviewerID": "A1", "asin": "B7", "overall": 5.0, "unixReviewTime": 1400000000, "reviewText": "Good."}
YELP = {"review_id": "r", "user_id": "U", "business_id": "b", "stars": 4.0, "date": "2019-05-01 12:00:00", "text": "Nice"}
DAY = 86_400


def write_movielens(directory: Path, *, users: int = 30, items: int = 24, length: int = 8) -> Path:
    """Every user takes ``length`` items in a row, one a day, beginning where the number says; titles are ``Film 1 (1991)``, …"""
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for user in range(users):
        for place in range(length):
            item = (5 * user + place) % items
            lines.append(f"{user + 1}\t{item + 1}\t{1 + (user + place) % 5}\t{900_000_000 + DAY * place}\n")
    (directory / "u.data").write_text("".join(lines))
    (directory / "u.item").write_text(
        "".join(item_line(number, f"Film {number} (199{number % 10})") for number in range(1, items + 1))
    )
    return directory


def item_line(number: int, title: str) -> str:
    """A line of ``u.item``: number, title, dates, address and nineteen genres."""
    return f"{number}|{title}|01-Jan-1995||http://example.org/{number}|{'|'.join(['0'] * 18 + ['1'])}\n"


def rating_rows(ratings: Ratings) -> list[tuple[str, str, float]]:
    """User, item and time of each rating."""
    users, items = list(ratings.users), list(ratings.items)
    return [(users[u], items[i], float(t)) for u, i, t in zip(*ratings.columns(), strict=True)]


def read_place(place: Path) -> Ratings:
    """The ratings of a place without a bad row."""
    return read_ratings(str(place), BadRows(skip=False))


def write_two_ratings(directory: Path) -> Path:
    """MovieLens 100K with two ratings, in ``directory``, which is returned."""
    (directory / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    (directory / "u.item").write_bytes((item_line(242, "Kolya (1996)") + item_line(302, "Misérables, Les")).encode("latin-1"))
    return directory
