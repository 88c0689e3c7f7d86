"""The Python API on small modules; see tests/e2e/test_callbacks.py for real trainings and tests/cli/test_guides.py for the snippets."""

from __future__ import annotations

import errno
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pitstop.checkpointing import CheckpointManager, list_all_runs, unfinished_run
from pitstop.checkpointing.disk.metrics_log import MetricsLog, read_rows
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, ResourceError, RunError, SettingsError
from support.cli import Cli

DATA = torch.linspace(-1, 1, 24).reshape(6, 4)


class Net(nn.Module):
    """Dropout and running means, which a resume must continue; ``adapted`` freezes all but a home-made LoRA."""

    def __init__(self, adapted: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.lora_A, self.lora_B = nn.Parameter(torch.randn(2, 4) / 2), nn.Parameter(torch.zeros(4, 2))
        self.drop = nn.Dropout(0.5)
        if adapted:
            self.inner.requires_grad_(False)
            self.norm.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.inner(x) + self.drop(x) @ self.lora_A.T @ self.lora_B.T)


class Training:
    """A model with its optimizer and scheduler, and steps that depend on all of them and on random numbers."""

    def __init__(self, adapted: bool = False, optimizer: Any = torch.optim.AdamW, scheduler: Any = None, **options: Any) -> None:
        self.model = Net(adapted)
        self.optimizer = optimizer([p for p in self.model.parameters() if p.requires_grad], lr=0.1, **options)
        self.scheduler = (scheduler or (lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4], 0.5)))(self.optimizer)

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = (self.model(DATA) - 1).square().mean()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    def save(self, manager: CheckpointManager, epoch: int, **more: Any) -> Path:
        return manager.save_lora_weights(self.model, epoch, self.optimizer, self.scheduler, {"val_loss": self.step()}, **more)

    def restore(self, manager: CheckpointManager, **more: Any) -> Any:
        return manager.restore(self.model, self.optimizer, self.scheduler, **more)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.fixture
def manager() -> Iterator[CheckpointManager]:
    made = CheckpointManager("runs", "trees")
    yield made
    made.close()


def saved(epochs: int, **options: Any) -> Training:
    training = Training()
    with CheckpointManager("runs", "trees", **options) as manager:
        for epoch in range(1, epochs + 1):
            training.save(manager, epoch)
    return training


# Runs ------------------------------------------------------------------------------------------------------------------


def test_runs_are_numbered_and_have_what_the_documents_say(manager: CheckpointManager) -> None:
    assert manager.run_number == 1
    assert manager.run_dir == Path("runs/run_001").absolute()
    assert manager.logs_dir == manager.run_dir / "logs"
    assert manager.metadata["experiment_name"] == manager.experiment_name == "trees"
    assert {
        "run_number",
        "created_at",
        "checkpoints",
        "best_checkpoint",
        "training_config",
        "lora_config",
    } <= manager.metadata.keys()
    assert CheckpointManager("runs", "trees").run_number == 2
    assert CheckpointManager("runs", "trees", run_number=7).run_number == 7
    assert CheckpointManager("runs", "trees").run_number == 8


def test_a_number_that_exists_is_that_run_and_keeps_its_settings() -> None:
    CheckpointManager("runs", "trees", monitor="acc", mode="max", training_config={"lr": 0.1, "path": Path("x")})
    again = CheckpointManager("runs", run_number=1)
    assert (again.experiment_name, again.monitor, again.mode) == ("trees", "acc", "max")
    assert again.metadata["training_config"]["lr"] == 0.1
    with pytest.raises(RunError, match="belongs to the experiment 'trees', not to 'animals'"):
        CheckpointManager("runs", "animals", run_number=1)


def test_the_group_of_base_trainings_has_its_own_layout() -> None:
    with CheckpointManager("runs/base_training", "base") as manager:
        path = Training().save(manager, 1)
    assert path == Path("runs/base_training/run_001/checkpoints/epoch_001").absolute()
    assert (
        CheckpointManager("runs/base_training", run_number=1).list_checkpoints()[0]["path"]
        == "base_training/run_001/checkpoints/epoch_001"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"run_number": 0}, "numbered from 1"), ({"run_number": "3"}, "run_number is '3'"), ({"mode": "best"}, "mode is 'best'"),
     ({"monitor": ""}, "monitor is ''"), ({"training_config": {"f": print}}, "cannot be written as JSON")],
)  # fmt: skip
def test_arguments_that_cannot_be_used_make_no_run(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        CheckpointManager("runs", "trees", **options)
    assert list_all_runs("runs") == []


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys; import pitstop.checkpointing as c; c.list_all_runs('x'); print({'torch', 'peft'} & {*sys.modules}, 'CheckpointManager' in dir(c))"
    assert subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True).stdout == "set() True\n"


# Exactness -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "home-made LoRA"])
@pytest.mark.parametrize(
    "parts",
    [
        {"optimizer": torch.optim.AdamW, "amsgrad": True},
        {
            "optimizer": torch.optim.SGD,
            "momentum": 0.9,
            "scheduler": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 0.9**n),
        },
        {"optimizer": torch.optim.Adafactor, "scheduler": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6)},
        {"optimizer": torch.optim.RMSprop, "scheduler": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9)},
    ],
    ids=["adamw", "sgd", "adafactor", "rmsprop"],
)
def test_a_restored_training_goes_on_bit_for_bit(manager: CheckpointManager, adapted: bool, parts: dict[str, Any]) -> None:
    training = Training(adapted, **parts)
    manager.save_base_model(training.model)
    for epoch in (1, 2, 3):
        training.save(manager, epoch)
    rest = [training.step() for _ in range(4)]
    manager.close()
    torch.manual_seed(99)
    resumed = Training(adapted, **parts)
    resumed.model.lora_B.data.fill_(3.0)
    facts = resumed.restore(CheckpointManager("runs", run_number=1))
    assert (facts["epoch"], facts["step"], facts["name"]) == (3, 3, "epoch_003")
    assert [resumed.step() for _ in range(4)] == rest
    assert bits(resumed.model) == bits(training.model)
    assert resumed.optimizer.param_groups[0]["lr"] == training.optimizer.param_groups[0]["lr"]


def test_moments_of_another_type_than_their_parameters_come_back_in_theirs(manager: CheckpointManager) -> None:
    model = nn.Linear(2, 2).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    odd = torch.tensor([[1 / 3, 2 / 3], [1 / 7, 5 / 7]])
    optimizer.state[model.weight]["exp_avg"] = odd  # float32, which load_state_dict would round to bfloat16
    manager.save_lora_weights(model, 1, optimizer)
    other = nn.Linear(2, 2).to(torch.bfloat16)
    fresh = torch.optim.AdamW(other.parameters())
    manager.restore(other, fresh)
    assert torch.equal(fresh.state[other.weight]["exp_avg"], odd)


def test_several_optimizers_a_scaler_and_what_the_loop_wants_back(manager: CheckpointManager) -> None:
    model = Net()
    both = [torch.optim.SGD([model.lora_A], lr=0.1, momentum=0.5), torch.optim.AdamW([model.lora_B])]
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    extra = {"seen": (1, 2), "ema": torch.ones(2), "best": math.inf}
    manager.save_lora_weights(model, 1, both, scaler=scaler, extra=extra)
    loaded = manager.load_lora_weights(epoch=1)
    assert len(loaded["optimizer_state_dict"]) == 2 and loaded["scheduler_state_dict"] is None
    assert (loaded["extra"]["seen"], loaded["extra"]["best"]) == ((1, 2), math.inf)
    other = torch.amp.GradScaler("cpu", init_scale=2.0)
    facts = manager.restore(model, both, scaler=other)
    assert other.get_scale() == 64.0 and torch.equal(facts["extra"]["ema"], torch.ones(2))


def test_tied_and_overlapping_tensors_are_stored_once_and_come_back_under_every_name(manager: CheckpointManager) -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    path = manager.save_lora_weights(model, 1)
    loaded = manager.load_lora_weights(epoch=1)["state_dict"]
    assert torch.equal(loaded["a.weight"], loaded["b.weight"]) and loaded.keys() == model.state_dict().keys()
    assert (path / "model.safetensors").stat().st_size < 2 * 36 + 100


# What does not fit -----------------------------------------------------------------------------------------------------


def test_a_model_that_differs_is_refused_and_left_alone(manager: CheckpointManager) -> None:
    Training().save(manager, 1)
    other = nn.ModuleDict({"inner": nn.Linear(4, 5)})
    before = bits(other)
    with pytest.raises(CheckpointError, match=r"does not fit the model: .* \(\d+ differences\)"):
        manager.restore(other)
    assert bits(other) == before


def test_an_optimizer_that_differs_is_refused(manager: CheckpointManager) -> None:
    Training().save(manager, 1)
    with pytest.raises(CheckpointError, match="saved with the optimizer AdamW, this is SGD"):
        Training(optimizer=torch.optim.SGD).restore(manager)
    fewer = Training()
    fewer.optimizer = torch.optim.AdamW([fewer.model.lora_B, fewer.model.lora_A])
    with pytest.raises(CheckpointError, match="not those of the model, or in another order"):
        fewer.restore(manager)
    manager.save_lora_weights(fewer.model, 2)
    with pytest.raises(CheckpointError, match=r"holds the state of 0 optimizer\(s\), 1 are to be restored"):
        fewer.restore(manager)


def test_what_only_pickle_could_hold_leaves_no_checkpoint(manager: CheckpointManager) -> None:
    with pytest.raises(CheckpointError, match=r"extra/f: a builtin_function_or_method cannot be saved"):
        manager.save_lora_weights(Net(), 1, extra={"f": print})
    assert manager.list_checkpoints() == [] and list(manager.checkpoints_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"epoch": 0}, "counted from 1"), ({"epoch": 1.5}, "counted from 1"), ({"epoch": 1, "step": -1}, "step is -1"),
     ({"epoch": 1, "metrics": {"loss": "low"}}, "the metric loss is str low"), ({"epoch": 1, "metrics": {"m": torch.ones(2)}}, "single numbers")],
)  # fmt: skip
def test_values_that_are_none_are_refused(manager: CheckpointManager, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        manager.save_lora_weights(Net(), **arguments)


def test_a_checkpoint_is_never_overwritten(manager: CheckpointManager) -> None:
    training = Training()
    training.save(manager, 1)
    with pytest.raises(CheckpointError, match="never overwritten"):
        training.save(manager, 1)


def test_only_one_way_to_pick_a_checkpoint_and_it_must_exist(manager: CheckpointManager) -> None:
    Training().save(manager, 1)
    with pytest.raises(SettingsError, match="three ways to pick one"):
        manager.load_lora_weights(epoch=1, load_best=True)
    with pytest.raises(CheckpointError, match="checkpoint 'epoch_009' not found"):
        manager.load_lora_weights(epoch=9)


# The base --------------------------------------------------------------------------------------------------------------


def test_the_base_is_stored_once_for_all_runs_and_loads_under_the_model_s_names() -> None:
    places = []
    for _ in range(2):
        with CheckpointManager("runs", "trees") as manager:
            model = Net(adapted=True)
            places.append(manager.save_base_model(model))
            assert manager.save_base_model(model) == places[-1]
    assert len(list(Path("runs/.base_models").glob("[0-9a-f]*"))) == 1
    assert (places[0] / "model.safetensors").samefile(places[1] / "model.safetensors")
    other = Net(adapted=True)
    other.inner.weight.data.zero_()
    loaded = CheckpointManager("runs", run_number=2).load_base_model(other)
    assert torch.equal(other.inner.weight, Net().inner.weight)
    assert not any("lora_" in name for name in loaded["state_dict"])


def test_another_base_in_the_same_run_is_refused_and_running_means_are_no_other_base(manager: CheckpointManager) -> None:
    model = Net(adapted=True)
    manager.save_base_model(model)
    model.norm.running_mean.fill_(5.0)  # as training does
    manager.save_base_model(model)
    model.inner.weight.data.fill_(1.0)
    with pytest.raises(CheckpointError, match="has another base model than this one"):
        manager.save_base_model(model)


def test_without_a_saved_base_the_checkpoint_holds_everything(manager: CheckpointManager) -> None:
    model = Net(adapted=True)
    manager.save_lora_weights(model, 1)
    assert manager.load_lora_weights()["state_dict"].keys() == model.state_dict().keys()
    manager.save_base_model(model)
    manager.save_lora_weights(model, 2)
    partial = manager.load_lora_weights()
    assert "state_dict" not in partial and "inner.weight" not in partial["lora_state_dict"]
    assert {"lora_A", "lora_B", "norm.running_mean"} <= partial["lora_state_dict"].keys()


def test_a_missing_or_damaged_base_is_named(manager: CheckpointManager) -> None:
    with pytest.raises(CheckpointError, match="has no saved base model"):
        manager.load_base_model()
    path = manager.save_base_model(Net(adapted=True)) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")  # its links are damaged with it
    with pytest.raises(CheckpointError, match=r"is damaged: .*model\.safetensors"):
        manager.load_base_model()


# Resuming --------------------------------------------------------------------------------------------------------------


def test_a_run_without_checkpoints_gives_none_and_one_with_damaged_ones_only_raises() -> None:
    assert CheckpointManager("runs", "trees").load_for_resume() is None
    saved(1)
    weights = Path("runs/run_002/lora_weights/epoch_001/model.safetensors")
    weights.write_bytes(bytes(weights.stat().st_size))
    for _ in range(2):  # also when it has been set aside by the first
        with pytest.raises(CheckpointError), CheckpointManager("runs", run_number=2) as manager:
            manager.load_for_resume()
    assert Path("runs/run_002/lora_weights/.damaged/epoch_001").is_dir()


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_taken() -> None:
    saved(3)
    weights = Path("runs/run_001/lora_weights/epoch_003/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors changed since it was saved"):
        CheckpointManager("runs", run_number=1).load_lora_weights(epoch=3)
    with CheckpointManager("runs", run_number=1) as manager:
        resumed = manager.load_for_resume()
        assert resumed["epoch"] == 2 and resumed["base_state_dict"] is None
    assert Path("runs/run_001/lora_weights/.damaged/epoch_003").is_dir()


def test_going_back_sets_the_later_line_aside_at_the_next_save_and_is_on_record() -> None:
    saved(3)
    training = Training()
    with CheckpointManager("runs", run_number=1) as manager:
        manager.log_metrics(3, {"loss": 1.0})
        training.restore(manager, checkpoint="epoch_001")
        assert manager.going_on_from == "epoch_001"
        assert [entry["name"] for entry in manager.list_checkpoints()] == ["epoch_001", "epoch_002", "epoch_003"]
        training.save(manager, 2)
        assert [entry["name"] for entry in manager.list_checkpoints()] == ["epoch_001", "epoch_002"]
        assert manager.metadata["resumes"][0]["checkpoint"] == "epoch_001"
    assert (Path("runs/run_001/logs/metrics.jsonl")).read_text() == ""
    assert {path.name for path in Path("runs/run_001/lora_weights/.superseded").iterdir()} == {"epoch_002", "epoch_003"}


def logged(metrics: str = "metrics.jsonl") -> list[int]:
    return [row["step"] for row in read_rows(Path("runs/run_001/logs") / metrics)]


def test_a_resume_cuts_the_log_at_the_checkpoint_and_what_is_logged_before_the_next_save_stays() -> None:
    """Logging every 2 steps, saving every 4, killed after step 11: each row is there once, in order."""
    training = Training()
    with CheckpointManager("runs", "trees") as manager:
        for step in range(1, 12):
            if step % 2 == 0:
                manager.log_metrics(step, {"loss": 1.0 / step})
            if step % 4 == 0:
                training.save(manager, step)
    with CheckpointManager("runs", run_number=1) as manager:
        assert training.restore(manager)["step"] == 8
        assert logged() == [2, 4, 6, 8] and logged("metrics.superseded.jsonl") == [10]
        for step in range(9, 17):
            if step % 2 == 0:
                manager.log_metrics(step, {"loss": 1.0 / step})
            if step % 4 == 0:
                training.save(manager, step)
    assert logged() == [2, 4, 6, 8, 10, 12, 14, 16]


def test_a_row_after_going_back_sets_the_checkpoints_of_the_later_line_aside_with_their_rows() -> None:
    """Else a process that dies before its first save would leave checkpoints whose rows are gone."""
    training = Training()
    with CheckpointManager("runs", "trees") as manager:
        for epoch in (1, 2, 3):
            manager.log_metrics(epoch, {"loss": 1.0})
            training.save(manager, epoch)
    with CheckpointManager("runs", run_number=1) as manager:
        training.restore(manager, checkpoint="epoch_001")
        assert logged() == [1, 2, 3] and len(manager.list_checkpoints()) == 3, "looking alone changes nothing"
        manager.log_metrics(2, {"loss": 0.5})
        assert logged() == [1, 2] and logged("metrics.superseded.jsonl") == [2, 3]
        assert [entry["name"] for entry in manager.list_checkpoints()] == ["epoch_001"] and manager.going_on_from is None
    with CheckpointManager("runs", run_number=1) as manager:
        assert training.restore(manager)["name"] == "epoch_001" and logged() == [1]


def test_going_back_to_the_earlier_of_two_checkpoints_of_a_step_sets_the_later_one_aside() -> None:
    training = Training()
    with CheckpointManager("runs", "trees") as manager:
        training.save(manager, 1, step=10)
        training.save(manager, 1, step=10, name="checkpoint-10")
    with CheckpointManager("runs", run_number=1) as manager:
        training.restore(manager, checkpoint="epoch_001")
        manager.log_metrics(11, {"loss": 0.5})
        assert [entry["name"] for entry in manager.list_checkpoints()] == ["epoch_001"]
        assert manager.metadata["progress"]["step"] == 10
    with CheckpointManager("runs", run_number=1) as manager:
        assert training.restore(manager)["name"] == "epoch_001"
        training.save(manager, 2, step=20)
        assert [entry["name"] for entry in manager.list_checkpoints()] == ["epoch_001", "epoch_002"]


def test_a_row_is_kept_where_the_record_of_its_resume_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    saved(2)
    training = Training()
    manager = CheckpointManager("runs", run_number=1)
    training.restore(manager, checkpoint="epoch_001")

    def full(run: RunDirectory, *arguments: Any, **details: Any) -> None:
        raise ResourceError("metadata.json could not be saved")

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "record_resume", full)
        with pytest.raises(ResourceError, match=r"metadata\.json"):
            manager.log_metrics(2, {"loss": 0.5})
    assert logged() == [2] and manager.metadata["resumes"] == []
    manager.log_metrics(3, {"loss": 0.25})
    assert logged() == [2, 3] and [resume["checkpoint"] for resume in manager.metadata["resumes"]] == ["epoch_001"]
    manager.close()


@pytest.mark.parametrize("library", ["Trainer", "Lightning"])
def test_a_disk_that_takes_no_rows_does_not_end_the_training_of_a_library(
    library: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pitstop.checkpointing.callbacks import DistributedCheckpointCallback, PitstopCallback

    manager = CheckpointManager("runs", "trees")
    trainer, lightning = PitstopCallback(manager), DistributedCheckpointCallback(manager, "loss")

    def log(step: int) -> None:
        if library == "Trainer":
            trainer.on_log(None, SimpleNamespace(global_step=step, epoch=0.5, is_world_process_zero=True), None, {"loss": 1.0})
        else:
            epoch = SimpleNamespace(current_epoch=step, global_step=step, callback_metrics={"loss": 1.0})
            lightning.on_train_epoch_end(epoch, nn.Linear(1, 1))

    def full(log: MetricsLog, row: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "append", full)
        for step in (1, 2):
            log(step)
    assert [record.message.endswith("Training goes on.") for record in caplog.records] == [True], "told once"
    log(3)
    assert logged() == [3]
    manager.close()


def test_rows_of_a_process_that_never_saved_go_when_the_training_begins_again() -> None:
    with CheckpointManager("runs", "trees") as manager:
        for step in (0, 1, 2):
            manager.log_metrics(step, {"loss": 1.0})
    with CheckpointManager("runs", run_number=1) as manager:
        assert manager.load_for_resume() is None
        assert logged() == [] and logged("metrics.superseded.jsonl") == [0, 1, 2]
        manager.log_metrics(0, {"loss": 2.0})
        manager.log_metrics(1, {"loss": 2.0})
        assert manager.load_for_resume() is None  # another attempt in the same process, whose baseline stays
        assert logged() == [0]


@pytest.mark.parametrize("library", ["Trainer", "Lightning"])
def test_where_a_library_goes_on_from_a_checkpoint_of_its_own_the_rows_up_to_it_stay(library: str) -> None:
    from pitstop.checkpointing.callbacks import DistributedCheckpointCallback, PitstopCallback

    with CheckpointManager("runs", "trees") as before:
        for step in (5, 10, 15):
            before.log_metrics(step, {"loss": 1.0})
    manager = CheckpointManager("runs", "trees", run_number=1)
    if library == "Lightning":
        trainer = SimpleNamespace(world_size=1, current_epoch=2, global_step=10, max_steps=-1, max_epochs=8)
        DistributedCheckpointCallback(manager, save_base_model=False).on_train_start(trainer, nn.Linear(1, 1))
    else:
        arguments = SimpleNamespace(world_size=1, save_total_limit=None)
        state = SimpleNamespace(global_step=10, max_steps=40, num_train_epochs=8)
        PitstopCallback(manager, save_base_model=False).on_train_begin(arguments, state, None)
    assert (logged(), logged("metrics.superseded.jsonl")) == ([5, 10], [15])
    manager.close()


def test_a_disk_that_refuses_the_last_rows_is_told_and_the_run_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = CheckpointManager("runs", "trees")
    manager.log_metrics(1, {"loss": 1.0})

    def full(log: MetricsLog) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "close", full)
        with pytest.raises(ResourceError, match=r"metrics\.jsonl"):
            manager.close()
    with CheckpointManager("runs", "trees", run_number=1) as another:
        another.log_metrics(2, {"loss": 1.0})


def test_a_damaged_newest_checkpoint_takes_its_rows_along() -> None:
    with CheckpointManager("runs", "trees") as manager:
        for epoch in (1, 2, 3):
            manager.log_metrics(epoch, {"loss": 1.0})
            Training().save(manager, epoch)
    weights = Path("runs/run_001/lora_weights/epoch_003/model.safetensors")
    weights.write_bytes(bytes(weights.stat().st_size))
    with CheckpointManager("runs", run_number=1) as manager:
        assert manager.load_for_resume()["epoch"] == 2 and logged() == [1, 2]


def test_only_one_process_writes_a_run_and_the_others_may_read(manager: CheckpointManager) -> None:
    Training().save(manager, 1)
    other = CheckpointManager("runs", run_number=1)
    assert other.load_lora_weights(load_last=True)["epoch"] == 1
    with pytest.raises(RunError, match="in use by process"):
        Training().save(other, 2)
    manager.close()
    Training().save(other, 2)


def test_the_run_that_was_cut_off_is_found() -> None:
    assert unfinished_run("runs", "trees") is None
    saved(1)
    assert unfinished_run("runs", "trees") == 1
    CheckpointManager("runs", run_number=1).finish()
    assert unfinished_run("runs", "trees") is None
    CheckpointManager("runs/base_training", "trees")
    assert (unfinished_run("runs", "trees"), unfinished_run("runs/base_training", "trees")) == (None, 1)
    assert unfinished_run("runs/base_training", "animals") is None


# Order, summaries ------------------------------------------------------------------------------------------------------


def test_cleanup_keeps_the_newest_and_the_best(manager: CheckpointManager) -> None:
    model = Net()
    for epoch, loss in enumerate([0.5, 0.1, 0.4, 0.3, 0.2], 1):
        manager.save_lora_weights(model, epoch, metrics={"val_loss": loss})
    assert manager.cleanup_old_checkpoints(keep_last_n=2) == ["epoch_001", "epoch_003"]
    assert [entry["name"] for entry in manager.metadata["checkpoints"]] == ["epoch_002", "epoch_004", "epoch_005"]
    assert manager.cleanup_old_checkpoints(keep_last_n=1, keep_best=False) == ["epoch_002", "epoch_004"]
    assert manager.get_best_checkpoint_info()["name"] == "epoch_005"
    assert (manager.checkpoints_dir / "best").readlink() == Path("epoch_005")
    with pytest.raises(CheckpointError, match="at least one"):
        manager.cleanup_old_checkpoints(keep_last_n=0)


def test_best_follows_the_monitored_metric_also_for_the_commands(pitstop: Cli) -> None:
    with CheckpointManager("runs", "trees", monitor="val_loss") as manager:
        model = Net()
        manager.set_monitor("acc", "max")
        for epoch, value in enumerate([0.2, 0.9, 0.5], 1):
            manager.save_lora_weights(model, epoch, metrics={"acc": value, "val_loss": value})
        best = manager.get_best_checkpoint_info()
        assert (best["name"], best["metric"], best["mode"], best["value"]) == ("epoch_002", "acc", "max", 0.9)
        assert "epoch_002  step 2  acc=0.9 val_loss=0.9  ← best" in manager.get_run_summary()
    assert CheckpointManager("runs", run_number=1).load_lora_weights(load_best=True)["epoch"] == 2
    assert pitstop("prune", "1", "--keep-last-n", "1", "--base-dir", "runs").code == 0
    assert {path.name for path in Path("runs/run_001/lora_weights").iterdir()} >= {"epoch_002", "epoch_003", "best", "last"}


def test_all_runs_are_listed(manager: CheckpointManager) -> None:
    Training().save(manager, 1)
    CheckpointManager("runs", "animals")
    runs = list_all_runs("runs")
    assert [(run["run_number"], run["experiment_name"], run["checkpoints_count"]) for run in runs] == [
        (1, "trees", 1),
        (2, "animals", 0),
    ]
    assert runs[0]["status"] == "running" and runs[0]["created_at"]


def test_a_subclass_may_do_more_when_saving() -> None:
    class Mine(CheckpointManager):
        told: list[str] = []  # noqa: RUF012 - of the test

        def save_lora_weights(self, *args: Any, **kwargs: Any) -> Path:
            path = super().save_lora_weights(*args, **kwargs)
            self.told.append(path.name)
            return path

    with Mine("runs", "trees") as manager:
        Training().save(manager, 1)
    assert Mine.told == ["epoch_001"]


def test_how_it_ended_is_on_record() -> None:
    with pytest.raises(ValueError), CheckpointManager("runs", "trees") as manager:
        Training().save(manager, 1)
        raise ValueError("no")
    assert manager.metadata["status"] == "failed" and manager.metadata["status_reason"] == "ValueError: no"
    with pytest.raises(KeyboardInterrupt), CheckpointManager("runs", run_number=1) as manager:
        manager.load_for_resume()
        raise KeyboardInterrupt
    assert manager.run.status() == "interrupted"
    with pytest.raises(SettingsError, match="a run ends as one of"):
        manager.finish("done")


def test_a_full_disk_leaves_the_older_checkpoints(manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training()
    training.save(manager, 1)
    monkeypatch.setattr(type(manager.run.storage), "free_space", lambda self, path: 100)
    with pytest.raises(ResourceError):
        training.save(manager, 2)
    assert [entry["name"] for entry in manager.list_checkpoints()] == ["epoch_001"]
    assert not list(manager.checkpoints_dir.glob(".tmp-*"))


# The commands ----------------------------------------------------------------------------------------------------------


def test_the_commands_take_such_a_run(pitstop: Cli) -> None:
    saved(3, training_config={"learning_rate": 0.1})
    [row] = pitstop("list-runs", "--base-dir", "runs", "--json").json()
    assert (row["run"], row["checkpoints"], row["status"]) == ("run_001", 3, "interrupted")
    shown = pitstop("show", "1@best", "--verify", "--base-dir", "runs", "--json").json()
    assert len(shown["checkpoints"]) == 3 and {entry["state"] for entry in shown["checkpoints"]} == {"verified"}
    assert pitstop("verify", "--base-dir", "runs").code == 0
    assert pitstop("prune", "1", "--keep-last-n", "1", "--base-dir", "runs").code == 0
    assert len(CheckpointManager("runs", run_number=1).list_checkpoints()) in (1, 2)  # the best one may be another
    assert pitstop("delete", "1", "--yes", "--base-dir", "runs").code == 0
    assert list_all_runs("runs") == []


@pytest.mark.parametrize("command", ["resume", "push"])
def test_the_commands_that_need_a_training_of_pitstop_say_so(pitstop: Cli, command: str) -> None:
    saved(1)
    before = json.dumps(CheckpointManager("runs", run_number=1).metadata)
    result = pitstop(command, "1", "--base-dir", "runs")
    assert result.code == 2
    assert f"run_001 was made by a program through CheckpointManager, so `pitstop {command}` cannot take it" in result.stderr
    assert json.dumps(CheckpointManager("runs", run_number=1).metadata) == before


def test_a_run_of_pitstop_train_is_read_and_not_written() -> None:
    """Its own checkpoints hold settings that only ``pitstop train`` knows, and ``resume`` would refuse one of ours among them."""
    from pitstop.checkpointing.runs.create import create_run

    run = create_run("runs", name="trained", config={"naming": {"experiment_name": "ner"}}, metadata={})
    manager = CheckpointManager("runs", run_number=1)
    assert manager.experiment_name == "ner" and manager.list_checkpoints() == [] and "trained" in manager.get_run_summary()
    before = (run.path / "metadata.json").read_bytes()
    with pytest.raises(RunError, match="run_001 was made by `pitstop train`, which alone writes it"):
        Training().save(manager, 1)
    assert (run.path / "metadata.json").read_bytes() == before


def test_damage_is_found_by_verify_and_metadata_is_rebuilt(pitstop: Cli) -> None:
    saved(2)
    Path("runs/run_001/metadata.json").write_text("{")
    assert pitstop("verify", "--base-dir", "runs").code == 4
    with CheckpointManager("runs", run_number=1) as manager:
        assert manager.load_for_resume()["epoch"] == 2
        assert manager.experiment_name == "trees" and len(manager.metadata["checkpoints"]) == 2


def test_no_file_of_such_a_run_is_a_pickle() -> None:
    saved(1)
    for path in Path("runs").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.suffix in (".safetensors", ".json", ".jsonl") or path.name == ".lock", path
