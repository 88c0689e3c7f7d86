"""The place of a benchmark's results in docs/benchmarks.md, between two marks."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def marks(name: str) -> tuple[str, str]:
    """Return the lines before and behind what ``benchmarks.NAME`` writes."""
    return f"<!-- {name}: begin, written by benchmarks.{name} -->", f"<!-- {name}: end -->"


def replaced(page: str, name: str, text: str) -> str:
    """Return the page with ``text`` between the marks. Raises ``ValueError`` where it has not both of them, once."""
    begin, end = marks(name)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must have the marks {begin!r} and {end!r} once each")
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def write(name: str, text: str, path: Path = PAGE) -> None:
    """Put ``text`` into the page."""
    path.write_text(replaced(path.read_text(encoding="utf-8"), name, text), encoding="utf-8")
