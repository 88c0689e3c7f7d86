from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.cli import Cli
from support.hub_records import pushed
from support.stores import ForgetfulStorage, save

CONFIG: dict[str, Any] = {
    "training": {"task": "sft", "method": "lora"},
    "model": {"id": "some/model"},
    "data": {"train": ["a.jsonl"]},
    "naming": {"experiment_name": "first"},
}


def start(
    name: str, loss: float | None = None, base: str = "checkpoints", config: dict[str, Any] = CONFIG, **metadata: Any
) -> RunDirectory:
    run = create_run(base, name=name, config=config, metadata=metadata, storage=ForgetfulStorage())
    if loss is not None:
        run.record_checkpoint(save(run.store, 60, loss=loss), {"status": metadata.get("status", "completed")})
    return run


def names(output: str) -> list[str]:
    return [row["name"] for row in json.loads(output)]


@pytest.fixture
def three_runs() -> None:
    start(
        "run-a",
        0.5,
        created_at="2026-01-01T12:00:00+00:00",
        progress={"step": 60, "total_steps": 60, "epoch": 5, "total_epochs": 5},
    )
    start("run-b", 0.25, created_at="2026-01-03T12:00:00+00:00", progress={"step": 30, "total_steps": 120})
    start("run-c", created_at="2026-01-02T12:00:00+00:00", status="failed", task="ner")


@pytest.mark.usefixtures("three_runs")
def test_the_table_has_the_columns_of_the_documents(pitstop: Cli) -> None:
    result = pitstop("list-runs")
    header, first, second, third = result.stdout.splitlines()
    titles = ["Run #", "Name", "Experiment", "Dataset", "Status", "Created", "Progress", "Checkpoints", "Best", "Size", "Hub"]
    assert [header.index(title) for title in titles] == sorted(header.index(title) for title in titles)
    assert first.split() == [
        "1",
        "run-a",
        "first",
        "a.jsonl",
        "completed",
        "2026-01-01",
        "12:00",
        "60/60",
        "100%",
        "1",
        "0.5",
        "val_loss",
        "3.4",
        "KiB",
        "-",
    ]
    assert "30/120  25%" in second
    assert third.split() == ["3", "run-c", "first", "a.jsonl", "failed", "2026-01-02", "12:00", "-", "0", "-", "0", "B", "-"]
    assert [("★" in line or "*" in line) for line in (first, second, third)] == [False, True, False]
    assert result.stderr == ""


@pytest.mark.usefixtures("three_runs")
def test_json_has_stable_keys_and_nothing_else(pitstop: Cli) -> None:
    rows = json.loads(pitstop("list-runs", "--json").stdout)
    assert list(rows[0]) == [
        "run_number",
        "run",
        "path",
        "name",
        "experiment_name",
        "task",
        "method",
        "model",
        "dataset",
        "status",
        "created_at",
        "updated_at",
        "progress",
        "checkpoints",
        "best_checkpoint",
        "is_best",
        "size_bytes",
        "hub",
    ]
    assert [row["run_number"] for row in rows] == [1, 2, 3]
    assert [row["is_best"] for row in rows] == [False, True, False]
    assert rows[0]["progress"] == {"step": 60, "total_steps": 60, "epoch": 5, "total_epochs": 5}


@pytest.mark.usefixtures("three_runs")
@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("number", "abc"),
        ("-number", "cba"),
        ("name", "abc"),
        ("created", "acb"),
        ("-created", "bca"),
        ("best", "bac"),
        ("progress", "cba"),
        ("status", "abc"),
        ("checkpoints", "cab"),
        ("-size", "abc"),
        ("dataset", "abc"),
        ("experiment", "abc"),
        ("hub", "abc"),
    ],
)
def test_runs_can_be_sorted(pitstop: Cli, sort: str, order: str) -> None:
    assert names(pitstop("list-runs", "--sort", sort, "--json").stdout) == [f"run-{letter}" for letter in order]


def several(name: str, *arrived: str, **more: Any) -> RunDirectory:
    """A run with three checkpoints, of which ``arrived`` are on the Hub."""
    run = start(name)
    for step in (1, 2, 3):
        save(run.store, step, loss=0.5)
    run.sync_checkpoints()
    pushed(run, *arrived, **more)
    return run


def in_every_standing() -> None:
    all_of_them = ("checkpoint-1", "checkpoint-2", "checkpoint-3")
    several("in-step", *all_of_them)
    several("behind", "checkpoint-1")
    several("failed", *all_of_them, problem="the token may not write to user/a-run: 403\nForbidden by its owner")
    start("not-pushed")
    several("not-begun", repo=None)
    (several("damaged").path / "hub" / "state.json").write_text("{")
    (several("damaged-too").path / "hub" / "outbox.json").write_text("[]")


def test_the_hub_column_says_whether_all_has_arrived(pitstop: Cli) -> None:
    in_every_standing()
    header, *lines = pitstop("list-runs").stdout.splitlines()
    assert {line.split()[1]: line[header.index("Hub") :] for line in lines} == {
        "in-step": "in step",
        "behind": "2 behind",
        "failed": "failed: the token may not write to user/a-run:…",
        "not-pushed": "-",
        "not-begun": "3 behind",
        "damaged": "failed: hub/state.json is damaged",
        "damaged-too": "failed: hub/outbox.json is damaged",
    }


def test_json_has_the_repository_and_the_whole_problem(pitstop: Cli) -> None:
    in_every_standing()
    found = {row["name"]: row["hub"] for row in pitstop("list-runs", "--json").json()}
    assert found["behind"] == {"repo": "user/a-run", "state": "behind", "behind": 2, "problem": None}
    problem = "the token may not write to user/a-run: 403\nForbidden by its owner"
    assert found["failed"] == {"repo": "user/a-run", "state": "failed", "behind": 0, "problem": problem}
    assert found["in-step"] == {"repo": "user/a-run", "state": "in step", "behind": 0, "problem": None}
    assert found["not-pushed"] is None
    assert found["not-begun"] == {"repo": None, "state": "behind", "behind": 3, "problem": None}
    assert found["damaged"] == {"repo": None, "state": "failed", "behind": None, "problem": "hub/state.json is damaged"}


def test_sorted_by_the_hub_what_failed_comes_first(pitstop: Cli) -> None:
    in_every_standing()
    expected = ["failed", "damaged", "damaged-too", "not-begun", "behind", "in-step", "not-pushed"]
    assert names(pitstop("list-runs", "--sort", "hub", "--json").stdout) == expected


@pytest.mark.usefixtures("three_runs")
def test_runs_can_be_chosen_by_status_and_task(pitstop: Cli) -> None:
    assert names(pitstop("list-runs", "--status", "failed", "--json").stdout) == ["run-c"]
    assert names(pitstop("list-runs", "--task", "sft", "--json").stdout) == ["run-a", "run-b"]
    result = pitstop("list-runs", "--task", "sft", "--status", "failed")
    assert (result.code, result.stdout) == (0, "")
    assert "none of the 3 runs" in result.stderr
    assert json.loads(pitstop("list-runs", "--status", "stopped", "--json").stdout) == []


@pytest.mark.parametrize(("flag", "value"), [("--sort", "colour"), ("--status", "asleep")])
def test_unknown_columns_and_statuses_are_named_with_what_there_is(pitstop: Cli, flag: str, value: str) -> None:
    result = pitstop("list-runs", flag, value)
    assert result.code == 2
    assert f"{flag} {value}" in result.stderr
    assert "There are: " in result.stderr


def test_no_runs_say_how_to_start_one(pitstop: Cli) -> None:
    result = pitstop("list-runs")
    assert (result.code, result.stdout) == (0, "")
    assert "no runs in checkpoints yet" in result.stderr
    assert pitstop("list-runs", "--json").stdout == "[]\n"


def test_the_directory_is_chosen_by_flag_environment_file_and_default(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for base in ("checkpoints", "from-env-file", "from-other-file", "from-bare", "from-prefixed", "from-flag"):
        start(base, base=base)
    assert names(pitstop("list-runs", "--json").stdout) == ["checkpoints"]
    Path(".env").write_text("LORA_RANK=8\nOUTPUT_DIR='from-env-file' # here\n")
    assert names(pitstop("list-runs", "--json").stdout) == ["from-env-file"]
    Path("other.env").write_text("OUTPUT_DIR=nowhere\nPITSTOP_OUTPUT_DIR=from-other-file\n")
    assert names(pitstop("list-runs", "--json", "--env-file", "other.env").stdout) == ["from-other-file"]
    monkeypatch.setenv("OUTPUT_DIR", "from-bare")
    assert names(pitstop("list-runs", "--json").stdout) == ["from-bare"]
    monkeypatch.setenv("PITSTOP_OUTPUT_DIR", "from-prefixed")
    assert names(pitstop("list-runs", "--json").stdout) == ["from-prefixed"]
    assert names(pitstop("list-runs", "--json", "--base-dir", "from-flag").stdout) == ["from-flag"]


def test_a_missing_env_file_and_an_empty_directory_are_refused(pitstop: Cli) -> None:
    assert pitstop("list-runs", "--env-file", "absent.env").code == 2
    result = pitstop("list-runs", "--base-dir", "")
    assert (result.code, "--base-dir is empty" in result.stderr) == (2, True)


def test_base_trainings_come_after_and_with_their_group(pitstop: Cli) -> None:
    create_run("checkpoints/base_training", name="base", config=CONFIG, metadata={}, storage=ForgetfulStorage())
    start("lora")
    assert [line.split()[0] for line in pitstop("list-runs").stdout.splitlines()[1:]] == ["1", "base_training/1"]


def test_a_run_without_metadata_is_listed_as_incomplete(pitstop: Cli) -> None:
    (start("a-run").path / "metadata.json").unlink()
    assert "incomplete" in pitstop("list-runs").stdout


def test_nothing_heavy_is_imported() -> None:
    pushed(start("a-run", 0.5), "checkpoint-60")
    code = (
        "import sys\nfrom pitstop.cli.main import main\nmain(['list-runs'])\n"
        "print([m for m in ('torch', 'transformers', 'pydantic', 'rich', 'yaml', 'numpy', 'matplotlib', 'huggingface_hub', 'socket') if m in sys.modules], file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.strip() == "[]"


def on_terminal(width: int, *arguments: str, **environment: str) -> str:
    """What ``pitstop`` shows on a terminal ``width`` columns wide."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update({"COLUMNS": str(width), "TERM": "xterm", **environment})
        os.execv(sys.executable, [sys.executable, "-m", "pitstop.cli", *arguments])
    output = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says EIO where others say end of file
            break
        if not piece:
            break
        output += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return output.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("count", [2, 70], ids=["drawn by Rich", "drawn by hand"])
def test_a_table_fits_the_terminal(count: int) -> None:
    for number in range(count):
        start(f"smollm2135-train-r16-a32-e5-20260101-{number:06d}", 0.5 + number)
    wide = on_terminal(200, "list-runs", NO_COLOR="1")
    assert "\x1b[" not in wide.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "smollm2135-train-r16-a32-e5-20260101-000001" in wide
    assert "0.5 val_loss ★" in wide
    assert "left out" not in wide
    narrow = on_terminal(80, "list-runs", NO_COLOR="1").splitlines()
    table = [line for line in narrow if "left out" not in line and "best of" not in line]
    assert len(table) == count + 2
    assert all(len(line.rstrip().replace("\x1b[1m", "").replace("\x1b[0m", "")) <= 80 for line in table)
    assert "left out for the width of the terminal: Size" in "\n".join(narrow)
    assert "…" in table[2]
    assert table[3].split()[1].endswith("000001")


def test_on_a_narrow_terminal_the_hub_stays_where_runs_are_pushed() -> None:
    in_every_standing()
    narrow = on_terminal(80, "list-runs", NO_COLOR="1")
    table = [line.rstrip().split("  ")[-1].strip() for line in narrow.splitlines()[2:9]]
    assert sorted(table) == ["-", "2 behind", "3 behind", "failed", "failed", "failed", "in step"]
    assert "pitstop show run_003 says why pushing failed" in narrow
    assert "\x1b[31mfailed" in on_terminal(160, "list-runs")


def test_colours_are_for_terminals_that_want_them() -> None:
    start("a-run", 0.5)
    assert "\x1b[32mcompleted\x1b[0m" in on_terminal(160, "list-runs")
    assert "\x1b[32m" not in on_terminal(160, "list-runs", NO_COLOR="1")


def test_a_base_directory_that_is_a_dangling_link_is_told(pitstop: Cli) -> None:
    Path("runs").symlink_to("elsewhere/runs")
    result = pitstop("list-runs", "--base-dir", "runs")
    assert result.code == 2
    assert "runs is a link to elsewhere/runs, which is not there" in result.stderr
