"""Rules between settings: what follows from what, defaults of a method or a task, and what contradicts each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitstop.configs.datasets import ENTRIES, OF_RECORDS, OWN, parse_sources
from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import by_path, nearest
from pitstop.configs.paths import VERBATIM
from pitstop.configs.record_fields import check_path, parse_columns, parse_options, parse_roles, split_template
from pitstop.configs.schema import TRACKERS
from pitstop.configs.secrets import mask
from pitstop.configs.sources import DEFAULT, Source
from pitstop.configs.values import InvalidValue, parse

IMAGE_TASK = "diffusion"
"""The task whose models make images; the others are of text."""

_TASK, _METHOD, _IN_4BIT = "training.task", "training.method", "quantization.load_in_4bit"
_MODEL, _FROM_RUN, _FROM_SCRATCH = "model.id", "model.from_run", "model.from_scratch"
_CONFIG, _TOKENIZER = "model.config", "model.tokenizer"
_DATA, _EVAL_DATA, _TEMPLATE_DATE = "data.train", "data.eval", "data.template_date"
_TEMPLATE_OPTIONS = "data.template_options"
_EPOCHS, _BASE_TRAINING_EPOCHS = "training.epochs", 3
_PUSH_BASE, _SAVE_BASE = "hub.push_base", "training.checkpoint.save_base_model"
_REPORT_TO = "tracking.report_to"
_RANK, _ALPHA, _STAGE_RANKS = "lora.rank", "lora.alpha", "lora.stage_ranks"
_CONDITIONAL = "diffusion.conditional_classes"

_OF_IMAGES = ("data.classes", "data.label", _STAGE_RANKS, _CONDITIONAL, "diffusion.flip", "diffusion.fid_images")
_DUPLICATES = "data.duplicates"
_TOO_LONG, _OVERLAP, _MAX_LENGTH = "data.too_long", "data.overlap", "data.max_length"
_OF_TEMPLATE = (_TEMPLATE_DATE, "data.chat_template", "data.thinking", _TEMPLATE_OPTIONS)
_OF_TEXT = (_TOKENIZER, *_OF_TEMPLATE, "model.gradient_checkpointing", "model.use_flash_attention", "evaluation.sample_prompts")
_IMAGE_DEFAULTS = {
    "training.batch_size": 64,
    "training.gradient_accumulation_steps": 1,
    "training.learning_rate": 2e-4,
    "training.weight_decay": 0.0,
}
_IMAGE_MODEL_SIZE = "diffit-cifar-l2"
_OF_IMAGE_TASK = Source("default", f"default of task {IMAGE_TASK}")


@dataclass(frozen=True)
class Draft:
    """Settings that are being resolved: the value and the source of each dotted path. The rules change both in place."""

    values: dict[str, Any]
    sources: dict[str, Source]

    @property
    def of_images(self) -> bool:
        """Whether the task is the one of images."""
        return bool(self.values[_TASK] == IMAGE_TASK)

    def place(self, path: str) -> str:
        """A setting and where its value stands, as messages name it: ``model.id (.env line 3 (MODEL_ID))``."""
        return f"{path} ({self.sources[path].place})"

    def is_default(self, path: str) -> bool:
        """Whether no source has the setting."""
        return self.sources[path] is DEFAULT

    def put(self, path: str, value: Any, source: Source) -> None:
        """Set a value and where it comes from."""
        self.values[path], self.sources[path] = value, source

    def put_default(self, path: str, value: Any, source: Source = _OF_IMAGE_TASK) -> None:
        """Replace the schema's default by that of a method or task; a value from any source stays."""
        if self.is_default(path):
            self.put(path, value, source)


def resolve(draft: Draft) -> None:
    """Put in what follows from other settings.

    Raises:
        SettingsError: settings that contradict each other, or that are not for the task or the method.
    """
    _refuse_other_tasks(draft)
    if draft.of_images:
        _resolve_image_method(draft)
        for path, value in _IMAGE_DEFAULTS.items():
            draft.put_default(path, value)
        _resolve_stage_ranks(draft)
    _resolve_method(draft)
    if draft.values[_METHOD] == "full":
        draft.put_default(_EPOCHS, _BASE_TRAINING_EPOCHS, Source("default", "default of method full"))
    _resolve_scratch(draft)
    _check_push_base(draft)
    draft.values[_REPORT_TO] = _trackers(draft.values[_REPORT_TO], draft.sources[_REPORT_TO])
    _check_data(draft)
    _check_lengths(draft)
    _resolve_records(draft)


def check_complete(draft: Draft) -> None:
    """Refuse settings that nothing can be trained with.

    Raises:
        SettingsError: there is no training data, or no model to train.
    """
    has_model, has_data = bool(draft.values[_MODEL]), bool(draft.values[_DATA])
    if not has_data and draft.of_images:
        raise SettingsError(
            "There are no training images.",
            hint="Give --dataset CIFAR10, CIFAR100, or a folder with one folder of images a class.",
        )
    if has_model and not has_data:
        raise SettingsError(
            "There is a model but no training data.", hint="Set DATASET_PATH or give --dataset FILE (--dataset can be repeated)."
        )
    if has_data and not has_model and draft.of_images:
        raise SettingsError(
            "There is no base model for the adapter.",
            hint="Give --from base_training/1@best, or --method full to train a base first.",
        )
    if has_data and not has_model:
        raise SettingsError(
            "There is training data but no model.", hint="Set MODEL_ID or give --model-id with a Hub id or a directory."
        )


def _refuse_other_tasks(draft: Draft) -> None:
    """Refuse settings of images for a task of text, and the other way round."""
    if [str(rank).lower() for rank in draft.values[_STAGE_RANKS]] == ["none"]:  # switches those of a preset off
        draft.values[_STAGE_RANKS] = []
    for path in _OF_TEXT if draft.of_images else _OF_IMAGES:
        if draft.values[path] and draft.values[path] != by_path()[path].default:
            raise SettingsError(
                f"{draft.place(path)} is for {'text' if draft.of_images else 'images'}, and the task is {draft.values[_TASK]}.",
                hint="Leave it out." if draft.of_images else "Add --task diffusion, or leave it out.",
            )


def _check_lengths(draft: Draft) -> None:
    """Refuse ways to make records fit that are not for the task, and an overlap that pieces have no room for."""
    values = draft.values
    for path in (_TOO_LONG, _DUPLICATES) if draft.of_images else ():
        if draft.sources[path].kind not in ("default", "run"):
            raise SettingsError(f"{draft.place(path)} is for text, and the task is {IMAGE_TASK}.", hint="Leave it out.")
    if values[_TOO_LONG] not in ("auto", "drop", "refuse") and values[_TASK] != "sft":
        raise SettingsError(
            f"{draft.place(_TOO_LONG)} is for the task sft, and the task is {values[_TASK]}.", hint="Give drop or refuse."
        )
    if values[_OVERLAP] and (values[_TOO_LONG] not in ("auto", "split") or values[_TASK] != "sft"):
        raise SettingsError(f"{draft.place(_OVERLAP)} is for documents that are split, and none is.", hint="Leave it out.")
    if 2 * values[_OVERLAP] > values[_MAX_LENGTH]:
        raise SettingsError(
            f"{draft.place(_OVERLAP)}: {values[_OVERLAP]} tokens are more than half of MAX_LENGTH = {values[_MAX_LENGTH]}.",
            hint="Give a smaller --overlap, or a larger --max-length.",
        )


def _resolve_image_method(draft: Draft) -> None:
    """An adapter where there is a base model, otherwise a base model from scratch."""
    values = draft.values
    has_base = bool(values[_FROM_RUN] or values[_MODEL]) and not values[_FROM_SCRATCH]
    if values[_METHOD] is None and not values[_IN_4BIT]:
        draft.put_default(_METHOD, "lora" if has_base else "full")
    if values[_METHOD] == "qlora" or values[_IN_4BIT]:
        path = _METHOD if values[_METHOD] == "qlora" else _IN_4BIT
        raise SettingsError(
            f"{draft.place(path)}: the network of the task diffusion has no 4-bit form.", hint="Give --method lora."
        )
    if values[_METHOD] == "full" and not has_base:
        draft.put_default(_FROM_SCRATCH, True)
    if values[_FROM_SCRATCH]:
        draft.put_default(_CONFIG, _IMAGE_MODEL_SIZE)
    elif values[_CONDITIONAL]:
        raise SettingsError(
            f"{draft.place(_CONDITIONAL)} is for a model from scratch.",
            hint="Leave it out: a base model keeps the classes that it was trained with.",
        )


def _resolve_stage_ranks(draft: Draft) -> None:
    """With a rank for each resolution, ``lora.rank``, which names are made of, is the first, unless a source has it."""
    ranks, source = [str(rank) for rank in draft.values[_STAGE_RANKS]], draft.sources[_STAGE_RANKS]
    if not all(rank.isascii() and rank.isdigit() and 1 <= int(rank) <= 4096 for rank in ranks):
        raise SettingsError(
            f"{source.place}: '{','.join(ranks)}' are not whole numbers from 1 to 4096.",
            hint="Give a rank for each resolution, the finest first, such as 12,10,8.",
        )
    if ranks and draft.is_default(_RANK):
        draft.put_default(_ALPHA, int(ranks[0]) * draft.values[_ALPHA] // draft.values[_RANK], source)
        draft.put(_RANK, int(ranks[0]), source)


def _resolve_method(draft: Draft) -> None:
    """``training.method`` and ``quantization.load_in_4bit`` say the same: one follows from the other."""
    method, in_4bit = draft.values[_METHOD], draft.values[_IN_4BIT]
    if method is not None and in_4bit is not None and (method == "qlora") != in_4bit:
        method, in_4bit = _settle_method(draft, method, in_4bit)
    if method is None and in_4bit is None:
        method = "qlora"
    if method is None:
        method = "qlora" if in_4bit else "lora"
        draft.sources[_METHOD] = draft.sources[_IN_4BIT]
    if in_4bit is None:
        in_4bit = method == "qlora"
        draft.sources[_IN_4BIT] = draft.sources[_METHOD]
    draft.values[_METHOD], draft.values[_IN_4BIT] = method, in_4bit


def _settle_method(draft: Draft, method: str, in_4bit: bool) -> tuple[str | None, bool | None]:
    """A flag beats the record of a resumed run, where both settings stand; two sources of a user contradict each other."""
    if draft.sources[_METHOD].kind == "run":
        return None, in_4bit
    if draft.sources[_IN_4BIT].kind == "run":
        return method, None
    raise SettingsError(
        f"training.method {method} ({draft.sources[_METHOD].place}) contradicts "
        f"quantization.load_in_4bit {str(in_4bit).lower()} ({draft.sources[_IN_4BIT].place}).",
        hint="Give one of the two: qlora stores the base in 4 bits, lora and full do not.",
    )


def _resolve_scratch(draft: Draft) -> None:
    """A model from scratch has the name of its configuration unless it has one of its own."""
    values = draft.values
    if not values[_FROM_SCRATCH]:
        for path in (_CONFIG, _TOKENIZER):
            if values[path]:
                raise SettingsError(
                    f"{draft.place(path)} is for a model from scratch only.", hint="Add --from-scratch, or leave it out."
                )
        return
    _check_scratch(draft)
    if not values[_TOKENIZER] and not draft.of_images:
        draft.put(_TOKENIZER, values[_MODEL], draft.sources[_MODEL])
    if not values[_MODEL]:
        draft.put(_MODEL, values[_CONFIG], draft.sources[_CONFIG])


def _check_scratch(draft: Draft) -> None:
    values, place = draft.values, draft.place(_FROM_SCRATCH)
    if values[_METHOD] != "full":
        raise SettingsError(
            f"{place} needs method full: an adapter on random weights learns nothing.", hint="Give --method full."
        )
    if values[_FROM_RUN]:
        raise SettingsError(f"{draft.place(_FROM_RUN)} contradicts {place}.", hint="Give one of the two.")
    if not values[_CONFIG]:
        raise SettingsError(f"{place} needs a configuration.", hint="Give --model-config FILE.")
    if not draft.of_images and not values[_TOKENIZER] and not values[_MODEL]:
        raise SettingsError(f"{place} needs a tokenizer.", hint="Give --tokenizer, or --model-id to take its.")


def _check_push_base(draft: Draft) -> None:
    if draft.values[_PUSH_BASE] and draft.values[_METHOD] == "full":
        raise SettingsError(
            f"{draft.place(_PUSH_BASE)} pushes the frozen base, and method full freezes none.",
            hint="Leave it out: each checkpoint on the Hub is a whole model.",
        )
    if draft.values[_PUSH_BASE] and not draft.values[_SAVE_BASE]:
        raise SettingsError(
            f"{draft.place(_PUSH_BASE)} pushes the run's copy of the base, and {draft.place(_SAVE_BASE)} says that there is none.",
            hint="Leave one of the two out.",
        )


def _resolve_records(draft: Draft) -> None:
    """Read texts that are given as ``@FILE``, and check what settings say of the fields of records."""
    parse_options(draft.values[_TEMPLATE_OPTIONS], draft.place(_TEMPLATE_OPTIONS))
    for name in OWN:
        path = f"data.{name}"
        if draft.values[path] != by_path()[path].default:
            draft.values[path] = _checked(draft, name, draft.values[path], draft.sources[path].kind, draft.place(path))
    for path, of_each in ENTRIES.items():
        draft.values[of_each] = _own_settings(draft, path, of_each)


def _own_settings(draft: Draft, path: str, of_each: str) -> list[str]:
    """What each data set has of its own, less what flags set for all; nothing where another source names the data sets."""
    texts, source = draft.values[of_each], draft.sources.pop(of_each)  # nobody sets it, so that no source is told
    is_moved = source.kind == "run" and len(texts) == len(draft.values[path])  # a resume says where they lie now
    if source != draft.sources[path] and not is_moved:
        return []
    results = []
    for text in texts:
        settings = {name: value for name, value in json.loads(text).items() if draft.sources[f"data.{name}"].kind != "flag"}
        for name, value in settings.items():
            place = f"data.{name} ({source.place})"
            try:
                settings[name] = _checked(draft, name, parse(by_path()[f"data.{name}"], value), source.kind, place)
            except InvalidValue as error:
                raise SettingsError(f"{place}: {error}.") from None
        results.append(json.dumps(settings, ensure_ascii=False, sort_keys=True))
    return results if any(text != "{}" for text in results) else []


def _checked(draft: Draft, name: str, value: Any, kind: str, place: str) -> Any:
    """The value of a setting of records, of the run or of a data set: with the text of its file, and found to be for the task."""
    task = draft.values[_TASK]
    if task != "sft" and (name in OF_RECORDS or task != "ner"):
        raise SettingsError(f"{place} is not for the task {task}.", hint="Leave it out.")
    if f"data.{name}" in VERBATIM and value and value.startswith("@") and kind != "run":
        value = _text_of_file(value[1:], place)
    if name == "columns":
        parse_columns(value, place)
    elif name == "roles":
        parse_roles(value, place)
    elif name == "prompt_template" and value:
        split_template(value, place)
    elif name == "group_by" and value:
        check_path(value, place)
    return value


def _text_of_file(name: str, place: str) -> str:
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError) as error:  # not there, not UTF-8, no such user
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"{place}: the file {name} cannot be read: {reason}.", hint="Check the path behind the @.") from error


def _trackers(entries: Sequence[str], source: Source) -> list[str]:
    """The trackers of a setting, once each. ``none``, which only stands alone, is no tracker."""
    words = (word.strip().lower() for entry in entries for word in entry.split(","))  # a flag may hold several, too
    names = list(dict.fromkeys(word for word in words if word))
    if names == ["none"]:
        return []
    for name in names:
        if name not in TRACKERS:
            match = nearest(name, TRACKERS)
            raise SettingsError(
                f"{source.place}: {mask(name)} is not a tracker." if name != "none" else f"{source.place}: none stands alone.",
                hint=(f"Did you mean {match}? " if match else "") + f"Known: {', '.join(TRACKERS)}, or none.",
            )
    return names


def _check_data(draft: Draft) -> None:
    """Check how many data sets there are, and their weights."""
    train = parse_sources(draft.values[_DATA], draft.place(_DATA))
    if draft.of_images and len(train) > 1:
        raise SettingsError(
            f"{draft.place(_DATA)} names {len(train)} data sets; the task diffusion trains on one.",
            hint="Put the images into one folder.",
        )
    place = draft.place(_EVAL_DATA)
    if any(source.weight is not None for source in parse_sources(draft.values[_EVAL_DATA], place, keep_single=True)):
        raise SettingsError(
            f"{place} has weights, and evaluation reads every record once.", hint="Leave the weights of the evaluation data out."
        )
