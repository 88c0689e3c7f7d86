"""``pitstop resume`` on a real run whose newest checkpoint an attacker has rewritten, manifest and all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forging import change_json, pickled, raw_tensors, reseal, snapshot
from support.forked import kill_at_step, pitstop
from support.tiny_model import write_data
from support.training import arguments, checkpoints, metadata

pytestmark = [
    pytest.mark.usefixtures("warm"),
    pytest.mark.faults,
    pytest.mark.fault_row("hostile input: pickle, ../, absolute path, symlink, huge safetensors header, duplicate names"),
]

TOKEN = "hf_plantedplantedplantedplanted"


def with_token() -> None:
    """Give the child a token in its environment, and let its files be open to all if nothing else is said."""
    os.umask(0)
    os.environ["HF_TOKEN"] = TOKEN
    kill_at_step(9)()


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """A run killed after step 9 of 12, with checkpoints of steps 2, 4, 6 and 8; to be copied."""
    home = tmp_path_factory.mktemp("trained")
    write_data(home / "data", 6, 2)
    settings = arguments(tiny_model, home / "data", home / "runs", save_strategy="steps", save_steps=2, packing=None, epochs=2)
    ended = pitstop(*settings, "--no-packing", prepare=with_token)
    assert ended.code == -signal.SIGKILL, ended.output
    return home


def newest(runs: Path) -> Path:
    path = runs / "run_001/lora_weights/checkpoint-8"
    assert path.is_dir(), checkpoints(runs / "run_001")
    return path


def refused(runs: Path, *named: str, code: int = 4, arguments: tuple[str, ...] = ()) -> str:
    """Resuming ends with an error for the user that names the file; nothing in the run changes but its lock."""
    before = snapshot(runs)
    ended = pitstop("resume", 1, "--base-dir", runs, *arguments)
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output and "a bug in pitstop" not in ended.output
    assert all(part in ended.output for part in named), ended.output
    after = snapshot(runs)
    before.pop("run_001/.lock", None)
    after.pop("run_001/.lock", None)
    assert after == before
    return ended.output


def change_state(change: Callable[[Any], object]) -> Callable[[Path, Path], None]:
    return lambda checkpoint, _: change_json(checkpoint / "trainer_state.json", change)


def rename_pickle(name: str) -> Callable[[Path, Path], None]:
    def plant(checkpoint: Path, canary: Path) -> None:
        (checkpoint / name).unlink(missing_ok=True)
        (checkpoint / name).write_bytes(pickled(canary))

    return plant


def change_rng(change: Callable[[Any], object]) -> Callable[[Path, Path], None]:
    return lambda checkpoint, _: change_json(checkpoint / "rng_state_0.json", change)


FORGED: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a pickle that the manifest lists": (rename_pickle("custom_checkpoint_0.pkl"), "custom_checkpoint_0.pkl"),
    "a pickle as the adapter": (rename_pickle("adapter_model.safetensors"), "adapter_model.safetensors"),
    "a pickle as the optimizer": (rename_pickle("optimizer.safetensors"), "optimizer.safetensors"),
    "a pickle as the random state": (rename_pickle("rng_state_0.json"), "rng_state_0.json"),
    "a huge header": (
        lambda checkpoint, _: (checkpoint / "optimizer.safetensors").write_bytes(raw_tensors({}, length=2**40)) and None,
        "optimizer.safetensors",
    ),
    "no optimizer": (lambda checkpoint, _: (checkpoint / "optimizer.safetensors").unlink(), "optimizer.safetensors"),
    "no random state": (lambda checkpoint, _: (checkpoint / "rng_state_0.json").unlink(), "rng_state_0.json"),
    "no generator of torch": (change_rng(lambda content: content.pop("torch_cpu")), "rng_state_0.json"),
    "no step of the scheduler": (change_state(lambda content: content.pop("global_step")), "trainer_state.json"),
    "no position in the data": (change_state(lambda content: content["progress"].pop("position")), "trainer_state.json"),
    "a position beyond the data": (change_state(lambda content: content["progress"].update(position=600)), "trainer_state.json"),
    "a position elsewhere": (change_state(lambda content: content["progress"].update(position=0)), "trainer_state.json"),
    "a rate that is no number": (
        change_state(lambda content: content["progress"].update(learning_rate="nan")),
        "trainer_state.json",
    ),
    "another run": (
        change_state(lambda content: content["settings"]["training"]["checkpoint"].update(run_number=7)),
        "training.checkpoint.run_number",
    ),
    "a token": (change_state(lambda content: content["settings"]["hub"].update(token=TOKEN)), "hub.token"),
    "another rank in the adapter": (
        lambda checkpoint, _: change_json(checkpoint / "adapter_config.json", lambda content: content.update(r=64)),
        "adapter_config.json",
    ),
    "a class to import": (
        lambda checkpoint, _: change_json(
            checkpoint / "adapter_config.json",
            lambda content: content.update(auto_mapping={"base_model_class": "x", "parent_library": "os"}),
        ),
        "adapter_config.json",
    ),
    "another base": (
        lambda checkpoint, _: change_json(
            checkpoint / "adapter_config.json", lambda content: content.update(base_model_name_or_path="evil/model")
        ),
        "adapter_config.json",
    ),
}


@pytest.mark.parametrize(("forge", "named"), FORGED.values(), ids=FORGED)
def test_a_forged_checkpoint_is_refused_and_nothing_happens(
    runs: Path, tmp_path: Path, forge: Callable[[Path, Path], None], named: str
) -> None:
    forge(newest(runs), tmp_path / "canary")
    reseal(newest(runs))
    output = refused(runs, named)
    assert TOKEN not in output
    assert not (tmp_path / "canary").exists()


def test_an_older_checkpoint_is_the_way_on_from_a_forged_one(runs: Path) -> None:
    (newest(runs) / "optimizer.pt").write_bytes(b"\x80\x04N.")
    reseal(newest(runs))
    assert "--checkpoint" in refused(runs, "optimizer.pt")
    ended = pitstop("resume", 1, "--base-dir", runs, "--checkpoint", "checkpoint-6")
    assert ended.code == 0, ended.output
    assert (runs / "run_001/lora_weights/.superseded/checkpoint-8/optimizer.pt").exists(), "nothing is deleted"


def test_a_planted_pickle_sets_the_checkpoint_aside_and_training_goes_on(runs: Path, tmp_path: Path) -> None:
    (newest(runs) / "scheduler.pt").write_bytes(pickled(tmp_path / "canary"))
    ended = pitstop("resume", 1, "--base-dir", runs)
    assert ended.code == 0, ended.output
    assert "scheduler.pt is not part of it" in ended.output and "from checkpoint-6" in ended.output
    assert not (tmp_path / "canary").exists()


def test_a_base_directory_in_a_checkpoint_sends_nothing_there(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    change_json(
        newest(runs) / "trainer_state.json",
        lambda content: content["settings"]["training"]["checkpoint"].update(base_dir=str(tmp_path / "elsewhere")),
    )
    reseal(newest(runs))
    ended = pitstop("resume", 1, "--base-dir", runs)
    assert ended.code == 0, ended.output
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert metadata(runs / "run_001")["status"] == "completed"


@pytest.mark.parametrize(
    "changes",
    [{"lora.rank": [4, 8]}, {"hub.token": ["", TOKEN]}, {"a.b": [1, 2]}, {"training.epochs": 3}, {"training.epochs": [2, "x"]}],
    ids=["fixed", "secret", "unknown", "no pair", "type"],
)
def test_changes_in_metadata_that_no_resume_makes_are_refused(runs: Path, changes: dict[str, Any]) -> None:
    entry = {"checkpoint": "checkpoint-8", "changes": changes}
    change_json(runs / "run_001/metadata.json", lambda content: content.update(resumes=[entry]))
    refused(runs, "metadata.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["hub"].update(token=TOKEN),
        lambda content: content.update(plugins={"path": "/tmp"}),
        lambda content: content["training"].update(num_processes=10**6),
        lambda content: content["training"].update(num_processes="many"),
        lambda content: content.update(training=[]),
        lambda content: content["lora"].update(rank=8),
    ],
)
def test_a_run_whose_settings_do_not_hold_is_refused(runs: Path, change: Callable[[Any], object]) -> None:
    change_json(runs / "run_001/config.json", change)
    assert TOKEN not in refused(runs, "config.json")


@pytest.mark.parametrize("resumes", [3, [3], [{"environment": 3}], [{"environment": {}, "changes": 3}]])
def test_odd_metadata_does_not_stop_a_resume(runs: Path, resumes: Any) -> None:
    change_json(runs / "run_001/metadata.json", lambda content: content.update(resumes=resumes, progress=3, checkpoints="x"))
    ended = pitstop("resume", 1, "--base-dir", runs)
    assert ended.code == 0, ended.output


def test_code_in_the_saved_base_is_refused_before_it_is_read(runs: Path, tmp_path: Path) -> None:
    """The base's own manifest is forged too; its hash is not in the checkpoint, so looking at the content has to do."""
    from pitstop.checkpointing.runs.base_models import BaseModels

    base = runs / "run_001/base_model"
    digest = json.loads((base / "BASE_MANIFEST.json").read_text())["digest_of_base"]
    shutil.copytree(base, tmp_path / "copy")
    (tmp_path / "copy/BASE_MANIFEST.json").unlink()
    shutil.rmtree(base)
    shutil.rmtree(runs / ".base_models")
    (tmp_path / "copy/evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    change_json(tmp_path / "copy/config.json", lambda content: content.update(auto_map={"AutoModelForCausalLM": "evil.Model"}))
    bases = BaseModels(runs)
    bases.save_once(digest, lambda directory: shutil.copytree(tmp_path / "copy", directory, dirs_exist_ok=True) and None)
    bases.link_into(runs / "run_001", digest)
    refused(runs, "evil.py", code=3)
    assert not (tmp_path / "canary").exists()


def test_a_base_that_needs_code_is_refused_before_training(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    change_json(
        tmp_path / "model/config.json",
        lambda content: content.update(model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}),
    )
    (tmp_path / "model/evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    ended = pitstop(*arguments(tmp_path / "model", data, tmp_path / "runs"))
    assert ended.code == 3 and "needs code of its own" in ended.output and "trust_remote_code" not in ended.output, ended.output
    assert not (tmp_path / "canary").exists() and not (tmp_path / "runs/run_001").exists()


def test_a_linked_run_is_not_resumed_through_the_link(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/run_001").symlink_to(runs / "run_001")
    before = snapshot(runs)
    for reference in (("1",), ()):
        ended = pitstop("resume", *reference, "--base-dir", tmp_path / "mine")
        assert ended.code == 2 and "Traceback" not in ended.output, ended.output
    assert snapshot(runs) == before


def test_no_secret_and_no_open_mode_anywhere_in_a_run(trained: Path) -> None:
    """The run was trained with a token in its environment and an umask that keeps nobody out."""
    runs = trained / "runs"
    files = [path for path in runs.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"train.log", "metrics.jsonl", "config.json", "model.safetensors", "optimizer.safetensors"} <= {f.name for f in files}
    assert [str(path) for path in files if TOKEN.encode() in path.read_bytes()] == []
    open_ones = [path for path in files if stat.S_IMODE(path.stat().st_mode) != 0o600]
    open_ones += [
        path
        for path in [runs, *runs.rglob("*")]
        if path.is_dir() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != 0o700
    ]
    assert [str(path) for path in open_ones] == []
