"""The commands on the right of the tables in the command map are ones that Pitstop has, with their options and values."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from pitstop.cli.lazy import finish
from pitstop.cli.main import app
from pitstop.configs.files import read_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "command-map.md"
_ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)


_TEXT = PAGE.read_text(encoding="utf-8")

# all that the page has between backticks, and what stands on the right of its tables
COMMANDS = sorted({text for text in re.findall(r"`([^`\n]+)`", _TEXT) if re.match(r"(?:[A-Z_]+=\S+ )*pitstop ", text)})
PYTHON = sorted({text for _, right, _ in _ROW.findall(_TEXT) for text in re.findall(r"`([^`]+)`", right)} - set(COMMANDS))


def parse(command: str) -> dict[str, Any]:
    """The parameters that a command line gives, read by the command itself, which is not run."""
    import typer.main

    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)][1:]
    found: Any = typer.main.get_command(app)
    finish(found)
    context: Any = found.make_context("pitstop", list(words), resilient_parsing=False)
    while hasattr(found, "commands"):
        name, found, words = found.resolve_command(context, words)
        context = found.make_context(name, list(words), parent=context)
    parameters: dict[str, Any] = context.params
    return parameters


def test_each_document_has_its_table() -> None:
    assert _TEXT.count("\n| before | Pitstop | remark |\n") == 5
    assert len(COMMANDS) > 50 and len(PYTHON) > 15


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_read_with_its_options(command: str) -> None:
    parameters = parse(command)
    for name in parameters.get("config_files") or ():
        assert read_config(name), name


@pytest.mark.parametrize(
    "wrong", ["pitstop trian", "pitstop train --epoch 3", "pitstop resume 1 2", "pitstop list-runs --limit 3"]
)
def test_a_command_that_there_is_not_would_be_noticed(wrong: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|unexpected extra"):
        parse(wrong)


def known() -> dict[str, Any]:
    from pitstop.checkpointing import CheckpointManager, list_all_runs
    from pitstop.checkpointing.callbacks import DistributedCheckpointCallback, PitstopCallback, ResumeFromCheckpointCallback
    from pitstop.trainers.tasks.diffusion.loading import load_sampler

    return {
        each.__name__: each
        for each in (
            CheckpointManager, list_all_runs, load_sampler, PitstopCallback, DistributedCheckpointCallback, ResumeFromCheckpointCallback,
        )
    }  # fmt: skip


@pytest.mark.parametrize("code", PYTHON)
def test_the_python_calls_what_there_is_with_its_arguments(code: str) -> None:
    names = known()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            assert {alias.name for alias in node.names} <= set(names)
        if isinstance(node, ast.Call):
            check_call(node, names)


def check_call(call: ast.Call, names: dict[str, Any]) -> None:
    """A call of a manager's method, or of what the page names, must have arguments that fit."""
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    match call.func:
        case ast.Attribute(value=ast.Name(id="checkpoint_manager"), attr=method):
            inspect.signature(getattr(names["CheckpointManager"], method)).bind(None, *call.args, **keywords)
        case ast.Name(id=name) if name in names:
            inspect.signature(names[name]).bind(*call.args, **keywords)
        case other:
            assert ast.unparse(other) in ("model.load_state_dict", "PeftModel.from_pretrained"), ast.unparse(other)
