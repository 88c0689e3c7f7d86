"""A guide followed as it stands: its shell commands run in order, killed where it says so, and print what it says.

Of a guide's blocks ``bash`` is run, a line a command, and ``python`` too; ``text`` is what the commands since the last ``text`` have printed, its
lines in this order among others, where ``…`` stands for anything and spaces for any number of them. ``sh`` and the rest are only read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from support.forked import kill_at_step, pitstop
from support.own_process import in_child

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"

_BLOCK = re.compile(r"^```(bash|text|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_DEATH = re.compile(r"# (?:crash|power outage) in epoch (\d+)")
_LOOP = re.compile(r"for (\w+) in (.*?); do (.*); done")


@dataclass(frozen=True)
class Command:
    """A line of a ``bash`` block, and the epoch in which the machine dies under it, if it does."""

    text: str
    dies_in_epoch: int | None = None


@dataclass(frozen=True)
class Block:
    """A block of a guide: its kind, its text, and the line of the page on which that begins, from 1."""

    kind: str
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a guide that are run or compared."""
    text = (GUIDES / page).read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        yield Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)


def commands(block: str) -> list[Command]:
    """The commands of a ``bash`` block; a loop becomes one command for each of its words."""
    found: list[Command] = []
    for line in block.replace("\\\n", " ").splitlines():
        death, loop = _DEATH.fullmatch(line.strip()), _LOOP.fullmatch(line.strip())
        if death:
            found[-1] = Command(found[-1].text, int(death[1]))
        elif loop:
            found += [Command(loop[3].replace(f"${loop[1]}", word)) for word in loop[2].split()]
        elif line.strip() and not line.startswith("#"):
            found.append(Command(line.strip()))
    return found


def follow(page: str, *, steps_an_epoch: int) -> str:
    """Follow a guide in the current directory; returns all that was printed.

    A training that dies does so one step into the epoch: by ``kill -9``, at an optimizer step, ``steps_an_epoch`` of which make an epoch.
    """
    everything = unread = ""
    for block in blocks(page):
        where = f"{page} line {block.line}"
        if block.kind == "bash":
            for command in commands(block.text):
                unread += run(command, steps_an_epoch, where)
        elif block.kind == "python":
            in_child(partial(exec, compile(block.text, where, "exec"), {}))
        else:
            compare(block.text, unread, where)
            everything, unread = everything + unread, ""
    return everything + unread


def run(command: Command, steps_an_epoch: int, where: str) -> str:
    """Run a command of a guide and return what it printed; it must end well, or by the signal where it is to die."""
    program, *words = shlex.split(command.text, comments=True)
    assert program == "pitstop", f"{where}: {command.text}"
    if command.dies_in_epoch is None:
        ended = pitstop(*words, prepare=_quick_doctor if words[0] == "doctor" else None)
        assert ended.code == 0, f"{where}: {command.text}\n{ended.output}"
    else:
        ended = pitstop(*words, prepare=kill_at_step((command.dies_in_epoch - 1) * steps_an_epoch + 1))
        assert ended.code == -9, f"{where}: {command.text}\n{ended.output}"
    return ended.output


def _quick_doctor() -> None:
    """Its check in a fresh process, which takes seconds, is made for real by the tests of ``doctor``."""
    from pitstop.cli.commands import doctor

    doctor._QUANTISE = "print('cpu')"


def compare(wanted: str, printed: str, where: str) -> None:
    """The lines of ``wanted`` are parts of lines of ``printed``, in this order."""
    lines = iter(printed.splitlines())
    for line in wanted.splitlines():
        if line.strip():
            assert any(_means(line, other) for other in lines), (
                f"{where}: {line!r} was not printed, or not in this order:\n{printed}"
            )


def _means(wanted: str, printed: str) -> bool:
    words = [".*".join(map(re.escape, word.split("…"))) for word in wanted.split()]
    return re.search(r"(?<!\S)" + r"\s+".join(words) + r"(?!\S)", printed) is not None
