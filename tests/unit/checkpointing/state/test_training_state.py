from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.state import training_state, weights
from pitstop.checkpointing.state.training_state import Parts, Saved
from pitstop.checkpointing.store.store import CheckpointStore
from pitstop.configs.errors import CheckpointError
from support.stores import ForgetfulStorage, save


def stepped(steps: int = 3, *, many: bool = False) -> tuple[torch.nn.Module, Any, Any]:
    """A model with its optimizer and scheduler, or a list of two each, after ``steps`` steps."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    parts = [model[0], model[1]] if many else [model]
    optimizers = [torch.optim.AdamW(part.parameters(), lr=0.1) for part in parts]
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 2) for optimizer in optimizers]
    for _ in range(steps):
        model(torch.ones(1, 2)).sum().backward()
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
    return model, (optimizers if many else optimizers[0]), (schedulers if many else schedulers[0])


def saved(directory: Path, model: torch.nn.Module, parts: Parts) -> CheckpointInfo:
    content = training_state.files(model, weights.take(model, base_saved=False), parts, {"a": 1}, {"python": "3"})
    files = {name: memoryview(data) if isinstance(data, bytes) else data for name, data in content.items()}
    return save(CheckpointStore(directory, ForgetfulStorage()), 3, files=files)


def read(directory: Path, model: torch.nn.Module, parts: Parts) -> Saved:
    return training_state.read(saved(directory, model, parts))


@pytest.mark.parametrize("many", [False, True])
def test_optimizers_and_schedulers_come_back_bit_for_bit(tmp_path: Path, many: bool) -> None:
    model, optimizer, scheduler = stepped(many=many)
    content = read(tmp_path, model, Parts(optimizer, scheduler, extra={"seen": (1, torch.ones(2))}))
    assert (content.optimizer_is_single, content.scheduler_is_single) == (not many, not many)
    assert (content.settings, content.extra["seen"][0], content.scaler) == ({"a": 1}, 1, None)
    assert torch.equal(content.extra["seen"][1], torch.ones(2))
    other, fresh, timer = stepped(0, many=many)
    training_state.restore_optimizers(fresh, content, other)
    training_state.restore_schedulers(timer, content)
    for before, after in zip(training_state.many(optimizer), training_state.many(fresh), strict=True):
        assert before.state_dict()["param_groups"] == after.state_dict()["param_groups"]
        for number, values in before.state_dict()["state"].items():
            assert all(torch.equal(value, after.state_dict()["state"][number][key]) for key, value in values.items())
    for before, after in zip(training_state.many(scheduler), training_state.many(timer), strict=True):
        assert before.state_dict() == after.state_dict()


def test_state_for_another_optimizer_is_refused_before_anything_changes(tmp_path: Path) -> None:
    model, optimizer, _ = stepped()
    content = read(tmp_path, model, Parts(optimizer))
    other, fresh, timer = stepped(0)
    with pytest.raises(CheckpointError, match=r"was saved with the optimizer AdamW, this is SGD"):
        training_state.restore_optimizers(torch.optim.SGD(other.parameters(), lr=0.1), content, other)
    backwards = torch.optim.AdamW(reversed(list(other.parameters())), lr=0.1)
    with pytest.raises(CheckpointError, match="not those of the model, or in another order"):
        training_state.restore_optimizers(backwards, content, other)
    with pytest.raises(CheckpointError, match=r"holds the state of 1 optimizer\(s\), 2 are to be restored"):
        training_state.restore_optimizers([fresh, backwards], content, other)
    with pytest.raises(CheckpointError, match=r"holds the state of 0 scheduler\(s\), 1 are to be restored"):
        training_state.restore_schedulers(timer, content)
    assert not fresh.state and not backwards.state


def test_only_what_a_manager_wrote_in_this_format_is_read(tmp_path: Path) -> None:
    model, optimizer, _ = stepped()
    path = saved(tmp_path, model, Parts(optimizer)).path / "trainer_state.json"
    info = CheckpointStore(tmp_path).list()[0]
    sound = json.loads(path.read_text())
    for change, reason in (
        ({"made_by": "train"}, "was not saved by a CheckpointManager"),
        ({"format_version": 2}, "not a state that this version can read"),
        ({"more": 1}, "not a state that this version can read"),
        ({"weights": {"kind": "full", "names": {"a": 1}, "aliases": {}}}, "not a state that this version can read"),
        ({"extra": {"$tensor": "extra"}}, "extra.safetensors"),
    ):
        path.write_text(json.dumps({**sound, **change}))
        with pytest.raises(CheckpointError, match=reason):
            training_state.read(info)
