"""The formats of ratings and titles: what a line of each looks like.

A parser turns one line into ``(user, item, time)`` or ``(item, title)``; it raises ``ValueError`` with the reason. An item
without a title has the title "".
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pitstop.trainers.data.row_json import is_unicode, parse_json

Rating = tuple[str, str, float]
Title = tuple[str, str]
Parser = Callable[[str], Any]
Role = Literal["ratings", "titles"]

_RATING_COLUMNS = ("user_id", "item_id", "timestamp")
_YEAR = "release_year"
_TITLE_COLUMNS = ("movie_title", "title", "item_name", "name")
_PYTHON_DICT = re.compile(r"\{\s*u?'")


@dataclass(frozen=True)
class RatingsFormat:
    """One kind of file. ``recognises`` looks at a line of the beginning; ``parser`` is made for the file's first line.

    Every file is UTF-8 text; a line that is not has the encoding ``fallback``, where the format has one.
    """

    family: str
    role: Role
    recognises: Callable[[str], bool]
    parser: Callable[[str], Parser]
    headed: bool = False
    fallback: str | None = None


def is_python_dict(line: str) -> bool:
    """Whether a line is what Python prints of a dict, as old Amazon dumps have it: only running it as code would read it."""
    return bool(_PYTHON_DICT.match(line))


# MovieLens -----------------------------------------------------------------------------------------------------------


def _separated(separator: str, cells: int) -> Callable[[str], list[str]]:
    def split(line: str) -> list[str]:
        values = line.rstrip("\r\n").split(separator)
        if len(values) != cells:
            raise ValueError(f"{len(values)} cells where {cells} are wanted")
        return values

    return split


def _movielens_rating(separator: str) -> Parser:
    split = _separated(separator, 4)

    def parse(line: str) -> Rating:
        user, item, rating, time = split(line)
        return _rating(user, item, rating, time)

    return parse


def _movielens_title(separator: str, cells: int) -> Parser:
    split = _separated(separator, cells)

    def parse(line: str) -> Title:
        item, title = split(line)[:2]
        return _id(item, "item"), _one_line(title)

    return parse


def _all_whole(line: str, separator: str) -> bool:
    cells = line.split(separator)
    return len(cells) == 4 and all(cell.strip().isdecimal() for cell in (cells[0], cells[1], cells[3]))


def _is_u_item(line: str) -> bool:
    cells = line.strip().split("|")
    return len(cells) == 24 and set(cells[5:]) <= {"0", "1"}


def _is_movies(line: str) -> bool:
    cells = line.strip().split("::")
    return len(cells) == 3 and cells[0].isdecimal()


# RecBole -------------------------------------------------------------------------------------------------------------


def _columns(header: str) -> dict[str, int]:
    """Names of the columns without their types (``user_id:token``), and where they stand."""
    return {name.partition(":")[0]: number for number, name in enumerate(header.rstrip("\r\n").split("\t"))}


def _is_inter(line: str) -> bool:
    return ":token" in line and set(_RATING_COLUMNS) <= _columns(line).keys()


def _is_item(line: str) -> bool:
    columns = _columns(line) if ":token" in line else {}
    return "item_id" in columns and "user_id" not in columns and any(name in columns for name in _TITLE_COLUMNS)


def _inter_parser(header: str) -> Parser:
    columns = _columns(header)
    split = _separated("\t", len(columns))
    user, item, time = (columns[name] for name in _RATING_COLUMNS)
    rating = columns.get("rating")

    def parse(line: str) -> Rating:
        cells = split(line)
        return _rating(cells[user], cells[item], cells[rating] if rating is not None else "1", cells[time])

    return parse


def _item_parser(header: str) -> Parser:
    columns = _columns(header)
    split = _separated("\t", len(columns))
    item, title = columns["item_id"], next(columns[name] for name in _TITLE_COLUMNS if name in columns)
    year = columns.get(_YEAR)

    def parse(line: str) -> Title:
        cells = split(line)
        text = _one_line(cells[title])
        dated = text and year is not None and cells[year].strip().isdecimal()
        return _id(cells[item], "item"), f"{text} ({cells[year].strip()})" if dated and year is not None else text

    return parse


# Amazon and Yelp -----------------------------------------------------------------------------------------------------


def _fields(line: str) -> dict[str, Any]:
    if is_python_dict(line):
        raise ValueError("a Python dict, not JSON")
    fields = parse_json(line)
    if not isinstance(fields, dict):
        raise ValueError(f"wanted a JSON object, found {type(fields).__name__}")
    return fields


def _has(*wanted: str, without: str = "") -> Callable[[str], bool]:
    def recognises(line: str) -> bool:
        try:
            fields = _fields(line)
        except ValueError:
            return False
        return fields.keys() >= set(wanted) and (not without or without not in fields)

    return recognises


def _amazon_rating(line: str) -> Rating:
    fields = _fields(line)
    return _rating(*(_field(fields, key) for key in ("reviewerID", "asin", "overall", "unixReviewTime")))


def _amazon_title(line: str) -> Title:
    fields = _fields(line)
    return _id(_field(fields, "asin"), "asin"), _one_line(html.unescape(_text(fields.get("title", ""), "title")))


def _yelp_rating(line: str) -> Rating:
    fields = _fields(line)
    date = _text(_field(fields, "date"), "date")
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        raise ValueError(f"'date' is not a date: {date!r}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return _rating(_field(fields, "user_id"), _field(fields, "business_id"), _field(fields, "stars"), moment.timestamp())


def _yelp_title(line: str) -> Title:
    fields = _fields(line)
    return _id(_field(fields, "business_id"), "business_id"), _one_line(_text(fields.get("name", ""), "name"))


# Cells ---------------------------------------------------------------------------------------------------------------


def _field(fields: Mapping[str, Any], key: str) -> Any:
    if key not in fields:
        raise ValueError(f"'{key}' is missing")
    return fields[key]


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"'{name}' is not text but {type(value).__name__}")
    if not is_unicode(value):
        raise ValueError(f"'{name}' has half of a surrogate pair, which is no character")
    return value


def _one_line(title: str) -> str:
    return " ".join(title.split())


def _id(value: Any, name: str) -> str:
    text = _text(value, name).strip()
    if not text:
        raise ValueError(f"the {name} is empty")
    return text


def _number(value: Any, name: str) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise ValueError(f"the {name} is not a number: {str(value)[:40]!r}")


def _rating(user: Any, item: Any, rating: Any, time: Any) -> Rating:
    _number(rating, "rating")
    return _id(user, "user"), _id(item, "item"), _number(time, "time")


FORMATS = (
    RatingsFormat("MovieLens 100K", "ratings", lambda line: _all_whole(line, "\t"), lambda _: _movielens_rating("\t")),
    RatingsFormat("MovieLens 100K", "titles", _is_u_item, lambda _: _movielens_title("|", 24), fallback="latin-1"),
    RatingsFormat("MovieLens 1M", "ratings", lambda line: _all_whole(line, "::"), lambda _: _movielens_rating("::")),
    RatingsFormat("MovieLens 1M", "titles", _is_movies, lambda _: _movielens_title("::", 3), fallback="latin-1"),
    RatingsFormat("RecBole", "ratings", _is_inter, _inter_parser, headed=True),
    RatingsFormat("RecBole", "titles", _is_item, _item_parser, headed=True),
    RatingsFormat("Amazon", "ratings", _has("reviewerID", "asin"), lambda _: _amazon_rating),
    RatingsFormat("Amazon", "titles", _has("asin", without="reviewerID"), lambda _: _amazon_title),
    RatingsFormat("Yelp", "ratings", _has("review_id", "business_id"), lambda _: _yelp_rating),
    RatingsFormat("Yelp", "titles", _has("business_id", "name", without="review_id"), lambda _: _yelp_title),
)
"""Every format, in the order in which they are tried."""
