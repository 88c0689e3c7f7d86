"""Method full: all weights are trained, saved and resumed; an adapter stands on the result by reference.

One training family for the whole module: the whole run, and the same one killed and terminated on the way.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.forging import change_json, reseal, snapshot
from support.forked import kill_at_step, pitstop
from support.stores import fast_directory
from support.tiny_model import write_data
from support.training import arguments, assert_same_end, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")

SETTINGS: dict[str, Any] = {
    "method": "full",
    "epochs": None,
    "learning_rate": 1e-3,
    "lora_rank": None,
    "lora_dropout": None,
    "ema_decay": 0.8,
    "shard_size_gb": 0.0002,
    "save_strategy": "steps",
    "save_steps": 3,
    "keep_last_n": "none",
}
STEPS = 18


@dataclass(frozen=True)
class Family:
    """``whole`` and ``broken`` are base directories; ``outputs`` what each command of the broken one printed."""

    home: Path
    outputs: tuple[str, ...]

    @property
    def whole(self) -> Path:
        return self.home / "whole/base_training/run_001"

    @property
    def broken(self) -> Path:
        return self.home / "broken/base_training/run_001"


@pytest.fixture(scope="module")
def family(tiny_model: Path, warm: None) -> Iterator[Family]:
    with tempfile.TemporaryDirectory(prefix="pitstop-family-", dir=fast_directory()) as home:
        yield _train(tiny_model, Path(home))


def _train(tiny_model: Path, home: Path) -> Family:
    data = write_data(home / "data", 12, 4)
    model = home / "model"  # of its own: it goes away before the first resume
    shutil.copytree(tiny_model, model)
    words = {name: arguments(model, data, home / name, **SETTINGS) for name in ("whole", "broken")}
    outputs = [pitstop(*words["whole"])]
    outputs.append(pitstop(*words["broken"], prepare=kill_at_step(8)))
    model.rename(home / "gone")
    broken = ["--base-dir", home / "broken"]
    outputs.append(pitstop("resume", "base_training/1", *broken, prepare=kill_at_step(13, signal.SIGTERM)))
    outputs.append(pitstop("resume", "base_training/1", *broken))
    assert [ended.code for ended in outputs] == [0, -signal.SIGKILL, 143, 0], "\n".join(ended.output for ended in outputs)
    return Family(home, tuple(ended.output for ended in outputs))


@pytest.fixture
def runs(family: Family, tmp_path: Path) -> Path:
    """A copy of the base directory of the whole run."""
    shutil.copytree(family.home / "whole", tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


def test_killed_and_terminated_it_ends_where_the_uninterrupted_run_does_without_the_model_it_began_with(family: Family) -> None:
    last = family.whole / "checkpoints/last"
    unequal = {"MANIFEST.json", "trainer_state.json"}  # times; the settings, compared below but for the directory
    files = tuple(sorted(path.name for path in last.iterdir() if path.name not in unequal))
    assert {"model-00001-of-00003.safetensors", "ema.safetensors", "config.json", "tokenizer.json"} <= set(files)
    assert_same_end(family.whole, family.broken, files)
    assert "Go on with: pitstop resume base_training/1" in family.outputs[2]


def test_the_run_lies_among_base_trainings_as_documented(family: Family) -> None:
    assert sorted(path.name for path in family.whole.iterdir() if path.name != ".lock") == [
        "checkpoints",
        "config.json",
        "logs",
        "metadata.json",
    ]
    assert not (family.home / "whole/.base_models").exists(), "nothing is frozen, so no base is saved"
    there = metadata(family.whole)
    assert (there["method"], there["progress"]["total_epochs"], there["progress"]["step"]) == ("full", 3, STEPS)
    assert there["base_model"]["saved"] is False
    assert there["checkpoints"][0]["path"] == "base_training/run_001/checkpoints/checkpoint-3"
    assert there["name"].startswith("model-train-full-e3-")
    config = json.loads((family.whole / "config.json").read_text())
    assert (config["training"]["epochs"], config["sources"]["training.epochs"]) == (3, "default of method full")
    assert config["quantization"]["load_in_4bit"] is False


def test_a_checkpoint_loads_with_plain_transformers_and_holds_what_was_trained(family: Family) -> None:
    def plain() -> None:
        import safetensors.torch
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        first, last = (family.whole / "checkpoints" / name for name in ("checkpoint-3", "last"))
        one, other = (AutoModelForCausalLM.from_pretrained(path) for path in (first, last))
        assert other.dtype == torch.float32
        changed = [name for name, value in one.state_dict().items() if not torch.equal(value, other.state_dict()[name])]
        assert len(changed) == len(one.state_dict()), "every weight is trained, embeddings and norms too"
        assert len(AutoTokenizer.from_pretrained(last)("Case 1: the patient took aspirin.").input_ids) > 3
        average = safetensors.torch.load_file(last / "ema.safetensors")
        assert average.keys() == other.state_dict().keys()
        assert all(not torch.equal(value, other.state_dict()[name]) for name, value in average.items())

    ended = pitstop("--version", prepare=plain)
    assert ended.code == 0, ended.output


def test_nothing_in_a_checkpoint_names_a_place_of_this_machine(family: Family) -> None:
    for path in (family.whole / "checkpoints/last").iterdir():
        assert str(family.home).encode() not in path.read_bytes(), path.name


def test_evaluations_are_those_of_the_average(family: Family) -> None:
    """The average lags behind weights that get better, so its loss is the larger one; both are worked out anew."""

    def losses() -> None:
        import safetensors.torch
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        last = family.whole / "checkpoints/last"
        model, tokenizer = AutoModelForCausalLM.from_pretrained(last).eval(), AutoTokenizer.from_pretrained(last)

        def loss() -> float:
            from pitstop.trainers.data.reading import ReadOptions, load_dataset
            from pitstop.trainers.tasks.sft import SftTask

            spec = [str(family.home / "data/eval.jsonl")]
            data = load_dataset(
                spec, SftTask(tokenizer), ReadOptions(max_length=128, packing=False, skip_bad_rows=False, token=None)
            )
            total = tokens = 0.0
            for number in range(len(data)):
                (example,) = data.sequence_examples([number])
                ids = torch.tensor(example.input_ids.astype("int64"))[None]
                learnt = torch.tensor(example.supervised)[1:]
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    nll = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1].float(), ids[0, 1:], reduction="none")
                total, tokens = total + float(nll[learnt].sum()), tokens + int(learnt.sum())
            return total / tokens

        trained = loss()
        model.load_state_dict(safetensors.torch.load_file(last / "ema.safetensors"))
        averaged, logged = loss(), rows(family.whole)[-1]["val_loss"]
        assert abs(averaged - logged) < 0.02 < abs(trained - logged), (trained, averaged, logged)

    ended = pitstop("--version", prepare=losses)
    assert ended.code == 0, ended.output


def test_show_list_verify_and_prune_know_a_base_training(runs: Path) -> None:
    at = ["--base-dir", runs]
    assert "base_training/1" in pitstop("list-runs", *at).output
    shown = json.loads(pitstop("show", "base_training/1@best", *at, "--json").output)
    assert shown["method"] == "full" and "model-00003-of-00003.safetensors" in shown["checkpoint"]["files"]
    assert pitstop("verify", "base_training/1", *at).code == 0
    pruned = pitstop("prune", "base_training/1", *at, "--keep-last-n", 2)
    assert pruned.code == 0, pruned.output
    assert checkpoints(runs / "base_training/run_001") == ["checkpoint-15", "checkpoint-18"]


def test_a_resume_does_not_take_another_model_average_or_shard_size(runs: Path) -> None:
    for words in (["--model-id", "owner/name"], ["--ema-decay", 0.9], ["--shard-size-gb", 1], ["--method", "lora"]):
        ended = pitstop("resume", "base_training/1", "--base-dir", runs, "--epochs", 4, *words)
        assert ended.code == 2 and words[0] in ended.output and "cannot change" in ended.output, ended.output


def test_an_adapter_stands_on_the_best_checkpoint_by_reference(runs: Path, family: Family, tmp_path: Path) -> None:
    data = family.home / "data"
    ended = pitstop(
        *arguments(Path(), data, runs, model_id=None, method="lora", epochs=1, **{"from": "base_training/1@checkpoint-12"})
    )
    assert ended.code == 0, ended.output
    run = runs / "run_001"
    base = metadata(run)["base_model"]
    name = metadata(runs / "base_training/run_001")["name"]
    assert base["from"] == {"run": "base_training/run_001", "name": name, "checkpoint": "checkpoint-12", "step": 12}
    assert metadata(run)["model"] == base["id"] == name
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["from_run"] == "base_training/run_001@checkpoint-12"
    assert config["sources"]["training.task"] == "base_training/run_001", "the task is that of the base training"
    assert name in pitstop("list-runs", "--base-dir", runs, "--json").output

    def the_base_is_the_average() -> None:
        import safetensors.torch
        import torch

        copy = safetensors.torch.load_file(run / "base_model/model.safetensors")
        average = safetensors.torch.load_file(runs / "base_training/run_001/checkpoints/checkpoint-12/ema.safetensors")
        assert copy.keys() == average.keys()
        assert all(torch.equal(copy[name], average[name].to(copy[name].dtype)) for name in copy)

    ended = pitstop("--version", prepare=the_base_is_the_average)
    assert ended.code == 0, ended.output

    at = ["--base-dir", runs]
    pinned = {
        each["name"]: each["pins"] for each in json.loads(pitstop("show", "base_training/1", *at, "--json").output)["checkpoints"]
    }
    assert pinned["checkpoint-12"] == ["base of run_001"]
    assert pitstop("prune", "base_training/1", *at, "--keep-last-n", 1).code == 0
    assert checkpoints(runs / "base_training/run_001") == ["checkpoint-12", "checkpoint-18"]
    refused = pitstop("delete", "base_training/1", *at, "--yes")
    assert refused.code == 2 and "is the base of run_001" in refused.output, refused.output
    assert (runs / "base_training/run_001").is_dir()

    shutil.rmtree(runs / ".base_models")
    shutil.rmtree(run / "base_model")
    ended = pitstop("resume", 1, *at, "--epochs", 2)
    assert ended.code == 0 and "It is made again from" in ended.output, ended.output
    (runs / "base_training").rename(tmp_path / "elsewhere")
    ended = pitstop("resume", 1, *at, "--epochs", 3)
    assert ended.code == 0 and "the run's own copy of it is used" in ended.output, ended.output


def test_without_a_checkpoint_in_the_reference_the_best_is_meant_and_its_absence_is_told(runs: Path, family: Family) -> None:
    words = {"model_id": None, "method": "full", "max_steps": 1, "epochs": None, "lora_rank": None, "lora_dropout": None}
    ended = pitstop(*arguments(Path(), family.home / "data", runs, **words, **{"from": "base_training/1"}))
    assert ended.code == 0, ended.output
    best = metadata(runs / "base_training/run_001")["best_checkpoint"]["name"]
    second = metadata(runs / "base_training/run_002")
    assert second["base_model"]["from"]["checkpoint"] == best
    for reference, said in (("base_training/9", "not found"), ("base_training/1@epoch_009", "not found")):
        ended = pitstop(*arguments(Path(), family.home / "data", runs, **words, **{"from": reference}))
        assert ended.code in (2, 4) and said in ended.output, ended.output
    both = arguments(Path("owner/name"), family.home / "data", runs, method="lora", **{"from": "base_training/1"})
    ended = pitstop(*both)
    assert ended.code == 2 and "two base models" in ended.output, ended.output


def test_a_damaged_base_checkpoint_is_not_stood_on(runs: Path, family: Family) -> None:
    path = runs / "base_training/run_001/checkpoints/checkpoint-18/ema.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    ended = pitstop(
        *arguments(Path(), family.home / "data", runs, model_id=None, method="lora", **{"from": "base_training/1@checkpoint-18"})
    )
    assert ended.code == 3 and "ema.safetensors changed" in ended.output, ended.output
    assert not list(runs.glob("run_*"))


def _config(**changes: Any) -> Callable[[Path], object]:
    return lambda checkpoint: change_json(checkpoint / "config.json", lambda content: content.update(changes))


def _other_shard(checkpoint: Path) -> None:
    one, other = (checkpoint / f"model-0000{number}-of-00003.safetensors" for number in (1, 2))
    one.write_bytes(other.read_bytes())


def _flipped_average(checkpoint: Path) -> None:
    (checkpoint / "ema.safetensors").write_bytes((checkpoint / "model-00001-of-00003.safetensors").read_bytes())


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "code in the config": (_config(auto_map={"AutoModelForCausalLM": "evil.Model"}), "auto_map"),
    "a kernel to download": (_config(attn_implementation="evil/kernel"), "attn_implementation"),
    "a model of another size": (_config(hidden_size=10**7, head_dim=10**6), "describes"),
    "layers without end": (_config(num_hidden_layers=10**12), "layers"),
    "quantised": (_config(quantization_config={"quant_method": "gptq"}), "does not describe"),
    "no config": (lambda checkpoint: (checkpoint / "config.json").unlink(), "config.json is missing"),
    "a shard that is not there": (lambda c: (c / "model-00002-of-00003.safetensors").unlink(), "model-00002-of-00003"),
    "a shard twice": (_other_shard, "is in model-00001-of-00003.safetensors too"),
    "an index to elsewhere": (
        lambda c: change_json(c / "model.safetensors.index.json", lambda i: i["weight_map"].update({"lm_head.weight": "../x"})),
        "does not say where",
    ),
    "no average": (lambda checkpoint: (checkpoint / "ema.safetensors").unlink(), "ema.safetensors is missing"),
    "another average": (_flipped_average, "does not match the weights"),
    "an adapter beside it": (lambda checkpoint: (checkpoint / "adapter_config.json").write_text("{}"), "adapter_config.json"),
    "a pickle beside it": (lambda checkpoint: (checkpoint / "pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin"),
    "a program beside it": (lambda checkpoint: (checkpoint / "modeling_evil.py").write_text("x = 1"), "modeling_evil.py"),
    "code in the tokenizer": (
        lambda c: change_json(c / "tokenizer_config.json", lambda t: t.update(auto_map={"AutoTokenizer": ["evil.T", None]})),
        "auto_map",
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_whole_model_that_was_tampered_with_is_refused_by_name(family: Family, tmp_path: Path, attack: str) -> None:
    """Under a manifest that fits. Checked as a pull and a resume do, before anything is built."""
    from pitstop.checkpointing.disk import inspection
    from pitstop.checkpointing.store import vetting
    from pitstop.configs.errors import CheckpointError

    change, culprit = HOSTILE[attack]
    checkpoint = tmp_path / "checkpoint-18"
    shutil.copytree(family.whole / "checkpoints/checkpoint-18", checkpoint)
    change(checkpoint)
    reseal(checkpoint)
    config = json.loads((family.whole / "config.json").read_text())
    del config["sources"]  # the settings alone, as a pull and a resume have them
    before = snapshot(tmp_path)
    if attack == "a model of another size":  # known once the model is built without memory
        return _refused_on_meta(checkpoint, culprit)
    with pytest.raises(CheckpointError, match=culprit):
        vetting.check_checkpoint(inspection.inspect(checkpoint), config, lambda setting: False)
    assert snapshot(tmp_path) == before
    return None


def _refused_on_meta(checkpoint: Path, culprit: str) -> None:
    def load() -> None:
        import torch

        from pitstop.configs.errors import CheckpointError
        from pitstop.trainers.models.base import BaseRecipe
        from pitstop.trainers.models.causal_lm import CausalLM

        recipe = BaseRecipe(quantised=False, quant_type="nf4", double_quant=True, compute=torch.float32)
        with pytest.raises(CheckpointError, match=culprit):
            CausalLM().load(checkpoint, recipe, torch.device("cpu"), stored=True, flash=False, frozen=False)

    ended = pitstop("--version", prepare=load)
    assert ended.code == 0, ended.output


def test_weights_that_do_not_come_back_bit_for_bit_are_refused_by_a_resume(runs: Path) -> None:
    """A type that the model does not train in is cast by the library without a word."""
    directory = runs / "base_training/run_001/checkpoints"
    for name in ("checkpoint-18", "checkpoint-15"):

        def halve(checkpoint: Path = directory / name) -> None:
            import safetensors.torch
            import torch

            for file in [*checkpoint.glob("model-*.safetensors"), checkpoint / "ema.safetensors"]:
                tensors = {key: value.to(torch.bfloat16) for key, value in safetensors.torch.load_file(file).items()}
                safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
            reseal(checkpoint)

        assert pitstop("--version", prepare=halve).code == 0
    ended = pitstop("resume", "base_training/1", "--base-dir", runs, "--epochs", 4)
    assert ended.code == 4 and "wanted torch.float32" in ended.output, ended.output
    assert checkpoints(runs / "base_training/run_001")[-1] != "checkpoint-21"


def test_the_whole_model_answers_is_scored_and_exported_as_its_average(family: Family, tmp_path: Path) -> None:
    at = ["--base-dir", family.home / "whole"]
    scored = pitstop("evaluate", "base_training/1@last", *at, "--json").json()
    logged = rows(family.whole)[-1]
    (metrics,) = scored["metrics"].values()
    assert (metrics["val_loss"], metrics["val_token_accuracy"]) == (logged["val_loss"], logged["val_token_accuracy"])
    answered = pitstop("generate", "base_training/1@last", *at, "--prompt", "Which drug?", "--max-new-tokens", 4, "--json")
    assert answered.code == 0 and len(answered.json()["answers"]) == 1, answered.output
    for words, told in (
        (["generate", "base_training/1", *at, "--base", "--prompt", "x"], "no base without it"),
        (["export", "base_training/1", *at, "--format", "adapter", "--output", tmp_path / "a"], "has no adapter"),
    ):
        refused = pitstop(*words)
        assert refused.code == 2 and told in refused.output, refused.output
    for form, target in (("merged", "merged"), ("ckpt", "model.ckpt")):
        ended = pitstop("export", "base_training/1@last", *at, "--format", form, "--output", tmp_path / target)
        assert ended.code == 0, ended.output

    def exports_hold_what_was_trained() -> None:
        import safetensors.torch
        import torch
        from transformers import AutoModelForCausalLM

        average = safetensors.torch.load_file(family.whole / "checkpoints/last/ema.safetensors")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
        different = [name for name, tensor in average.items() if not torch.equal(merged[name], tensor.to(torch.bfloat16))]
        assert not different
        content = torch.load(tmp_path / "model.ckpt", weights_only=True)
        assert content["global_step"] == STEPS and content["model_config"]["model_type"] == "llama"
        assert content["model_state_dict"].keys() == average.keys() == content["ema_state_dict"].keys()

    ended = pitstop("--version", prepare=exports_hold_what_was_trained)
    assert ended.code == 0, ended.output
