"""What a training leaves on disk and says."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from support.forked import Child, kill_at_step, pitstop
from support.training import arguments, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def base_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_run_directory_has_the_documented_layout(tiny_model: Path, data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir, experiment_name="layout"))
    assert ended.code == 0, ended.output
    run = base_dir / "run_001"
    assert {p.name for p in run.iterdir()} >= {"config.json", "metadata.json", "base_model", "lora_weights", "logs"}
    assert checkpoints(run) == ["epoch_001", "epoch_002"]
    assert (run / "lora_weights/last").resolve().name == "epoch_002"
    record = metadata(run)
    assert record["status"] == "completed"
    assert record["experiment_name"] == "layout"
    assert (base_dir / "by-name" / record["name"]).resolve() == run.resolve()
    assert [entry["path"] for entry in record["checkpoints"]] == [
        "run_001/lora_weights/epoch_001",
        "run_001/lora_weights/epoch_002",
    ]
    assert record["best_checkpoint"]["metrics"]["val_loss"] == min(
        entry["metrics"]["val_loss"] for entry in record["checkpoints"]
    )
    assert {"train.log", "metrics.jsonl"} <= {p.name for p in (run / "logs").iterdir()}
    first = rows(run)[0]
    assert {"step", "epoch", "loss", "learning_rate", "tokens"} <= first.keys()


def test_training_lowers_the_loss_and_says_nothing_on_stderr(
    tiny_model: Path, data: Path, base_dir: Path, tmp_path: Path
) -> None:
    settings = {"epochs": 10, "learning_rate": 3e-2, "lora_dropout": 0.0, "lora_rank": 16}
    errors = os.open(tmp_path / "stderr", os.O_CREAT | os.O_WRONLY)
    ended = pitstop(*arguments(tiny_model, data, base_dir, **settings), prepare=lambda: os.dup2(errors, 2))
    os.close(errors)
    assert ended.code == 0 and (tmp_path / "stderr").read_text() == "", ended.output
    losses = [row["val_loss"] for row in rows(base_dir / "run_001") if "val_loss" in row]
    assert min(losses) < losses[0] - 0.1  # the frozen random head leaves the adapter little to work with


def test_the_first_example_is_shown_and_not_logged(tiny_model: Path, data: Path, base_dir: Path) -> None:
    shown = "The first example; what is learnt is in ⟦ ⟧ (pitstop preview shows more):\n<|start|>user↵Case 0: the patient took aspirin."
    ended = pitstop(*arguments(tiny_model, data, base_dir, max_steps=1))
    assert shown in ended.output and "⟦- aspirin<|end|>⟧\n" in ended.output
    assert "⟦" not in (base_dir / "run_001" / "logs" / "train.log").read_text()
    assert "⟦" not in pitstop(*arguments(tiny_model, data, base_dir, max_steps=1), "--quiet").output


def test_base_model_is_saved_once_for_two_runs(tiny_model: Path, data: Path, base_dir: Path) -> None:
    first = pitstop(*arguments(tiny_model, data, base_dir, max_steps=1))
    second = pitstop(*arguments(tiny_model, data, base_dir, max_steps=1))
    assert "Saving the 4-bit base model once" in first.output
    assert "Saving the" not in second.output
    weights = [base_dir / run / "base_model" / "model.safetensors" for run in ("run_001", "run_002")]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino
    assert metadata(base_dir / "run_001")["name"] != metadata(base_dir / "run_002")["name"]


def test_adapter_loads_with_plain_peft_and_gives_the_same_logits(
    tiny_model: Path, data: Path, base_dir: Path, tmp_path: Path
) -> None:
    """The logits of the trained model, taken inside training, equal those of ``PeftModel.from_pretrained``."""
    out = tmp_path / "logits.txt"

    def keep_logits() -> None:
        import torch

        from pitstop.trainers.loop.loop import Loop

        original = Loop.run

        def run(self: Loop) -> object:
            outcome = original(self)
            model = self.engine.model
            model.eval()
            model.get_base_model().set_attn_implementation("sdpa")
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                logits = model.base_model.model(input_ids=torch.arange(10)[None] + 5).logits
            out.write_text(json.dumps(logits.float().flatten().tolist()))
            return outcome

        Loop.run = run  # type: ignore[method-assign]

    assert pitstop(*arguments(tiny_model, data, base_dir, method="lora"), prepare=keep_logits).code == 0

    def plain_peft() -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(base_dir / "run_001/base_model", dtype=torch.bfloat16)
        model = PeftModel.from_pretrained(base, base_dir / "run_001/lora_weights/last").eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=torch.arange(10)[None] + 5).logits.float().flatten()
        wanted = torch.tensor(json.loads(out.read_text()))
        assert torch.allclose(logits, wanted, atol=2e-2), float((logits - wanted).abs().max())

    ended = pitstop("--version", prepare=plain_peft)
    assert ended.code == 0, ended.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_signal_saves_a_checkpoint_and_exits_with_its_code(
    tiny_model: Path, data: Path, base_dir: Path, number: signal.Signals, code: int
) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir), prepare=kill_at_step(4, number))
    assert ended.code == code, ended.output
    assert checkpoints(base_dir / "run_001") == ["checkpoint-4"]
    assert metadata(base_dir / "run_001")["status"] == "interrupted"
    assert "pitstop resume 1" in ended.output


def test_usr1_saves_and_training_goes_on(tiny_model: Path, data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir), prepare=kill_at_step(4, signal.SIGUSR1))
    assert ended.code == 0, ended.output
    assert checkpoints(base_dir / "run_001") == ["checkpoint-4", "epoch_001", "epoch_002"]


def test_second_interrupt_leaves_at_once_and_the_run_can_be_resumed(tiny_model: Path, data: Path, base_dir: Path) -> None:
    child = Child(*arguments(tiny_model, data, base_dir, epochs=2000, save_strategy="steps", save_steps=5))
    child.wait_for("saved checkpoint-5")
    os.kill(child.pid, signal.SIGSTOP)  # so that both arrive within one step
    child.send(signal.SIGINT)
    child.send(signal.SIGCONT)
    child.wait_for("Ctrl+C")
    child.send(signal.SIGINT)
    ended = child.wait()
    assert ended.code == 130, ended.output
    assert pitstop("resume", 1, "--base-dir", base_dir, "--max-steps", 40, "--epochs", 2).code == 0


def test_evaluation_share_is_held_out_of_the_training_data(tiny_model: Path, data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir, eval_dataset=None, eval_fraction=0.25))
    assert ended.code == 0, ended.output
    record = metadata(base_dir / "run_001")["data"]
    assert (record["used"], record["eval"]["used"]) == (9, 3)


def test_without_evaluation_the_training_loss_decides(tiny_model: Path, data: Path, base_dir: Path) -> None:
    assert pitstop(*arguments(tiny_model, data, base_dir, eval_dataset=None)).code == 0
    best = metadata(base_dir / "run_001")["best_checkpoint"]
    assert best["metric"] == "train_loss"


def test_retention_keeps_the_last_and_the_best(tiny_model: Path, data: Path, base_dir: Path) -> None:
    assert pitstop(*arguments(tiny_model, data, base_dir, epochs=5, keep_last_n=2, learning_rate=1e-3)).code == 0
    run = base_dir / "run_001"
    kept = checkpoints(run)
    assert {"epoch_004", "epoch_005"} <= set(kept)
    assert len(kept) <= 3
    assert (run / "lora_weights/best").resolve().name in kept


def test_strategy_no_saves_once_at_the_end(tiny_model: Path, data: Path, base_dir: Path) -> None:
    assert pitstop(*arguments(tiny_model, data, base_dir, save_strategy="no")).code == 0
    assert checkpoints(base_dir / "run_001") == ["checkpoint-12"]


def test_json_summary_is_all_that_stdout_holds(
    tiny_model: Path, data: Path, base_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir, max_steps=2), "--json", "--quiet")
    summary = json.loads(ended.output)
    assert summary["status"] == "completed"
    assert summary["step"] == 2


def test_dry_run_prints_the_plan_and_starts_nothing(tiny_model: Path, data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir), "--dry-run")
    assert ended.code == 0, ended.output
    assert "6 an epoch, 12 in all" in ended.output
    assert "Nothing was started" in ended.output
    assert not base_dir.exists()


def test_no_token_reaches_any_file(tiny_model: Path, data: Path, base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_" + "S3cr3t" * 5
    monkeypatch.setenv("HF_TOKEN", token)
    ended = pitstop(*arguments(tiny_model, data, base_dir))
    assert ended.code == 0
    assert token not in ended.output
    files = [p for p in base_dir.rglob("*") if p.is_file()]
    assert files
    assert not [p for p in files if token.encode() in p.read_bytes()]


def test_no_file_of_a_run_is_a_pickle(tiny_model: Path, data: Path, base_dir: Path) -> None:
    assert pitstop(*arguments(tiny_model, data, base_dir)).code == 0
    files = [p for p in (base_dir / "run_001").rglob("*") if p.is_file() and p.name != ".lock"]
    events = [p for p in files if p.parent.name == "tensorboard"]
    assert events and all(p.name.startswith("events.out.tfevents.") for p in events)
    suffixes = {p.suffix for p in files if p not in events}
    assert suffixes <= {".safetensors", ".json", ".jsonl", ".log", ".jinja"}


def test_gradient_checkpointing_gives_the_same_losses(tiny_model: Path, data: Path, base_dir: Path) -> None:
    plain = arguments(tiny_model, data, base_dir, method="lora", lora_dropout=0.0)
    assert pitstop(*plain).code == 0
    assert pitstop(*plain, "--gradient-checkpointing").code == 0
    for one, other in zip(rows(base_dir / "run_001"), rows(base_dir / "run_002"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_flash_attention_falls_back_with_a_message(tiny_model: Path, data: Path, base_dir: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, base_dir, max_steps=1), "--use-flash-attention")
    assert ended.code == 0, ended.output
    assert "FlashAttention 2 is not available" in ended.output


def test_name_that_had_to_be_shortened_is_announced(tiny_model: Path, data: Path, base_dir: Path) -> None:
    settings = {"name_scheme": "timestamped", "experiment_name": "x" * 120, "max_steps": 1}
    ended = pitstop(*arguments(tiny_model, data, base_dir, **settings))
    assert ended.code == 0, ended.output
    assert "characters long" in ended.output
    assert len(metadata(base_dir / "run_001")["name"]) <= 96
