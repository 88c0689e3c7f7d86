"""A Typer group whose commands are imported only when they run.

``pitstop name`` must answer at once, so it must not import ``train`` (torch) or even ``list-runs`` on its way. The group
knows each command's name and one line of help; the module behind it is imported when the command is called, or when
its own ``--help`` is asked for.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption


class CommandEntry(NamedTuple):
    """Where a command lives: module and attribute, its line in ``pitstop --help`` and the panel it stands in."""

    module: str
    attribute: str
    help: str
    panel: str


_TYPE_NAMES = {int: "INTEGER", float: "NUMBER", str: "TEXT"}


class QuickOption(TyperOption):
    """An option that is not converted where there is nothing to convert, and whose help names types as people do.

    Typer builds a pydantic adapter for every option of a command, given or not: 85 ms for importing pydantic, which
    ``list-runs`` has no other use for, and some more for each option. An option that was not given and has no default
    stays None, and a string stays a string or becomes a path.
    """

    def display_type_rich(self, ctx: Any) -> str | None:
        """The type in the help: nothing for a switch, else the metavar or INTEGER, NUMBER, TEXT."""
        if self.is_flag:
            return None
        return self.metavar or _TYPE_NAMES.get(_annotation(self)) or super().display_type_rich(ctx)

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return ``value`` as it is where that is the whole conversion, else what Typer makes of it."""
        kind = _annotation(self) if isinstance(value, str) else None
        if self.required or self.nargs != 1 or (value is not None and kind not in (str, Path)):
            return super().process_value(ctx, value)
        if kind is Path:
            value = Path(value)
        return self.callback(ctx, self, value) if self.callback is not None else value


class QuickArgument(TyperArgument):
    """An argument that is not converted where it is text already, or a list of texts; see ``QuickOption``."""

    def display_type_rich(self, ctx: Any) -> str | None:
        """No type in the help: the argument's name says what it is."""
        return None

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        """The argument's name in the line of usage, in brackets where it may be left out."""
        name = self.metavar or str(self.name).upper()
        return [name if self.required else f"[{name}]"]

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return ``value`` as it is where that is the whole conversion, else what Typer makes of it."""
        annotation = _annotation(self)
        if self.callback is None and annotation is str and isinstance(value, str):
            return value
        if self.callback is None and annotation == list[str] and value and all(isinstance(item, str) for item in value):
            return list(value)
        return super().process_value(ctx, value)


def _annotation(parameter: TyperOption | TyperArgument) -> Any:
    """The Python type of the values; None in versions of Typer that do not say it."""
    return getattr(getattr(parameter, "type_descriptor", None), "annotation", None)


def lazy_group(commands: Mapping[str, CommandEntry]) -> type[TyperGroup]:
    """The group class for ``commands``; give it to ``typer.Typer(cls=…)``."""

    class LazyGroup(TyperGroup):
        """Lists each command from its entry and imports it when it is run."""

        _listing = False

        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = {
                name: TyperCommand(name, help=entry.help, short_help=entry.help, rich_help_panel=entry.panel)
                for name, entry in commands.items()
            }

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in commands:
                return None
            return self.commands[cmd_name] if self._listing else load_command(cmd_name, commands[cmd_name])

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except BrokenPipeError as error:
                # Typer would take a lost connection for a stdout that nobody reads, and end without a word. Ours never breaks.
                raise ConnectionError(f"a connection was cut: {error}") from error

        def format_help(self, ctx: Any, formatter: Any) -> None:
            with self._only_listing():
                super().format_help(ctx, formatter)

        def shell_complete(self, ctx: Any, incomplete: str) -> Any:
            with self._only_listing():
                return super().shell_complete(ctx, incomplete)

        @contextmanager
        def _only_listing(self) -> Iterator[None]:
            self._listing = True
            try:
                yield
            finally:
                self._listing = False

    return LazyGroup


def load_command(name: str, entry: CommandEntry) -> Any:
    """Import the command ``name`` and build it: from a plain Typer command function, or from a Typer app of its own."""
    target = getattr(importlib.import_module(entry.module), entry.attribute)
    if isinstance(target, typer.Typer):
        command = typer.main.get_command(target)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name, short_help=entry.help)(target)
        command = typer.main.get_command(single)
    command.name = name
    finish(command)
    return command


def finish(command: Any) -> None:
    """Give ``command`` and those under it ``-h``, options that are quick, and help that flows."""
    command.help = reflow(command.help or "")
    command.context_settings = {**command.context_settings, "help_option_names": ["-h", "--help"]}
    help_option = command.get_help_option(typer.Context(command, **command.context_settings))
    if help_option is not None:
        help_option.opts.sort()  # Typer collects them in a set, so that their order would change from call to call
    for parameter in [*command.params, help_option]:
        if type(parameter) is TyperOption:
            # Typer offers no way to choose the option class; QuickOption adds behaviour and no state.
            parameter.__class__ = QuickOption
        elif type(parameter) is TyperArgument:
            parameter.__class__ = QuickArgument
    for child in getattr(command, "commands", {}).values():
        finish(child)


def reflow(text: str) -> str:
    """Join the lines of each paragraph, so that the terminal's width decides where they break.

    Paragraphs with an indented line (examples, lists) stay as they are.
    """
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(part if part.startswith(" ") or "\n " in part else part.replace("\n", " ") for part in paragraphs)
