"""The frame around all commands: help, version, misspelt commands, and what is not imported."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pitstop.cli.lazy import CommandEntry, lazy_group, load_command, reflow
from pitstop.cli.main import COMMANDS
from support.cli import Cli, pitstop_process
from support.housekeeping import make_run

HEAVY = {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "numpy", "pandas", "matplotlib", "pydantic"}
WATCH = """
import sys
from pitstop.cli.main import main
for arguments in {commands!r}:
    code = main(arguments)
    print("imported:", code, *sorted({heavy!r} & set(sys.modules)), file=sys.stderr)
"""


def imported_by(*commands: list[str]) -> list[tuple[str, int, set[str]]]:
    """The words of each command, its exit code, and what is imported after it."""
    program = WATCH.format(commands=commands, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    lines = [line.split() for line in done.stderr.splitlines() if line.startswith("imported:")]
    return [(" ".join(words), int(line[1]), set(line[2:])) for words, line in zip(commands, lines, strict=True)]


def test_leaves_torch_and_its_like_unimported() -> None:
    """All in one process: what one command imported would still be there after the last."""
    commands = [["--help"], ["--version"], ["name"], ["name", "--simple"], ["list-runs"], ["list-runs", "--json"]]
    commands += [["config", "show"], ["config", "validate"], *([command, "--help"] for command in COMMANDS)]
    assert imported_by(*commands) == [(" ".join(words), 0, set()) for words in commands]


def test_show_of_a_run_that_is_absent_is_one_message_without_torch() -> None:
    assert imported_by(["show", "99"]) == [("show 99", 2, set())]


def test_looking_after_runs_needs_no_torch() -> None:
    make_run(Path("checkpoints"))
    make_run(Path("checkpoints"), "another")
    commands = [
        ["verify"],
        ["prune", "--keep-last-n", "1"],
        ["show", "1"],
        ["compare", "1", "2", "--plot"],
        ["delete", "1", "--yes"],
    ]
    for words, code, imported in imported_by(*commands):
        assert code == 0, words
        assert imported <= {"pydantic"}, words  # Typer converts numbers by it


def test_pitstop_alone_prints_help(pitstop: Cli) -> None:
    result = pitstop()
    assert result.code == 0
    assert all(command in result.stdout for command in COMMANDS)
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 80


def test_version(pitstop: Cli) -> None:
    from importlib.metadata import version

    assert pitstop("--version").stdout == f"pitstop {version('pitstop')}\n"


def test_a_misspelt_command_is_suggested(pitstop: Cli) -> None:
    result = pitstop("list-rnus")
    assert (result.code, result.stdout) == (2, "")
    assert "list-runs" in result.stderr and "--help" in result.stderr


def test_a_misspelt_option_is_suggested(pitstop: Cli) -> None:
    result = pitstop("list-runs", "--statsu", "completed")
    assert (result.code, result.stdout) == (2, "")
    assert "--status" in result.stderr and "pitstop list-runs --help" in result.stderr


@pytest.mark.parametrize("command", [*sorted(COMMANDS.keys() - {"config"}), "config show", "config validate"])
def test_every_command_has_help_with_examples_at_80_columns(command: str, pitstop: Cli) -> None:
    result = pitstop(*command.split(), "-h")
    assert result.code == 0
    assert f"pitstop {command}" in result.stdout
    assert f"\n   pitstop {command}" in result.stdout.partition("Examples:")[2]
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 80
    assert not re.findall(r"<\w+", result.stdout), "types are not for people"


@pytest.mark.parametrize("entry", COMMANDS.values(), ids=list(COMMANDS))
def test_the_table_names_what_exists_and_says_what_it_is(entry: CommandEntry) -> None:
    assert hasattr(importlib.import_module(entry.module), entry.attribute)
    assert entry.help.endswith(".") and len(entry.help) <= 62


def test_the_module_runs_like_the_script() -> None:
    result = pitstop_process("--version")
    assert result.code == 0 and result.stdout.startswith("pitstop ")


def test_an_option_that_is_not_given_costs_no_pydantic() -> None:
    code = (
        "import sys, typer, typer.main\n"
        "from pitstop.cli.lazy import CommandEntry, load_command\n"
        "import types; m = types.ModuleType('m'); sys.modules['m'] = m\n"
        "def f(a: str = typer.Option(None), n: int = typer.Option(None), b: bool = typer.Option(False)): print(a, n, b)\n"
        "m.f = f\n"
        "load_command('f', CommandEntry('m', 'f', 'x', 'y')).main(['--a', 'text', '--b'], standalone_mode=False)\n"
        "assert 'pydantic' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "text None True\n", "")


def test_options_are_still_converted_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(n: int = typer.Option(None, min=1), many: list[str] = typer.Option(None)) -> tuple[int, list[str]]:  # noqa: B008
        return n, many

    module = type(sys)("a_command_module")
    monkeypatch.setattr(module, "command", command, raising=False)
    monkeypatch.setitem(sys.modules, "a_command_module", module)
    built = load_command("command", CommandEntry("a_command_module", "command", "x", "y"))
    assert built.main(["--n", "3", "--many", "a", "--many", "b"], standalone_mode=False) == (3, ["a", "b"])
    assert built.main([], standalone_mode=False) == (None, None)
    with pytest.raises(typer.BadParameter):
        built.main(["--n", "0"], standalone_mode=False)


def test_listing_commands_imports_none_of_them() -> None:
    group = typer.main.get_command(
        typer.Typer(cls=lazy_group({"ghost": CommandEntry("no.such.module", "x", "A ghost.", "Panel")}), callback=lambda: None)
    )
    context = typer.Context(group)
    assert "ghost" in group.get_help(context) or group.list_commands(context) == ["ghost"]
    assert [item.value for item in group.shell_complete(context, "gh")] == ["ghost"]


def test_reflow_joins_paragraphs_and_keeps_examples() -> None:
    text = "First\nline.\n\nA paragraph\nof two lines.\n\nExamples:\n\n  one\n  two"
    assert reflow(text) == "First line.\n\nA paragraph of two lines.\n\nExamples:\n\n  one\n  two"
