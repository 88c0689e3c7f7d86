"""The wheel holds every package and data file, and works where the checkout is not.

A sub-package that is missing from the ``packages`` list works in an editable install and is absent from the wheel, so the
list is compared with the directories, and the command is run from a built wheel.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

PACKAGED = ("cli", "trainers", "checkpointing", "naming", "configs", "examples")
LEFT_OUT = shutil.ignore_patterns(
    *(".venv", ".git", ".types", "build", "dist", "*.egg-info", "checkpoints", "__pycache__", ".*_cache", ".hypothesis")
)


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist and the wheel that is built from it, as ``python -m build`` does."""
    source, out = tmp_path_factory.mktemp("source") / "pitstop", tmp_path_factory.mktemp("dist")
    shutil.copytree(repository, source, ignore=LEFT_OUT)  # setuptools writes into the directory that it builds from
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)], cwd=source)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``pitstop`` script of a venv with the wheel, which sees this environment's other packages but no checkout."""
    venv = tmp_path_factory.mktemp("venv")
    run([sys.executable, "-m", "venv", str(venv)])
    scripts = venv / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = built.glob("*.whl")
    run(
        [
            str(scripts / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-index",
            str(wheel),
        ]
    )
    purelib = run([str(scripts / "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    # Lines of a .pth file only extend the path: this environment's editable finder is not run.
    (Path(purelib) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts / "pitstop"


def run(command: list[str], cwd: Path | None = None) -> str:
    """Run ``command`` outside the checkout and return its stdout; its whole output is the failure message."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def packages_on_disk(repository: Path) -> set[str]:
    return {
        "pitstop." + ".".join(init.parent.relative_to(repository).parts)
        for name in PACKAGED
        for init in (repository / name).rglob("__init__.py")
    }


def test_the_packages_list_is_what_the_directories_are(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == packages_on_disk(repository)


def test_every_directory_with_modules_is_a_package(repository: Path) -> None:
    modules = [path for name in PACKAGED for path in (repository / name).rglob("*.py")]
    assert [path for path in modules if not (path.parent / "__init__.py").is_file()] == []


def test_the_wheel_has_every_module_and_data_file_and_nothing_else(repository: Path, built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        f"pitstop/{path.relative_to(repository).as_posix()}"
        for name in PACKAGED
        for pattern in ("*.py", "*.yaml", "*.jsonl", "sizes/*.json")
        for path in (repository / name).rglob(pattern)
        if path.is_relative_to(repository / "configs") or path.parent.name == "sizes" or (path.parent / "__init__.py").is_file()
    }
    assert names == expected


def test_the_sdist_has_what_the_tests_and_docs_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {".env.example", "LICENSE", "README.md", "Makefile", "constraints.txt", "tests/conftest.py", "docs/index.md"}
    assert wanted <= names
    assert not any("__pycache__" in name or name == ".env" for name in names)


def test_the_installed_command_runs_without_the_checkout(installed: Path, repository: Path, tmp_path: Path) -> None:
    where = run([str(installed.parent / "python"), "-c", "import pitstop.cli.main as m; print(m.__file__)"], cwd=tmp_path)
    assert not Path(where.strip()).is_relative_to(repository)
    assert "list-runs" in run([str(installed), "--help"], cwd=tmp_path)
    assert run([str(installed), "--version"], cwd=tmp_path).startswith("pitstop ")


def test_the_installed_command_names_lists_and_reads_its_presets(installed: Path, tmp_path: Path) -> None:
    simple = ["name", "--simple", "--at", "2024-09-14T14:30:22", "--model-id", "microsoft/Phi-3-mini-4k-instruct"]
    named = run([str(installed), *simple, "--dataset", "dataset_minimal.jsonl", "--epochs", "20"], cwd=tmp_path)
    assert named == "phi3mini4k-minimal-r32-a64-e20-20240914-143022\n"
    assert json.loads(run([str(installed), "list-runs", "--json"], cwd=tmp_path)) is not None
    assert "example:medical_ner/train.jsonl" in run(
        [str(installed), "config", "show", "--json", "--config", "demo"], cwd=tmp_path
    )
