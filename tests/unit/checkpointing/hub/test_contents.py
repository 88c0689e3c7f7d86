from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.card.page import PageUpdate
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.hub import contents
from pitstop.checkpointing.hub.contents import Commit, SecretFound
from pitstop.checkpointing.runs.inventory import Inventory
from pitstop.checkpointing.runs.push_records import Destination
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store import file_sets
from pitstop.configs.errors import CheckpointError
from support.fake_hub import REPO, add, new_run
from support.housekeeping import DIGEST, place_base

UID = "0123456789abcdef" * 2
FILES = {"MANIFEST.json", *file_sets.checkpoint_files(1)}
RUN_FILES = {"run/RUN.json", "run/config.json", "run/metadata.json", "run/metrics.jsonl"}
ROOT = {"adapter_model.safetensors", "adapter_config.json"}
TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Three checkpoints, of which the second is the best."""
    return new_run(tmp_path / "runs")


def build(
    run: RunDirectory,
    *steps: int,
    before: Inventory | None = None,
    finished: bool = False,
    page: PageUpdate | None = None,
    **destination: Any,
) -> Commit:
    infos = [info for info in contents.local_checkpoints(run) if info.step in steps]
    page = page or PageUpdate(draw=False)
    empty = Inventory(UID, run.name)
    return contents.build(run, infos, before or empty, Destination(**destination), repo=REPO, finished=finished, page=page)


def of(directory: str) -> set[str]:
    return {f"{directory}/{name}" for name in FILES}


def read(commit: Commit, path: str) -> bytes:
    content = commit.files[path]
    return content if isinstance(content, bytes) else content.read_bytes()


def late() -> datetime:
    return datetime.now(UTC)


def test_a_commit_holds_exactly_one_checkpoint_the_newest_adapter_the_card_and_the_records(run: RunDirectory) -> None:
    commit = build(run, 1)
    assert set(commit.files) == of("checkpoint-1") | ROOT | RUN_FILES | {"README.md"}
    assert commit.deletions == []
    for path in of("checkpoint-1"):
        local = run.path / "lora_weights" / path
        assert read(commit, path) == local.read_bytes()
        if not path.endswith("MANIFEST.json"):
            assert commit.hashes[path] == hashlib.sha256(local.read_bytes()).hexdigest()
    assert read(commit, "adapter_model.safetensors") == b"adapter of step 1, line 0"
    assert commit.hashes["adapter_model.safetensors"] == hashlib.sha256(b"adapter of step 1, line 0").hexdigest()
    assert commit.message == "a-run: checkpoint of step 1"


def test_the_inventory_in_it_lists_what_the_tree_will_hold(run: RunDirectory) -> None:
    first = build(run, 1)
    second = build(run, 2, before=first.inventory)
    inventory = Inventory.from_bytes(read(second, "run/RUN.json"), "there")
    assert inventory == second.inventory
    assert (inventory.uid, inventory.name, inventory.root, inventory.finished) == (UID, "a-run", "checkpoint-2", False)
    assert set(inventory.checkpoints) == {"checkpoint-1", "checkpoint-2"}
    assert "checkpoint-1/MANIFEST.json" not in second.files, "what is there is not sent again"
    entry = inventory.checkpoints["checkpoint-2"]
    assert entry.manifest_sha256 == hashlib.sha256(read(second, "checkpoint-2/MANIFEST.json")).hexdigest()
    assert (entry.step, entry.name, dict(entry.metrics)) == (2, "checkpoint-2", {"val_loss": 0.1})
    for name, record in inventory.files.items():
        content = read(second, f"run/{name}")
        assert (record.size, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_rows_of_the_log_go_as_far_as_the_newest_checkpoint(run: RunDirectory) -> None:
    rows = [json.loads(line) for line in read(build(run, 1, 2), "run/metrics.jsonl").splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


def test_at_the_end_the_best_adapter_is_at_the_root(run: RunDirectory) -> None:
    before = build(run, 1, 2, 3)
    assert before.inventory.root == "checkpoint-3"
    commit = build(run, before=before.inventory, finished=True)
    assert set(commit.files) == ROOT | RUN_FILES | {"README.md"}
    assert read(commit, "adapter_model.safetensors") == b"adapter of step 2, line 0"
    assert (commit.inventory.root, commit.inventory.finished) == ("checkpoint-2", True)
    assert commit.message == "a-run: the end of training"
    again = build(run, before=commit.inventory, finished=True)
    assert not ROOT & set(again.files)
    assert again.inventory.root == "checkpoint-2"


def test_a_checkpoint_with_the_name_of_an_epoch_lies_under_its_step(tmp_path: Path) -> None:
    run = new_run(tmp_path, {})
    add(run, 7, 0.5, name="epoch_003")
    commit = build(run, 7)
    assert set(commit.files) >= of("checkpoint-7")
    assert commit.inventory.checkpoints["checkpoint-7"].name == "epoch_003"


def test_one_that_takes_the_place_of_another_deletes_it_first(tmp_path: Path) -> None:
    run = new_run(tmp_path, {})
    add(run, 5, name="checkpoint-5-pending", files={"rng_state_1.json": b"{}"})
    before = build(run, 5)
    assert "checkpoint-5/rng_state_1.json" in before.files
    add(run, 5, 0.5, now=late())
    commit = build(run, 5, before=before.inventory)
    assert commit.deletions == ["checkpoint-5"]
    assert set(commit.files) >= of("checkpoint-5")
    assert commit.inventory.checkpoints["checkpoint-5"].name == "checkpoint-5"


def test_retention_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    run = new_run(tmp_path, {1: 0.9, 2: 0.1, 3: 0.8, 4: 0.7})
    before = build(run, 1, 2, 3)
    commit = build(run, 4, before=before.inventory, keep_last_n=1)
    assert commit.deletions == ["checkpoint-1", "checkpoint-3"]
    assert set(commit.inventory.checkpoints) == {"checkpoint-2", "checkpoint-4"}
    assert build(run, 4, before=before.inventory, keep_last_n=2).deletions == ["checkpoint-1"]
    assert build(run, 4, before=before.inventory).deletions == []
    together = build(run, 1, 2, 3, 4, keep_last_n=1)
    assert set(together.files) == of("checkpoint-2") | of("checkpoint-4") | ROOT | RUN_FILES | {"README.md"}
    assert together.deletions == []


def test_the_line_that_a_resume_from_an_older_checkpoint_left_goes(run: RunDirectory) -> None:
    before = build(run, 1, 2, 3)
    run.record_resume(run.store.resolve("checkpoint-1"), {})
    run.store.supersede(1)
    add(run, 2, 0.3, now=late(), line=1)
    commit = build(run, 2, before=before.inventory)
    assert commit.deletions == ["checkpoint-2", "checkpoint-3"]
    assert set(commit.inventory.checkpoints) == {"checkpoint-1", "checkpoint-2"}
    assert commit.inventory.root == "checkpoint-2"
    assert read(commit, "adapter_model.safetensors") == b"adapter of step 2, line 1"
    assert "checkpoint-1/MANIFEST.json" not in commit.files


def test_a_step_trained_again_puts_its_own_adapter_at_the_root(run: RunDirectory) -> None:
    before = build(run, 1, 2, 3)
    assert before.inventory.root == "checkpoint-3"
    run.record_resume(run.store.resolve("checkpoint-2"), {})
    run.store.supersede(2)
    add(run, 3, 0.3, now=late(), line=1)
    commit = build(run, 3, before=before.inventory)
    assert commit.inventory.root == "checkpoint-3"
    assert read(commit, "adapter_model.safetensors") == b"adapter of step 3, line 1"


def test_a_resume_before_a_checkpoint_was_saved_does_not_take_it_away(run: RunDirectory) -> None:
    run.record_resume(run.store.resolve("checkpoint-1"), {})
    add(run, 4, 0.5, now=late())
    before = build(run, 4)
    assert "checkpoint-4" in build(run, before=before.inventory).inventory.checkpoints


def test_nothing_but_files_of_manifests_is_read(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    for directory in (run.path, run.path / "lora_weights", run.logs_dir, run.path / "hub"):
        directory.mkdir(exist_ok=True)
        (directory / ".env").write_text(f"HF_TOKEN={TOKEN}")
        (directory / "extra.json").write_text('{"extra": 1}')
        (directory / "link.json").symlink_to(tmp_path / "secret")
    commit = build(run, 1, 2, 3)
    assert set(commit.files) == of("checkpoint-1") | of("checkpoint-2") | of("checkpoint-3") | ROOT | RUN_FILES | {"README.md"}


@pytest.mark.parametrize("planted", [".env", "extra.safetensors", "link"])
def test_a_checkpoint_with_something_in_it_that_was_not_saved_is_none(run: RunDirectory, tmp_path: Path, planted: str) -> None:
    before = contents.local_checkpoints(run)
    place = before[1].path / planted
    if planted == "link":
        place.symlink_to(tmp_path)
    else:
        place.write_text(f"HF_TOKEN={TOKEN}")
    assert [info.step for info in contents.local_checkpoints(run)] == [1, 3]
    commit = contents.build(
        run, before, Inventory(UID, run.name), Destination(), repo=REPO, finished=False, page=PageUpdate(draw=False)
    )
    assert not [path for path in commit.files if path.endswith(planted)], "and nobody who listed it before sends it"


def test_places_of_this_machine_and_tokens_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-key-of-this-machine")
    home = tmp_path / "home-of-somebody"
    run = new_run(
        home,
        data={"path": f"{home}/data/train.jsonl", "more": [f"{home}/eval.jsonl"]},
        environment={"key": "a-key-of-this-machine", "token": TOKEN, "python": f"{home}/bin/python"},
        training_config={"base_dir": f"{home}/runs"},
        private_notes=f"{home}/notes",
    )
    config = json.loads((run.path / "config.json").read_text())
    config["sources"] = {"model.id": f"{home}/.env"}
    config["data"]["train"] = [f"{home}/train.jsonl"]
    config["model"]["id"] = f"{home}/models/llama"
    (run.path / "config.json").write_text(json.dumps(config))
    commit = build(run, 1, 2, 3, finished=True, page=PageUpdate())
    for path in commit.files:
        content = read(commit, path)
        for needle in ("home-of-somebody", TOKEN, "a-key-of-this-machine"):
            assert needle.encode() not in content, (path, needle)
    metadata = json.loads(read(commit, "run/metadata.json"))
    assert "private_notes" not in metadata
    assert "status" not in metadata
    assert metadata["data"] == {"path": "train.jsonl", "more": ["eval.jsonl"]}
    config = json.loads(read(commit, "run/config.json"))
    assert "sources" not in config
    assert (config["model"]["id"], config["data"]["train"]) == ("llama", ["train.jsonl"])


@pytest.mark.parametrize("name", ["trainer_state.json", "adapter_config.json", "rng_state_0.json"])
def test_a_checkpoint_with_a_token_in_it_is_not_pushed(tmp_path: Path, name: str) -> None:
    run = new_run(tmp_path, {})
    add(run, 1, 0.5, files={name: json.dumps({"note": TOKEN}).encode()})
    with pytest.raises(SecretFound, match=name) as raised:
        build(run, 1)
    assert TOKEN not in str(raised.value.message)
    assert raised.value.hint


def test_weights_are_not_searched_for_what_only_looks_like_a_token(tmp_path: Path) -> None:
    run = new_run(tmp_path, {})
    add(run, 1, 0.5, files={"optimizer.safetensors": TOKEN.encode()})
    assert "checkpoint-1/optimizer.safetensors" in build(run, 1).files


def test_the_base_goes_once_and_only_when_asked_for(tmp_path: Path) -> None:
    run = new_run(tmp_path, base_model={"digest": DIGEST, "saved": True})
    place_base(tmp_path).link_into(run.path, DIGEST)
    assert not [path for path in build(run, 1).files if path.startswith("base/")]
    commit = build(run, 1, push_base=True)
    assert {path for path in commit.files if path.startswith("base/")} == {"base/model.safetensors", "base/BASE_MANIFEST.json"}
    assert commit.hashes["base/model.safetensors"] == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert commit.inventory.base == DIGEST
    again = build(run, 2, before=commit.inventory, push_base=True)
    assert not [path for path in again.files if path.startswith("base/")]
    assert again.inventory.base == DIGEST
    assert build(run, 2, before=commit.inventory).inventory.base == DIGEST, "it stays"


def test_the_card_and_the_picture_are_left_out_when_they_are_to_stay(run: RunDirectory) -> None:
    commit = build(run, 1, page=PageUpdate(card=False, draw=False))
    assert "README.md" not in commit.files
    assert commit.card is None
    card = build(run, 1)
    assert card.card == contents.blob_sha1(read(card, "README.md"))
    assert "loss_curve.png" in build(run, 1, page=PageUpdate(card=False, draw=True)).files


def test_git_names_a_file_by_its_content() -> None:
    assert contents.blob_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_of_several_checkpoints_of_a_step_the_newest_counts(run: RunDirectory) -> None:
    add(run, 2, name="checkpoint-2-pending")
    infos: list[CheckpointInfo] = contents.local_checkpoints(run)
    assert [info.step for info in infos] == [1, 2, 3]


def test_what_lacks_checkpoints_or_settings_cannot_be_pushed(run: RunDirectory, tmp_path: Path) -> None:
    contents.check_pushable(run)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        contents.check_pushable(new_run(tmp_path / "empty", {}))
    (run.path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        contents.check_pushable(run)
