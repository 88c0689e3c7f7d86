"""generate, evaluate and export: what a trained checkpoint is used for."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.forked import Child, Ended, computes_bfloat16
from support.forked import pitstop as forked
from support.terminal import Terminal
from support.tiny_model import write_data
from support.training import arguments, rows

pytestmark = pytest.mark.usefixtures("warm", "onednn")

BEST = "run_001@epoch_002"
PROMPTS = ["Case 3: the patient took heparin.", "Case 4: the patient took aspirin and rested."]


@pytest.fixture(scope="module")
def trained(tiny_model: Path, warm: None, onednn: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run 1: qlora with samples; run 2: qlora on other modules; run 3: lora. Nobody changes them."""
    home = tmp_path_factory.mktemp("using")
    data, base_dir = write_data(home / "data", 12, 4), home / "runs"
    (home / "prompts.txt").write_text("\n".join(PROMPTS))
    samples = {"sample_prompts": home / "prompts.txt", "eval_max_new_tokens": 8}
    other = {"lora_rank": 2, "lora_target_modules": "q_proj", "seed": 7}
    for settings in (samples, other, {"method": "lora", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}):
        ended = forked(*arguments(tiny_model, data, base_dir, **settings))
        assert ended.code == 0, ended.output
    return home


@pytest.fixture
def pitstop(trained: Path) -> Callable[..., Ended]:
    """``pitstop COMMAND RUN …`` on the trained runs."""

    def call(command: str, run: object, *words: object, **named: Any) -> Ended:
        return forked(command, run, "--base-dir", trained / "runs", *words, **named)

    return call


def in_child(check: Callable[[], None]) -> None:
    """Run ``check`` where torch may compute: not in this process, which forks."""
    ended = forked("--version", prepare=check)
    assert ended.code == 0, ended.output


def recorded(run: Path, checkpoint: str) -> dict[str, float]:
    content = json.loads((run / "lora_weights" / checkpoint / "MANIFEST.json").read_text())
    return {name: value for name, value in content.get("content", content)["metrics"].items() if name != "train_loss"}


# evaluate


@pytest.mark.parametrize("reference", ["1", "1@epoch_001", "run_003@checkpoint-8"])
def test_metrics_are_exactly_those_that_training_logged(pitstop: Callable[..., Ended], trained: Path, reference: str) -> None:
    found = pitstop("evaluate", reference, "--base", "--json").json()
    (label, metrics), (base, without) = found["metrics"].items()
    row = next(row for row in rows(trained / "runs" / found["run"]) if row["step"] == found["step"] and "val_loss" in row)
    logged = {name: value for name, value in row.items() if name.startswith("val_")}
    assert metrics == logged == found["recorded"] and len(logged) == 3
    assert (label, base) == (f"{found['run']}@{found['checkpoint']}", "base")
    assert without["val_loss"] > metrics["val_loss"]
    assert (found["examples"], found["split"]) == (4, "validation")


def test_a_tasks_own_scores_are_those_of_training_too(tiny_model: Path, tmp_path: Path) -> None:
    records = [
        {"id": f"{n}", "text": f"Case {n}: aspirin for pain.", "entities": {"chemical": ["aspirin"], "disease": ["pain"]}}
        for n in range(6)
    ]
    for name, chosen in (("train", records), ("eval", records[:3])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in chosen))
    settings = {"task": "ner", "max_length": 512, "epochs": 1, "eval_score_examples": 2, "eval_max_new_tokens": 4}
    ended = forked(*arguments(tiny_model, tmp_path, tmp_path / "runs", **settings))
    assert ended.code == 0, ended.output
    found = forked("evaluate", 1, "--base-dir", tmp_path / "runs", "--json").json()
    assert found["metrics"]["run_001@epoch_001"] == found["recorded"] and "ner_f1" in found["recorded"]
    assert (found["examples"], found["scored_examples"]) == (6, 2)
    all_of_them = forked("evaluate", 1, "--base-dir", tmp_path / "runs", "--json", "--score-examples", "none").json()
    assert all_of_them["scored_examples"] == 6 and all_of_them["recorded"] is None
    out = tmp_path / "answers.jsonl"
    ended = forked("evaluate", 1, "--base-dir", tmp_path / "runs", "--base", "--output", out, prepare=_score_fixed_answers)
    assert ended.code == 0 and ended.output.count("generated anew: 4 of run") == 2, ended.output
    written = [row["answers"] for row in map(json.loads, out.read_text().splitlines())]
    assert written[:2] == [{"run_001@epoch_001": text, "base": text} for text in ("- aspirin", "- pain")]
    assert len(written) == 6 and all(text != "- pain" for row in written[2:] for text in row.values())


def _score_fixed_answers() -> None:
    """Let the scorer of entities find two answers that no model gave, and say what is generated besides."""
    from pitstop.trainers.tasks.ner import greedy
    from pitstop.trainers.using import evaluating

    greedy.greedy_answers = lambda examples, scoring: ["- aspirin", "- pain"]  # type: ignore[assignment]
    answer_ids = evaluating.answer_ids

    def telling(opened: Any, prompts: Any, *more: Any) -> Any:
        print(f"generated anew: {len(prompts)} of run")
        return answer_ids(opened, prompts, *more)

    evaluating.answer_ids = telling


def test_other_data_other_splits_and_a_limit(pitstop: Callable[..., Ended], trained: Path, tmp_path: Path) -> None:
    data = trained / "data"
    same = pitstop("evaluate", 1, "--dataset", data / "eval.jsonl", "--json").json()
    assert same["metrics"][BEST] == recorded(trained / "runs/run_001", "epoch_002") and same["recorded"] is None
    train = pitstop("evaluate", 1, "--split", "train", "--json").json()
    first = pitstop("evaluate", 1, "--dataset", data / "train.jsonl", "--limit", 5, "--json").json()
    assert (train["examples"], first["examples"]) == (12, 5)
    lines = (data / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "five.jsonl").write_text("".join(lines[:5]))
    five = pitstop("evaluate", 1, "--dataset", tmp_path / "five.jsonl", "--json").json()
    assert (five["metrics"], five["fingerprint"]) == (first["metrics"], first["fingerprint"])
    test = pitstop("evaluate", 1, "--split", "test")
    assert test.code == 2 and "have no test split" in test.output


def test_each_example_has_its_row_with_what_was_answered(pitstop: Callable[..., Ended], trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    ended = pitstop("evaluate", 1, "--base", "--output", out, "--limit", 3)
    assert ended.code == 0, ended.output
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["example"] for row in found] == [0, 1, 2]
    records = [json.loads(line) for line in (trained / "data/eval.jsonl").read_text().splitlines()]
    for row, record in zip(found, records, strict=False):
        assert record["prompt"] in row["prompt"] and row["wanted"] == record["completion"]
        assert set(row["answers"]) == {BEST, "base"}
    asked = pitstop("generate", 1, "--prompt", records[0]["prompt"], "--base", "--json", "--max-new-tokens", 8).json()
    assert {label: text["text"] for label, text in asked["answers"][0]["answers"].items()} == found[0]["answers"]
    assert "exists" in pitstop("evaluate", 1, "--output", out).output
    assert pitstop("evaluate", 1, "--output", out, "--force", "--limit", 1).code == 0
    assert len(out.read_text().splitlines()) == 1


def test_data_that_has_changed_is_said(pitstop: Callable[..., Ended], trained: Path, runs: Path) -> None:
    config = runs / "run_001" / "metadata.json"
    content = json.loads(config.read_text())
    content["data"]["eval"]["fingerprint"] = "0" * 64
    config.write_text(json.dumps(content))
    ended = forked("evaluate", 1, "--base-dir", runs)
    assert "is not what it was when the run started" in ended.output and "in training" not in ended.output


# generate


def test_answers_are_those_that_training_sampled(pitstop: Callable[..., Ended], trained: Path) -> None:
    """The prompts are rendered as in training, and the greedy answers are those of the checkpoint's own samples."""
    lines = (trained / "runs/run_001/logs/samples.jsonl").read_text().splitlines()
    sampled = {(row["step"], row["prompt"]): row["answer"] for row in map(json.loads, lines)}
    words = ["--prompts", trained / "prompts.txt", "--max-new-tokens", 8, "--batch-size", 16]
    found = pitstop("generate", "1@last", *words, "--json").json()
    given = {(found["step"], row["prompt"]): row["answers"][BEST]["text"] for row in found["answers"]}
    assert given == {key: answer for key, answer in sampled.items() if key[0] == 12} and len(given) == 2
    assert found["sampling"] is None
    assert all(row["answers"][BEST]["tokens"] <= 8 for row in found["answers"])


def test_a_piped_prompt_gives_the_answer_alone_and_sampling_is_repeatable(pitstop: Callable[..., Ended]) -> None:
    def piped() -> None:
        sys.stdin = io.StringIO("\nCase 1: heparin.\n")

    def answer(*words: object) -> str:
        ended = pitstop("generate", 1, "--max-new-tokens", 12, *words, prepare=piped)
        assert ended.code == 0, ended.output
        return ended.output

    greedy = answer()
    assert greedy.count("\n") == 1, "nothing is loaded anew in a fork, so nothing else is said"
    sampled = answer("--temperature", 0.9, "--seed", 5)
    assert sampled == answer("--temperature", 0.9, "--seed", 5, "--top-p", 1) != answer("--temperature", 0.9, "--seed", 6)
    assert greedy != sampled


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "x", "--top-p", 0.9], "--top-p means nothing without sampling"),
        (["--prompt", "x", "--seed", 3], "--seed means nothing without sampling"),
        (["--prompt", "x", "--temperature", 1, "--top-p", 0], "above 0 and at most 1"),
        (["--prompt", "x", "--prompts", "y"], "Both --prompt and --prompts"),
        (["--prompt", "x", "--multi-turn"], "--multi-turn is for a session"),
        (["--prompts", "missing.txt"], "missing.txt cannot be read"),
        (["--prompt", "long " * 600], "there is room for 256"),
        (["--text", "x"], "--text: run_001 is of the task sft"),
    ],
)
def test_what_would_do_nothing_or_cannot_be_is_refused(pitstop: Callable[..., Ended], words: list[object], said: str) -> None:
    ended = pitstop("generate", 1, *words)
    assert ended.code in (2, 3) and said in ended.output and "hint:" in ended.output


def test_a_session_answers_changes_adapters_and_stops_when_told(trained: Path) -> None:
    loads, begun = trained / "loads", trained / "begun"
    for mark in (loads, begun):
        mark.unlink(missing_ok=True)

    def count_loads_and_slow_down() -> None:
        from pitstop.trainers.models import causal_lm
        from pitstop.trainers.using import answering

        real, generate = causal_lm.load_base, answering.answer_batch

        def load(*given: Any, **named: Any) -> Any:
            with loads.open("a") as file:
                file.write("x")
            return real(*given, **named)

        def slowly(*given: Any, **named: Any) -> Any:
            watch = named["watch"]
            slow = "forever" in given[1].decode(next(iter(given[2].values())))
            named["watch"] = (lambda ids: (watch(ids), begun.touch(), time.sleep(60))) if slow else watch
            return generate(*given, **named)

        causal_lm.load_base, answering.answer_batch = load, slowly

    words = ["generate", 1, "--base-dir", trained / "runs", "--max-new-tokens", 8]
    terminal = Terminal(*words, prepare=count_loads_and_slow_down)
    terminal.until(f"{BEST}> ")
    first = terminal.ask(PROMPTS[0], BEST)
    assert "(cut at 8 tokens)" in first
    assert "run_001 has" not in terminal.ask("/use 1@epoch_001", "run_001@epoch_001")
    assert terminal.ask(PROMPTS[0], "run_001@epoch_001") != first
    terminal.ask("/use 2@last", "run_002@epoch_002")
    assert terminal.ask("/use base", "base")
    assert "another base" in terminal.ask("/use 3", "base")
    assert "not found" in terminal.ask("/use 9", "base")
    assert "is of the task sft" in terminal.ask("/text Aspirin eased it.", "base")
    assert terminal.ask(f"/use {BEST}", BEST)
    assert terminal.ask(PROMPTS[0], BEST).splitlines()[1:] == first.splitlines()[1:]
    os.write(terminal.descriptor, b"forever\n")
    terminal.until("forever")
    while not begun.exists():  # pytest's limit on time ends it
        time.sleep(0.02)
    os.write(terminal.descriptor, b"\x03")
    assert "(stopped)" in terminal.until(f"{BEST}> ")
    os.write(terminal.descriptor, b"half a line")
    terminal.until("half a line")
    terminal.wait_until_it_waits()
    os.write(terminal.descriptor, b"\x03")
    assert "/quit or Ctrl+D leaves" in terminal.until(f"{BEST}> ")
    assert "/use RUN@CHECKPOINT" in terminal.ask("/help", BEST)
    assert "no command /nonsense" in terminal.ask("/nonsense", BEST)
    os.write(terminal.descriptor, b"\x04")
    assert terminal.close() == 0
    assert loads.read_text() == "x", "the base is loaded once"


def test_adapters_beside_each_other_are_those_of_a_model_of_their_own(trained: Path) -> None:
    def check() -> None:
        import torch

        from pitstop.configs.errors import RunError
        from pitstop.trainers.reporter import Display, Reporter
        from pitstop.trainers.using.merging import logits
        from pitstop.trainers.using.opened import BASE, OpenModel, choose, open_model

        base_dir, said = trained / "runs", Reporter(Display())

        def of(opened: OpenModel, label: str) -> torch.Tensor:
            opened.use(label)
            with opened.in_use() as model:
                return logits(model, range(5, 30), opened.hardware.precision)

        together = open_model(choose(base_dir, "1@epoch_001"), said)
        second, other = (together.add(choose(base_dir, reference)) for reference in ("1@epoch_002", "2@last"))
        assert together.label == "run_001@epoch_001", "adding changes nothing that answers"
        found = [of(together, label) for label in ("run_001@epoch_001", second, other, BASE, "run_001@epoch_001")]
        wanted = [
            of(opened, opened.label) for opened in (open_model(choose(base_dir, r), said) for r in ("1@epoch_001", "1", "2@last"))
        ]
        assert torch.equal(found[0], found[4])
        assert all(torch.equal(one, alone) for one, alone in zip(found, wanted, strict=False))
        assert len({float(each.sum()) for each in found[:4]}) == 4
        assert together.chosen.run.label == "run_001" and together.task.settings.lora.rank == 4
        with pytest.raises(RunError, match="another base"):
            together.add(choose(base_dir, "3"))

    in_child(check)


# What is opened is verified


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the runs that may be changed."""
    shutil.copytree(trained / "runs", tmp_path / "runs", symlinks=True)
    yield tmp_path / "runs"
    shutil.rmtree(tmp_path / "runs")


def test_a_damaged_checkpoint_is_refused_and_nothing_is_changed_by_that(runs: Path) -> None:
    weights = runs / "run_001/lora_weights/epoch_002/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    for words in (["generate", "1", "--prompt", "x"], ["evaluate", "1"], ["export", "1", "--format", "adapter", "--output", "x"]):
        ended = forked(*words, "--base-dir", runs)
        assert ended.code == 4 and "adapter_model.safetensors changed since it was saved" in ended.output, ended.output
    assert weights.exists() and not (runs / "run_001/lora_weights/.damaged").exists()
    assert forked("generate", "1@epoch_001", "--prompt", "x", "--base-dir", runs, "--max-new-tokens", 2).code == 0


def test_a_damaged_base_is_taken_from_its_source_if_that_is_what_it_was(runs: Path, tiny_model: Path, tmp_path: Path) -> None:
    whole = forked("evaluate", 1, "--base-dir", runs, "--json").json()
    for copy in runs.rglob("model.safetensors"):
        content = copy.read_bytes()
        copy.unlink()
        copy.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    ended = forked("evaluate", 1, "--base-dir", runs, "--json")
    assert "is damaged" in ended.output and f"The base is taken from its source, {tiny_model}" in ended.output
    assert ended.json()["metrics"] == whole["metrics"]
    shutil.copytree(tiny_model, tmp_path / "moved")
    assert (
        forked("evaluate", 1, "--base-dir", runs, "--json", "--model-id", tmp_path / "moved").json()["metrics"]
        == whole["metrics"]
    )
    weights = tmp_path / "moved/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    changed = forked("evaluate", 1, "--base-dir", runs, "--model-id", tmp_path / "moved")
    assert changed.code == 3 and "is not the one that run_001@epoch_002 was trained on" in changed.output


def test_using_a_run_leaves_it_as_it_is_even_while_it_is_locked(
    pitstop: Callable[..., Ended], trained: Path, tmp_path: Path
) -> None:
    from pitstop.checkpointing.runs.run_directory import RunDirectory

    def state() -> list[tuple[str, int]]:
        return sorted((str(path), path.lstat().st_mtime_ns) for path in (trained / "runs").rglob("*") if path.name != ".lock")

    before = state()
    with RunDirectory(trained / "runs/run_001").lock():
        assert pitstop("generate", 1, "--prompt", "x", "--max-new-tokens", 2).code == 0
        assert pitstop("evaluate", 1).code == 0
        assert pitstop("export", 1, "--format", "ckpt", "--output", tmp_path / "x.ckpt").code == 0
    assert state() == before


# export


@pytest.mark.parametrize("reference", ["1", "3@last"])
def test_a_merged_model_loads_plainly_and_answers_as_base_and_adapter(
    pitstop: Callable[..., Ended], trained: Path, tmp_path: Path, reference: str
) -> None:
    out = tmp_path / "out"
    found = pitstop("export", reference, "--format", "merged", "--output", out, "--max-shard-size", "100KB", "--json").json()
    # Where base and adapter compute in bfloat16 too, a tie may fall otherwise.
    apart, alike = (0.05, 0.9) if computes_bfloat16() else (0.02, 1.0)
    assert found["difference"]["largest"] < apart * max(1.0, found["difference"]["largest_logit"])
    assert found["difference"]["same_choice"] >= alike and found["difference"]["tokens"] > 50
    assert len(list(out.glob("*.safetensors"))) == 3
    marker = json.loads((out / "pitstop_export.json").read_text())
    assert (marker["format"], marker["metrics"]) == ("merged", found["metrics"])
    assert str(trained) not in "".join(path.read_text() for path in out.iterdir() if path.suffix in (".json", ".md"))

    def check() -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from pitstop.trainers.reporter import Display, Reporter
        from pitstop.trainers.using.merging import logits
        from pitstop.trainers.using.opened import choose, open_model

        ids = AutoTokenizer.from_pretrained(out)("the patient took aspirin")["input_ids"]
        opened = open_model(choose(trained / "runs", reference), Reporter(Display()))
        with opened.in_use() as model:
            wanted = logits(model, ids, opened.hardware.precision)
        with model.disable_adapter():
            without = logits(model, ids, opened.hardware.precision)
        merged = AutoModelForCausalLM.from_pretrained(out)
        assert merged.dtype == torch.bfloat16 and merged.config.use_cache
        given = merged.float()(input_ids=torch.tensor([ids])).logits[0]
        change = float((wanted - without).abs().max())
        assert change > 0.3
        assert float((given - wanted).abs().max()) < 0.1 * change

    in_child(check)


def test_an_adapter_loads_with_plain_peft_on_the_base_it_names(
    pitstop: Callable[..., Ended], trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    unnamed = pitstop("export", 3, "--format", "adapter", "--output", out)
    assert unnamed.code == 0 and "calls it tiny-llama" in unnamed.output
    words = ["--format", "adapter", "--output", out, "--base-id", "someone/tiny"]
    assert "exists" in pitstop("export", 3, *words).output
    assert pitstop("export", 3, *words, "--force").code == 0
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "someone/tiny"
    card = (out / "README.md").read_text()
    assert 'base_model: "someone/tiny"' in card and "| val\\_loss |" in card and "`lora.rank` | 4" in card
    stored = next((trained / "runs/run_003/lora_weights").glob("best/adapter_model.safetensors"))
    assert (out / "adapter_model.safetensors").read_bytes() == stored.read_bytes()

    def check() -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        base = AutoModelForCausalLM.from_pretrained(trained / "runs/run_003/base_model", dtype=torch.float32)
        ids = torch.tensor([AutoTokenizer.from_pretrained(out)("aspirin")["input_ids"]])
        plain = base(input_ids=ids).logits
        assert not torch.equal(PeftModel.from_pretrained(base, out)(input_ids=ids).logits, plain)

    in_child(check)


def test_a_ckpt_is_read_without_pickle_and_goes_on_training_elsewhere(
    pitstop: Callable[..., Ended], trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "best.ckpt"
    assert "epoch_002 as ckpt in" in pitstop("export", 1, "--format", "ckpt", "--output", out).output

    def check() -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        from pitstop.trainers.reporter import Display, Reporter
        from pitstop.trainers.using.merging import logits
        from pitstop.trainers.using.opened import choose, open_model

        content = torch.load(out, weights_only=True)
        assert (content["epoch"], content["global_step"]) == (2.0, 12)
        assert content["metrics"]["val_loss"] == recorded(trained / "runs/run_001", "epoch_002")["val_loss"]
        assert content["config"]["lora"]["rank"] == 4 and "token" not in content["config"]["hub"]
        base = AutoModelForCausalLM.from_pretrained(trained / "runs/run_001/base_model")
        for module in base.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):  # an inference kernel that rounds otherwise
                module.support_avx512bf16_for_cpu = False
        model = get_peft_model(base, LoraConfig(**content["lora_config"]))
        missing = model.load_state_dict(content["lora_state_dict"], strict=False)
        assert missing.unexpected_keys == [] and not [name for name in missing.missing_keys if "lora" in name]
        opened = open_model(choose(trained / "runs", "1"), Reporter(Display()))
        precision = opened.hardware.precision
        assert torch.equal(logits(model, range(5, 30), precision), logits(opened.model, range(5, 30), precision))
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = getattr(torch.optim, content["optimizer_class"])(parameters)
        optimizer.load_state_dict(content["optimizer_state_dict"])
        assert {int(values["step"]) for values in optimizer.state.values()} == {12}
        assert optimizer.param_groups[0]["weight_decay"] == 0.01

    in_child(check)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "onnx", "--output", "x"], "'onnx' is not one of adapter, merged, ckpt"),
        (["--format", "adapter", "--output", "x", "--max-shard-size", "1GB"], "--max-shard-size is for --format merged"),
        (["--format", "merged", "--output", "x", "--max-shard-size", "many"], "'many' is not a size"),
        (["--format", "ckpt", "--output", "x", "--base-id", "a/b"], "--base-id is for"),
        (["--format", "ckpt", "--output", "missing/x"], "There is no directory missing"),
    ],
)
def test_an_export_that_cannot_be_is_refused(pitstop: Callable[..., Ended], words: list[object], said: str) -> None:
    ended = pitstop("export", 1, *words)
    assert ended.code == 2 and said in ended.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_leaves_nothing(trained: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def slow_comparison() -> None:
        from pitstop.trainers.using import merging

        merging.compare_saved = lambda *given: time.sleep(60)  # type: ignore[assignment]

    words = ["--base-dir", trained / "runs", "--format", "merged", "--output", out / "model"]
    child = Child("export", 1, *words, prepare=slow_comparison)
    try:
        child.wait_for("Comparing the merged model")
        assert list(out.iterdir()), "it is being written"
        child.send(number)
        assert child.wait(20).code == code
    finally:
        child.end()
    assert list(out.iterdir()) == []
