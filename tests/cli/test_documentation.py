"""The documentation says what the code does: generated pages are in step, commands and links in the text exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from pitstop.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
]
GENERATED = ["docs/commands.md", "docs/settings.md", "tests/cli/options.txt", ".env.example"]


@cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def generated() -> dict[str, str]:
    return {path.as_posix(): text for path, text in generator().generated().items()}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_are_in_step(name: str) -> None:
    assert set(generated()) == set(GENERATED)
    assert (ROOT / name).read_text(encoding="utf-8") == generated()[name], f"{name} is out of date: run `make docs`"


def pitstop_lines(page: Path) -> list[list[str]]:
    """Each ``pitstop …`` line of the page's shell blocks as words; environment in front and comments left out."""
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = []
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        match = re.match(r"^(?:\$ )?(?:[A-Z_0-9]+=\S+ )*(?:uv run |\.venv/bin/)?pitstop\s+(.*)$", line.strip())
        if match:
            found.append(shlex.split(re.split(r"[|>&;]", match[1])[0], comments=True))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_text_exist_with_their_options(page: Path) -> None:
    for words in pitstop_lines(page):
        command = [word for word in words[:2] if not word.startswith("-")]
        if not command:
            continue
        depth = 2 if command[0] == "config" else 1
        assert command[0] in COMMANDS, f"{page.name}: pitstop {' '.join(words)}"
        parameters = generator().command_at(tuple(words[:depth])).params
        known = {name for parameter in parameters for name in [*parameter.opts, *parameter.secondary_opts]} | {"--help", "-h"}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= known, f"{page.name}: pitstop {' '.join(words)}: no such option: {given - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


NOT_HERE = {
    "configs/training",
    "configs/data",
    "configs/lora",
    "benchmarks/vs_trl/.venv",
}  # presets by another name; made when needed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_and_tests_in_the_text_exist(page: Path) -> None:
    top = "cli|trainers|checkpointing|naming|configs|tests|benchmarks|docs|examples"
    named = re.findall(rf"`((?:{top})/[\w./*-]*)(?:::(\w+))?`", page.read_text(encoding="utf-8"))
    for path, function in named:
        if path in NOT_HERE or Path(path).parent.as_posix() in NOT_HERE:
            continue
        places = list(ROOT.glob(path))
        assert places, f"{page.name}: {path}"
        if function:
            assert f"def {function}(" in places[0].read_text(encoding="utf-8"), f"{page.name}: {path}::{function}"


def test_every_page_is_reachable_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md" and f"({page.name})" not in index] == []


def test_every_direct_dependency_is_explained() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    names = {re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in required}
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert {name for name in names if f"| {name} |" not in page} == set()


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = [*project["dependencies"], *extras["test"], *extras["dev"]]  # what make installs
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}
    for requirement in map(Requirement, required):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_every_requirement_row_that_is_done_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| (\d+) \| .*? \| (.*?) \| (.*?) \|$", (ROOT / "docs" / "requirements.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 139))
    for number, where, test in rows:
        if where == "open":
            assert test == "", number
            continue
        for path in re.findall(r"`([^`]+)`", where):
            assert (ROOT / path).exists(), f"row {number}: {path}"
        tests = re.findall(r"`([^`:]+)(?:::(\w+))?`", test)
        assert tests, f"row {number} names no test"
        for path, function in tests:
            assert (ROOT / path).is_file(), f"row {number}: {path}"
            assert f"def {function}" in (ROOT / path).read_text() if function else True, f"row {number}: {function}"
