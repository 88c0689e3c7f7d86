"""A small data set of ratings in the format of MovieLens 100K, made on the spot."""

from __future__ import annotations

from pathlib import Path

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
