from __future__ import annotations

import errno
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.metrics_log import MetricsLog, read_rows
from support.stores import Counter, HookedStorage, failing, in_child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "metrics.jsonl"


def fill(path: Path, *steps: int) -> None:
    with closing(MetricsLog(path)) as log:
        for step in steps:
            log.append({"step": step, "loss": 1 / step})


def steps(path: Path) -> list[int]:
    return [row["step"] for row in read_rows(path)]


def test_rows_are_lines_of_json_in_the_order_of_their_keys(path: Path) -> None:
    with closing(MetricsLog(path)) as log:
        log.append({"step": 1, "loss": 0.5, "epoch": 0.1})
        log.append({"step": 2, "loss": float("nan"), "more": {"grad": float("inf")}})
    assert path.read_text() == '{"step": 1, "loss": 0.5, "epoch": 0.1}\n{"step": 2, "loss": null, "more": {"grad": null}}\n'


def test_rows_go_on_after_the_old_ones(path: Path) -> None:
    fill(path, 1, 2)
    fill(path, 3)
    assert steps(path) == [1, 2, 3]


def test_no_log_has_no_rows(path: Path) -> None:
    assert list(read_rows(path)) == []
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


class FillingStorage(HookedStorage):
    """Takes all but the last five bytes of a write while ``full``, and then nothing."""

    full = False

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.full and len(data) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, data[:-5] if self.full else data)


def test_rows_that_a_full_disk_refused_are_written_when_there_is_room(path: Path) -> None:
    storage = FillingStorage()
    with closing(MetricsLog(path, storage)) as log:
        log.append({"step": 1})
        storage.full = True
        for step in (2, 3):
            with pytest.raises(OSError, match="No space"):
                log.append({"step": step})
        with pytest.raises(OSError, match="No space"):
            log.sync()
        storage.full = False
        log.append({"step": 4})
    assert steps(path) == [1, 2, 3, 4]
    assert path.read_bytes().count(b"\n") == 4


def test_a_row_that_the_disk_refuses_is_warned_of_once_until_it_takes_one_again(path: Path) -> None:
    storage, warnings = FillingStorage(), []
    with closing(MetricsLog(path, storage)) as log:
        for step, full in enumerate([True, True, False, True, False], start=1):
            storage.full = full
            log.append_or_warn({"step": step}, warnings.append)
    assert warnings == [f"{path} cannot be written (No space left on device); its rows are kept until it can."] * 2
    assert steps(path) == [1, 2, 3, 4, 5]


def test_a_failed_sync_is_not_tried_again_on_the_same_file_but_written_afresh(path: Path) -> None:
    class Forgetting(HookedStorage):
        """A disk that drops what a failed sync should have written, and calls the next sync a success."""

        failing = True

        def sync_file(self, descriptor: int) -> None:
            if self.failing:
                self.failing = False
                os.ftruncate(descriptor, durable)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    fill(path, 1)
    durable = path.stat().st_size
    log = MetricsLog(path, Forgetting())
    log.append({"step": 2})
    with pytest.raises(OSError, match="Input/output"):
        log.sync()
    log.append({"step": 3})
    log.sync()
    assert steps(path) == [1, 2, 3]
    log.append({"step": 4})
    log.close()
    assert steps(path) == [1, 2, 3, 4]


def test_rows_come_in_while_a_slow_disk_syncs(path: Path) -> None:
    class Slow(HookedStorage):
        def sync_file(self, descriptor: int) -> None:
            syncing.set()
            assert appended.wait(10), "the other thread could not append"

    syncing, appended = threading.Event(), threading.Event()
    log = MetricsLog(path, Slow())
    log.append({"step": 1})
    syncer = threading.Thread(target=log.sync)
    syncer.start()
    assert syncing.wait(10)
    log.append({"step": 2})
    appended.set()
    syncer.join()
    log.close()
    assert steps(path) == [1, 2]


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
