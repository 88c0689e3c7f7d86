"""Weights that are not those of the architecture that config.json names, by their headers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pitstop.configs.errors import CheckpointError, ModelError
from pitstop.configs.notices import Notice
from pitstop.trainers.models.base import BaseRecipe, load_base
from pitstop.trainers.models.causal_lm import CausalLM
from pitstop.trainers.models.fit import Fit, stored_tensors, weight_files
from pitstop.trainers.models.source import ModelSource
from support.wrong_models import INDEX, WEIGHTS, change_config, change_tensors, renamed, reshaped, sharded, without

CPU = torch.device("cpu")
PLAIN = BaseRecipe(quantised=False, quant_type="nf4", double_quant=True, compute=torch.float32)
NF4 = BaseRecipe(quantised=True, quant_type="nf4", double_quant=True, compute=torch.bfloat16)
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
QUERY, MLP = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to be changed."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def check(directory: Path) -> list[Notice]:
    """What is told of the weights in ``directory``."""
    notices: list[Notice] = []
    CausalLM().check(ModelSource("my/model", directory, None), notices.append)
    return notices


def test_weights_that_fit_are_told_nothing_of(model: Path) -> None:
    assert check(model) == []


@pytest.mark.parametrize(
    ("change", "words", "remedy"),
    [
        (without(MLP), f"1 of 21 tensors is missing ({MLP})", "same model"),
        (without(QUERY, MLP), f"2 of 21 tensors are missing ({QUERY}, {MLP})", "same model"),
        (without(HEAD), f"is missing ({HEAD})", "set tie_word_embeddings to true"),
        (reshaped(QUERY), f"{QUERY} is [128, 64] and should be [64, 64]", "same model"),
        (renamed("_orig_mod."), "21 of 21 tensors are missing", "'_orig_mod.' in them, as torch.compile leaves"),
        (renamed("module."), "21 of 21 tensors are missing", "'module.' in them, as DataParallel"),
        (renamed("module._orig_mod."), "21 of 21 tensors are missing", "'module._orig_mod.' in them."),
        (renamed("base_model.model."), "21 of 21 tensors are missing", "as PEFT leaves them"),
        (
            lambda d: change_tensors(d, lambda t: {name.replace("layers.", "layers._orig_mod."): t[name] for name in t}),
            "18 of 21 tensors are missing",
            "'_orig_mod.' in them",
        ),
        (
            lambda d: change_tensors(d, lambda t: {name.replace(".self_attn", ""): t[name] for name in t}),
            "8 of 21 tensors are missing",
            "names that lack 'self_attn.'",
        ),
    ],
)
def test_what_is_missing_or_of_another_shape_is_refused_by_name(
    model: Path, change: Callable[[Path], None], words: str, remedy: str
) -> None:
    change(model)
    with pytest.raises(ModelError, match=re.escape(words)) as refused:
        check(model)
    assert remedy in str(refused.value.hint)
    with pytest.raises(ModelError, match=re.escape(words)):  # and so does loading, if it comes to that
        load_base(model, PLAIN, CPU, stored=False, flash=False)


def test_the_shape_of_a_weight_that_is_quantised_on_loading_is_looked_at_before(model: Path) -> None:
    """transformers does not: it would load, and fail or compute nonsense."""
    reshaped(QUERY)(model)
    with pytest.raises(ModelError, match=r"q_proj\.weight is \[128, 64\]"):
        check(model)


def test_a_missing_tensor_of_a_model_in_4_bits_is_refused(model: Path) -> None:
    without(MLP)(model)
    with pytest.raises(ModelError, match="up_proj"):
        load_base(model, NF4, CPU, stored=False, flash=False)


@pytest.mark.parametrize("recipe", [PLAIN, NF4], ids=["plain", "4-bit"])
@pytest.mark.parametrize("lost", ["model.norm.weight", MLP])
def test_a_stored_base_that_lacks_a_tensor_is_refused(model: Path, tmp_path: Path, recipe: BaseRecipe, lost: str) -> None:
    """In 4 bits a weight is several tensors, which transformers joins."""
    from transformers import AutoTokenizer

    from pitstop.trainers.models.base import save_base

    base = load_base(model, recipe, CPU, stored=False, flash=False)
    save_base(base, AutoTokenizer.from_pretrained(model), tmp_path / "stored")
    load_base(tmp_path / "stored", recipe, CPU, stored=True, flash=False)
    without(lost)(tmp_path / "stored")
    parts = recipe.quantised and lost == MLP
    with pytest.raises(ModelError, match="not all there" if parts else re.escape(lost)):
        load_base(tmp_path / "stored", recipe, CPU, stored=True, flash=False)


def test_a_checkpoint_of_all_weights_that_lacks_a_tensor_is_damaged(model: Path) -> None:
    """As many numbers as its config.json describes, under another name."""
    change_tensors(model, lambda t: {("another.weight" if name == MLP else name): tensor for name, tensor in t.items()})
    with pytest.raises(CheckpointError, match="up_proj"):
        CausalLM().load(model, PLAIN, CPU, stored=True, flash=False, frozen=False)


def test_what_has_no_place_is_told_once_with_its_number_and_first_names(model: Path) -> None:
    extra = {f"value_head.{name}": torch.zeros(2) for name in "abcd"}
    change_tensors(model, lambda t: {**t, **extra})
    (notice,) = check(model)
    assert (notice.count, notice.subject) == (4, "my/model")
    assert "value_head.a, value_head.b, value_head.c, …" in str(notice)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.1.attn.bias", "h.0.attention.masked_bias", "position_ids"],
)
def test_buffers_that_older_versions_saved_are_no_news(model: Path, name: str) -> None:
    change_tensors(model, lambda t: {**t, name: torch.zeros(4)})
    assert check(model) == []


def test_tied_weights_need_to_be_there_only_once(model: Path) -> None:
    change_config(model, tie_word_embeddings=True)
    for name in (HEAD, EMBEDDINGS):
        copy = Path(shutil.copytree(model, model.parent / name))
        without(name)(copy)
        assert check(copy) == []
        loaded: Any = load_base(copy, PLAIN, CPU, stored=False, flash=False)
        assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    without(HEAD, EMBEDDINGS)(model)
    with pytest.raises(ModelError, match=EMBEDDINGS):
        check(model)


def test_tied_weights_that_are_stored_twice_and_differ_are_told_and_stay_apart(model: Path, tmp_path: Path) -> None:
    """transformers unties them for this time; saved with a config that ties them they would be another model elsewhere."""
    from transformers import AutoTokenizer

    from pitstop.trainers.models.base import save_base

    change_config(model, tie_word_embeddings=True)
    (notice,) = check(model)
    assert f"{HEAD} and {EMBEDDINGS}" in str(notice) and "as it is stored" in str(notice)
    loaded: Any = load_base(model, PLAIN, CPU, stored=False, flash=False)
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    assert loaded.config.tie_word_embeddings is False
    save_base(loaded, AutoTokenizer.from_pretrained(model), tmp_path / "stored")
    again: Any = load_base(tmp_path / "stored", PLAIN, CPU, stored=True, flash=False)
    assert torch.equal(again.lm_head.weight, loaded.lm_head.weight)
    assert torch.equal(again.model.embed_tokens.weight, loaded.model.embed_tokens.weight)


def test_tied_weights_that_are_stored_twice_alike_are_tied(model: Path) -> None:
    change_config(model, tie_word_embeddings=True)
    change_tensors(model, lambda t: {**t, HEAD: t[EMBEDDINGS]})
    assert check(model) == []


def test_shards_are_those_that_the_index_names(model: Path) -> None:
    shards = sharded(model)
    assert weight_files(model) == shards
    assert len(stored_tensors(model)) == 21
    assert check(model) == []
    (model / INDEX).unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors and no model\.safetensors\.index\.json, only model-00001"):
        weight_files(model)


def test_files_that_are_links_are_read_as_in_the_cache_of_the_hub(model: Path, tmp_path: Path) -> None:
    for path in [*sharded(model), model / INDEX, model / "config.json"]:
        blob = tmp_path / f"blob-{path.name.replace('.', '-')}"
        path.rename(blob)
        path.symlink_to(blob)
    assert check(model) == []
    shard = model / "model-00002-of-00002.safetensors"
    shard.resolve().write_bytes(b"")
    with pytest.raises(ModelError, match=re.escape(f"{shard}: cannot be read")):
        check(model)


def test_a_pointer_of_git_lfs_in_place_of_the_weights_says_how_to_get_them(model: Path) -> None:
    (model / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n")
    with pytest.raises(ModelError, match=re.escape(str(model / WEIGHTS))) as refused:
        check(model)
    assert "git lfs pull" in str(refused.value.hint)


def test_types_that_only_others_store_are_read(model: Path) -> None:
    change_tensors(model, lambda t: {**t, MLP: t[MLP].to(torch.float8_e4m3fn)})
    assert check(model) == []


def test_experts_that_are_stored_one_by_one_fit_and_one_that_is_missing_does_not(tmp_path: Path) -> None:
    """transformers joins them on loading: names and shapes are not those of the file."""
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=32, num_key_value_heads=2, num_local_experts=3, **sizes)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    experts = [name for name in stored_tensors(tmp_path) if ".experts." in name]
    assert len(experts) == 9
    assert check(tmp_path) == []
    without(*experts)(tmp_path)
    with pytest.raises(ModelError, match="experts"):
        check(tmp_path)


def test_the_fit_of_plain_shapes() -> None:
    fit = Fit.of_shapes({"a": (2,), "b": (2, 3), "x": (1,)}, {"a": (2,), "b": (3, 2), "c": (1,)})
    assert fit == Fit(missing=("c",), mismatched=(("b", (2, 3), (3, 2)),), unexpected=("x",))
