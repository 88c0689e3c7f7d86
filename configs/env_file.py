"""A ``.env`` file as it stands: its assignments by line. What they mean as settings, ``sources`` knows; this imports no schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pitstop.configs.errors import SettingsError
from pitstop.configs.secrets import mask

if TYPE_CHECKING:
    from dotenv.parser import Binding


def default_env_file() -> Path | None:
    """``.env`` of the working directory, if there is one."""
    path = Path(".env")
    return path if path.is_file() else None


class Assignment(NamedTuple):
    """``NAME=value``, filled in, and the line (from 1) on which it stands."""

    name: str
    value: str
    line: int


def assignments(path: Path, environ: Mapping[str, str]) -> Iterator[Assignment]:
    """What the file sets; ``${NAME}`` is filled in from ``environ`` or an earlier line.

    Raises:
        SettingsError: the file cannot be read, a line is not ``NAME=value``, or a name stands twice. No value is part of the message.
    """
    from dotenv.variables import parse_variables

    seen: dict[str, tuple[int, str]] = {}
    for name, value, line in _bindings(path):
        if name in seen:
            raise SettingsError(
                f"{path} line {line}: {mask(name)} stands there already on line {seen[name][0]}.",
                hint="Delete one of the two lines.",
            )
        variables = {**{key: text for key, (_, text) in seen.items()}, **environ}
        filled = "".join(atom.resolve(variables) for atom in parse_variables(value))
        seen[name] = (line, filled)
        yield Assignment(name, filled, line)


def _bindings(path: Path) -> Iterator[tuple[str, str, int]]:
    """Name, raw value and line (from 1) of every assignment in the file."""
    for binding in _parsed(read_text(path)):
        # A statement begins with the blank lines before it, and its number is that of the first of them.
        text = binding.original.string
        line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        if binding.error or (binding.key and binding.value is None) or "\0" in text:
            # The line may be a token that was pasted alone: nothing of it is shown.
            raise SettingsError(
                f"{path} line {line} is not NAME=value.", hint="Write NAME=value, or start the line with # to make it a comment."
            )
        if binding.key is not None and binding.value is not None:
            yield binding.key, binding.value, line


@lru_cache(maxsize=4)
def _parsed(text: str) -> tuple[Binding, ...]:
    """A command asks a file for its settings, and again for what is passed on to libraries."""
    from io import StringIO

    from dotenv.parser import parse_stream

    return tuple(parse_stream(StringIO(text)))


def read_text(path: Path) -> str:
    """The text of a settings file.

    Raises:
        SettingsError: it is missing, unreadable, a directory, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(
            f"There is no file {path}.", hint="Check the path; it is relative to the current directory."
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text (byte {error.start}).", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
