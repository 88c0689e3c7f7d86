"""Training state to files and back, bit for bit, and refused where anything is missing or does not fit."""

from __future__ import annotations

import json
import random
import warnings
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
from support.state_files import adapter_files, optimizer_files

CPU = torch.device("cpu")
OPTIMIZERS = ["adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"]


def _write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def _change(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def _change_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# Adapter -----------------------------------------------------------------------------------------------------------------


def _adapter(seed: int = 1, **settings: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    options = {"rank": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"], **settings}
    model = add_adapter(LlamaForCausalLM(LlamaConfig(**sizes)), LoraSettings(**options), seed=seed, model_id="owner/name")
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.normal_()
    return model


def test_an_adapter_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved, other = _adapter(seed=1), _adapter(seed=2)
    state.load_adapter(other, _write(tmp_path, adapter_files(saved)))
    restored = trainable(other)
    assert all(torch.equal(p, restored[name]) for name, p in trainable(saved).items())


def test_plain_peft_reads_an_adapter(tmp_path: Path) -> None:
    from peft import PeftModel

    saved = _adapter()
    base = _adapter(seed=2).unload()
    loaded = PeftModel.from_pretrained(base, _write(tmp_path, adapter_files(saved)))
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(input_ids=ids).logits, saved.eval()(input_ids=ids).logits)
    config = json.loads((tmp_path / layout.ADAPTER_CONFIG).read_text())
    assert config["inference_mode"] is True and config["target_modules"] == ["q_proj", "v_proj"]
    assert config["base_model_name_or_path"] == "owner/name"


def test_equal_adapters_give_equal_bytes() -> None:
    assert adapter_files(_adapter()) == adapter_files(_adapter())


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop(_first(t)), "is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is unknown to the model"),
        (lambda t: t.update({_first(t): t[_first(t)].half()}), "is torch.float16"),
        (lambda t: t.update({_first(t): t[_first(t)][:2].clone()}), "wanted torch.float32 (4, 16)"),
        (lambda t: t.clear(), "is missing"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_touches_nothing(
    tmp_path: Path, change: Callable[[Any], object], reason: str
) -> None:
    model = _adapter()
    _write(tmp_path, adapter_files(_adapter(seed=2)))
    _change(tmp_path / layout.ADAPTER_WEIGHTS, change)
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    with pytest.raises(CheckpointError) as caught:
        state.load_adapter(model, tmp_path)
    assert reason in str(caught.value)
    assert all(torch.equal(p, before[name]) for name, p in trainable(model).items())


def test_an_adapter_of_another_rank_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, adapter_files(_adapter(rank=8)))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        state.load_adapter(_adapter(), tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 64, b"\x80\x04N."])
def test_a_weights_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / layout.ADAPTER_WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        state.load_adapter(_adapter(), tmp_path)


# Optimizer ---------------------------------------------------------------------------------------------------------------


class _Trained:
    """A model whose one large parameter has an 8-bit state, one small matrix and one vector that have not."""

    def __init__(self, optimizer: str = "adamw", steps: int = 3) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 2))
        self.parameters = trainable(self.model)
        settings = TrainingSettings(optimizer=optimizer, learning_rate=1e-2)  # type: ignore[arg-type]
        self.optimizer = build_optimizer(self.parameters, settings, CPU)
        self.names = {id(p): name for name, p in self.parameters.items()}
        self.step(steps)

    def step(self, count: int = 1) -> None:
        """Take steps on a fixed objective."""
        for _ in range(count):
            self.optimizer.zero_grad()
            self.model(torch.linspace(-1, 1, 128).view(2, 64)).square().sum().backward()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
                self.optimizer.step()

    def files(self) -> dict[str, bytes]:
        """The optimizer's files."""
        return optimizer_files(self.optimizer, self.names)

    def resumed(self, directory: Path, optimizer: str = "adamw") -> _Trained:
        """Another one with the same weights and the optimizer state of ``directory``."""
        other = _Trained(optimizer, steps=0)
        other.model.load_state_dict(self.model.state_dict())
        state.load_optimizer(other.optimizer, other.names, directory)
        return other


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_goes_on_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    straight = _Trained(optimizer)
    resumed = straight.resumed(_write(tmp_path, straight.files()), optimizer)
    assert resumed.files() == straight.files()
    for trained in (straight, resumed):
        trained.step(3)
    assert all(torch.equal(p, resumed.parameters[name]) for name, p in straight.parameters.items())
    assert resumed.files() == straight.files()


def test_the_8_bit_state_is_8_bit_on_disk(tmp_path: Path) -> None:
    _write(tmp_path, _Trained("adamw_8bit").files())
    tensors = safetensors.torch.load_file(tmp_path / layout.OPTIMIZER)
    assert tensors["0.weight::state1"].dtype == torch.uint8 and tensors["1.weight::state1"].dtype == torch.float32


def test_the_settings_in_force_stand(tmp_path: Path) -> None:
    straight = _Trained()
    _write(tmp_path, straight.files())
    other = _Trained(steps=0)
    for group in other.optimizer.param_groups:
        group["lr"] = 0.5
    state.load_optimizer(other.optimizer, other.names, tmp_path)
    assert {group["lr"] for group in other.optimizer.param_groups} == {0.5}


def test_an_optimizer_that_has_not_stepped_comes_back_too(tmp_path: Path) -> None:
    straight = _Trained(steps=0)
    assert not straight.resumed(_write(tmp_path, straight.files())).optimizer.state


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop(_first(t)),
        lambda t: [t.pop(key) for key in list(t) if key.startswith("0.weight::")],
        lambda t: t.clear(),
        lambda t: t.update({"0.weight::more": torch.zeros(1)}),
        lambda t: t.update({"nothing::exp_avg": torch.zeros(1)}),
        lambda t: t.update({"nothing": torch.zeros(1)}),
    ],
)
def test_an_optimizer_with_other_tensors_is_refused(tmp_path: Path, optimizer: str, change: Callable[[Any], object]) -> None:
    trained = _Trained(optimizer)
    _write(tmp_path, trained.files())
    _change(tmp_path / layout.OPTIMIZER, change)
    with pytest.raises(CheckpointError):
        trained.resumed(tmp_path, optimizer)


def _also_listed(directory: Path) -> None:
    tensors = sorted(safetensors.torch.load_file(directory / layout.OPTIMIZER))
    _change_json(directory / layout.OPTIMIZER_META, lambda meta: meta.update(tensors=tensors))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: [t.pop(key) for key in list(t) if key.startswith("0.weight::")],
        lambda t: t.update({"nothing::exp_avg": torch.zeros(1)}),
        lambda t: t.update({"nothing": torch.zeros(1)}),
        lambda t: t.update({"0.weight::exp_avg": t["0.weight::exp_avg"].half()}),
        lambda t: t.update({"0.weight::exp_avg": t["0.weight::exp_avg"].T.contiguous()}),
        lambda t: t.update({"0.weight::exp_avg_sq": torch.zeros(1)}),
    ],
)
def test_a_list_that_goes_with_wrong_tensors_does_not_help_them(tmp_path: Path, change: Callable[[Any], object]) -> None:
    trained = _Trained()
    _write(tmp_path, trained.files())
    _change(tmp_path / layout.OPTIMIZER, change)
    _also_listed(tmp_path)
    with pytest.raises(CheckpointError):
        trained.resumed(tmp_path)


def test_another_optimizer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    trained = _Trained("adamw")
    _write(tmp_path, trained.files())
    with pytest.raises(CheckpointError, match="was saved with the optimizer AdamW, this run uses AdamW8bit") as caught:
        trained.resumed(tmp_path, "adamw_8bit")
    assert "--optimizer" in str(caught.value.hint)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '"AdamW"', '{"class": "AdamW"}', '{"class": "AdamW", "tensors": [], "scalars": 3}'],
)
def test_a_description_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    trained = _Trained()
    _write(tmp_path, trained.files())
    (tmp_path / layout.OPTIMIZER_META).write_text(content)
    with pytest.raises(CheckpointError):
        trained.resumed(tmp_path)


@pytest.mark.parametrize("scalars", [None, 3, {"nothing": {"step": 1}}, {"0.weight": 3}])
def test_numbers_of_no_parameter_are_refused(tmp_path: Path, scalars: Any) -> None:
    trained = _Trained("adamw_8bit")
    _write(tmp_path, trained.files())
    _change_json(tmp_path / layout.OPTIMIZER_META, lambda meta: meta.update(scalars=scalars))
    with pytest.raises(CheckpointError):
        trained.resumed(tmp_path, "adamw_8bit")


# Random state ------------------------------------------------------------------------------------------------------------


def _draws() -> list[Any]:
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(3).tolist(),
        torch.randn(3).tolist(),
    ]


@pytest.mark.parametrize("before", [0, 1, 7])
def test_every_generator_goes_on_where_it_was(tmp_path: Path, before: int) -> None:
    state.seed_everything(5)
    for _ in range(before):  # an odd number leaves a second Gaussian number in store
        random.gauss(0, 1)
        np.random.randn()
        torch.randn(1)
    path = tmp_path / layout.rng_file(0)
    path.write_bytes(state.rng_state())
    expected = _draws()
    state.seed_everything(6)
    _draws()
    state.restore_rng(path)
    assert state.rng_state() == path.read_bytes()
    assert _draws() == expected


def test_the_seed_decides_every_generator() -> None:
    draws = []
    for seed in (1, 1, 2):
        state.seed_everything(seed)
        draws.append(_draws())
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("python"),
        lambda s: s.pop("numpy"),
        lambda s: s.pop("torch_cpu"),
        lambda s: s.update(torch_cpu=s["torch_cpu"][:-2]),
        lambda s: s.update(torch_cpu="xyz"),
        lambda s: s.update(torch_cpu=None),
        lambda s: s.update(numpy=3),
        lambda s: s["numpy"].__setitem__(1, [-1] * 624),
        lambda s: s["numpy"].__setitem__(1, [1]),
        lambda s: s["python"].__setitem__(1, [2**40] * 625),
        lambda s: s["python"].__setitem__(1, [1]),
    ],
)
def test_a_random_state_that_is_none_is_refused(tmp_path: Path, change: Callable[[Any], object]) -> None:
    path = tmp_path / layout.rng_file(0)
    path.write_bytes(state.rng_state())
    _change_json(path, change)
    with pytest.raises(CheckpointError):
        state.restore_rng(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"\x80\x04N."])
def test_a_random_state_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / layout.rng_file(0)
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        state.restore_rng(path)


# Files -------------------------------------------------------------------------------------------------------------------


def test_all_files_are_safetensors_or_json(tmp_path: Path) -> None:
    files = {**adapter_files(_adapter()), **_Trained("adamw_8bit").files(), layout.rng_file(0): state.rng_state()}
    assert sorted(files) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.json",
        "optimizer.safetensors",
        "rng_state_0.json",
    ]
    for name, content in files.items():
        if name.endswith(".json"):
            json.loads(content.decode("utf-8"), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
        else:
            assert safetensors.torch.load(content)


def test_json_is_stable_and_has_no_numbers_that_are_none() -> None:
    assert (
        state.to_json({"b": {"y", "x"}, "a": torch.bfloat16}) == b'{\n  "a": "bfloat16",\n  "b": [\n    "x",\n    "y"\n  ]\n}\n'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        state.to_json(float("nan"))


def test_a_snapshot_does_not_follow_the_optimizer() -> None:
    trained = _Trained()
    files = trained.files()
    before = dict(files)
    trained.step()
    assert files == before != trained.files()
