"""Forged state that reaches the model, the optimizer or a generator: refused before any of them is changed."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.state import state
from pitstop.configs.errors import CheckpointError
from pitstop.configs.schema import LoraSettings, TrainingSettings
from pitstop.trainers.loop.optim import build_optimizer, trainable
from pitstop.trainers.models.adapter import add_adapter
from support.forging import change_json, pickled
from support.state_files import adapter_files, optimizer_files

pytestmark = [
    pytest.mark.faults,
    pytest.mark.fault_row("hostile input: pickle, ../, absolute path, symlink, huge safetensors header, duplicate names"),
    pytest.mark.filterwarnings("ignore:Paged optimizers"),
]

Change = Callable[[Any], object]


def write(directory: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def change_tensors(path: Path, change: Change) -> None:
    content = safetensors.torch.load(path.read_bytes())
    change(content)
    path.write_bytes(safetensors.torch.save(content))


# Adapter -----------------------------------------------------------------------------------------------------------------


def adapter(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = LoraSettings(rank=4, alpha=8, target_modules=["q_proj", "v_proj"])
    return add_adapter(LlamaForCausalLM(LlamaConfig(**sizes)), settings, seed=seed, model_id="owner/name")


def unchanged_after_refusing_adapter(directory: Path, *named: str) -> None:
    model = adapter(seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        state.load_adapter(model, directory)
    assert caught.value.exit_code == 4 and str(directory) in caught.value.message
    assert all(part in caught.value.message for part in named), caught.value.message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


ADAPTERS: dict[str, Change] = {
    "another rank": lambda c: c.update(r=8),
    "another alpha": lambda c: c.update(lora_alpha=1024),
    "other targets": lambda c: c.update(target_modules=["q_proj"]),
    "another type": lambda c: c.update(peft_type="PREFIX_TUNING"),
    "rank as text": lambda c: c.update(r="4"),
    "rank by pattern": lambda c: c.update(rank_pattern={".*": 1}),
    "rank-stabilised": lambda c: c.update(use_rslora=True),
    "DoRA": lambda c: c.update(use_dora=True),
    "biases": lambda c: c.update(bias="all"),
    "more modules": lambda c: c.update(modules_to_save=["lm_head"]),
    "a class to import": lambda c: c.update(auto_mapping={"base_model_class": "system", "parent_library": "os"}),
    "another library": lambda c: c.update(megatron_core="evil.core"),
    "code": lambda c: c.update(auto_map={"AutoModel": "evil.Model"}),
    "an option that nobody knows": lambda c: c.update(run="os.system"),
    "a file of initial values": lambda c: c.update(init_lora_weights="eva"),
    "no rank": lambda c: c.pop("r"),
    "no type": lambda c: c.pop("peft_type"),
}


@pytest.mark.parametrize("change", ADAPTERS.values(), ids=ADAPTERS)
def test_an_adapter_config_that_the_settings_do_not_build_is_refused(tmp_path: Path, change: Change) -> None:
    write(tmp_path, adapter_files(adapter(seed=1)))
    change_json(tmp_path / layout.ADAPTER_CONFIG, change)
    unchanged_after_refusing_adapter(tmp_path, layout.ADAPTER_CONFIG)


def test_dropout_and_the_version_of_peft_may_differ(tmp_path: Path) -> None:
    write(tmp_path, adapter_files(adapter(seed=1)))
    change_json(tmp_path / layout.ADAPTER_CONFIG, lambda c: c.update(lora_dropout=0.5, peft_version="0.18.0", new_option=None))
    state.load_adapter(adapter(seed=2), tmp_path)


WEIGHTS: dict[str, Change] = {
    "none": lambda t: t.clear(),
    "one missing": lambda t: t.pop(min(t)),
    "one more": lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(32, 16)}),
    "another type": lambda t: t.update({min(t): t[min(t)].half()}),
    "another shape": lambda t: t.update({min(t): t[min(t)].T.contiguous()}),
    "integers": lambda t: t.update({min(t): t[min(t)].int()}),
}


@pytest.mark.parametrize("change", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_the_model_does_not_expect_are_refused(tmp_path: Path, change: Change) -> None:
    write(tmp_path, adapter_files(adapter(seed=1)))
    change_tensors(tmp_path / layout.ADAPTER_WEIGHTS, change)
    unchanged_after_refusing_adapter(tmp_path, layout.ADAPTER_WEIGHTS)


def test_a_pickle_in_the_place_of_weights_is_never_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    write(tmp_path, {**adapter_files(adapter(seed=1)), layout.ADAPTER_WEIGHTS: pickled(canary)})
    unchanged_after_refusing_adapter(tmp_path, layout.ADAPTER_WEIGHTS)
    assert not canary.exists()


def test_two_tensors_of_one_name_are_refused_where_the_library_takes_the_last(tmp_path: Path) -> None:
    write(tmp_path, adapter_files(adapter(seed=1)))
    raw = (tmp_path / layout.ADAPTER_WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].rstrip()
    name = min(set(json.loads(header)) - {"__metadata__"})
    again = header[:-1] + b"," + json.dumps({name: json.loads(header)[name]}).encode()[1:]
    (tmp_path / layout.ADAPTER_WEIGHTS).write_bytes(struct.pack("<Q", len(again)) + again + raw[8 + length :])
    assert name in safetensors.torch.load_file(tmp_path / layout.ADAPTER_WEIGHTS), "the library alone would not do"
    unchanged_after_refusing_adapter(tmp_path, layout.ADAPTER_WEIGHTS, "twice")


# Optimizer ---------------------------------------------------------------------------------------------------------------


def trained(kind: str, steps: int) -> tuple[torch.optim.Optimizer, dict[int, str]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 2))
    parameters = trainable(model)
    optimizer = build_optimizer(parameters, TrainingSettings(optimizer=kind), torch.device("cpu"))  # type: ignore[arg-type]
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 128).view(2, 64)).square().sum().backward()
        optimizer.step()
    return optimizer, {id(p): name for name, p in parameters.items()}


def unchanged_after_refusing_optimizer(directory: Path, kind: str, *named: str) -> None:
    optimizer, names = trained(kind, steps=1)
    before = optimizer_files(optimizer, names)
    with pytest.raises(CheckpointError) as caught:
        state.load_optimizer(optimizer, names, directory)
    assert caught.value.exit_code == 4
    assert all(part in caught.value.message for part in named), caught.value.message
    assert {name: bytes(content) for name, content in optimizer_files(optimizer, names).items()} == {
        name: bytes(content) for name, content in before.items()
    }


def also_listed(directory: Path) -> None:
    found = sorted(safetensors.torch.load_file(directory / layout.OPTIMIZER))
    change_json(directory / layout.OPTIMIZER_META, lambda meta: meta.update(tensors=found))


ADAMW: dict[str, Change] = {
    "a moment missing": lambda t: t.pop("0.weight::exp_avg_sq"),
    "a step missing": lambda t: t.pop("0.weight::step"),
    "a parameter missing": lambda t: [t.pop(name) for name in list(t) if name.startswith("0.weight::")],
    "a moment of another shape": lambda t: t.update({"0.weight::exp_avg": torch.zeros(1)}),
    "a moment of another type": lambda t: t.update({"0.weight::exp_avg": t["0.weight::exp_avg"].half()}),
    "a step of another type": lambda t: t.update({"0.weight::step": torch.tensor(1, dtype=torch.int64)}),
    "many steps": lambda t: t.update({"0.weight::step": torch.ones(9)}),
    "state that AdamW has not": lambda t: t.update({"0.weight::max_exp_avg_sq": torch.zeros(128, 64)}),
    "a parameter that is none": lambda t: t.update({"evil::exp_avg": torch.zeros(1)}),
    "a name without a part": lambda t: t.update({"evil": torch.zeros(1)}),
}


@pytest.mark.parametrize("change", ADAMW.values(), ids=ADAMW)
def test_state_that_adamw_does_not_have_is_refused_though_the_list_agrees(tmp_path: Path, change: Change) -> None:
    write(tmp_path, optimizer_files(*trained("adamw", steps=3)))
    change_tensors(tmp_path / layout.OPTIMIZER, change)
    also_listed(tmp_path)
    unchanged_after_refusing_optimizer(tmp_path, "adamw", layout.OPTIMIZER)


EIGHT_BIT: dict[str, Change] = {
    "scales that are too few": lambda t: t.update({"0.weight::absmax1": torch.zeros(1)}),
    "scales that are too many": lambda t: t.update({"0.weight::absmax2": torch.zeros(10**5)}),
    "a short map": lambda t: t.update({"0.weight::qmap1": torch.zeros(2)}),
    "no map": lambda t: t.pop("0.weight::qmap2"),
    "moments that are too few": lambda t: t.update({"0.weight::state1": torch.zeros(2, dtype=torch.uint8)}),
    "moments of another type": lambda t: t.update({"0.weight::state2": torch.zeros(128, 64, dtype=torch.int8)}),
    "small moments of another type": lambda t: t.update({"0.bias::state1": torch.zeros(128, dtype=torch.uint8)}),
}


@pytest.mark.parametrize("kind", ["adamw_8bit", "paged_adamw_8bit"])
@pytest.mark.parametrize("change", EIGHT_BIT.values(), ids=EIGHT_BIT)
def test_state_that_an_8_bit_kernel_would_read_beyond_is_refused(tmp_path: Path, kind: str, change: Change) -> None:
    write(tmp_path, optimizer_files(*trained(kind, steps=3)))
    change_tensors(tmp_path / layout.OPTIMIZER, change)
    also_listed(tmp_path)
    unchanged_after_refusing_optimizer(tmp_path, kind, layout.OPTIMIZER)


NUMBERS: dict[str, Change] = {
    "no step": lambda m: m["scalars"]["0.weight"].pop("step"),
    "a negative step": lambda m: m["scalars"]["0.weight"].update(step=-1),
    "a step that is a truth": lambda m: m["scalars"]["0.weight"].update(step=True),
    "a step beyond 32 bits": lambda m: m["scalars"]["0.weight"].update(step=2**40),
    "a number in a tensor's place": lambda m: m["scalars"]["0.weight"].update(state1=3),
    "a number more": lambda m: m["scalars"]["0.weight"].update(lr=100.0),
    "a parameter that is none": lambda m: m["scalars"].update(evil={"step": 1}),
    "other parameters": lambda m: m["groups"][0].update(parameters=["evil"]),
    "no parameters": lambda m: m.update(groups=[]),
}


@pytest.mark.parametrize("change", NUMBERS.values(), ids=NUMBERS)
def test_numbers_that_the_optimizer_does_not_have_are_refused(tmp_path: Path, change: Change) -> None:
    write(tmp_path, optimizer_files(*trained("adamw_8bit", steps=3)))
    change_json(tmp_path / layout.OPTIMIZER_META, change)
    unchanged_after_refusing_optimizer(tmp_path, "adamw_8bit")


def test_the_rate_in_a_checkpoint_decides_nothing(tmp_path: Path) -> None:
    write(tmp_path, optimizer_files(*trained("adamw", steps=3)))
    change_json(tmp_path / layout.OPTIMIZER_META, lambda meta: [group.update(lr=1e9, foreach=True) for group in meta["groups"]])
    optimizer, names = trained("adamw", steps=0)
    before = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    state.load_optimizer(optimizer, names, tmp_path)
    assert [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups] == before


def test_what_does_not_come_back_as_saved_leaves_the_optimizer_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, optimizer_files(*trained("adamw", steps=3)))
    monkeypatch.setattr(torch, "equal", lambda one, other: False)
    unchanged_after_refusing_optimizer(tmp_path, "adamw", "did not come back")


# Random state ------------------------------------------------------------------------------------------------------------

RANDOM: dict[str, Change] = {
    "no Python": lambda s: s.pop("python"),
    "no NumPy": lambda s: s.pop("numpy"),
    "no torch": lambda s: s.pop("torch_cpu"),
    "no CUDA": lambda s: s.pop("torch_cuda"),
    "no MPS": lambda s: s.pop("torch_mps"),
    "one more": lambda s: s.update(secrets=[]),
    "a position beyond NumPy's table": lambda s: s["numpy"].__setitem__(2, 100_000),
    "a position before NumPy's table": lambda s: s["numpy"].__setitem__(2, -1),
    "a truth as a position": lambda s: s["numpy"].__setitem__(2, True),
    "another generator of NumPy": lambda s: s["numpy"].__setitem__(0, "PCG64"),
    "a short table of NumPy": lambda s: s["numpy"].__setitem__(1, [1] * 623),
    "a table of floats": lambda s: s["numpy"].__setitem__(1, [1.5] * 624),
    "a table of large numbers": lambda s: s["numpy"].__setitem__(1, [2**40] * 624),
    "NumPy's next number as text": lambda s: s["numpy"].__setitem__(4, "1"),
    "Python's next number as text": lambda s: s["python"].__setitem__(2, "1"),
    "a position beyond Python's table": lambda s: s["python"][1].__setitem__(624, 10**6),
    "a short table of Python": lambda s: s["python"].__setitem__(1, [1]),
    "another version of Python's": lambda s: s["python"].__setitem__(0, 99),
    "no hexadecimal": lambda s: s.update(torch_cpu="zz"),
    "torch's state cut short": lambda s: s.update(torch_cpu=s["torch_cpu"][:-16]),
    "torch's state of zeros": lambda s: s.update(torch_cpu="00" * (len(s["torch_cpu"]) // 2)),
    "torch's state as a number": lambda s: s.update(torch_cpu=3),
    "CUDA's states as text": lambda s: s.update(torch_cuda=[3]),
}


@pytest.mark.parametrize("change", RANDOM.values(), ids=RANDOM)
def test_a_random_state_is_restored_whole_or_not_at_all(tmp_path: Path, change: Change) -> None:
    path = tmp_path / layout.rng_file(0)
    path.write_bytes(state.rng_state())
    change_json(path, change)
    state.seed_everything(7)
    before = state.rng_state()
    for read in (state.check_rng, state.restore_rng):
        with pytest.raises(CheckpointError, match=layout.rng_file(0)) as caught:
            read(path)
        assert caught.value.exit_code == 4
    assert state.rng_state() == before
    assert [random.random(), float(np.random.rand()), float(torch.rand(1))]
