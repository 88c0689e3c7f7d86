"""``doctor`` tries things for real and tells apart what limits training from what keeps it from working."""

from __future__ import annotations

import os
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from pitstop.cli.commands import doctor
from support.cli import Cli

USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the check that starts a process and imports torch twice."""
    monkeypatch.setattr(doctor, "check_quantisation", lambda: doctor.Check("bitsandbytes", "ok", "not tried"))


def test_quantises_a_tensor_for_real() -> None:
    check = doctor.check_quantisation()
    assert (check.status, check.hint) == ("ok", None), check
    assert check.detail.startswith("quantised a tensor to NF4 and back on ")


def test_a_library_that_takes_the_process_down_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_QUANTISE", "import os; os.abort()")
    check = doctor.check_quantisation()
    assert check.status == "fail"
    assert "--method lora" in str(check.hint)


def test_a_library_that_hangs_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_QUANTISE", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "_PROBE_SECONDS", 1)
    assert doctor.check_quantisation().status == "fail"


def test_reports_as_json_and_leaves_no_directory_behind(quick: None, pitstop: Cli, tmp_path: Path) -> None:
    result = pitstop("doctor", "--json", "--base-dir", tmp_path / "runs" / "deep")
    assert result.code == 0
    report = result.json()
    assert report["ok"] is True
    assert [check["name"] for check in report["checks"]] == [
        *("python", "libraries", "accelerator", "bitsandbytes", "flash-attn", "memory"),
        *("disk", "runs", "Hub cache", "Hub token", "demo model"),
    ]
    assert all(set(check) == {"name", "status", "detail", "hint"} for check in report["checks"])
    assert list(tmp_path.iterdir()) == []


def test_prints_a_line_for_each_check(quick: None, pitstop: Cli) -> None:
    lines = pitstop("doctor").stdout.splitlines()
    assert lines[0].startswith("ok    python")


def test_never_shows_the_token(quick: None, pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "B" * 34)
    result = pitstop("doctor", "--json")
    assert "hf_" not in result.stdout + result.stderr
    assert {check["name"]: check["detail"] for check in result.json()["checks"]}["Hub token"] == "present in the settings"


@pytest.mark.parametrize("place", ["file/below", "/proc/nowhere"])
def test_a_cache_that_cannot_be_written_is_warned_of(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", place)
    check = doctor.check_hub_cache()
    assert check.status == "warn" and "cannot be written" in check.detail and "HF_HOME" in str(check.hint)


def test_without_a_token_pushing_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert doctor.check_token().status == "ok"
    monkeypatch.setenv("PITSTOP_PUSH_TO_HUB", "true")
    check = doctor.check_token()
    assert (check.status, check.detail) == ("warn", "none, but PUSH_TO_HUB is on")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_" + "B" * 34)
    assert doctor.check_token().status == "ok"


def test_settings_that_cannot_be_read_are_a_finding(quick: None, pitstop: Cli) -> None:
    Path(".env").write_text("LORA_RNAK=8\n")
    result = pitstop("doctor", "--json")
    assert result.code == 2
    (finding,) = [check for check in result.json()["checks"] if check["name"] == "settings"]
    assert finding["status"] == "fail" and "LORA_RNAK" in finding["detail"]


@pytest.mark.parametrize(("free", "status"), [(1 << 20, "fail"), (1 << 30, "warn"), (1 << 40, "ok")])
def test_a_full_disk_fails_and_a_small_one_warns(free: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: USAGE(1 << 41, 0, free))
    check = doctor.check_disk(Path("runs"))
    assert check.status == status
    assert (check.hint is None) == (status == "ok")


def test_a_filesystem_without_links_is_a_warning_that_says_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    check = doctor.check_directory(tmp_path / "runs")
    assert check.status == "warn"
    assert "without hard links" in check.detail and "referred to" in str(check.hint)


def test_a_place_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", refuse)
    check = doctor.check_directory(tmp_path)
    assert check.status == "fail"
    assert "Permission denied" in check.detail and "--base-dir" in str(check.hint)


def test_a_file_where_the_runs_would_lie_fails(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    check = doctor.check_directory(tmp_path / "runs" / "mine")
    assert (check.status, check.detail) == ("fail", f"{tmp_path / 'runs'} is a file.")
    assert "--base-dir" in check.hint


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LIBRARIES", ("torch", "no-such-library"))
    check = doctor.check_libraries()
    assert check.status == "fail" and check.detail == "missing: no-such-library"


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LITTLE_MEMORY", 1 << 60)
    assert doctor.check_memory().status == "warn"


def test_torch_that_does_not_load_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    check = doctor.check_accelerator()
    assert check.status == "fail" and "torch does not load" in check.detail


@pytest.mark.parametrize(
    "words", [("doctor", "--base-dir", "runs"), ("fetch-demo", "--wheel", "none.whl")], ids=["doctor", "fetch-demo"]
)
def test_variables_of_libraries_in_env_reach_them(
    quick: None, pitstop: Cli, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HF_XET_CACHE", "")  # so that it is put back
    monkeypatch.delenv("HF_XET_CACHE")
    Path(".env").write_text("HF_XET_CACHE=/data/xet\n")
    pitstop(*words)
    assert os.environ.get("HF_XET_CACHE") == "/data/xet"


def test_a_bad_env_is_a_finding_with_a_base_directory_too(quick: None, pitstop: Cli) -> None:
    Path(".env").write_text("no assignment\n")
    result = pitstop("doctor", "--base-dir", "runs")
    assert result.code == 2
    assert "fail  settings        .env line 1 is not NAME=value." in result.stdout
