"""Small trainings in other people's loops, for children of ``support.own_process``: they may kill themselves at a step."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing import CheckpointManager
from pitstop.checkpointing.disk.metrics_log import read_rows

RUNS = Path("runs")
TIMES = ("runtime", "per_second", "total_flos")


def digest(*parts: Any) -> str:
    """One text for tensors and plain values, the same only where every bit is."""
    whole = hashlib.sha256()
    for part in parts:
        for name, value in sorted(part.items()):
            tensor = isinstance(value, torch.Tensor)
            whole.update(f"{name}\0".encode())
            whole.update(
                value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor else repr(value).encode()
            )
    return whole.hexdigest()


def optimizer_values(optimizer: Any) -> dict[str, Any]:
    """An optimizer's state as ``digest`` takes it."""
    content = optimizer.state_dict()
    flat = {f"{number} {key}": value for number, values in content["state"].items() for key, value in values.items()}
    return flat | {f"group {number}": sorted(group.items()) for number, group in enumerate(content["param_groups"])}


def logged_rows(manager: CheckpointManager) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a run, but for times."""
    rows = read_rows(manager.run.metrics_path)
    return [{key: value for key, value in row.items() if not key.endswith(TIMES)} for row in rows]


def die(step: int, stop: int | None) -> None:
    """``kill -9`` at step ``stop``."""
    if step == stop:
        os.kill(os.getpid(), signal.SIGKILL)


# Transformers and TRL --------------------------------------------------------------------------------------------------


class Tokens(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Random sequences, the same ones each time."""

    def __init__(self, count: int) -> None:
        self.rows = torch.randint(5, 300, (count, 10), generator=torch.Generator().manual_seed(count))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def language_model(path: Path, *, adapter: bool) -> Any:
    """The tiny model with dropout, so that the random state matters, and perhaps a LoRA adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attention_dropout=0.1)
    if not adapter:
        return model
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def killer(stop: int | None) -> Any:
    """A callback that kills the process in step ``stop``."""
    from transformers import TrainerCallback

    class Killer(TrainerCallback):  # type: ignore[misc]
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            die(state.global_step + 1, stop)

    return Killer()


def arguments(**changes: Any) -> dict[str, Any]:
    """Eighteen steps in three epochs, evaluated, logged and saved every third step."""
    return {
        "output_dir": "out", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 3,
        "save_strategy": "steps", "save_steps": 3, "logging_steps": 3, "eval_strategy": "steps", "eval_steps": 3, "report_to": [],
        "use_cpu": True, "learning_rate": 1e-2, "seed": 3, "disable_tqdm": True, "bf16": False,
    } | changes  # fmt: skip


def train_with_transformers(
    path: Path,
    run_number: int | None = None,
    *,
    stop: int | None = None,
    adapter: bool = True,
    callbacks: Any = (),
    checkpoint: str | None = None,
    resume: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Train or resume run ``run_number`` with ``Trainer``; how it ended."""
    from transformers import Trainer, TrainingArguments

    from pitstop.checkpointing.callbacks import PitstopCallback

    callback = PitstopCallback(RUNS, "t", run_number)
    model = language_model(path, adapter=adapter)
    trainer = Trainer(
        model,
        TrainingArguments(**arguments(**changes)),
        train_dataset=Tokens(22),
        eval_dataset=Tokens(6),
        callbacks=[callback, killer(stop), *callbacks],
    )
    return finish_trainer(trainer, callback, checkpoint, resume=resume)


def train_with_trl(path: Path, run_number: int | None = None, *, stop: int | None = None, **changes: Any) -> dict[str, Any]:
    """The same with TRL's ``SFTTrainer`` on texts."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from pitstop.checkpointing.callbacks import PitstopCallback

    texts = Dataset.from_dict({"text": [f"Case {number}: the patient took aspirin and rested." for number in range(22)]})
    callback = PitstopCallback(RUNS, "t", run_number)
    trainer = SFTTrainer(
        language_model(path, adapter=True),
        SFTConfig(**arguments(max_length=32, gradient_checkpointing=False, **changes)),
        train_dataset=texts,
        eval_dataset=texts.select(range(6)),
        processing_class=AutoTokenizer.from_pretrained(path),
        callbacks=[callback, killer(stop)],
    )
    return finish_trainer(trainer, callback)


def finish_trainer(trainer: Any, callback: Any, checkpoint: str | None = None, *, resume: bool = True) -> dict[str, Any]:
    """Train from where the run stands to the end."""
    from pitstop.checkpointing.callbacks import resume_from

    directory = resume_from(trainer, checkpoint) if resume else None
    trainer.train(resume_from_checkpoint=directory)
    rows = [row for row in trainer.state.log_history if "train_runtime" not in row]
    return {
        "resumed": directory is not None,
        "left": sorted(path.name for path in callback.manager.run_dir.glob(".tmp-*")),
        "weights": digest(trainer.model.state_dict()),
        "optimizer": digest(optimizer_values(trainer.optimizer.optimizer)),
        "log": [{key: value for key, value in sorted(row.items()) if not key.endswith(TIMES)} for row in rows],
        "rows": logged_rows(callback.manager),
        "best": callback.manager.get_best_checkpoint_info()["name"],
        "checkpoints": [entry["name"] for entry in callback.manager.list_checkpoints()],
        "status": callback.manager.metadata["status"],
        "trainer_files": sorted(path.name for path in Path("out").rglob("*")) if Path("out").exists() else [],
    }


# Lightning -------------------------------------------------------------------------------------------------------------


def lightning_module(stop: int | None = None, *, frozen: bool = False) -> Any:
    """Dropout, running means, and a scheduler that steps by the epoch."""
    import pytorch_lightning as pl

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            layers = torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
            self.net = torch.nn.Sequential(*layers)
            self.net[0].requires_grad_(not frozen)
            self.seen = 0

        def training_step(self, batch: Any, index: int) -> Any:
            die(self.global_step + 1, stop)
            self.seen += 1
            loss = self.net(batch[0]).square().mean()
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self.net(batch[0]).square().mean())

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["seen"] = self.seen

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.seen = checkpoint["seen"]

    return Module()


def lightning_data() -> Any:
    """A data module with shuffling."""
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader, TensorDataset

    generator = torch.Generator().manual_seed(0)
    training, validation = (TensorDataset(torch.randn(count, 4, generator=generator)) for count in (22, 8))

    class Data(pl.LightningDataModule):  # type: ignore[misc]
        def train_dataloader(self) -> Any:
            return DataLoader(training, 4, shuffle=True)

        def val_dataloader(self) -> Any:
            return DataLoader(validation, 4)

    return Data()


def lightning_trainer(callbacks: list[Any], **changes: Any) -> Any:
    """A quiet trainer on the CPU."""
    import pytorch_lightning as pl

    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "default_root_dir": ".",
    }
    return pl.Trainer(**({"max_epochs": 5, "accumulate_grad_batches": 2, "callbacks": callbacks} | quiet | changes))


def counting() -> Any:
    """A callback with a state of its own, which a resume must put back: the epochs it has seen end."""
    import pytorch_lightning as pl

    class Counting(pl.Callback):  # type: ignore[misc]
        count = 0

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.count = state_dict["count"]

    return Counting()


def step_rows(manager: CheckpointManager) -> Any:
    """A callback that logs the loss of every second step itself."""
    import pytorch_lightning as pl

    class StepRows(pl.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx % 2 and trainer.global_step % 2 == 0:  # two batches a step
                manager.log_metrics(trainer.global_step, {"loss": outputs["loss"].item()})

    return StepRows()


def train_with_lightning(
    run_number: int | None = None,
    *,
    stop: int | None = None,
    frozen: bool = False,
    resume: bool = True,
    save_every: int = 1,
    **changes: Any,
) -> dict[str, Any]:
    """Train or resume run ``run_number``; how it ended."""
    from pytorch_lightning.callbacks import EarlyStopping

    from pitstop.checkpointing.callbacks import DistributedCheckpointCallback, ResumeFromCheckpointCallback

    manager = CheckpointManager(RUNS, "t", run_number)
    module = lightning_module(stop, frozen=frozen)
    stopping, counter = EarlyStopping("val_loss", patience=9), counting()
    first = [ResumeFromCheckpointCallback(manager)] if resume else []
    torch.manual_seed(9)
    trainer = lightning_trainer(
        [
            *first,
            DistributedCheckpointCallback(manager, monitor="val_loss", keep_last_n=2, save_every_n_epochs=save_every),
            stopping,
            counter,
            step_rows(manager),
        ],
        **changes,
    )
    trainer.fit(module, datamodule=lightning_data())
    return {
        "weights": digest(module.state_dict()),
        "optimizer": digest(optimizer_values(trainer.optimizers[0])),
        "rate": trainer.optimizers[0].param_groups[0]["lr"],
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "seen": module.seen,
        "best score": stopping.best_score.item(),
        "counted": counter.count,
        "logged up to": trainer.fit_loop.epoch_loop._batches_that_stepped,  # where a logger's next row goes
        "rows": logged_rows(manager),
        "best": manager.get_best_checkpoint_info()["name"],
        "checkpoints": [entry["name"] for entry in manager.list_checkpoints()],
        "status": manager.metadata["status"],
    }
