"""Run directories made to harm: links that lead out, metadata that lies, names that would control the terminal, loose modes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, RunError
from pitstop.configs.shown import json_safe, printable
from pitstop.trainers.reporter import Display, Reporter
from support.cli import Cli
from support.forging import CONFIG, change_json, commit, deep_directory, snapshot, sound_files
from support.stores import FILES, START, ForgetfulStorage, save

pytestmark = [
    pytest.mark.faults,
    pytest.mark.fault_row("hostile input: pickle, ../, absolute path, symlink, huge safetensors header, duplicate names"),
]

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r\n\x08"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base directory with one run and its three checkpoints, and something outside that must stay as it is."""
    (tmp_path / "outside/checkpoint-9").mkdir(parents=True)
    (tmp_path / "outside/.tmp-mine").mkdir()
    (tmp_path / "outside/mine.txt").write_text("mine")
    run = create_run(tmp_path / "runs", name="a-run", config=CONFIG, metadata={}, started_at=START, storage=ForgetfulStorage())
    for step in (1, 2, 3):
        save(run.store, step, loss=1 / step)
    run.sync_checkpoints({"status": "interrupted"})
    run.store.repair_pointers()
    return tmp_path / "runs"


@pytest.fixture
def run(base: Path) -> RunDirectory:
    return RunDirectory(base / "run_001", ForgetfulStorage())


@pytest.fixture(autouse=True)
def _nothing_outside_is_touched(tmp_path: Path) -> Iterator[None]:
    yield
    if (tmp_path / "outside").exists():
        assert set(snapshot(tmp_path / "outside")) == {"mine.txt", ".tmp-mine", "checkpoint-9"}
        assert (tmp_path / "outside/mine.txt").read_text() == "mine"


# Links -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lora_weights", "lora_weights/.damaged", "lora_weights/.superseded", "logs", "base_model"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_part_of_a_run_that_leads_out_of_it_is_not_written_through(
    run: RunDirectory, tmp_path: Path, name: str, kind: str
) -> None:
    path = run.path / name
    if path.exists():
        path.rename(tmp_path / "kept")
    path.symlink_to(tmp_path / "outside") if kind == "link" else path.write_text("")
    before = snapshot(run.path)
    with pytest.raises(CheckpointError, match=f"{name} is not a directory of its own") as caught, run.lock():
        pytest.fail("the lock was given")
    assert caught.value.exit_code == 4
    assert snapshot(run.path) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.superseded.jsonl", "train.log"])
@pytest.mark.parametrize("make", ["link", "pipe"])
@pytest.mark.timeout(20)
def test_a_log_that_is_no_file_is_not_written(run: RunDirectory, tmp_path: Path, name: str, make: str) -> None:
    path = run.logs_dir / name
    path.symlink_to(tmp_path / "outside/mine.txt") if make == "link" else os.mkfifo(path)
    with pytest.raises(CheckpointError, match=f"{name} is not a file of its own"), run.lock():
        pytest.fail("the lock was given")
    if name == "train.log":
        reporter = Reporter(Display())
        reporter.log_into(path)
        reporter.line("a line")
    elif name == "metrics.jsonl":
        with pytest.raises(OSError), closing(MetricsLog(path)) as log:
            log.append({"step": 1})
        with pytest.raises(OSError):
            MetricsLog(path).truncate_after(0)


def test_what_is_set_aside_does_not_leave_the_run(run: RunDirectory, tmp_path: Path) -> None:
    (run.store.directory / ".damaged").symlink_to(tmp_path / "outside")
    (run.store.directory / "checkpoint-3/state.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"\.damaged is not a directory of its own"):
        run.store.recover()
    assert (run.store.directory / "checkpoint-3").is_dir()
    assert run.store.set_aside(layout.DAMAGED) == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link to a file", "dangling link", "loop", "pipe", "directory"])
def test_a_planted_lock_is_not_followed(run: RunDirectory, tmp_path: Path, kind: str) -> None:
    path = run.path / layout.LOCK
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(
            {"link to a file": tmp_path / "outside/mine.txt", "dangling link": tmp_path / "outside/new"}.get(kind, path)
        )
    with pytest.raises(RunError, match="cannot be locked"), run.lock():
        pytest.fail("the lock was given")
    assert not run.is_locked()
    assert locking.owner_of(path) == {}
    assert [record.status for record in list_runs(run.base_dir)] == ["interrupted"]


def test_who_holds_a_lock_is_read_with_care(run: RunDirectory) -> None:
    for content in (b"[" * 50_000, b'"text"', b"\xff", b'{"pid": 1}' + b" " * 100_000):
        (run.path / layout.LOCK).write_bytes(content)
        assert locking.owner_of(run.path / layout.LOCK) == {}


@pytest.mark.parametrize("reference", ["2", "run_002"])
def test_a_run_that_is_a_link_is_no_run_of_this_directory(base: Path, tmp_path: Path, reference: str) -> None:
    elsewhere = create_run(
        tmp_path / "theirs", name="theirs", config=CONFIG, metadata={"created_at": "2999-01-01T00:00:00+00:00"}, started_at=START
    )
    before = snapshot(elsewhere.path)
    (base / "run_002").symlink_to(elsewhere.path)
    with pytest.raises(RunError, match="is a link to") as caught:
        locate(base, reference)[0]
    assert str(elsewhere.path) in caught.value.message
    assert [record.run for record in list_runs(base)] == ["run_001"], "nor is it the newest"
    assert locate(base, str(elsewhere.path))[0].path == elsewhere.path.resolve(), "its own path is another matter"
    with pytest.raises(RunError, match="is a link"), RunDirectory(base / "run_002").lock():
        pytest.fail("the lock was given")
    assert snapshot(elsewhere.path) == before


@pytest.mark.parametrize("target", ["../../theirs/run_001", "/etc", "..", "../run_001/../../theirs/run_001", "../run_002", "."])
def test_a_name_that_leads_out_of_the_base_directory_names_no_run(base: Path, tmp_path: Path, target: str) -> None:
    create_run(tmp_path / "theirs", name="theirs", config=CONFIG, metadata={}, started_at=START)
    (base / "by-name/evil").symlink_to(target)
    with pytest.raises(RunError, match="not found"):
        locate(base, "evil")[0]


@pytest.mark.parametrize("content", [b"../../theirs/run_001\n", b"\xff", b"x" * 1000, b""])
def test_a_name_in_a_file_is_read_with_the_same_care(base: Path, content: bytes) -> None:
    (base / "by-name/evil").write_bytes(content)
    with pytest.raises(RunError, match="not found"):
        locate(base, "evil")[0]


@pytest.mark.timeout(20)
def test_a_pipe_among_the_names_keeps_nobody_waiting(base: Path) -> None:
    os.mkfifo(base / "by-name/evil")
    with pytest.raises(RunError, match="not found"):
        locate(base, "evil")[0]


@pytest.mark.parametrize("target", ["../../outside/checkpoint-9", "/etc", "../../outside", "checkpoint-1/../checkpoint-2"])
def test_pointers_decide_nothing_and_lead_nowhere(run: RunDirectory, target: str) -> None:
    for which in layout.POINTERS:
        (run.store.directory / which).unlink()
        (run.store.directory / which).symlink_to(target)
        assert run.store.pointer(which) is None
    assert run.store.resolve("last").step == run.store.resolve("best").step == 3
    assert run.store.prune(1) == ["checkpoint-1", "checkpoint-2"]
    assert run.store.recover().repaired == ["last", "best"]


@pytest.mark.parametrize("digest", ["../../outside", "/etc", "..", "", "a" * 200, "A" * 64, "b/../c", None, 3, ["x"], {"a": 1}])
def test_a_reference_to_a_base_model_stays_in_the_store_of_bases(run: RunDirectory, tmp_path: Path, digest: Any) -> None:
    reference = {"digest": digest, "path": str(tmp_path / "outside")}
    (run.path / "base_model.json").write_text(json.dumps(reference))
    with pytest.raises(CheckpointError) as caught:
        BaseModels(run.base_dir).base_path(run.path)
    assert caught.value.exit_code == 4


def test_a_base_model_of_another_digest_is_not_the_runs(run: RunDirectory) -> None:
    bases = BaseModels(run.base_dir, ForgetfulStorage())
    for digest in ("a" * 64, "b" * 64):
        bases.save_once(digest, lambda directory, text=digest: (directory / "config.json").write_text(text) and None)
    bases.link_into(run.path, "b" * 64)
    assert bases.base_path(run.path, "b" * 64) == run.path / "base_model"
    assert bases.base_path(run.path, "a" * 64) == bases.path("a" * 64), "the right one is taken where it is whole"
    with pytest.raises(CheckpointError, match="not the base model that the checkpoint was trained on"):
        bases.base_path(run.path, "c" * 64)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(files={"../evil": {"size": 1, "sha256": "ab" * 32}}),
        lambda content: content.update(files=[1]),
        lambda content: content.update(files={"a": 3}),
        lambda content: content.update(more=1),
        lambda content: content.pop("digest_of_base"),
    ],
)
def test_a_base_manifest_is_read_as_strictly_and_a_bad_one_set_aside(run: RunDirectory, change: Callable[[Any], object]) -> None:
    from pitstop.checkpointing.disk.manifest import sealed, unsealed

    bases = BaseModels(run.base_dir, ForgetfulStorage())
    write = lambda directory: (directory / "config.json").write_text("{}") and None  # noqa: E731
    path = bases.save_once("a" * 64, write) / "BASE_MANIFEST.json"
    content = unsealed(path.read_bytes(), "there")
    change(content)
    path.write_bytes(sealed(content))
    with pytest.raises(CheckpointError, match=r"BASE_MANIFEST\.json"):
        bases.verify("a" * 64)
    bases.save_once("a" * 64, write)
    assert bases.verify("a" * 64) and (bases.directory / ".damaged" / ("a" * 64)).is_dir()


# Metadata ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../outside", "/etc", "../../outside/checkpoint-9", "run_001/../../outside", None, 3])
def test_paths_in_metadata_are_never_followed(run: RunDirectory, pitstop: Cli, path: Any) -> None:
    def change(content: Any) -> None:
        for entry in [*content["checkpoints"], content["best_checkpoint"]]:
            entry["path"] = path

    change_json(run.path / layout.METADATA, change)
    for arguments in (("list-runs",), ("show", 1), ("show", "1@best"), ("show", 1, "--verify")):
        assert pitstop(*arguments, "--base-dir", run.base_dir).code == 0
    with run.lock():
        run.store.recover()
        run.sync_checkpoints()
        assert run.store.prune(1) == ["checkpoint-1", "checkpoint-2"]
    assert all(str(entry.path).startswith("run_001/lora_weights/") for entry in run.metadata().checkpoints)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}), st.just([None, 3, {}])
)
KEYS = [
    "name", "experiment_name", "task", "model", "dataset", "status", "created_at", "updated_at", "progress", "checkpoints",
    "best_checkpoint", "resumes", "environment", "status_reason",
]  # fmt: skip
NESTED = {
    "progress": ["step", "total_steps", "epoch", "total_epochs"],
    "usage": ["training_s", "peak_memory_bytes"],
    "best_checkpoint": ["name", "metric", "value", "mode", "epoch"],
    "resumes": ["checkpoint", "step", "changes", "at", "environment"],
}


@st.composite
def odd_metadata(draw: st.DrawFn) -> dict[str, Any]:
    changes: dict[str, Any] = draw(st.dictionaries(st.sampled_from(KEYS), ODD, max_size=4))
    for key, inner in NESTED.items():
        if draw(st.booleans()):
            value = draw(st.dictionaries(st.sampled_from(inner), ODD, max_size=3))
            changes[key] = [value] if key == "resumes" else value
    return changes


def test_no_metadata_gives_a_traceback(base: Path, pitstop: Cli, request: pytest.FixtureRequest) -> None:
    path = base / "run_001/metadata.json"
    sound = json.loads(path.read_text())

    @settings(max_examples=150 if request.config.getoption("--full-faults") else 50, deadline=None)
    @given(odd_metadata())
    def look(changes: dict[str, Any]) -> None:
        path.write_text(json.dumps({**sound, **changes}))
        for arguments in (("list-runs", "--sort", "best"), ("show", 1), ("show", 1, "--json"), ("list-runs", "--json")):
            result = pitstop(*arguments, "--base-dir", base)
            assert result.code == 0, (arguments, result)
            assert "Traceback" not in result.stderr

    look()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[" * 100_000, b"\xff", b'{"name": NaN}', b'{"a": ' + b"9" * 5000 + b"}", b"\x80\x04N."],
    ids=["empty", "list", "deep", "binary", "nan", "digits", "pickle"],
)
@pytest.mark.parametrize("name", [layout.METADATA, layout.CONFIG])
def test_files_of_a_run_that_are_none_are_shown_as_that(run: RunDirectory, pitstop: Cli, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)
    assert pitstop("list-runs", "--base-dir", run.base_dir).code == 0
    result = pitstop("show", 1, "--base-dir", run.base_dir)
    assert result.code in (0, 4) and "Traceback" not in result.stderr and "bug" not in result.stderr


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [layout.METADATA, layout.CONFIG])
@pytest.mark.parametrize("kind", ["pipe", "link", "long", "directory"])
def test_a_file_of_a_run_that_is_something_else_keeps_nobody_waiting(
    run: RunDirectory, tmp_path: Path, pitstop: Cli, name: str, kind: str
) -> None:
    path = run.path / name
    path.rename(tmp_path / "kept")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "kept")
    elif kind == "directory":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 1 << 40)  # sparse
    assert pitstop("list-runs", "--base-dir", run.base_dir).code == 0
    assert [record.status for record in list_runs(run.base_dir)] == ["incomplete" if name == layout.METADATA else "interrupted"]
    result = pitstop("show", 1, "--base-dir", run.base_dir)
    assert result.code in (0, 4) and name in result.stderr and "bug" not in result.stderr


def test_what_is_set_aside_is_measured_without_following_links(run: RunDirectory, pitstop: Cli, tmp_path: Path) -> None:
    aside = run.store.directory / ".damaged"
    aside.mkdir()
    (aside / "checkpoint-8").symlink_to("/")
    (aside / "checkpoint-9").mkdir()
    (aside / "checkpoint-9.reason.txt").symlink_to(tmp_path / "outside/mine.txt")
    result = pitstop("show", 1, "--base-dir", run.base_dir, "--json")
    assert [(entry["name"], entry["reason"]) for entry in result.json()["set_aside"]] == [("checkpoint-9", None)]


# The terminal ------------------------------------------------------------------------------------------------------------


def controls(text: str) -> list[str]:
    return [char for char in text if not char.isprintable() and char not in "\n"]


@pytest.mark.parametrize("arguments", [("list-runs",), ("show", 1), ("list-runs", "--json"), ("show", 1, "--json")])
def test_names_that_would_control_the_terminal_are_spelt_out(
    base: Path, run: RunDirectory, pitstop: Cli, arguments: tuple[Any, ...]
) -> None:
    def change(content: Any) -> None:
        for key in ("name", "experiment_name", "task", "method", "model", "dataset", "status", "status_reason", "created_at"):
            content[key] = f"{key}{EVIL}"
        content["best_checkpoint"] |= {"metric": EVIL, "name": EVIL}
        content["resumes"] = [{"at": EVIL, "checkpoint": EVIL, "step": 1, "changes": {EVIL: [EVIL, EVIL]}}]

    change_json(run.path / layout.METADATA, change)
    change_json(run.path / layout.CONFIG, lambda content: content.update({EVIL: EVIL, "sources": {EVIL: EVIL}}))
    note = run.store.directory / ".damaged/checkpoint-8.reason.txt"
    (run.store.directory / ".damaged/checkpoint-8").mkdir(parents=True)
    note.write_text(EVIL)
    (run.store.directory / "checkpoint-1" / f"x{EVIL.replace('/', '')}.pkl").write_bytes(b"")
    result = pitstop(*arguments, "--base-dir", base)
    assert result.code == 0
    assert controls(result.stdout) == controls(result.stderr) == []
    if "--json" in arguments:
        found = result.json()
        assert (found[0] if isinstance(found, list) else found)["name"] == f"name{EVIL}", "JSON says what is there"
    else:
        assert r"name\x1b]0;owned\x07" in result.stdout


def test_on_a_terminal_only_our_own_colours_are_written(base: Path, pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pitstop.cli.terminal.output.is_terminal", lambda stream=None: True)
    monkeypatch.setattr("pitstop.cli.terminal.tables.is_terminal", lambda: True)
    change_json(base / "run_001/metadata.json", lambda content: content.update(name=EVIL, status=EVIL, status_reason=EVIL))
    for arguments in (("list-runs",), ("show", 1)):
        result = pitstop(*arguments, "--base-dir", base)
        text = result.stdout + result.stderr
        assert (
            "\x07" not in text and "\x9b" not in text and "\u202e" not in text and "\x1b]" not in text and "\x1b[2J" not in text
        )


def test_errors_spell_control_characters_out(base: Path, pitstop: Cli) -> None:
    (base / "run_001/lora_weights/checkpoint-3" / "\x1b[2Jx").write_bytes(b"")
    result = pitstop("show", f"1@{EVIL}", "--base-dir", base)
    assert result.code == 4 and controls(result.stderr) == []
    result = pitstop("show", EVIL.replace("/", ""), "--base-dir", base)
    assert result.code == 2 and controls(result.stderr) == []


def test_lines_of_the_log_and_the_display_are_printable(tmp_path: Path) -> None:
    shown: list[str] = []
    display = Display()
    display.line = display.warn = shown.append  # type: ignore[method-assign]
    reporter = Reporter(display)
    reporter.log_into(tmp_path / "train.log")
    reporter.line(EVIL)
    reporter.warn(EVIL)
    assert controls("".join(shown)) == controls((tmp_path / "train.log").read_text()) == []


@given(st.text())
def test_printable_text_is_left_alone_and_the_rest_is_spelt_out(text: str) -> None:
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in printable(text))
    printable(text).encode()
    if text.isprintable():
        assert printable(text) == text
    assert json.loads(json_safe(json.dumps(text, ensure_ascii=False))) == text


# Modes -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, str]:
    """Everything below ``root`` that others may read or write, or that has another mode than it should."""
    odd = {}
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            wanted = 0o700 if path.is_dir() else 0o600
            if stat.S_IMODE(path.lstat().st_mode) != wanted:
                odd[str(path)] = oct(stat.S_IMODE(path.lstat().st_mode))
    return odd


@pytest.mark.usefixtures("open_umask")
def test_runs_are_private_whatever_the_umask(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", name="a-run", config=CONFIG, metadata={}, started_at=START)
    with run.lock():
        save(run.store, 1, loss=1.0)
        commit(run.store.directory, sound_files())
        save(run.store, 5, files={**FILES, "below/a.json": b"{}"})
        run.store.repair_pointers()
        (run.store.directory / "checkpoint-1/state.json").write_bytes(b"")
        run.store.recover(deep=True)
        run.store.supersede(3)
        run.sync_checkpoints()
        (run.path / layout.METADATA).write_bytes(b"")
        run.rebuild_metadata()
        with closing(MetricsLog(run.metrics_path)) as log:
            log.append({"step": 1})
            log.append({"step": 2})
        MetricsLog(run.metrics_path).truncate_after(1)
        reporter = Reporter(Display())
        reporter.log_into(run.logs_dir / layout.TRAIN_LOG)
        reporter.line("a line")
        bases = BaseModels(tmp_path / "runs")

        def write(directory: Path) -> None:
            (directory / "config.json").write_text("{}")
            (directory / "below").mkdir()
            (directory / "below/more.json").write_text("{}")

        bases.save_once("a" * 64, write)
        bases.link_into(run.path, "a" * 64)
    assert modes(tmp_path / "runs") == {}
    assert (run.logs_dir / layout.TRAIN_LOG).exists() and (run.path / "base_model/below/more.json").exists()


def test_a_run_is_not_made_through_a_link_for_a_new_file(base: Path, tmp_path: Path) -> None:
    """The storage layer makes files anew: a link that waits under a temporary or final name is an error."""
    from pitstop.checkpointing.disk.storage import LocalStorage

    (base / "planted").symlink_to(tmp_path / "outside/mine.txt")
    with pytest.raises(OSError):
        LocalStorage().write_file(base / "planted", b"evil")
    with pytest.raises(OSError):
        LocalStorage().open_append(base / "planted")


def test_a_tree_deeper_than_the_stack_is_measured_and_shown(run: RunDirectory) -> None:
    from pitstop.checkpointing.disk.inspection import tree_files, tree_size

    deep_directory(run.logs_dir)
    try:
        (run.logs_dir / "d" / "file").write_bytes(b"12345")
        assert any(status.st_size == 5 for status in tree_files(run.logs_dir))
        assert tree_size(run.path) > 5
    finally:
        subprocess.run(["rm", "-rf", run.logs_dir / "d"], check=True)
