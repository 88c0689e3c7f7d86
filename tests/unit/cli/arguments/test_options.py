"""One option for each setting, and only what was given is passed on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pitstop.cli.arguments.options import with_settings
from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import leaves


def run(*arguments: str, **options: Any) -> dict[str, Any]:
    """What a command decorated with ``with_settings(**options)`` is called with."""
    seen: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @with_settings(**options)
    def command(quiet: bool = False, *, flags: dict[str, Any], config_files: list[str], env_file: Path | None) -> None:
        seen.update(quiet=quiet, flags=flags, config_files=config_files, env_file=env_file)

    CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return seen


def test_nothing_given_is_nothing_passed_on() -> None:
    assert run() == {"quiet": False, "flags": {}, "config_files": [], "env_file": None}


def test_every_kind_of_option_arrives_under_its_path() -> None:
    arguments = "--lora-rank 8 --dataset a --dataset b --packing --no-timestamp --method lora --config x --config y.yaml"
    seen = run(*arguments.split(), "--env-file", "p.env", "--quiet")
    assert seen["flags"] == {
        "lora.rank": "8",
        "data.train": ["a", "b"],
        "data.packing": True,
        "naming.timestamp": False,
        "training.method": "lora",
    }
    assert (seen["config_files"], seen["env_file"], seen["quiet"]) == (["x", "y.yaml"], Path("p.env"), True)


@pytest.mark.parametrize("leaf", [leaf for leaf in leaves() if leaf.flag], ids=lambda leaf: leaf.path)
def test_each_setting_has_a_flag_that_sets_it(leaf: Any) -> None:
    if leaf.kind == "bool":
        assert run(leaf.flag)["flags"] == {leaf.path: True}
        assert run(f"--no-{leaf.flag[2:]}")["flags"] == {leaf.path: False}
    else:
        expected = ["x"] if leaf.kind == "list" else "x"
        assert run(leaf.flag, "x")["flags"] == {leaf.path: expected}


def test_secrets_have_no_flag() -> None:
    command = with_settings(lambda *, flags, config_files, env_file: None)
    secret = {f"set_{leaf.path.replace('.', '_')}" for leaf in leaves() if leaf.secret}
    assert secret and not secret & inspect.signature(command).parameters.keys()


def test_both_directions_at_once_are_refused() -> None:
    with pytest.raises(SettingsError, match="--no-packing"):
        run("--packing", "--no-packing")


def test_excluded_settings_and_config_have_no_option() -> None:
    signature = inspect.signature(with_settings(exclude=("lora.rank",), config=False)(lambda **_: None))
    assert "set_lora_rank" not in signature.parameters
    assert "config_files" not in signature.parameters
    assert "set_lora_alpha" in signature.parameters
    assert run(exclude=("lora.rank",), config=False)["config_files"] == []
