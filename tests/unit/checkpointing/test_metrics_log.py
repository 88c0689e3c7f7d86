from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pitstop.checkpointing.metrics_log import MetricsLog
from support.stores import Counter, HookedStorage, failing, in_child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "metrics.jsonl"


def fill(path: Path, *steps: int) -> None:
    with MetricsLog(path) as log:
        for step in steps:
            log.append({"step": step, "loss": 1 / step})


def steps(path: Path) -> list[int]:
    return [row["step"] for row in MetricsLog(path).rows()]


def test_rows_are_lines_of_json_in_the_order_of_their_keys(path: Path) -> None:
    with MetricsLog(path) as log:
        log.append({"step": 1, "loss": 0.5, "epoch": 0.1})
        log.append({"step": 2, "loss": float("nan"), "more": {"grad": float("inf")}})
    assert path.read_text() == '{"step": 1, "loss": 0.5, "epoch": 0.1}\n{"step": 2, "loss": null, "more": {"grad": null}}\n'


def test_rows_go_on_after_the_old_ones(path: Path) -> None:
    fill(path, 1, 2)
    fill(path, 3)
    assert steps(path) == [1, 2, 3]


def test_no_log_has_no_rows(path: Path) -> None:
    assert list(MetricsLog(path).rows()) == []
    assert MetricsLog(path).truncate_after(3) == 0
    MetricsLog(path).close()


def test_a_resume_makes_later_rows_void_and_keeps_them_elsewhere(path: Path) -> None:
    fill(path, 1, 2, 3, 4)
    log = MetricsLog(path)
    assert log.truncate_after(2) == 2
    assert steps(path) == [1, 2]
    assert steps(log.superseded_path) == [3, 4]
    log.append({"step": 3})
    log.close()
    assert log.truncate_after(2) == 1
    assert steps(log.superseded_path) == [3, 4, 3]


def test_after_a_resume_the_bytes_are_those_of_a_run_never_interrupted(path: Path, tmp_path: Path) -> None:
    fill(path, 1, 2, 3, 4)
    MetricsLog(path).truncate_after(2)
    fill(path, 3, 4, 5)
    fill(tmp_path / "whole.jsonl", 1, 2, 3, 4, 5)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_torn_last_line_goes(path: Path) -> None:
    fill(path, 1, 2)
    with path.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert steps(path) == [1, 2]
    assert MetricsLog(path).truncate_after(10) == 0
    assert path.read_bytes().endswith(b'"loss": 0.5}\n')
    assert not MetricsLog(path).superseded_path.exists()


def test_a_row_after_a_torn_line_is_whole(path: Path) -> None:
    fill(path, 1)
    with path.open("ab") as file:
        file.write(b'{"step": 2, "lo')
    fill(path, 3)
    assert steps(path) == [1, 3]


def test_a_row_after_a_failed_write_is_whole(path: Path) -> None:
    class Filling(HookedStorage):
        full = False

        def write(self, descriptor: int, data: memoryview) -> int:
            if self.full and len(data) < 10:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(descriptor, data[:-5] if self.full else data)

    storage = Filling()
    with MetricsLog(path, storage) as log:
        log.append({"step": 1})
        storage.full = True
        with pytest.raises(OSError, match="No space"):
            log.append({"step": 2, "loss": 0.123456})
        storage.full = False
        log.append({"step": 3})
    assert steps(path) == [1, 3]


def test_a_broken_line_in_the_middle_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"step": 1}\n\x00\x00garbage\n[]\n{"note": "no step"}\n{"step": 2}\n')
    assert MetricsLog(path).truncate_after(2) == 2
    assert path.read_bytes() == b'{"step": 1}\n{"note": "no step"}\n{"step": 2}\n'


def test_sync_reaches_the_disk_with_the_name_of_a_new_file(path: Path) -> None:
    seen: list[str] = []
    log = MetricsLog(path, HookedStorage(before=lambda name, _: seen.append(name)))
    log.append({"step": 1})
    log.sync()
    assert seen[-2:] == ["sync_file", "sync_directory"]
    log.append({"step": 2})
    log.sync()
    assert seen[-2:] == ["write", "sync_file"]
    log.close()


def test_dying_while_rows_are_set_aside_loses_none_and_doubles_none(path: Path) -> None:
    for at in range(100):
        for file in path.parent.glob("*") if path.parent.exists() else []:
            file.unlink()
        fill(path, 1, 2, 3, 4)
        storage = HookedStorage(before=Counter(at, lambda: os._exit(42)))
        code = in_child(lambda storage=storage: MetricsLog(path, storage).truncate_after(2))  # type: ignore[misc]
        log = MetricsLog(path)
        log.truncate_after(2)
        assert (steps(path), steps(log.superseded_path)) == ([1, 2], [3, 4])
        if code == 0:
            break
    assert at > 10


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_log_as_it_was(path: Path, number: int) -> None:
    fill(path, 1, 2, 3, 4)
    for at in range(100):
        try:
            MetricsLog(path, HookedStorage(before=Counter(at, failing(number)))).truncate_after(2)
            break
        except OSError:
            assert steps(path)[:2] == [1, 2]
    assert steps(path) == [1, 2]
