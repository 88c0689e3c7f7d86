"""Checkpoints made to harm whoever opens them: manifests, names, planted files, tensors. All are refused, and nothing happens.

"Nothing happens" is asserted for each: the payload's canary does not appear, and what lies outside the checkpoint is as before.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import layout, manifest, strict_json, tensor_headers
from pitstop.checkpointing.disk.inspection import DamagedError
from pitstop.checkpointing.disk.manifest import ManifestError, parse_manifest, sealed, unsealed
from pitstop.checkpointing.store import vetting
from pitstop.checkpointing.store.store import CheckpointInfo, CheckpointStore
from pitstop.configs.errors import CheckpointError
from support.forging import CONFIG, STEP, change_json, commit, deep_directory, pickled, raw_tensors, reseal, snapshot, sound_files
from support.stores import ForgetfulStorage

pytestmark = [
    pytest.mark.faults,
    pytest.mark.fault_row("hostile input: pickle, ../, absolute path, symlink, huge safetensors header, duplicate names"),
]

RECORD = {"size": 1, "sha256": "ab" * 32}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The directory of a run's checkpoints, with something beside the run that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/mine.txt").write_text("mine")
    directory = tmp_path / "run_001/lora_weights"
    directory.mkdir(parents=True)
    commit(directory, {**sound_files()}, step=2)
    return directory


@pytest.fixture
def checkpoint(weights: Path) -> Path:
    """The newest of two sound checkpoints."""
    return commit(weights, sound_files()).path


@pytest.fixture(autouse=True)
def _nothing_outside_is_touched(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "canary").exists()
    if (tmp_path / "outside").exists():
        assert snapshot(tmp_path / "outside") == {"mine.txt": b"mine"}


def store_of(weights: Path) -> CheckpointStore:
    return CheckpointStore(weights, ForgetfulStorage())


def refused(weights: Path, name: str) -> None:
    """Verifying names ``name``; opening the run sets the checkpoint aside, deletes nothing and takes the older one."""
    before = snapshot(weights / "checkpoint-3")
    with pytest.raises(DamagedError, match=name) as caught:
        store_of(weights).verify("checkpoint-3")
    assert caught.value.exit_code == 4
    report = store_of(weights).recover()
    assert report.checkpoint().step == 2
    assert name in dict(report.quarantined)["checkpoint-3"]
    assert snapshot(weights / ".damaged/checkpoint-3") == before


def not_trusted(checkpoint: Path, name: str, *also: str) -> str:
    """A forged manifest verifies; looking at what the files say refuses them, names ``name`` and leaves all as it is."""
    info = store_of(checkpoint.parent).verify(checkpoint.name)
    before = snapshot(checkpoint.parent)
    with pytest.raises(CheckpointError) as caught:
        vetting.check_checkpoint(info, CONFIG, _is_fixed)
    assert caught.value.exit_code == 4 and caught.value.hint
    assert str(checkpoint) in caught.value.message
    assert all(part in caught.value.message for part in (name, *also)), caught.value.message
    assert snapshot(checkpoint.parent) == before
    return caught.value.message


def _is_fixed(path: str) -> bool:
    return path.startswith(("lora.", "training.optimizer", "naming.")) or path == "training.checkpoint.run_number"


def test_the_sound_checkpoint_that_all_these_are_made_of_is_taken(checkpoint: Path) -> None:
    info = store_of(checkpoint.parent).verify("checkpoint-3")
    assert vetting.check_checkpoint(info, CONFIG, _is_fixed)["global_step"] == STEP


# Pickles -----------------------------------------------------------------------------------------------------------------

PICKLES = ["custom_checkpoint_0.pkl", "optimizer.pt", "rng_state.pth", "pytorch_model.bin", "adapter_model.bin", "scheduler.pt"]


@pytest.mark.parametrize("name", PICKLES)
def test_a_planted_pickle_is_a_foreign_file(weights: Path, checkpoint: Path, tmp_path: Path, name: str) -> None:
    (checkpoint / name).write_bytes(pickled(tmp_path / "canary"))
    refused(weights, name)


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_the_manifest_lists_is_still_foreign(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (checkpoint / name).write_bytes(pickled(tmp_path / "canary"))
    reseal(checkpoint)
    not_trusted(checkpoint, name, "not a file of a checkpoint")


@pytest.mark.parametrize("name", sorted(sound_files().keys() - {layout.rng_file(0)}))
def test_a_pickle_under_the_name_of_a_file_that_belongs_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (checkpoint / name).write_bytes(pickled(tmp_path / "canary"))
    reseal(checkpoint)
    not_trusted(checkpoint, name)


# Names in manifests ------------------------------------------------------------------------------------------------------

NAMES = {
    "parent": "../evil.json",
    "parent inside": "a/../../evil.json",
    "only dots": "..",
    "current": "./a.json",
    "current inside": "a/./b.json",
    "absolute": "/etc/passwd",
    "backslash": "..\\evil.json",
    "drive": "C:/evil.json",
    "stream": "a.json:evil",
    "share": "//host/share",
    "empty": "",
    "empty inside": "a//b.json",
    "trailing slash": "a.json/",
    "null": "a\0.json",
    "line break": "a\n.json",
    "escape": "\x1b]0;evil\x07.json",
    "look-alike letter": "\u0430dapter_model.safetensors",
    "look-alike slash": "..\u2215evil.json",
    "direction": "a\u202enosj.json",
    "long part": "a" * 201,
    "long path": "/".join(["abcdefgh"] * 60),
    "deep": "/".join("a" * 9),
    "device": "con.json",
    "device with ending": "a/NUL.safetensors",
    "trailing dot": "a.json.",
    "space": "a .json",
    "tilde": "~/a.json",
    "option": "-rf",
    "hidden": ".bashrc",
    "manifest": layout.MANIFEST,
    "manifest in capitals": layout.MANIFEST.upper(),
    "base manifest": layout.BASE_MANIFEST,
}


def with_content(checkpoint: Path, **changes: Any) -> None:
    content = unsealed((checkpoint / layout.MANIFEST).read_bytes(), "there")
    (checkpoint / layout.MANIFEST).write_bytes(sealed({**content, **changes}))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_manifest_names_nothing_but_plain_files_in_the_checkpoint(weights: Path, checkpoint: Path, name: str) -> None:
    content = unsealed((checkpoint / layout.MANIFEST).read_bytes(), "there")
    with_content(checkpoint, files={**content["files"], name: RECORD})
    with pytest.raises(DamagedError, match=r"cannot stand in a checkpoint"):
        store_of(weights).verify("checkpoint-3")
    refused(weights, layout.MANIFEST)


@pytest.mark.parametrize(
    "names",
    [("a.json", "A.json"), ("a/b.json", "A/B.json"), ("a.json", "a.json/b.json"), ("a", "A/b.json")],
    ids=["case", "case of a directory", "file and directory", "file and directory by case"],
)
def test_names_that_are_one_somewhere_are_refused(weights: Path, checkpoint: Path, names: tuple[str, str]) -> None:
    with_content(checkpoint, files=dict.fromkeys(names, RECORD))
    refused(weights, layout.MANIFEST)


# Content of manifests ----------------------------------------------------------------------------------------------------

CONTENTS: dict[str, dict[str, Any]] = {
    "too many files": {"files": {f"f{number}": RECORD for number in range(manifest.MAX_FILES + 1)}},
    "too large a file": {"files": {"a": {"size": manifest.MAX_TOTAL_SIZE + 1, "sha256": "ab" * 32}}},
    "too large together": {"files": {name: {"size": manifest.MAX_TOTAL_SIZE // 2 + 1, "sha256": "ab" * 32} for name in "ab"}},
    "size of a thousand digits": {"files": {"a": {"size": 10**1000, "sha256": "ab" * 32}}},
    "truth as a size": {"files": {"a": {"size": True, "sha256": "ab" * 32}}},
    "negative size": {"files": {"a": {"size": -1, "sha256": "ab" * 32}}},
    "hash as a number": {"files": {"a": {"size": 1, "sha256": 7}}},
    "huge step": {"step": 10**18},
    "step of a thousand digits": {"step": 10**1000},
    "truth as a step": {"step": True},
    "step that the name denies": {"step": 4},
    "no processes": {"world_size": 0},
    "a million processes": {"world_size": 10**6},
    "negative epoch": {"epoch": -1.0},
    "huge epoch": {"epoch": 1e300},
    "nested entry": {"files": {"a": json.loads("[" * 90 + "]" * 90)}},
    "version as a list": {"pitstop_version": ["0.1.0"]},
    "time without an offset": {"saved_at": "2026-01-01T00:00:00"},
    "another's name": {"name": "checkpoint-2", "step": 2},
    "a path as a name": {"name": "../checkpoint-3"},
    "huge format version": {"format_version": 10**30},
}


@pytest.mark.parametrize("changes", CONTENTS.values(), ids=CONTENTS)
def test_a_manifest_claims_nothing_absurd(weights: Path, checkpoint: Path, changes: dict[str, Any]) -> None:
    with_content(checkpoint, **changes)
    refused(weights, layout.MANIFEST)
    [note] = (weights / ".damaged").glob("*.reason.txt")
    assert note.stat().st_size < 2000, "an error quotes no megabytes"


def spelling(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "duplicate key": lambda raw: raw.replace(b'"step": 3', b'"step": 3,\n  "step": 3'),
    "duplicate file": lambda raw: raw.replace(b'"optimizer.json": {', b'"optimizer.json": {}, "optimizer.json": {'),
    "no number": lambda raw: raw.replace(b'"epoch": 0.5', b'"epoch": NaN'),
    "infinity": lambda raw: raw.replace(b'"epoch": 0.5', b'"epoch": -Infinity'),
    "infinity by exponent": lambda raw: raw.replace(b'"epoch": 0.5', b'"epoch": 1e999'),
    "number of 5,000 digits": lambda raw: raw.replace(b'"step": 3', b'"step": ' + b"9" * 5000),
    "deep": lambda raw: b"[" * 100_000,
    "deep but readable": lambda raw: b'{"format_version": 1, "files": ' + b"[" * 900 + b"]" * 900 + b"}",
    "trailing bytes": lambda raw: raw + b"\0",
    "trailing document": lambda raw: raw + raw,
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "Latin-1": lambda raw: raw.replace(b"checkpoint-3", "checkpoint-3\xe9".encode("latin-1")),
    "UTF-8 beyond ASCII": lambda raw: raw.replace(b"checkpoint-3", "checkpoint-３".encode()),
    "empty": lambda raw: b"",
    "too long": lambda raw: raw + b" " * manifest.MAX_BYTES,
    "pickle": lambda raw: b"\x80\x04N.",
}


@pytest.mark.parametrize("change", SPELLINGS.values(), ids=SPELLINGS)
def test_a_manifest_has_one_spelling(weights: Path, checkpoint: Path, change: Callable[[bytes], bytes]) -> None:
    path = checkpoint / layout.MANIFEST
    path.write_bytes(change(path.read_bytes()))
    refused(weights, layout.MANIFEST)


def test_a_manifest_that_is_all_separators_does_not_keep_the_reader_busy(checkpoint: Path) -> None:
    content = unsealed((checkpoint / layout.MANIFEST).read_bytes(), "there")
    raw = sealed({**content, "files": {"a/" * 3_000_000 + "a": RECORD}})
    started = time.monotonic()
    with pytest.raises(ManifestError):
        parse_manifest(raw, "there")
    assert time.monotonic() - started < 5


# Things in the place of files --------------------------------------------------------------------------------------------

TARGETS = [layout.ADAPTER_WEIGHTS, layout.MANIFEST]


def make_link(path: Path) -> None:
    path.symlink_to(path.parents[3] / "outside/mine.txt")


def make_link_to_a_directory(path: Path) -> None:
    path.symlink_to(path.parents[3] / "outside")


def make_link_to_the_same(path: Path) -> None:
    twin = path.parents[3] / "twin"
    twin.write_bytes(sound_files().get(path.name, b""))
    path.symlink_to(twin)


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero has no end
    except PermissionError:
        pytest.skip("only the superuser makes devices")


def make_directory(path: Path) -> None:
    path.mkdir()


THINGS = [
    make_link,
    make_link_to_a_directory,
    make_link_to_the_same,
    make_dangling_link,
    make_loop,
    make_pipe,
    make_socket,
    make_device,
    make_directory,
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("make", THINGS, ids=lambda make: make.__name__)
def test_what_is_no_regular_file_is_refused_at_once(
    weights: Path, checkpoint: Path, name: str, make: Callable[[Path], None]
) -> None:
    (checkpoint / name).unlink()
    make(checkpoint / name)
    refused(weights, name)


def test_a_hard_link_is_a_file_like_any_other(checkpoint: Path, tmp_path: Path) -> None:
    os.link(checkpoint / layout.ADAPTER_WEIGHTS, tmp_path / "another name")
    assert store_of(checkpoint.parent).verify("checkpoint-3").step == 3


def test_a_hidden_file_is_foreign(weights: Path, checkpoint: Path) -> None:
    (checkpoint / ".hidden").write_bytes(b"")
    refused(weights, ".hidden")


def test_litter_hides_nothing(weights: Path, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / ".DS_Store").mkdir()
    (checkpoint / ".DS_Store/optimizer.pt").write_bytes(pickled(tmp_path / "canary"))
    refused(weights, ".DS_Store")


def test_a_directory_deeper_than_the_stack_is_refused_by_its_first_name(weights: Path, checkpoint: Path) -> None:
    deep_directory(checkpoint)
    with pytest.raises(DamagedError, match="d is not part of it"):
        store_of(weights).verify("checkpoint-3")
    assert store_of(weights).recover().checkpoint().step == 2
    assert (weights / ".damaged/checkpoint-3/d/d/d").is_dir()
    subprocess.run(["rm", "-rf", weights / ".damaged/checkpoint-3"], check=True)  # Python's own removal is recursive


def test_a_deep_directory_among_the_leftovers_goes_with_them(weights: Path) -> None:
    (weights / ".tmp-checkpoint-3-0").mkdir()
    deep_directory(weights / ".tmp-checkpoint-3-0")
    assert store_of(weights).recover().dropped == [".tmp-checkpoint-3-0"]
    assert not (weights / ".tmp-checkpoint-3-0").exists()


def test_a_name_that_is_no_text_is_set_aside_like_any_other(weights: Path, checkpoint: Path) -> None:
    (Path(os.fsdecode(os.fsencode(checkpoint) + b"/\xff\x1b[31m.pkl"))).write_bytes(b"")
    with pytest.raises(DamagedError) as caught:
        store_of(weights).verify("checkpoint-3")
    assert r"\udcff\x1b[31m.pkl is not part of it" in caught.value.message
    assert store_of(weights).recover().checkpoint().step == 2


# Tensors -----------------------------------------------------------------------------------------------------------------


def entry(start: int = 0, end: int = 8, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [start, end]}


BODY = bytes(8)
TENSORS: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "header of 2^63 bytes": raw_tensors({}, length=2**63),
    "header of 1 TiB": raw_tensors({}, length=2**40),
    "header just above the cap": raw_tensors({}, length=tensor_headers.MAX_HEADER_BYTES + 1),
    "header beyond the file": raw_tensors({"w": entry()}, BODY, length=4096),
    "header that is no JSON": raw_tensors(b"\x80\x04N."),
    "header that is a list": raw_tensors([]),
    "header with no number": raw_tensors(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', BODY),
    "header in UTF-16": raw_tensors(json.dumps({"w": entry()}).encode("utf-16"), BODY),
    "deep header": raw_tensors(b"[" * 100_000),
    "two tensors of one name": raw_tensors(
        b'{"w":%s,"w":%s}' % (json.dumps(entry(0, 4, shape=(1,))).encode(), json.dumps(entry(4, 8, shape=(1,))).encode()),
        BODY,
    ),
    "overlap": raw_tensors({"a": entry(), "b": entry()}, BODY),
    "partial overlap": raw_tensors({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
    "gap": raw_tensors({"a": entry(0, 8), "b": entry(12, 20)}, bytes(20)),
    "bytes before": raw_tensors({"w": entry(4, 12)}, bytes(12)),
    "bytes behind": raw_tensors({"w": entry()}, BODY + b"hidden"),
    "beyond the end": raw_tensors({"w": entry(0, 800, shape=(200,))}, BODY),
    "backwards": raw_tensors({"w": entry(8, 0)}, BODY),
    "negative": raw_tensors({"w": entry(-8, 0)}, BODY),
    "shape that overflows": raw_tensors({"w": entry(shape=(2**40, 2**40))}, BODY),
    "shape with a negative side": raw_tensors({"w": entry(shape=(-1, -2))}, BODY),
    "shape of another size": raw_tensors({"w": entry(shape=(3,))}, BODY),
    "shape that is text": raw_tensors({"w": entry(shape="22")}, BODY),
    "truth in a shape": raw_tensors({"w": entry(0, 4, shape=(True,))}, bytes(4)),
    "a thousand dimensions": raw_tensors({"w": entry(0, 4, shape=(1,) * 1000)}, bytes(4)),
    "unknown type": raw_tensors({"w": entry(dtype="OBJECT")}, BODY),
    "type that is a list": raw_tensors({"w": entry(dtype=["F32"])}, BODY),
    "more in an entry": raw_tensors({"w": {**entry(), "code": "x"}}, BODY),
    "entry that is text": raw_tensors({"w": "F32"}, BODY),
    "metadata that is no text": raw_tensors({"__metadata__": {"format": {"a": 1}}, "w": entry()}, BODY),
}


@pytest.mark.parametrize("name", [layout.ADAPTER_WEIGHTS, layout.OPTIMIZER])
@pytest.mark.parametrize("content", TENSORS.values(), ids=TENSORS)
def test_tensors_that_do_not_fill_their_file_exactly_are_refused_cheaply(checkpoint: Path, name: str, content: bytes) -> None:
    (checkpoint / name).write_bytes(content)
    reseal(checkpoint)
    tracemalloc.start()
    try:
        not_trusted(checkpoint, name)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20, "what a header claims is not allocated"
    finally:
        tracemalloc.stop()


def test_a_long_header_is_refused_before_it_is_read_though_the_file_is_as_long(checkpoint: Path) -> None:
    path = checkpoint / layout.OPTIMIZER
    path.write_bytes(struct.pack("<Q", 128 << 20))
    os.truncate(path, 200 << 20)  # sparse
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: cannot be read: its header claims"):
            tensor_headers.read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_optimizer_and_its_list_must_agree(checkpoint: Path) -> None:
    change_json(checkpoint / layout.OPTIMIZER_META, lambda meta: meta["tensors"].pop())
    reseal(checkpoint)
    not_trusted(checkpoint, layout.OPTIMIZER, "does not hold the tensors")


# JSON of the state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [layout.TRAINER_STATE, layout.OPTIMIZER_META, layout.ADAPTER_CONFIG])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{} {}",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"\xff",
        b"[" * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b" " * (strict_json.MAX_BYTES + 1),
    ],
    ids=["empty", "list", "null", "text", "two", "mark", "utf16", "binary", "deep", "duplicate", "nan", "inf", "digits", "long"],
)
def test_json_that_is_not_strict_is_refused(checkpoint: Path, name: str, content: bytes) -> None:
    (checkpoint / name).write_bytes(content)
    reseal(checkpoint)
    not_trusted(checkpoint, name)


Change = Callable[[Any], object]


def setting(path: str, value: Any) -> Change:
    def change(state: Any) -> None:
        *groups, key = path.split(".")
        nested = state["settings"]
        for group in groups:
            nested = nested.setdefault(group, {})
        nested[key] = value

    return change


STATES: dict[str, tuple[Change, str]] = {
    "no position in the data": (lambda s: s.pop("progress"), "progress"),
    "no step": (lambda s: s["progress"].pop("step"), "progress.step"),
    "no global step": (lambda s: s.pop("global_step"), "global_step"),
    "no scheduler's step": (lambda s: s.update(global_step=None), "global_step"),
    "no loss scale": (lambda s: s.pop("scaler"), "scaler"),
    "no machine": (lambda s: s.pop("environment"), "environment"),
    "machine that is text": (lambda s: s.update(environment="x"), "what it was saved with"),
    "versions that are none": (lambda s: s["environment"].update(versions=[1]), "what it was saved with"),
    "machine with a list": (lambda s: s["environment"].update(device=["\x1b[2J"]), "what it was saved with"),
    "no settings": (lambda s: s.pop("settings"), "settings"),
    "a part that no version has": (lambda s: s.update(callbacks=["os.system"]), "callbacks"),
    "no version": (lambda s: s.pop("format_version"), "format version"),
    "truth as a version": (lambda s: s.update(format_version=True), "format version"),
    "newer version": (lambda s: s.update(format_version=2), "format 2"),
    "another step than the manifest": (lambda s: s.update(global_step=4), "the manifest says step 3"),
    "another step of the position": (lambda s: s["progress"].update(step=10**6), "the manifest says step 3"),
    "negative step": (lambda s: s["progress"].update(step=-3), "progress.step"),
    "truth as a step": (lambda s: s.update(global_step=True), "global_step"),
    "step as a float": (lambda s: s.update(global_step=3.0), "global_step"),
    "another epoch than the manifest": (lambda s: (s.update(epoch=7), s["progress"].update(epoch=7)), "epoch"),
    "two epochs": (lambda s: s.update(epoch=1), "epoch"),
    "negative epoch": (lambda s: (s.update(epoch=-1), s["progress"].update(epoch=-1)), "epoch"),
    "settings that are a list": (lambda s: s.update(settings=[]), "settings"),
    "unknown setting": (setting("training.hook", "os.system"), "training.hook"),
    "unknown group": (setting("plugins.path", "/tmp"), "plugins"),
    "group that is a value": (lambda s: s["settings"].update(lora=3), "lora"),
    "missing setting": (lambda s: s["settings"]["training"].pop("learning_rate"), "training.learning_rate"),
    "a token": (setting("hub.token", "hf_" + "x" * 30), "hub.token"),
    "an empty token": (setting("hub.token", None), "hub.token"),
    "another run's number": (setting("training.checkpoint.run_number", 7), "run_number"),
    "another rank": (setting("lora.rank", 8), "lora.rank"),
    "another optimizer": (setting("training.optimizer", "adamw_8bit"), "training.optimizer"),
    "rate that is no number": (setting("training.learning_rate", "nan"), "training.learning_rate"),
    "rate beyond the limit": (setting("training.learning_rate", 1e9), "training.learning_rate"),
    "truth as a count": (setting("training.batch_size", True), "training.batch_size"),
    "text as a count": (setting("training.batch_size", "2"), "training.batch_size"),
    "too many processes": (setting("training.num_processes", 10**6), "training.num_processes"),
    "data that is no list": (setting("data.train", "/etc/passwd"), "data.train"),
    "data that is a number": (setting("data.train", [1]), "data.train"),
    "null in a path": (setting("data.train", ["a\0b"]), "data.train"),
    "another model": (setting("model.id", "evil/model"), "owner/name"),
    "loss scale that is text": (lambda s: s.update(scaler="x"), "loss scale"),
    "loss scale of zero": (
        lambda s: s.update(
            scaler={"scale": 0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 9, "_growth_tracker": 0}
        ),
        "loss scale",
    ),
    "loss scale with more": (lambda s: s.update(scaler={"scale": 1.0, "more": 1}), "loss scale"),
}


@pytest.mark.parametrize(("change", "named"), STATES.values(), ids=STATES)
def test_a_training_state_that_no_training_wrote_is_refused(checkpoint: Path, change: Change, named: str) -> None:
    change_json(checkpoint / layout.TRAINER_STATE, change)
    reseal(checkpoint)
    message = not_trusted(checkpoint, named)
    assert layout.TRAINER_STATE in message or layout.ADAPTER_CONFIG in message
    assert "hf_xxx" not in message


METAS: dict[str, tuple[Change, str]] = {
    "no class": (lambda m: m.pop("class"), "describe an optimizer"),
    "more": (lambda m: m.update(hook="x"), "describe an optimizer"),
    "numbers that are none": (lambda m: m.update(scalars={"w": 3}), "describe an optimizer"),
    "tensors that are none": (lambda m: m.update(tensors=[1, 2, 3]), "describe an optimizer"),
    "groups that are none": (lambda m: m.update(groups={"0": []}), "describe an optimizer"),
    "a step beyond the checkpoint's": (lambda m: m.update(scalars={"w": {"step": 4}}), "step of w"),
    "a negative step": (lambda m: m.update(scalars={"w": {"step": -1}}), "step of w"),
    "a step that is text": (lambda m: m.update(scalars={"w": {"step": "3"}}), "step of w"),
}


@pytest.mark.parametrize(("change", "named"), METAS.values(), ids=METAS)
def test_an_optimizer_that_cannot_be_is_refused(checkpoint: Path, change: Change, named: str) -> None:
    change_json(checkpoint / layout.OPTIMIZER_META, change)
    reseal(checkpoint)
    not_trusted(checkpoint, layout.OPTIMIZER_META, named)


@pytest.mark.parametrize("value", [4.0, -1.0, 1.5, float("nan"), float("inf")])
def test_an_optimizer_that_has_taken_other_steps_is_refused(checkpoint: Path, value: float) -> None:
    data = (checkpoint / layout.OPTIMIZER).read_bytes()
    (checkpoint / layout.OPTIMIZER).write_bytes(data.replace(struct.pack("<f", STEP), struct.pack("<f", value)))
    reseal(checkpoint)
    not_trusted(checkpoint, layout.OPTIMIZER, "w::step")


def test_an_optimizer_without_a_state_is_no_default(checkpoint: Path) -> None:
    (checkpoint / layout.OPTIMIZER).write_bytes(raw_tensors({}))
    change_json(checkpoint / layout.OPTIMIZER_META, lambda meta: meta.update(tensors=[]))
    reseal(checkpoint)
    not_trusted(checkpoint, layout.OPTIMIZER, "no optimizer state at step 3")


@pytest.mark.parametrize("name", sorted(sound_files()))
def test_a_missing_part_is_damage_even_if_the_manifest_agrees(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    reseal(checkpoint)
    not_trusted(checkpoint, name, "missing")


def test_random_states_of_more_processes_than_saved_it_are_foreign(checkpoint: Path) -> None:
    (checkpoint / layout.rng_file(1)).write_bytes(b"{}")
    reseal(checkpoint)
    not_trusted(checkpoint, layout.rng_file(1))


@pytest.mark.parametrize("base", ["evil/model", None, 3, "../../evil"])
def test_an_adapter_for_another_base_is_refused(checkpoint: Path, base: Any) -> None:
    change_json(checkpoint / layout.ADAPTER_CONFIG, lambda config: config.update(base_model_name_or_path=base))
    reseal(checkpoint)
    not_trusted(checkpoint, layout.ADAPTER_CONFIG)


def test_a_base_directory_in_the_settings_is_no_reason_to_refuse(checkpoint: Path) -> None:
    """Where the run lies now counts, whatever the file says: directories are moved. The e2e tests show that nothing goes there."""
    change_json(checkpoint / layout.TRAINER_STATE, setting("training.checkpoint.base_dir", "/elsewhere"))
    reseal(checkpoint)
    info: CheckpointInfo = store_of(checkpoint.parent).verify("checkpoint-3")
    assert vetting.check_checkpoint(info, CONFIG, _is_fixed)
