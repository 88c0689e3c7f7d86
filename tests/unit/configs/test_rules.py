"""Settings of the task diffusion: what they are where nothing is said, and what does not go with images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import by_path
from pitstop.configs.load import BaseRun, Loaded, load_recorded, load_settings, settings_to_dict

TASK = {"training.task": "diffusion", "data.train": ["CIFAR10"]}
OF_TASK = "default of task diffusion"


def _load(*, config_files: Any = (), environ: Any = None, based: bool = False, **flags: Any) -> Loaded:
    """With flags as ``lora__rank``; ``based``: on a base training, as ``--from`` gives it."""
    given = {**TASK, **({"model.from_run": "base_training/1@best"} if based else {})}
    given |= {path.replace("__", "."): value for path, value in flags.items()}
    return load_settings(
        flags={path: value for path, value in given.items() if value is not ...},
        config_files=config_files,
        environ=environ or {},
        require_model_and_data=True,
        find_base_run=_find,
    )


def _find(base_dir: str, reference: str) -> BaseRun:
    values = {"model.id": "diffit-base", "training.task": "diffusion"}
    return BaseRun("base_training/run_001@epoch_002", "base_training/run_001", values)


def _refused(**how: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        _load(**how)
    return caught.value


# Defaults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.batch_size", 64),
        ("training.gradient_accumulation_steps", 1),
        ("training.learning_rate", 2e-4),
        ("training.weight_decay", 0.0),
        ("training.method", "full"),
        ("model.from_scratch", True),
        ("model.config", "diffit-cifar-l2"),
    ],
)
def test_a_default_of_the_task_says_so(path: str, value: Any) -> None:
    loaded = _load()
    assert _at(loaded, path) == value and type(_at(loaded, path)) is type(value)
    assert (loaded.sources[path].kind, loaded.sources[path].place) == ("default", OF_TASK)


def _at(loaded: Loaded, path: str) -> Any:
    value: Any = settings_to_dict(loaded.settings)
    for part in path.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.batch_size", 7),
        ("training.gradient_accumulation_steps", 3),
        ("training.learning_rate", 1e-3),
        ("training.weight_decay", 0.1),
        ("model.config", "diffit-cpu"),
    ],
)
def test_what_is_given_stays(path: str, value: Any) -> None:
    loaded = _load(**{path.replace(".", "__"): value})
    assert _at(loaded, path) == value and loaded.sources[path].kind == "flag"


def test_a_given_value_that_equals_the_usual_default_is_not_taken_for_one() -> None:
    usual = by_path()["training.batch_size"].default
    assert _load(training__batch_size=usual).settings.training.batch_size == usual != 64


def test_the_defaults_are_the_task_s_alone() -> None:
    text = load_settings(flags={"model.id": "m", "data.train": ["a"]}, environ={})
    assert OF_TASK not in {source.place for source in text.sources.values()}
    assert text.settings.training.batch_size != 64 and text.settings.training.method == "qlora"


def test_a_size_from_scratch_gives_the_model_its_name() -> None:
    settings = _load(model__config="diffit-cpu").settings
    assert (settings.model.id, settings.model.config, settings.model.from_scratch) == ("diffit-cpu", "diffit-cpu", True)
    assert settings.training.epochs == 3 and not settings.quantization.load_in_4bit
    assert settings.model.tokenizer is None


def test_on_a_base_training_an_adapter_is_trained() -> None:
    loaded = _load(based=True)
    settings = loaded.settings
    assert (settings.training.method, settings.model.from_scratch, settings.model.config) == ("lora", False, None)
    assert loaded.sources["training.method"].place == OF_TASK
    assert (settings.model.id, settings.quantization.load_in_4bit) == ("diffit-base", False)
    assert settings.training.batch_size == 64


def test_the_task_follows_from_the_base_training() -> None:
    settings = _load(based=True, training__task=...).settings
    assert (settings.training.task, settings.training.method, settings.training.batch_size) == ("diffusion", "lora", 64)


def test_a_base_training_can_be_gone_on_from_with_all_its_weights() -> None:
    settings = _load(based=True, training__method="full").settings
    assert (settings.training.method, settings.model.from_scratch, settings.model.config) == ("full", False, None)


def test_a_model_in_a_directory_is_a_base_too() -> None:
    assert _load(model__id="exported").settings.training.method == "lora"


def test_a_name_for_a_model_from_scratch_makes_no_base_of_it() -> None:
    settings = _load(model__id="mine", model__from_scratch=True).settings
    assert (settings.training.method, settings.model.id, settings.model.config) == ("full", "mine", "diffit-cifar-l2")


def test_no_4_bit_form_is_no_word_for_an_adapter() -> None:
    """``LOAD_IN_4BIT=false`` in a ``.env`` says nothing of which method is wanted."""
    loaded = _load(environ={"LOAD_IN_4BIT": "false"})
    assert (loaded.settings.training.method, loaded.settings.model.from_scratch) == ("full", True)
    assert _load(environ={"LOAD_IN_4BIT": "false"}, based=True).settings.training.method == "lora"


# Refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"training__method": "qlora"}, "training.method (--method)"),
        ({"training__method": "qlora", "based": True}, "training.method (--method)"),
        ({"environ": {"LOAD_IN_4BIT": "true"}}, "quantization.load_in_4bit (LOAD_IN_4BIT)"),
        ({"environ": {"LOAD_IN_4BIT": "true"}, "training__method": "lora"}, "quantization.load_in_4bit (LOAD_IN_4BIT)"),
    ],
)
def test_there_is_no_4_bit_form(how: dict[str, Any], named: str) -> None:
    error = _refused(**how)
    assert named in error.message and "no 4-bit form" in error.message and error.hint == "Give --method lora."


@pytest.mark.parametrize(
    ("path", "value", "flag"),
    [("model.tokenizer", "gpt2", "--tokenizer"), ("evaluation.sample_prompts", "prompts.txt", "--sample-prompts")],
)
def test_what_is_for_text_is_refused(path: str, value: str, flag: str) -> None:
    error = _refused(**{path.replace(".", "__"): value})
    assert error.message == f"{path} ({flag}) is for text, and the task is diffusion." and error.hint == "Leave it out."


@pytest.mark.parametrize(
    ("path", "value", "flag"),
    [
        ("data.classes", ["cat"], "--classes"),
        ("data.label", "Cats", "--data-label"),
        ("diffusion.conditional_classes", 3, "--conditional-classes"),
        ("diffusion.flip", True, "--flip-images"),
        ("diffusion.fid_images", 10, "--fid-images"),
        ("lora.stage_ranks", ["2", "1"], "--lora-stage-ranks"),
    ],
)
@pytest.mark.parametrize("task", ["sft", "ner", "rank"])
def test_what_is_for_images_is_refused_with_other_tasks(path: str, value: Any, flag: str, task: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags={"model.id": "m", "data.train": ["a"], "training.task": task, path: value}, environ={})
    assert caught.value.message == f"{path} ({flag}) is for images, and the task is {task}."
    assert "--task diffusion" in str(caught.value.hint)


@pytest.mark.parametrize("ranks", [["12", "x"], ["0", "4"], ["4097"], ["-2"], ["1.5"], ["²"], ["٣"]])
def test_ranks_are_whole_numbers(ranks: list[str]) -> None:
    error = _refused(based=True, lora__stage_ranks=ranks)
    assert error.message.startswith("--lora-stage-ranks: '") and "not whole numbers from 1 to 4096" in error.message
    assert "12,10,8" in str(error.hint)


def test_one_data_set_is_trained_on() -> None:
    error = _refused(data__train=["CIFAR10", "CIFAR100"])
    assert error.message == "data.train (--dataset) names 2 data sets; the task diffusion trains on one."


@pytest.mark.parametrize("how", [{}, {"based": True}, {"training__method": "lora"}])
def test_without_images_it_says_which_there_are(how: dict[str, Any]) -> None:
    error = _refused(data__train=..., **how)
    assert error.message == "There are no training images." and "CIFAR10" in str(error.hint)


def test_without_images_the_task_is_not_the_demo() -> None:
    loaded = load_settings(flags={"training.task": "diffusion"}, environ={})
    assert not loaded.notes and loaded.settings.data.train == [] and loaded.settings.model.id == "diffit-cifar-l2"


def test_an_adapter_needs_a_base() -> None:
    error = _refused(training__method="lora")
    assert "no base model for the adapter" in error.message
    assert "--from base_training/1@best" in str(error.hint) and "--method full" in str(error.hint)


def test_a_configuration_is_for_a_model_from_scratch() -> None:
    assert "model.config (--model-config) is for a model from scratch only" in _refused(based=True, model__config="x").message
    assert "contradicts model.from_scratch" in _refused(based=True, model__from_scratch=True).message


# Ranks by resolution ---------------------------------------------------------------------------------------------------


def test_the_first_rank_is_the_one_that_names_are_made_of_and_alpha_keeps_its_proportion() -> None:
    rank, alpha = (by_path()[f"lora.{name}"].default for name in ("rank", "alpha"))
    loaded = _load(based=True, lora__stage_ranks=["12", "10", "8"])
    lora = loaded.settings.lora
    assert (lora.rank, lora.alpha, lora.stage_ranks) == (12, 12 * alpha // rank, ["12", "10", "8"]) and alpha == 2 * rank
    assert loaded.sources["lora.rank"].place == loaded.sources["lora.alpha"].place == "--lora-stage-ranks"


def test_rank_and_alpha_that_are_given_stay() -> None:
    lora = _load(based=True, lora__stage_ranks=["12", "8"], lora__alpha=5).settings.lora
    assert (lora.rank, lora.alpha) == (12, 5)
    loaded = _load(based=True, lora__stage_ranks=["12", "8"], lora__rank=4)
    assert (loaded.settings.lora.rank, loaded.settings.lora.alpha) == (4, by_path()["lora.alpha"].default)
    assert loaded.sources["lora.rank"].place == "--lora-rank"


def test_ranks_come_from_the_environment_too() -> None:
    assert _load(based=True, environ={"PITSTOP_LORA_STAGE_RANKS": "6, 4"}).settings.lora.stage_ranks == ["6", "4"]


def test_ranks_by_resolution_of_a_preset_can_be_switched_off() -> None:
    lora = _load(based=True, config_files=["blockwise_config"], lora__stage_ranks=["none"]).settings.lora
    assert (lora.rank, lora.stage_ranks) == (12, [])


# Resuming --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("based", [False, True])
def test_a_resumed_run_keeps_what_it_recorded(based: bool) -> None:
    """Also what would be another default today."""
    recorded = settings_to_dict(_load(based=based).settings)
    recorded["training"] |= {"batch_size": 5, "weight_decay": 0.25, "learning_rate": 3e-3}
    loaded = load_recorded(recorded, "config.json", flags={"training.epochs": 9}, environ={"LORA_RANK": "3"})
    wanted = {**recorded, "training": {**recorded["training"], "epochs": 9}}
    assert settings_to_dict(loaded.settings) == wanted
    assert loaded.sources["training.batch_size"].place == "config.json"


# Presets ---------------------------------------------------------------------------------------------------------------


def test_the_presets_of_data_sets_are_for_the_task() -> None:
    for name, spec in (("cifar10", "CIFAR10"), ("cifar100", "CIFAR100"), ("data/cifar10", "CIFAR10")):
        settings = _load(config_files=[name], training__task=..., data__train=...).settings
        assert (settings.training.task, settings.data.train, settings.training.method) == ("diffusion", [spec], "full")
        assert (settings.data.classes, settings.data.label) == ([], None)


@pytest.mark.parametrize(
    ("name", "label", "count"), [("cifar100_trees_only", "Trees", 5), ("cifar100_animals_only", "Animals", 40)]
)
def test_the_presets_of_some_classes_are_listed_by_their_label(name: str, label: str, count: int) -> None:
    files = [name, f"data/{name}", f"configs/data/{name}.yaml"]
    found = [_load(config_files=[file], training__task=..., data__train=..., based=True).settings for file in files]
    assert found[0] == found[1] == found[2]
    data = found[0].data
    assert (data.train, data.label, len(data.classes), len(set(data.classes))) == (["CIFAR100"], label, count, count)
    assert found[0].training.method == "lora"


def test_the_preset_of_ranks_by_resolution_has_twice_the_rank_as_alpha_everywhere() -> None:
    for name in ("blockwise_config", "lora/blockwise_config", "configs/lora/blockwise_config.yaml"):
        lora = _load(config_files=[name], based=True).settings.lora
        assert (lora.rank, lora.alpha, lora.dropout, lora.stage_ranks) == (12, 24, 0.0, ["12", "10", "8"])
        assert lora.target_modules == [
            "q_space", "k_space", "v_space", "q_time", "k_time", "v_time", "attention.out", "mlp.fc1", "mlp.fc2",
        ]  # fmt: skip


def test_presets_go_together_and_a_file_of_the_name_goes_first() -> None:
    both = ["cifar100_trees_only", "blockwise_config"]
    settings = _load(config_files=both, based=True, training__task=..., data__train=...).settings
    assert settings.data.label == "Trees" and settings.lora.stage_ranks == ["12", "10", "8"]
    Path("blockwise_config").write_text("lora: {rank: 3}\n", encoding="utf-8")
    lora = _load(config_files=["blockwise_config"], based=True).settings.lora
    assert (lora.rank, lora.stage_ranks) == (3, [])


def test_a_preset_that_is_not_there_is_refused_with_the_nearest() -> None:
    error = _refused(config_files=["cifar100_tree_only"])
    assert "neither a shipped preset nor a file" in error.message and "cifar100_trees_only" in str(error.hint)


def test_images_are_looked_for_from_the_directory_that_a_run_was_started_in() -> None:
    assert _load(environ={"PITSTOP_DATA_ROOT": "elsewhere"}).settings.data.root == "elsewhere"
    assert _load().settings.data.root == "data"


def test_a_base_keeps_what_it_is_told_of_classes() -> None:
    assert "from scratch" in _refused(based=True, diffusion__conditional_classes=3).message
    assert _load(diffusion__conditional_classes=3).settings.diffusion.conditional_classes == 3


# Records ------------------------------------------------------------------------------------------------------------------

SFT = {"training__task": "sft", "model__id": "m", "data__train": ["a.jsonl"]}


def test_settings_of_fields_are_checked_before_a_record_is_read() -> None:
    for path, value in (
        ("columns", ["prompt"]),
        ("columns", ["prompt=a..b"]),
        ("roles", ["critic="]),
        ("prompt_template", "no field"),
        ("group_by", "a["),
    ):
        assert _refused(**SFT, **{f"data__{path}": value}).message.startswith(f"data.{path} (")


def test_texts_come_from_files_with_their_white_space() -> None:
    Path("question.txt").write_text("{q}\nAnswer:\n")
    data = _load(**SFT, data__prompt_template="@question.txt", data__system_prompt=" Be brief. ").settings.data
    assert (data.prompt_template, data.system_prompt) == ("{q}\nAnswer:\n", " Be brief. ")
    assert _refused(**SFT, data__system_prompt="@missing.txt").message.endswith(
        "the file missing.txt cannot be read: No such file or directory."
    )
    Path("latin.txt").write_bytes(b"\xe9")
    assert "it is not UTF-8 text" in _refused(**SFT, data__system_prompt="@latin.txt").message


def test_a_recorded_text_that_begins_with_an_at_sign_is_no_file() -> None:
    Path("handle.txt").write_text("@home")
    settings = _load(**SFT, data__system_prompt="@handle.txt").settings
    assert settings.data.system_prompt == "@home"
    assert load_recorded(settings_to_dict(settings), "config.json").settings.data.system_prompt == "@home"


def test_settings_of_records_are_for_the_task_that_reads_them() -> None:
    for task, path, value in (
        ("ner", "columns", ["prompt=q"]),
        ("rank", "learn", "last"),
        ("rank", "max_records", 3),
        ("diffusion", "shape", "text"),
    ):
        flags = {**SFT, "training__task": task, f"data__{path}": value}
        if task == "diffusion":
            flags |= {"data__train": ["CIFAR10"], "model__id": ...}
        assert f"is not for the task {task}" in _refused(**flags).message
    assert _load(**{**SFT, "training__task": "ner"}, data__max_records=3).settings.data.max_records == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"training.task": "ner", "data.too_long": "left"}, "is for the task sft, and the task is ner"),
        ({"training.task": "diffusion", "data.duplicates": "drop"}, "is for text, and the task is diffusion"),
        ({"data.too_long": "drop", "data.overlap": 2}, "is for documents that are split, and none is"),
        ({"data.max_length": 16, "data.overlap": 9}, "9 tokens are more than half of MAX_LENGTH = 16"),
    ],
)
def test_ways_to_fit_records_that_cannot_be(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(flags=flags, environ={})


def test_an_overlap_of_half_a_piece_and_leaving_out_in_any_task() -> None:
    assert load_settings(flags={"data.max_length": 16, "data.overlap": 8}, environ={}).settings.data.overlap == 8
    assert (
        load_settings(flags={"training.task": "rank", "data.too_long": "refuse"}, environ={}).settings.data.too_long == "refuse"
    )
