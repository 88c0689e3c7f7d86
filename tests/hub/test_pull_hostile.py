"""Repositories that somebody damaged or made: refused by the name of the file, before anything parses it, and nothing is installed."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.hub import pull as pulling
from pitstop.checkpointing.hub import remote_check
from pitstop.checkpointing.hub.pull import pull
from pitstop.checkpointing.hub.remote_check import InvalidRepository
from pitstop.checkpointing.hub.remote_repository import RemoteRepository
from pitstop.checkpointing.runs.inventory import INVENTORY
from pitstop.checkpointing.store import vetting
from support.fault_matrix import Matrix
from support.forging import pickled, raw_tensors
from support.repositories import REPO, FakeHub, Files, fit_inventory, fit_manifest, forge, repository
from support.stores import ForgetfulStorage, fast_directory

pytestmark = pytest.mark.faults

BAD_FILE = "a pulled run with one bad file"
HOSTILE = "hostile input: pickle, ../, absolute path, symlink, huge safetensors header, duplicate names"

MANIFEST, BASE = "checkpoint-6/MANIFEST.json", "base/BASE_MANIFEST.json"
CONFIG, METADATA, METRICS = "run/config.json", "run/metadata.json", "run/metrics.jsonl"

PARSERS = {
    layout.CONFIG: (remote_check, "parse_config"),
    layout.METADATA: (remote_check, "parse_metadata"),
    layout.METRICS: (remote_check, "rows_up_to"),
    layout.MANIFEST: (pulling, "parse_manifest"),
    "any file of a checkpoint": (vetting, "check_checkpoint"),
}


@pytest.fixture(scope="module")
def sound() -> Iterator[Files]:
    """A repository with two checkpoints and a base; 6 is the newest."""
    with tempfile.TemporaryDirectory(dir=fast_directory()) as directory:
        yield repository(Path(directory), base=True)


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=fast_directory()) as directory:
        yield Path(directory) / "runs"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been parsed so far, by the kind of file."""
    seen: list[str] = []
    for kind, (module, name) in PARSERS.items():
        real = getattr(module, name)

        def spy(*arguments: Any, kind: str = kind, real: Callable[..., Any] = real, **named: Any) -> Any:
            seen.append(kind)
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, spy)
    return seen


def refusal(hub: FakeHub, base: Path, which: str = "last") -> InvalidRepository:
    """The refusal of a pull, which left nothing."""
    with pytest.raises(InvalidRepository) as caught:
        pull(RemoteRepository(hub, REPO), base, which, storage=ForgetfulStorage())
    assert caught.value.exit_code == 5
    assert "nothing was taken" in caught.value.message and caught.value.hint
    assert not list(base.rglob("*")), "nothing is installed, nothing is left"
    return caught.value


def kind_of(name: str) -> str:
    known = name.rpartition("/")[2]
    return known if known in PARSERS else "any file of a checkpoint"


# One bad file


def flipped(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def wanted(files: Files) -> list[str]:
    """The files that a pull of the newest checkpoint fetches."""
    return sorted(name for name in files if name.startswith(("run/", "checkpoint-6/", "base/")))


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "one flipped bit": flipped,
    "cut short": lambda content, rng: content[: rng.randrange(len(content))],
    "extended": lambda content, rng: content + rng.randbytes(1 + rng.randrange(9)),
    "other bytes": lambda content, rng: rng.randbytes(len(content)),
}


def test_one_bad_file_is_refused_before_anything_parses_it(sound: Files, base: Path, parsed: list[str], matrix: Matrix) -> None:
    row = matrix(BAD_FILE)
    rng = random.Random(41)
    names = wanted(sound)
    assert len(names) == 14
    for number in row.numbers():
        name, (how, damage) = names[number % len(names)], rng.choice(list(DAMAGE.items()))
        with row.trial(f"{name}, {how}"):
            parsed.clear()
            refused = refusal(FakeHub({**sound, name: damage(sound[name], rng)}), base)
            assert refused.culprit == name
            assert name in (INVENTORY, BASE) or kind_of(name) not in parsed


@pytest.mark.parametrize("how", DAMAGE)
def test_each_kind_of_file_with_each_kind_of_damage(how: str, sound: Files, base: Path, parsed: list[str]) -> None:
    rng = random.Random(5)
    for name in wanted(sound):
        parsed.clear()
        refused = refusal(FakeHub({**sound, name: DAMAGE[how](sound[name], rng)}), base)
        assert refused.culprit == name
        assert name in (INVENTORY, BASE) or kind_of(name) not in parsed


def test_each_file_missing(sound: Files, base: Path) -> None:
    for name in wanted(sound):
        assert refusal(FakeHub({other: content for other, content in sound.items() if other != name}), base).culprit == name


def test_every_bit_of_the_inventory_counts(sound: Files, base: Path) -> None:
    raw = sound[INVENTORY]
    for at in range(0, 8 * len(raw), 97):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        assert refusal(FakeHub({**sound, INVENTORY: bytes(changed)}), base).culprit == INVENTORY


# Made on purpose

NAMES = {
    "an extra file in the checkpoint": "checkpoint-6/extra.json",
    "a file of another process": "checkpoint-6/rng_state_1.json",
    "an extra file in run/": "run/extra.json",
    "an extra file in base/": "base/extra.json",
    "a directory below the checkpoint": "checkpoint-6/below/state.json",
    "a checkpoint that the inventory does not list": "checkpoint-99/MANIFEST.json",
    "a directory of its own": "images/plot.png",
    "a settings file at the root": "config.json",
    "weights at the root": "model.safetensors",
    "a way out": "../evil.json",
    "a way out of the checkpoint": "checkpoint-6/../../evil.json",
    "a dot": "checkpoint-6/./evil.json",
    "an empty part": "checkpoint-6//evil.json",
    "an absolute path": "/tmp/evil.json",
    "a drive": "C:/evil.json",
    "a backslash": "checkpoint-6\\..\\evil.json",
    "a hidden file": "checkpoint-6/.netrc",
    "a hidden file at the root": ".env",
    "a hidden directory": ".git/config",
    "a control character": "checkpoint-6/evil\x1b[2J.json",
    "a line break": "checkpoint-6/evil\n.json",
    "a name that reads backwards": "checkpoint-6/evil\u202enosj.exe.json",
    "no ASCII": "checkpoint-6/adapter_m\u043edel.safetensors",
    "a name that differs in case only": "checkpoint-6/Optimizer.json",
    "a directory that differs in case only": "Checkpoint-6/optimizer.json",
    "a device of Windows": "checkpoint-6/nul.json",
    "a trailing dot": "checkpoint-6/optimizer.json.",
    "a very long name": f"checkpoint-6/{'a' * 300}.json",
    "a very deep name": "base/" + "a/" * 20 + "b.json",
    "a file where a directory is": "checkpoint-6",
    "a pickle beside the others": "checkpoint-6/optimizer.pt",
    "a pickle in another checkpoint": "checkpoint-3/pytorch_model.bin",
    "a pickle at the root": "training_args.bin",
    "a pickle in base/": "base/pytorch_model.bin",
    "a pickle in capitals": "checkpoint-6/OPTIMIZER.PKL",
    "a pickle of joblib": "checkpoint-6/model.joblib",
    "an array": "checkpoint-6/table.npy",
    "a script": "checkpoint-6/modeling_evil.py",
    "a shell script at the root": "setup.sh",
    "a library": "base/kernel.so",
    "an archive": "README.zip",
}  # fmt: skip


@pytest.mark.fault_row(HOSTILE)
@pytest.mark.parametrize("what", NAMES)
def test_a_file_that_has_no_place_there_is_refused_before_the_checkpoint_is_fetched(what: str, sound: Files, base: Path) -> None:
    hub = FakeHub({**sound, NAMES[what]: b"{}"})
    refused = refusal(hub, base)
    assert refused.culprit == ("Checkpoint-6" if "a directory that differs" in what else NAMES[what])
    assert refused.message.isprintable() and refused.message.isascii()
    assert set(hub.downloads) <= {INVENTORY, CONFIG, METADATA, METRICS, MANIFEST, BASE}


@pytest.mark.parametrize(
    "name", ["NOTES.md", "LICENSE", "LICENSE-2.0.txt", "plot.png", "photo.JPG", "curve.svg", "notes.txt", "NOTICE"]
)
def test_documentation_at_the_root_is_left_alone(name: str, sound: Files, base: Path) -> None:
    hub = FakeHub({**sound, name: b"text"})
    pull(RemoteRepository(hub, REPO), base, storage=ForgetfulStorage())
    assert name not in hub.downloads


def test_another_checkpoint_is_not_looked_into(sound: Files, base: Path) -> None:
    files = {**sound, "checkpoint-3/optimizer.safetensors": b"damaged"}
    assert pull(RemoteRepository(FakeHub(files), REPO), base, storage=ForgetfulStorage()).checkpoint.name == "checkpoint-6"


def test_a_repository_that_is_none_of_ours_says_so(base: Path) -> None:
    refused = refusal(FakeHub({"README.md": b"", "model.safetensors": b""}), base)
    assert refused.culprit == INVENTORY and "not the repository of a Pitstop run" in str(refused.hint)


@pytest.mark.fault_row(HOSTILE)
@pytest.mark.parametrize(
    ("name", "size"),
    [(INVENTORY, 2**25), ("checkpoint-6/MANIFEST.json", 2**25), ("base/BASE_MANIFEST.json", 2**25), ("run/config.json", 2**25),
     ("README.md", 2**60), ("checkpoint-6/optimizer.safetensors", 2**50), ("run/metrics.jsonl", 2**40), ("plot.png", -1)],
)  # fmt: skip
def test_a_huge_file_is_refused_before_it_is_fetched(name: str, size: int, sound: Files, base: Path) -> None:
    hub = FakeHub({**sound, "plot.png": b""}, claimed={name: size})
    assert refusal(hub, base).culprit == name
    assert name not in hub.downloads


@pytest.mark.parametrize("name", ["checkpoint-6/adapter_config.json", "base/tokenizer.json"])
def test_a_file_of_another_size_is_refused_before_any_of_its_kind_is_fetched(name: str, sound: Files, base: Path) -> None:
    hub = FakeHub(sound, claimed={name: len(sound[name]) + 1})
    assert refusal(hub, base).culprit == name
    assert set(hub.downloads) <= {INVENTORY, CONFIG, METADATA, METRICS, MANIFEST, BASE}


def test_large_files_are_compared_by_the_hash_that_the_hub_tells(sound: Files, base: Path) -> None:
    hub = FakeHub({**sound, "checkpoint-6/optimizer.safetensors": sound["checkpoint-6/optimizer.safetensors"][::-1]})
    assert refusal(hub, base).culprit == "checkpoint-6/optimizer.safetensors"
    assert "checkpoint-6/optimizer.safetensors" not in hub.downloads


@pytest.mark.parametrize(("name", "size"), [("config.json", 2**25), ("metadata.json", 2**25), ("metrics.jsonl", 2**31)])
def test_a_file_of_the_run_that_is_listed_as_huge_is_not_fetched(name: str, size: int, sound: Files, base: Path) -> None:
    files = dict(sound)
    forge(files, INVENTORY, lambda content: content["files"][name].update(size=size))
    hub = FakeHub(files, claimed={f"run/{name}": size})
    assert refusal(hub, base).culprit == f"run/{name}"
    assert set(hub.downloads) == {INVENTORY}


def test_too_many_files_are_refused(sound: Files, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_check, "MAX_FILES", 20)
    assert "files" in refusal(FakeHub(sound), base).culprit
    many = {f"checkpoint-6/{number}.json": b"" for number in range(5000)}
    monkeypatch.setattr(remote_check, "MAX_FILES", 100_000)
    assert "more than the 4,096" in refusal(FakeHub({**sound, **many}), base).message


def rewritten(files: Files, name: str, change: Callable[[Any], object]) -> None:
    content = json.loads(files[name])
    change(content)
    files[name] = json.dumps(content).encode()


def in_run(name: str, change: Callable[[Any], object]) -> Callable[[Files], None]:
    """The file of ``run/`` changed, with its hash in the inventory."""

    def forged(files: Files) -> None:
        rewritten(files, f"run/{name}", change)
        fit_inventory(files)

    return forged


def in_checkpoint(name: str, content: bytes | Callable[[Any], object]) -> Callable[[Files], None]:
    """The file of the checkpoint changed, with its hash in manifest and inventory."""

    def forged(files: Files) -> None:
        if callable(content):
            rewritten(files, f"checkpoint-6/{name}", content)
        else:
            files[f"checkpoint-6/{name}"] = content
        fit_manifest(files, "checkpoint-6")

    return forged


def in_inventory(change: Callable[[Any], object]) -> Callable[[Files], None]:
    return lambda files: forge(files, INVENTORY, change)


def in_manifest(change: Callable[[Any], object]) -> Callable[[Files], None]:
    def forged(files: Files) -> None:
        forge(files, "checkpoint-6/MANIFEST.json", change)
        fit_inventory(files)

    return forged


def in_base(change: Callable[[Any], object]) -> Callable[[Files], None]:
    return lambda files: forge(files, "base/BASE_MANIFEST.json", change)


def entry(content: Any) -> Any:
    return content["checkpoints"]["checkpoint-6"]


def moved_manifest(files: Files) -> None:
    for name in list(files):
        if name.startswith("checkpoint-6/"):
            files[name] = files[name.replace("checkpoint-6", "checkpoint-3")]
    fit_inventory(files)


def swapped(files: Files) -> None:
    files["checkpoint-6/rng_state_0.json"] = files["checkpoint-6/adapter_config.json"]


def rows(content: bytes) -> Callable[[Files], None]:
    def forged(files: Files) -> None:
        files["run/metrics.jsonl"] = content
        fit_inventory(files)

    return forged


def a_list(files: Files) -> None:
    files["run/config.json"] = b"[]"
    fit_inventory(files)


def a_name_that_leads_out(files: Files) -> None:
    in_run("metadata.json", lambda content: content.update(name="../../x"))(files)
    in_inventory(lambda content: content.update(name="../../x"))(files)


FORGED: dict[str, tuple[Callable[[Files], None], str]] = {
    "an inventory with another key": (in_inventory(lambda content: content.update(extra=1)), INVENTORY),
    "an inventory of a newer format": (in_inventory(lambda content: content.update(format_version=9)), INVENTORY),
    "an inventory with a wrong uid": (in_inventory(lambda content: content.update(uid="../x")), INVENTORY),
    "an inventory that lists any file": (
        in_inventory(lambda content: content["files"].update({"../x": {"size": 1, "sha256": "0" * 64}})), INVENTORY),
    "an inventory without config.json": (in_inventory(lambda content: content["files"].pop("config.json")), CONFIG),
    "an inventory with a checkpoint in another place": (
        in_inventory(lambda content: content["checkpoints"].update({"checkpoint-7": entry(content)})), INVENTORY),
    "an inventory that names a way out": (in_inventory(lambda content: entry(content).update(name="../checkpoint-6")), INVENTORY),
    "an inventory with a huge step": (in_inventory(lambda content: entry(content).update(step=10**30)), INVENTORY),
    "an inventory of another name": (in_inventory(lambda content: content.update(name="other")), METADATA),
    "an inventory of another base": (in_inventory(lambda content: content.update(base="c" * 64)), BASE),
    "an inventory without the base": (in_inventory(lambda content: content.update(base=None)), BASE),
    "an entry of another time": (in_inventory(lambda content: entry(content).update(saved_at="2020-01-01T00:00:00+00:00")), MANIFEST),
    "an entry of another epoch": (in_inventory(lambda content: entry(content).update(epoch=3.0)), MANIFEST),
    "an entry with better metrics": (in_inventory(lambda content: entry(content).update(metrics={"val_loss": 0.0})), MANIFEST),
    "an entry of another size": (in_inventory(lambda content: entry(content).update(size=1)), MANIFEST),
    "the manifest of another checkpoint": (moved_manifest, MANIFEST),
    "a manifest of another name": (in_manifest(lambda content: content.update(name="epoch_001")), MANIFEST),
    "a manifest of another step": (in_manifest(lambda content: content.update(name="epoch_001", step=4)), MANIFEST),
    "a manifest with a key of its own": (in_manifest(lambda content: content.update(extra=1)), MANIFEST),
    "a manifest that leads out": (in_manifest(lambda content: content["files"].update({"../x": {"size": 1, "sha256": "0" * 64}})), MANIFEST),
    "a manifest that lacks a file": (in_manifest(lambda content: content["files"].pop("optimizer.json")), MANIFEST),
    "a manifest of more processes": (in_manifest(lambda content: content.update(world_size=2)), "checkpoint-6/rng_state_1.json"),
    "a manifest of another base": (in_manifest(lambda content: content.update(fingerprints={"base": "c" * 64})), BASE),
    "two files of the checkpoint swapped": (swapped, "checkpoint-6/rng_state_0.json"),
    "a foreign file that the manifest lists": (in_checkpoint("state.json", b"{}"), "checkpoint-6/state.json"),
    "a pickle that the manifest lists": (in_checkpoint("custom.pkl", b"x"), "checkpoint-6/custom.pkl"),
    "a pickle in place of the optimizer": (in_checkpoint("optimizer.safetensors", pickled(Path("canary"))), "checkpoint-6"),
    "a huge header": (in_checkpoint("adapter_model.safetensors", raw_tensors({}, length=2**62)), "checkpoint-6"),
    "a state of another step": (in_checkpoint("trainer_state.json", lambda content: content.update(global_step=5)), "checkpoint-6"),
    "a state with a key twice": (in_checkpoint("trainer_state.json", b'{"a": 1, "a": 2}'), "checkpoint-6"),
    "an adapter for another base": (
        in_checkpoint("adapter_config.json", lambda content: content.update(base_model_name_or_path="x/y")), "checkpoint-6"),
    "config.json with an unknown setting": (in_run("config.json", lambda content: content.update(trust_remote_code=True)), CONFIG),
    "config.json with a token": (in_run("config.json", lambda content: content["hub"].update(token="hf_x")), CONFIG),
    "config.json with a value of another type": (in_run("config.json", lambda content: content["lora"].update(rank="8")), CONFIG),
    "config.json that is a list": (a_list, CONFIG),
    "metadata.json with another key": (in_run("metadata.json", lambda content: content.update(status="completed")), METADATA),
    "metadata.json without a key": (in_run("metadata.json", lambda content: content.pop("resumes")), METADATA),
    "metadata.json with a value of another type": (in_run("metadata.json", lambda content: content.update(model=["x"])), METADATA),
    "metadata.json with progress that is none": (in_run("metadata.json", lambda content: content["progress"].update(step="9")), METADATA),
    "metadata.json with resumes that are none": (in_run("metadata.json", lambda content: content.update(resumes=["x"])), METADATA),
    "metadata.json without a time": (in_run("metadata.json", lambda content: content.update(created_at="yesterday")), METADATA),
    "a name that leads out": (a_name_that_leads_out, METADATA),
    "a row that is no object": (rows(b"[1]\n"), METRICS),
    "a row without a step": (rows(b'{"loss": 1}\n'), METRICS),
    "a row of half a step": (rows(b'{"step": 1.5}\n'), METRICS),
    "rows that go back": (rows(b'{"step": 2}\n{"step": 1}\n'), METRICS),
    "a last row that is cut": (rows(b'{"step": 1}\n{"step"'), METRICS),
    "a row with a key twice": (rows(b'{"step": 1, "step": 2}\n'), METRICS),
    "a row that is infinite": (rows(b'{"step": 1, "loss": Infinity}\n'), METRICS),
    "a row nested without end": (rows(b'{"step": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"), METRICS),
    "a base with another digest": (in_base(lambda content: content.update(digest_of_base="c" * 64)), BASE),
    "a base that leads out": (in_base(lambda content: content["files"].update({"../x": {"size": 1, "sha256": "0" * 64}})), BASE),
    "a base with a key of its own": (in_base(lambda content: content.update(extra=1)), BASE),
}  # fmt: skip


@pytest.mark.fault_row(HOSTILE)
@pytest.mark.parametrize("what", FORGED)
def test_what_is_forged_with_hashes_that_fit_is_refused_by_name(what: str, sound: Files, base: Path) -> None:
    change, culprit = FORGED[what]
    files = dict(sound)
    change(files)
    assert refusal(FakeHub(files), base).culprit == culprit
    assert not Path("canary").exists()


def test_the_table_starts_from_something_that_is_sound(sound: Files, base: Path) -> None:
    assert pull(RemoteRepository(FakeHub(sound), REPO), base, storage=ForgetfulStorage()).run.store.names() == ["checkpoint-6"]
