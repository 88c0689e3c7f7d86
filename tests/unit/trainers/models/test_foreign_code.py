"""A base model that would have a library run code, read a pickle or look elsewhere is refused before the library sees it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pitstop.configs.errors import ModelError
from pitstop.configs.schema import LoraSettings, ModelSettings, Settings
from pitstop.trainers.models.base import BaseRecipe, load_base, save_base
from pitstop.trainers.models.foreign_code import check_stored
from pitstop.trainers.models.source import ModelSource, find_model
from pitstop.trainers.models.tokenizer import load_tokenizer
from support.forging import change_json

pytestmark = pytest.mark.faults

RECIPE = BaseRecipe(quantised=True, quant_type="nf4", double_quant=True, compute=torch.bfloat16)
CPU = torch.device("cpu")
AUTO_MAP = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": "evil.Tokenizer"}


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model with a module beside it that makes a file when it is imported."""
    directory = tmp_path / "model"
    shutil.copytree(tiny, directory)
    (directory / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    return directory


@pytest.fixture(scope="module")
def saved(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 4-bit copy of the tiny model as Pitstop saves it."""
    directory = tmp_path_factory.mktemp("saved")
    save_base(load_base(tiny, RECIPE, CPU, stored=False, flash=False), load_tokenizer(tiny), directory)
    return directory


@pytest.fixture
def stored(saved: Path, tmp_path: Path) -> Path:
    """A copy of that copy."""
    shutil.copytree(saved, tmp_path / "stored")
    return tmp_path / "stored"


@pytest.fixture(autouse=True)
def _no_canary(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "canary").exists()


def found(directory: Path) -> ModelSource:
    return find_model(Settings(model=ModelSettings(id=str(directory))))


def refused(directory: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        found(directory)
    assert caught.value.exit_code == 3
    return caught.value


def config(directory: Path, **changes: Any) -> None:
    change_json(directory / "config.json", lambda content: content.update(changes))


# Sources -----------------------------------------------------------------------------------------------------------------


def test_an_architecture_that_only_exists_as_code_is_refused(model: Path) -> None:
    config(model, auto_map=AUTO_MAP, model_type="evil")
    error = refused(model)
    assert "needs code of its own" in error.message and "never runs" in error.message and error.hint


def test_code_beside_a_known_architecture_is_passed_over_and_not_saved(model: Path, tmp_path: Path) -> None:
    config(model, auto_map=AUTO_MAP)
    change_json(model / "tokenizer_config.json", lambda content: content.update(auto_map=AUTO_MAP))
    path = found(model).path
    base: Any = load_base(path, RECIPE, CPU, stored=False, flash=False)
    assert type(base).__module__.startswith("transformers.")
    save_base(base, load_tokenizer(path), tmp_path / "saved")
    assert "auto_map" not in "".join(file.read_text() for file in (tmp_path / "saved").glob("*.json"))
    check_stored(tmp_path / "saved")


def test_the_plan_asks_nobody_whether_code_may_run(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pitstop.trainers.training.planning import without_weights

    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked the user"))
    config(model, auto_map={"AutoModelForCausalLM": "evil.Model"})
    assert without_weights(Settings(model=ModelSettings(id=str(model)), lora=LoraSettings(rank=2)), found(model))


def test_a_tokenizer_that_is_code_is_refused(model: Path) -> None:
    change_json(
        model / "tokenizer_config.json",
        lambda content: content.update(auto_map={"AutoTokenizer": ["evil.T", None]}, tokenizer_class="Evil"),
    )
    config(model, model_type="evil")
    with pytest.raises(ModelError):
        load_tokenizer(model)


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "_experts_implementation"])
@pytest.mark.parametrize("value", ["evil/kernel", "evil/kernel@v1:run", {"": "evil/kernel"}])
def test_a_kernel_on_the_hub_is_code(model: Path, key: str, value: Any) -> None:
    config(model, **{key: value})
    assert "kernel on the Hub" in refused(model).message


def test_a_kernel_in_a_nested_config_is_found(model: Path) -> None:
    config(model, text_config={"_attn_implementation": "evil/kernel"})
    assert "kernel on the Hub" in refused(model).message


@pytest.mark.parametrize(
    "shard", ["pytorch_model.bin", "../outside.safetensors", "/etc/x.safetensors", "a\\b.safetensors", 3, None]
)
def test_an_index_that_leads_to_a_pickle_or_out_of_the_directory_is_refused(model: Path, tmp_path: Path, shard: Any) -> None:
    payload = pickle.dumps(_Payload(str(tmp_path / "canary")))
    (model / "pytorch_model.bin").write_bytes(payload)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
    assert "model.safetensors.index.json" in refused(model).message


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("value", ["../outside.safetensors", "/etc/x.safetensors", "pytorch_model.bin", ["a"]])
def test_weights_named_by_the_config_stay_in_the_directory(model: Path, value: Any) -> None:
    config(model, transformers_weights=value)
    assert "transformers_weights" in refused(model).message


def test_an_adapter_beside_a_base_is_refused(model: Path) -> None:
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/model", "peft_type": "LORA"}))
    assert "holds an adapter" in refused(model).message


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "\x80"])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_config_that_is_none_is_an_error_for_the_user(model: Path, name: str, content: str) -> None:
    (model / name).write_text(content)
    assert name in refused(model).message


def test_pickled_weights_beside_safetensors_are_not_read(model: Path, tmp_path: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(_Payload(str(tmp_path / "canary"))))
    load_base(found(model).path, RECIPE, CPU, stored=False, flash=False)


def test_a_model_in_the_cache_of_the_hub_is_made_of_links_and_is_taken(tiny: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in tiny.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert found(snapshot).digest({}) == found(tiny).digest({})


def test_a_config_with_infinity_as_transformers_writes_it_is_taken(model: Path) -> None:
    config(model, time_step_limit=[0.0, float("inf")])
    assert found(model)


# Saved copies ------------------------------------------------------------------------------------------------------------


def test_a_saved_copy_is_taken(stored: Path) -> None:
    load_base(stored, RECIPE, CPU, stored=True, flash=False)


PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "auto_map": (lambda d: config(d, auto_map=AUTO_MAP), "config.json"),
    "nested auto_map": (lambda d: config(d, text_config={"deep": [{"auto_map": AUTO_MAP}]}), "config.json"),
    "auto_map of the tokenizer": (
        lambda d: change_json(d / "tokenizer_config.json", lambda c: c.update(auto_map=AUTO_MAP)),
        "tokenizer_config.json",
    ),
    "pipelines": (lambda d: config(d, custom_pipelines={"x": {"impl": "evil.P"}}), "config.json"),
    "trust": (lambda d: config(d, trust_remote_code=True), "config.json"),
    "generation": (
        lambda d: change_json(d / "generation_config.json", lambda c: c.update(custom_generate="evil/generate")),
        "generation_config.json",
    ),
    "kernel": (lambda d: config(d, _attn_implementation="evil/kernel"), "config.json"),
    "weights elsewhere": (lambda d: config(d, transformers_weights="../x.safetensors"), "config.json"),
    "other quantisation": (lambda d: config(d, quantization_config={"quant_method": "aqlm"}), "config.json"),
    "quantisation that is none": (lambda d: config(d, quantization_config=3), "config.json"),
    "a module": (lambda d: (d / "modeling_evil.py").write_text("evil"), "modeling_evil.py"),
    "a module below": (lambda d: ((d / "a").mkdir(), (d / "a/evil.py").write_text("evil")), "evil.py"),
    "a pickle": (lambda d: (d / "pytorch_model.bin").write_bytes(b"\x80\x04N."), "pytorch_model.bin"),
    "a compiled module": (lambda d: (d / "evil.so").write_bytes(b""), "evil.so"),
    "an adapter": (lambda d: (d / "adapter_config.json").write_text("{}"), "adapter"),
    "an index": (lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.bin"}}'), "index.json"),
}


@pytest.mark.parametrize(("plant", "named"), PLANTED.values(), ids=PLANTED)
def test_a_saved_copy_refers_to_no_code(stored: Path, plant: Callable[[Path], object], named: str) -> None:
    plant(stored)
    with pytest.raises(ModelError) as caught:
        load_base(stored, RECIPE, CPU, stored=True, flash=False)
    assert named in caught.value.message and caught.value.exit_code == 3
