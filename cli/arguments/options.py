"""One command-line option for each setting of the schema."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import typer

from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import Leaf, leaves
from pitstop.configs.values import describe

_PANELS = {
    "model": "Model",
    "data": "Data",
    "lora": "LoRA",
    "quantization": "Quantization",
    "training": "Training",
    "checkpoint": "Checkpoints",
    "naming": "Naming",
    "hub": "Hub",
    "ner": "Task ner",
    "rank": "Task rank",
    "diffusion": "Task diffusion",
}
_METAVARS = {"int": "INTEGER", "float": "NUMBER", "str": "TEXT", "list": "TEXT"}
_PASSED = ("flags", "config_files", "env_file")


def with_settings(
    command: Callable[..., Any] | None = None, *, exclude: Collection[str] = (), config: bool = True
) -> Callable[..., Any]:
    """Add an option for every setting, ``--config`` and ``--env-file`` to a Typer command.

    The command is called with ``flags`` (dotted path → text, truth value or list; only what was given), ``config_files``
    and ``env_file`` besides its own parameters. Values are checked where all sources are, in ``load_settings``, so that a
    wrong flag gives the same message as a wrong line in a file.

    Args:
        exclude: dotted paths that get no option.
        config: False leaves ``--config`` out (``config_files`` is then empty).
    """
    if command is None:
        return functools.partial(with_settings, exclude=exclude, config=config)
    listed = [leaf for leaf in leaves() if leaf.flag and leaf.path not in exclude]

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> Any:
        flags = _take_flags(arguments, listed)
        config_files, env_file = arguments.pop("config_files", None) or [], arguments.pop("env_file")
        return command(**arguments, flags=flags, config_files=config_files, env_file=env_file)

    _describe(wrapper, command, listed, config)
    return wrapper


def _take_flags(arguments: dict[str, Any], settings: Iterable[Leaf]) -> dict[str, Any]:
    """Move the options of settings out of ``arguments``; keep those that were on the command line."""
    flags = {}
    for leaf in settings:
        value, off = arguments.pop(_name(leaf), None), arguments.pop(_off_name(leaf), None)
        if value and off:
            raise SettingsError(f"{leaf.flag} and {_off_flag(leaf)} contradict each other.", hint="Give one of the two.")
        if off:
            value = False
        if value is not None and value != []:
            flags[leaf.path] = value
    return flags


def _describe(wrapper: Any, command: Callable[..., Any], settings: list[Leaf], config: bool) -> None:
    """Give the wrapper the signature that Typer reads."""
    parameters = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name not in _PASSED]
    parameters += _file_parameters(config)
    for leaf in settings:
        parameters += _parameters(leaf)
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    wrapper.__signature__ = inspect.Signature(keyword)
    wrapper.__annotations__ = {p.name: p.annotation for p in keyword}
    # Typer would follow __wrapped__ back to the parameters that it must not see.
    del wrapper.__wrapped__


def _name(leaf: Leaf) -> str:
    return "set_" + leaf.path.replace(".", "_")


def _off_name(leaf: Leaf) -> str:
    return "unset_" + leaf.path.replace(".", "_")


def _off_flag(leaf: Leaf) -> str:
    return f"--no-{leaf.flag[2:]}"


def _parameters(leaf: Leaf) -> list[inspect.Parameter]:
    """One option; for a truth value two, since Typer's own ``--x/--no-x`` leaves no room for help on 80 columns."""
    panel = _PANELS.get(leaf.group, leaf.group.title())
    if leaf.kind == "bool":
        on = typer.Option(None, leaf.flag, help=_help(leaf), show_default=False, rich_help_panel=panel)
        off = typer.Option(None, _off_flag(leaf), help=f"Turn {leaf.flag} off.", show_default=False, hidden=True)
        return [_keyword(_name(leaf), on, bool | None), _keyword(_off_name(leaf), off, bool | None)]
    metavar = _METAVARS.get(leaf.kind) or "|".join(leaf.choices)
    option = typer.Option(None, leaf.flag, help=_help(leaf), metavar=metavar, show_default=False, rich_help_panel=panel)
    return [_keyword(_name(leaf), option, list[str] | None if leaf.kind == "list" else str | None)]


def _keyword(name: str, option: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def _help(leaf: Leaf) -> str:
    """Meaning, range and default. Square brackets are escaped, since Rich takes them for markup."""
    text = leaf.help.replace("[", r"\[")
    notes = [describe(leaf)] if leaf.limits and leaf.kind in ("int", "float") else []
    if leaf.kind == "bool":
        notes.append("default: off" if leaf.default is False else f"default: on; {_off_flag(leaf)} turns it off")
    elif leaf.default not in (None, []):
        default = leaf.default if isinstance(leaf.default, list) else [leaf.default]
        notes.append(f"default: {','.join(str(item) for item in default)}")
    return f"{text} ({'; '.join(notes)})" if notes else text


def _file_parameters(config: bool) -> list[inspect.Parameter]:
    panel = "Settings files"
    env_file = typer.Option(None, "--env-file", metavar="FILE", help="Read this file instead of .env.", rich_help_panel=panel)
    parameters = [_keyword("env_file", env_file, Path | None)]
    if config:
        meaning = "YAML file of settings, or the name of a shipped preset. Repeatable; later files win."
        config_files = typer.Option(None, "--config", metavar="FILE", help=meaning, rich_help_panel=panel)
        parameters.insert(0, _keyword("config_files", config_files, list[str] | None))
    return parameters
