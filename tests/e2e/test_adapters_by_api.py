"""The Python API with PEFT and Transformers models: what other tools read of its checkpoints, and that all that trains comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.own_process import in_child
from support.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, made in a child: this process must not compute with torch."""
    import peft  # noqa: F401 - once here, not in each child
    import pytorch_lightning  # noqa: F401
    import transformers.trainer  # noqa: F401

    path = tmp_path_factory.mktemp("tiny")
    in_child(lambda: str(make_tiny_model(path)))
    return path


def adapted(path: Path, seed: int = 1) -> Any:
    """LoRA on attention, a whole head that trains, and an embedding that the user unfroze behind PEFT's back."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"))
    model.get_base_model().model.embed_tokens.weight.requires_grad_(True)
    return model


def changed(model: Any) -> Any:
    """Every parameter that trains moved by something."""
    import torch

    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator)
    return model


def same(one: Any, other: Any) -> bool:
    import torch

    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_all_that_trains_comes_back_by_restore_and_by_the_documented_lines(tiny: Path) -> None:
    def work() -> list[Any]:
        from pitstop.checkpointing import CheckpointManager

        with CheckpointManager("runs", "peft") as manager:
            model = adapted(tiny)
            base = manager.save_base_model(model)
            path = manager.save_lora_weights(changed(model), 1, metrics={"val_loss": 1.0})
        restored = adapted(tiny, seed=2)
        CheckpointManager("runs", run_number=1).restore(restored)
        manager = CheckpointManager("runs", run_number=1)
        by_hand = adapted(tiny, seed=3)
        by_hand.get_base_model().model.norm.weight.data.zero_()  # of the base, which is loaded too
        by_hand.load_state_dict(manager.load_base_model()["state_dict"], strict=False)
        by_hand.load_state_dict(manager.load_lora_weights(load_best=True)["lora_state_dict"], strict=False)
        return [same(restored, model), same(by_hand, model), sorted(each.name for each in path.iterdir()), sorted(each.name for each in base.iterdir()),
                manager.metadata["method"], manager.metadata["lora_config"]["r"]]  # fmt: skip

    restored, by_hand, files, base, method, rank = in_child(work)
    assert restored and by_hand
    assert files == [
        "MANIFEST.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "beside_adapter.safetensors",
        "rng_state_0.json",
        "trainer_state.json",
    ]
    assert base == ["BASE_MANIFEST.json", "config.json", "model.safetensors"]
    assert (method, rank) == ("lora", 4)


def test_peft_and_transformers_read_what_is_saved(tiny: Path) -> None:
    def work() -> list[bool]:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        from pitstop.checkpointing import CheckpointManager

        tokens = torch.arange(5, 15)[None]
        with CheckpointManager("runs", "peft") as manager:
            model = adapted(tiny)
            model.get_base_model().model.embed_tokens.weight.requires_grad_(False)
            base = manager.save_base_model(model)
            manager.save_lora_weights(changed(model), 1, metrics={"val_loss": 1.0})
            whole = changed(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32))
            full = manager.save_lora_weights(whole, 2)
        again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "runs/run_001/lora_weights/best")
        equal = torch.equal(again.eval()(tokens).logits, model.eval()(tokens).logits)
        alone = AutoModelForCausalLM.from_pretrained(full)
        return [equal, torch.equal(alone.eval()(tokens).logits, whole.eval()(tokens).logits)]

    assert in_child(work) == [True, True]


def test_an_adapter_does_not_go_onto_another_kind_of_model(tiny: Path) -> None:
    def work() -> list[str]:
        from transformers import AutoModelForCausalLM

        from pitstop.checkpointing import CheckpointManager
        from pitstop.configs.errors import CheckpointError

        said = []
        manager = CheckpointManager("runs", "peft")
        model = adapted(tiny)
        plain = AutoModelForCausalLM.from_pretrained(tiny)
        manager.save_lora_weights(model, 1)
        manager.save_lora_weights(plain, 2)
        model.add_adapter("second", model.peft_config["default"])
        for attempt in (
            lambda: manager.restore(plain, checkpoint="epoch_001"),
            lambda: manager.restore(adapted(tiny)),
            lambda: manager.save_lora_weights(model, 3),
        ):
            try:
                attempt()
            except CheckpointError as error:
                said.append(error.message.replace(str(manager.checkpoints_dir), "…"))
        return said

    assert in_child(work) == [
        "…/epoch_001 holds a PEFT adapter; the model is a LlamaForCausalLM without one",
        "…/epoch_002 holds a whole model; this one has a PEFT adapter on it",
        "the model has the adapters default, second; a checkpoint holds one",
    ]


def test_a_model_inside_a_lightning_module_is_saved_as_an_adapter_by_a_manager_of_ones_own(tiny: Path) -> None:
    def work() -> list[Any]:
        import pytorch_lightning as pl
        import torch
        from peft import PeftModel
        from torch.utils.data import DataLoader
        from transformers import AutoModelForCausalLM

        from pitstop.checkpointing import CheckpointManager
        from pitstop.checkpointing.callbacks import DistributedCheckpointCallback
        from support.loops import Tokens, language_model, lightning_trainer

        told = []

        class Mine(CheckpointManager):
            def save_lora_weights(self, *args: Any, **kwargs: Any) -> Path:
                path = super().save_lora_weights(*args, **kwargs)
                told.append(path.name)
                return path

        class Saving(DistributedCheckpointCallback):
            def model_of(self, pl_module: Any) -> Any:
                return pl_module.inner

        class Module(pl.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.inner = language_model(tiny, adapter=True)

            def training_step(self, batch: Any, index: int) -> Any:
                loss = self.inner(**batch).loss
                self.log("train_loss", loss, on_step=False, on_epoch=True)
                return loss

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=1.0)

        module = Module()
        lightning_trainer([Saving(Mine("runs", "inner"))], max_epochs=2, accumulate_grad_batches=1).fit(
            module, DataLoader(Tokens(4), 2)
        )
        base = AutoModelForCausalLM.from_pretrained("runs/run_001/base_model")
        again = PeftModel.from_pretrained(base, "runs/run_001/lora_weights/last").eval()
        tokens = Tokens(4)[0]["input_ids"][None]
        return [told, torch.equal(again(tokens).logits, module.inner.eval()(tokens).logits)]

    assert in_child(work) == [["epoch_001", "epoch_002"], True]
