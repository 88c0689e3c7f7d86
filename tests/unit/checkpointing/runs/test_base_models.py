from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.manifest import unsealed
from pitstop.checkpointing.disk.storage import LocalStorage, file_sha256
from pitstop.checkpointing.runs.base_models import BASE_MANIFEST, BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, ModelError, ResourceError
from support.stores import Counter, ForgetfulStorage, HookedStorage, failing

DIGEST = "nf4-0123456789abcdef"


def write(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"weights" * 100)
    (directory / "templates").mkdir()
    (directory / "templates" / "chat.jinja").write_text("{}")


@pytest.fixture
def models(tmp_path: Path) -> BaseModels:
    return BaseModels(tmp_path, ForgetfulStorage())


def make_run(models: BaseModels) -> RunDirectory:
    return create_run(models.base_dir, name="a-run", config={}, metadata={}, storage=ForgetfulStorage())


def without_links(models: BaseModels, number: int = errno.EPERM) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(number, "no hard links here")

    models._storage.link = link  # type: ignore[method-assign]


def test_a_base_is_saved_once_and_verified(models: BaseModels) -> None:
    path = models.save_once(DIGEST, write)
    assert path == models.directory / DIGEST
    assert models.save_once(DIGEST, lambda directory: pytest.fail("written twice")) == path
    assert models.verify(DIGEST) == path
    assert models.digests() == [DIGEST]
    for file in path.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600)


def test_runs_share_the_files(models: BaseModels) -> None:
    models.save_once(DIGEST, write)
    runs = [make_run(models) for _ in range(2)]
    for run in runs:
        assert models.link_into(run.path, DIGEST) == run.path / "base_model"
        assert models.link_into(run.path, DIGEST) == run.path / "base_model"
        assert models.base_path(run.path) == run.path / "base_model"
    assert (runs[0].path / "base_model" / "model.safetensors").stat().st_nlink == 3
    assert (runs[0].path / "base_model" / "templates" / "chat.jinja").read_text() == "{}"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP])
def test_where_links_fail_a_reference_is_kept(models: BaseModels, number: int) -> None:
    models.save_once(DIGEST, write)
    run = make_run(models)
    without_links(models, number)
    assert models.link_into(run.path, DIGEST) == models.directory / DIGEST
    assert models.link_into(run.path, DIGEST) == models.directory / DIGEST
    assert models.base_path(run.path) == models.directory / DIGEST
    assert (run.path / "base_model.json").is_file()
    assert not [path for path in run.path.iterdir() if path.name.startswith(".tmp")]


def test_a_failing_writer_leaves_nothing(models: BaseModels) -> None:
    def fail(directory: Path) -> None:
        write(directory)
        raise ModelError("the hub went away")

    with pytest.raises(ModelError, match="the hub went away"):
        models.save_once(DIGEST, fail)
    assert [path.name for path in models.directory.iterdir()] == [".lock"]
    models.save_once(DIGEST, write)


def test_what_a_dead_process_left_goes(models: BaseModels) -> None:
    models.directory.mkdir()
    (models.directory / ".tmp-other-aa").mkdir()
    (models.directory / ".tmp-other-aa" / "half").touch()
    models.save_once(DIGEST, write)
    assert sorted(path.name for path in models.directory.iterdir()) == [".lock", ".starting.lock", DIGEST]


def test_a_damaged_base_is_named_and_made_anew(models: BaseModels) -> None:
    path = models.save_once(DIGEST, write)
    (path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has 5 bytes instead of 700"):
        models.verify(DIGEST)
    with pytest.raises(CheckpointError, match="damaged"):
        models.link_into(make_run(models).path, DIGEST)
    models.save_once(DIGEST, write)
    models.verify(DIGEST)
    assert (models.directory / ".damaged" / DIGEST / "model.safetensors").read_bytes() == b"short"


def test_a_changed_byte_is_found(models: BaseModels) -> None:
    path = models.save_once(DIGEST, write)
    (path / "model.safetensors").write_bytes(b"weighty" * 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors changed"):
        models.verify(DIGEST)


def test_no_bit_of_the_manifest_of_a_base_can_change_unseen(models: BaseModels) -> None:
    raw = (models.save_once(DIGEST, write) / BASE_MANIFEST).read_bytes()
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError):
            unsealed(bytes(changed), "there")


def test_a_run_whose_links_are_lost_falls_back_on_the_shared_copy(models: BaseModels) -> None:
    models.save_once(DIGEST, write)
    run = make_run(models)
    models.link_into(run.path, DIGEST)
    (run.path / "base_model" / "model.safetensors").unlink()
    assert models.base_path(run.path) == models.directory / DIGEST
    (models.directory / DIGEST / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        models.base_path(run.path)


def test_a_run_without_a_base_says_so(models: BaseModels) -> None:
    with pytest.raises(CheckpointError, match="has no saved base model"):
        models.base_path(make_run(models).path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"digest": "../../etc/passwd"}', '{"digest": 5}', '{"digest": ""}'])
def test_a_reference_never_leads_out(models: BaseModels, content: str) -> None:
    run = make_run(models)
    (run.path / "base_model.json").write_text(content)
    with pytest.raises(CheckpointError):
        models.base_path(run.path)


@pytest.mark.parametrize(
    "digest", ["short", "../../../etc", "a/b-cdefgh", "UPPERCASE", "-leading-dash", "x" * 200, "with.dots.in"]
)
def test_digests_are_plain_words(models: BaseModels, digest: str) -> None:
    with pytest.raises(CheckpointError):
        models.path(digest)


def test_saving_a_base_survives_a_failing_disk_at_every_operation(tmp_path: Path) -> None:
    for at in range(1000):
        models = BaseModels(tmp_path, HookedStorage(before=Counter(at, failing(errno.ENOSPC))))
        try:
            models.save_once(DIGEST, write)
            break
        except ResourceError:
            visible = [path for path in models.directory.iterdir() if path.name != ".lock"] if models.directory.exists() else []
            assert [path for path in visible if path.name != DIGEST] == []
            assert not visible or models.verify(DIGEST)
            if visible:
                LocalStorage().remove_tree(visible[0])
    assert at > 8


def test_everything_is_synced_before_it_has_its_name(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    storage = HookedStorage(before=lambda name, arguments: seen.append((name, Path(str(arguments[0])).name)))
    BaseModels(tmp_path, storage).save_once(DIGEST, write)
    operations = [name for name, _ in seen]
    renamed = operations.index("rename")
    assert operations[:renamed].count("sync_file") == 3  # two files and the manifest
    assert operations[renamed + 1 :] == ["sync_directory"]
    assert seen[-1][1] == ".base_models"


def test_the_hash_of_a_file_is_not_that_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").symlink_to("a")
    assert file_sha256(tmp_path / "a") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(OSError):
        file_sha256(tmp_path / "b")
