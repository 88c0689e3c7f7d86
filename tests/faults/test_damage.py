"""What is damaged is detected, named, set aside and never deleted, and the newest valid checkpoint is used instead."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import DamagedError
from pitstop.checkpointing.disk.manifest import ManifestError, parse_manifest
from pitstop.checkpointing.store.store import CheckpointInfo, CheckpointStore, RecoveryReport, ScannedCheckpoint
from pitstop.configs.errors import CheckpointError
from support.fault_matrix import Matrix, is_caught
from support.stores import FILES, ForgetfulStorage, save

pytestmark = pytest.mark.faults

EACH_FILE = "truncate, extend, zero, delete, swap each file"
POINTERS = "pointer missing, stale, dangling, garbage"


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "lora_weights", ForgetfulStorage())
    for step in (1, 2, 3):
        save(store, step, loss=1 / step)
    store.repair_pointers()
    return store


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:  # in place: some filesystems flush a file that is cut to nothing and written anew
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def put_back(store: CheckpointStore, whole: Path) -> None:
    """The checkpoints as they were before the trial."""
    shutil.rmtree(store.directory)
    shutil.copytree(whole, store.directory, symlinks=True)


def assert_found_and_survived(store: CheckpointStore, path: Path) -> None:
    """The newest checkpoint, whose file ``path`` is damaged, is found out and set aside, and the one before used."""
    with pytest.raises(DamagedError, match=path.name):
        store.verify("checkpoint-3")
    report = store.recover()
    assert report.checkpoint().step == 2
    assert [(name, path.name in reason) for name, reason in report.quarantined] == [("checkpoint-3", True)]
    assert (store.directory / layout.DAMAGED / "checkpoint-3" / path.name).exists()


def test_one_flipped_bit_anywhere_is_found_and_the_one_before_used(
    store: CheckpointStore, tmp_path: Path, matrix: Matrix
) -> None:
    row = matrix("one flipped bit anywhere in a checkpoint")
    shutil.copytree(store.directory, tmp_path / "whole", symlinks=True)
    rng = random.Random(11)
    for number in row.numbers():
        path = store.directory / "checkpoint-3" / rng.choice([*FILES, layout.MANIFEST])
        bit = rng.randrange(path.stat().st_size * 8)
        flip(path, bit)
        with row.trial(f"bit {bit} of {path.name}, seed {number}"):
            assert_found_and_survived(store, path)
        put_back(store, tmp_path / "whole")
    store.verify("checkpoint-3")


def test_no_bit_of_a_manifest_can_change_unseen(store: CheckpointStore) -> None:
    raw = (store.directory / "checkpoint-3" / layout.MANIFEST).read_bytes()
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError):
            parse_manifest(bytes(changed), "there")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def swap(path: Path) -> None:
    other = path.with_name("adapter_model.safetensors" if path.name != "adapter_model.safetensors" else "state.json")
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)


def link(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("name", [*FILES, layout.MANIFEST])
@pytest.mark.parametrize("harm", [truncate, extend, zero, swap, link, Path.unlink], ids=lambda harm: harm.__name__)
def test_harm_to_any_file_is_found_named_and_survived(
    store: CheckpointStore, name: str, harm: Callable[[Path], None], matrix: Matrix
) -> None:
    with matrix(EACH_FILE).trial(f"{harm.__name__} {name}"):
        harm(store.directory / "checkpoint-3" / name)
        with pytest.raises(DamagedError, match=name):
            store.verify("checkpoint-3")
        report = store.recover()
        assert report.checkpoint().step == 2
        assert [(where, name in reason) for where, reason in report.quarantined] == [("checkpoint-3", True)]
        assert store.pointer("last") == store.pointer("best") == "checkpoint-2"
        aside = store.directory / layout.DAMAGED
        assert (aside / "checkpoint-3").is_dir()
        assert name in (aside / "checkpoint-3.reason.txt").read_text()


def test_files_that_were_never_saved_are_found(store: CheckpointStore) -> None:
    (store.directory / "checkpoint-3" / "extra.pkl").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"extra\.pkl is not part of it"):
        store.verify("checkpoint-3")


def test_what_a_file_browser_leaves_is_no_damage(store: CheckpointStore) -> None:
    (store.directory / "checkpoint-3" / ".DS_Store").write_bytes(b"icons")
    assert store.verify("checkpoint-3").step == 3


def test_when_every_checkpoint_is_bad_nothing_is_deleted_and_all_are_named(store: CheckpointStore) -> None:
    for step in (1, 2, 3):
        flip(store.directory / f"checkpoint-{step}" / "state.json", 0)
    report = store.recover()
    assert report.valid is None
    with pytest.raises(CheckpointError, match=r"(?s)checkpoint-3.*checkpoint-2.*checkpoint-1") as raised:
        report.checkpoint()
    assert raised.value.exit_code == 4
    aside = store.directory / layout.DAMAGED
    assert {path.name for path in aside.iterdir() if path.is_dir()} >= {"checkpoint-1", "checkpoint-2", "checkpoint-3"}
    assert not os.path.lexists(store.directory / "last")


def test_an_older_damaged_checkpoint_is_found_when_asked_to_look_deep(store: CheckpointStore) -> None:
    flip(store.directory / "checkpoint-1" / "state.json", 0)
    assert store.recover().quarantined == []
    assert [name for name, _ in store.recover(deep=True).quarantined] == ["checkpoint-1"]


def test_the_same_name_can_be_set_aside_again(store: CheckpointStore) -> None:
    for _ in range(2):
        flip(store.directory / "checkpoint-3" / "state.json", 0)
        store.recover()
        save(store, 3)
    flip(store.directory / "checkpoint-3" / "state.json", 0)
    store.recover()
    assert [path.name for path in store.set_aside(layout.DAMAGED)] == ["checkpoint-3", "checkpoint-3-2", "checkpoint-3-3"]


def missing(path: Path, rng: random.Random) -> None:
    path.unlink()


def stale(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice(["checkpoint-1", "checkpoint-2"]))


def dangling(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(
        rng.choice(["checkpoint-99", "epoch_007", "../../../outside", "best", "last", "/", "checkpoint-3/../checkpoint-1"])
    )


def garbage(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.write_bytes(rng.choice([b"", b"checkpoint-1\n", b"checkpoint-99", rng.randbytes(rng.randrange(300)), b"\0" * 50]))


def in_its_place(path: Path, rng: random.Random) -> None:
    path.unlink()
    shutil.copytree(path.parent / rng.choice(["checkpoint-1", "checkpoint-3"]), path)


def assert_repaired(store: CheckpointStore, harmed: list[str]) -> None:
    """The manifests decide, whatever the pointers say, and the pointers are put right."""
    assert store.resolve("last").step == store.resolve("best").step == 3
    report = store.recover()
    assert report.checkpoint().step == 3
    assert report.repaired == harmed
    assert [(store.directory / which).readlink() for which in layout.POINTERS] == [Path("checkpoint-3")] * 2
    assert store.recover().repaired == []
    assert [info.step for info in store.list()] == [1, 2, 3]


def test_pointers_never_decide_anything_and_are_repaired(store: CheckpointStore, tmp_path: Path, matrix: Matrix) -> None:
    row = matrix(POINTERS)
    shutil.copytree(store.directory, tmp_path / "whole", symlinks=True)
    rng = random.Random(3)
    kinds = [missing, stale, dangling, garbage, in_its_place]
    for number in row.numbers():
        harmed = [layout.POINTERS, ("last",), ("best",)][number % 3]
        harms = {which: rng.choice(kinds) for which in harmed}
        for which, harm in harms.items():
            harm(store.directory / which, rng)
        with row.trial(f"seed {number}: {[(which, harm.__name__) for which, harm in harms.items()]}"):
            assert_repaired(store, list(harmed))
        put_back(store, tmp_path / "whole")


@pytest.mark.parametrize("content", [b"", b"../../etc", b"checkpoint-999\n", b"checkpoint-1\n", b"\xff\xfe", b"x" * 10_000])
def test_garbage_pointers_are_repaired(store: CheckpointStore, content: bytes) -> None:
    for which in layout.POINTERS:
        (store.directory / which).unlink()
        (store.directory / which).write_bytes(content)
    assert store.resolve("last").step == store.resolve("best").step == 3
    assert store.recover().repaired == ["last", "best"]
    assert (store.directory / "last").readlink() == Path("checkpoint-3")


@pytest.mark.parametrize("target", ["checkpoint-1", "checkpoint-99", "../../../outside", "best", "last"])
def test_stale_and_dangling_pointers_are_repaired(store: CheckpointStore, target: str) -> None:
    (store.directory / "last").unlink()
    (store.directory / "last").symlink_to(target)
    assert store.recover().repaired == ["last"]
    assert store.pointer("last") == "checkpoint-3"


def test_a_directory_in_the_place_of_a_pointer_is_set_aside(store: CheckpointStore) -> None:
    (store.directory / "last").unlink()
    (store.directory / "last").mkdir()
    (store.directory / "last" / "mine.txt").write_text("kept")
    store.recover()
    assert store.pointer("last") == "checkpoint-3"
    assert (store.directory / layout.DAMAGED / "last" / "mine.txt").read_text() == "kept"


def test_a_link_to_a_checkpoint_is_not_a_checkpoint(store: CheckpointStore, tmp_path: Path) -> None:
    (store.directory / "checkpoint-3").rename(tmp_path / "checkpoint-3")
    (store.directory / "checkpoint-3").symlink_to(tmp_path / "checkpoint-3")
    assert [info.step for info in store.list()] == [1, 2]
    assert store.recover().checkpoint().step == 2


def test_a_manifest_of_another_checkpoint_is_refused(store: CheckpointStore) -> None:
    (store.directory / "checkpoint-3").rename(store.directory / "checkpoint-4")
    with pytest.raises(DamagedError, match="the manifest of checkpoint-3"):
        store.verify("checkpoint-4")


def test_a_deeply_nested_manifest_is_refused() -> None:
    with pytest.raises(ManifestError):
        parse_manifest(b"[" * 100_000, "there")


class HashesNothing(CheckpointStore):
    def _look_at(self, name: str, read: object = None) -> ScannedCheckpoint | None:
        return super()._look_at(name)


class TakesTheNewestUnseen(CheckpointStore):
    def recover(self, *, deep: bool = False) -> RecoveryReport:
        infos = self.list()
        return RecoveryReport(infos[-1] if infos else None, [], [], self.repair_pointers())


class StopsAtTheFirstDamage(CheckpointStore):
    def recover(self, *, deep: bool = False) -> RecoveryReport:
        return RecoveryReport(None) if any(entry.problem for entry in self.verify_all()) else super().recover(deep=deep)


class DeletesWhatIsDamaged(CheckpointStore):
    def _quarantine(self, name: str, reason: str) -> tuple[str, str]:
        self._discard(self.directory / name)
        return (name, reason)


class BelievesPointers(CheckpointStore):
    def resolve(self, which: str) -> CheckpointInfo:
        pointed = self.pointer(which) if which in layout.POINTERS else None
        return super().resolve(pointed or which)


class LeavesPointersAlone(CheckpointStore):
    def repair_pointers(self) -> list[str]:
        return []


@pytest.mark.parametrize("mutant", [HashesNothing, TakesTheNewestUnseen, StopsAtTheFirstDamage, DeletesWhatIsDamaged])
def test_a_recovery_that_overlooks_damage_is_caught(
    store: CheckpointStore, mutant: type[CheckpointStore], matrix: Matrix
) -> None:
    with matrix("mutants of the protocol").trial(mutant.__name__):
        path = store.directory / "checkpoint-3" / "state.json"
        flip(path, 3)
        assert is_caught(lambda: assert_found_and_survived(mutant(store.directory, ForgetfulStorage()), path))


@pytest.mark.parametrize("mutant", [BelievesPointers, LeavesPointersAlone])
def test_a_store_that_trusts_pointers_is_caught(store: CheckpointStore, mutant: type[CheckpointStore], matrix: Matrix) -> None:
    with matrix("mutants of the protocol").trial(mutant.__name__):
        stale(store.directory / "last", random.Random(0))
        assert is_caught(lambda: assert_repaired(mutant(store.directory, ForgetfulStorage()), ["last"]))
