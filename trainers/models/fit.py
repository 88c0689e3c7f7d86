"""Whether weights are those of the architecture that config.json names: by headers before anything is loaded, and by what loading reports.

transformers fills what is missing with random numbers and says so in a log that is muted here. In both places its own loading decides
what is missing: names are converted, tied weights and what an architecture declares as not saved are left out. Before loading, tensors
on the device ``meta``, made from the headers, stand for the weights. That also finds wrong shapes of weights that are quantised on
loading, which transformers does not look at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pitstop.checkpointing.disk.tensor_headers import ALL_DTYPES, TensorEntry, read_header
from pitstop.checkpointing.store import file_sets
from pitstop.configs.errors import CheckpointError, ModelError, first_line
from pitstop.configs.notices import Notice
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models.foreign_code import json_object

Tell = Callable[[Notice], None]

UNEXPECTED = "{count} [tensor|tensors] in the weights of {subject} [has|have] no place in its architecture and [is|are] not used"
UNTIED = "{subject} are stored as two different tensors, though config.json ties them: each is used as it is stored"

_SHOWN = 3
_CHUNK = 1 << 20
_OLD_BUFFERS = re.compile(r"(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$|(^|\.)position_ids$|embed_positions$")
"""What older versions of transformers saved beside the weights, and computes anew; not every architecture says so of its own."""

_WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel, DistributedDataParallel or DeepSpeed",
    "_fsdp_wrapped_module.": "FSDP",
    "base_model.model.": "PEFT",
}
"""What puts itself around a model, by what it puts into the names."""

SAME_MODEL = "Take config.json and weights from the same model, and copy or download again what is missing."
"""What to do where the two are not of one model."""


class UnfitWeights(ModelError):
    """Weights that are not all that the architecture has, in its shapes."""


@dataclass(frozen=True)
class Fit:
    """What of a model's tensors the weights lack, have in another shape (name, stored, expected), and have beside them; sorted."""

    missing: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    unexpected: tuple[str, ...]

    @classmethod
    def of(cls, loading_info: Mapping[str, Any]) -> Fit:
        """From what ``from_pretrained`` gives with ``output_loading_info=True``."""
        shapes = ((name, tuple(stored), tuple(expected)) for name, stored, expected in loading_info["mismatched_keys"])
        unexpected = (name for name in loading_info["unexpected_keys"] if not _OLD_BUFFERS.search(name))
        return cls(tuple(sorted(loading_info["missing_keys"])), tuple(sorted(shapes)), tuple(sorted(unexpected)))

    @classmethod
    def of_shapes(cls, stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> Fit:
        """Of tensors by name and shape, where loading converts no names."""
        common = sorted(stored.keys() & expected.keys())
        shapes = tuple((name, stored[name], expected[name]) for name in common if stored[name] != expected[name])
        missing, unexpected = expected.keys() - stored.keys(), stored.keys() - expected.keys()
        return cls(tuple(sorted(missing)), shapes, tuple(sorted(unexpected)))

    def check(self, path: Path, model: nn.Module) -> None:
        """Raises ``UnfitWeights`` unless the weights in ``path`` are all that ``model`` has, in its shapes."""
        problems = []
        if self.missing:
            total = len(model.state_dict())
            verb = "is" if len(self.missing) == 1 else "are"
            problems.append(f"{len(self.missing):,} of {total:,} tensors {verb} missing ({_some(self.missing)})")
        if self.mismatched:
            shapes = (f"{name} is {list(stored)} and should be {list(expected)}" for name, stored, expected in self.mismatched)
            count = f"{len(self.mismatched):,} {'has' if len(self.mismatched) == 1 else 'have'} another shape"
            problems.append(f"{count} ({_some(shapes, len(self.mismatched))})")
        if problems:
            name = type(model).__name__
            raise UnfitWeights(
                f"The weights in {path} are not those of a {name}, which config.json names: {'; '.join(problems)}.",
                hint=self._remedy(model),
            )

    def _remedy(self, model: nn.Module) -> str:
        if not self.mismatched and (addition := _addition(self.missing, self.unexpected)):
            left_by = _WRAPPERS.get(addition)
            return (
                f"They are there under names with '{addition}' in them{f', as {left_by} leaves them' if left_by else ''}. "
                "Save the weights again without it (docs/troubleshooting.md)."
            )
        if not self.mismatched and (lost := _addition(self.unexpected, self.missing)):
            return f"They are there under names that lack '{lost}'. Save the weights again with it (docs/troubleshooting.md)."
        if self.missing == (_output_name(model),):
            return (
                "The output layer is missing. If it shares its weight with the embeddings, set tie_word_embeddings to true in "
                "config.json; otherwise copy or download the weights again."
            )
        return SAME_MODEL

    def tell_unexpected(self, model_id: str, tell: Tell) -> None:
        """Tell of what is not used."""
        if self.unexpected:
            tell(Notice(UNEXPECTED, subject=model_id, count=len(self.unexpected), place=_some(self.unexpected), loss=True))


def _some(items: Iterable[str], total: int | None = None) -> str:
    items = list(items)
    total = len(items) if total is None else total
    return ", ".join(items[:_SHOWN]) + (", …" if total > _SHOWN else "")


def _addition(expected: Collection[str], stored: Collection[str]) -> str | None:
    """What has to be taken out of the names ``stored`` so that all ``expected`` ones are among them; None where nothing does that."""
    if not expected or not stored:
        return None
    first = min(expected)
    for name in stored:
        extra = _inserted(first, name)
        if extra and set(expected) <= {other.replace(extra, "") for other in stored}:
            return extra
    return None


def _inserted(name: str, longer: str) -> str | None:
    """``x`` where ``longer`` is ``name`` with ``x``, which ends in a point, put in before one of its parts."""
    extra = len(longer) - len(name)
    starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
    for start in starts if extra > 0 else ():
        inserted = longer[start : start + extra]
        if inserted.endswith(".") and longer == name[:start] + inserted + name[start:]:
            return inserted
    return None


def _output_name(model: Any) -> str | None:
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return next((f"{name}.weight" for name, module in model.named_modules() if module is output), None)


def weight_files(directory: Path) -> list[Path]:
    """The files that transformers reads the weights in ``directory`` from. ``ModelError`` where there are none, or not all of them."""
    chosen = json_object(directory / file_sets.MODEL_CONFIG).get("transformers_weights")
    names = [chosen] if chosen is not None else [file_sets.WEIGHTS, file_sets.WEIGHTS_INDEX]
    name = next((name for name in names if (directory / name).is_file()), None)
    if name is None:
        others = sorted(path.name for path in directory.glob("*.safetensors"))
        raise ModelError(
            f"{directory} has no {' and no '.join(names)}, only {_some(others)}.",
            hint=f"Of weights in several files the index is needed too: copy or download {file_sets.WEIGHTS_INDEX}.",
        )
    if not name.endswith(".index.json"):
        return [directory / name]
    shards = sorted(set(json_object(directory / name).get("weight_map", {}).values()))
    missing = [shard for shard in shards if not (directory / shard).is_file()]
    if missing:
        raise ModelError(
            f"{directory / name} names {len(shards):,} files with weights, and {len(missing):,} of them "
            f"{'is' if len(missing) == 1 else 'are'} missing: {_some(missing)}.",
            hint="Copy or download what is missing.",
        )
    return [directory / shard for shard in shards]


def stored_tensors(directory: Path) -> dict[str, tuple[Path, TensorEntry]]:
    """Each tensor of the weights in ``directory`` with the file that it is in. ``ModelError`` for a file that is not whole."""
    tensors: dict[str, tuple[Path, TensorEntry]] = {}
    for path in weight_files(directory):
        file = path.resolve()  # in the Hub's cache every file is a link
        try:
            tensors |= {name: (file, entry) for name, entry in read_header(file, ALL_DTYPES).items()}
        except CheckpointError as error:
            message = error.message.replace(str(file), str(path)).rstrip(".")
            raise ModelError(f"{message}.", hint=_hint_for_damage(file)) from error
    return tensors


def _hint_for_damage(file: Path) -> str:
    with file.open("rb") as content:
        if content.read(24).startswith(b"version https://git-lfs"):
            return "This is a pointer of Git LFS in place of the file: run 'git lfs pull' where it was cloned."
    return "The file is not whole: copy or download it again."


def check_weights(directory: Path, model: Any, model_id: str, tell: Tell) -> None:
    """Whether the weights in ``directory`` are those of ``model``, which is on the device ``meta``; no weight is read for it.

    ``tell`` hears of tensors that are not used, and of tied ones that differ. Raises ``ModelError``.
    """
    tensors = stored_tensors(directory)
    stand_ins = {name: torch.empty(entry.shape, device="meta") for name, (_, entry) in tensors.items()}
    with quiet_libraries():
        try:
            _, info = type(model).from_pretrained(
                None,
                config=model.config,
                state_dict=stand_ins,
                dtype=torch.float32,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"The weights in {directory} cannot be made into those of a {type(model).__name__}: {reason(error)}",
                hint=SAME_MODEL,
            ) from error
    fit = Fit.of(info)
    fit.check(directory, model)
    fit.tell_unexpected(model_id, tell)
    for target, source in (getattr(model, "all_tied_weights_keys", None) or {}).items():
        one, other = (_stored_as(name, tensors) for name in (target, source))
        if one is not None and other is not None and not _same_bytes(*tensors[one], *tensors[other]):
            tell(Notice(UNTIED, subject=f"{one} and {other}", loss=True))


def reason(error: Exception) -> str:
    """What transformers says of its error; where it points to its report, which is not shown, what that is about."""
    if "automatic conversion of the weights" in str(error):
        return "tensors that the architecture joins, or those of a quantised weight, are not all there or do not fit together"
    return first_line(error)


def _stored_as(name: str, stored: Collection[str]) -> str | None:
    """The name in the file of a model's tensor, which may lack the model's prefix."""
    parts = name.split(".")
    return next((short for start in range(len(parts) - 1) if (short := ".".join(parts[start:])) in stored), None)


def _same_bytes(one: Path, first: TensorEntry, other: Path, second: TensorEntry) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    with one.open("rb") as left, other.open("rb") as right:
        left.seek(first.start)
        right.seek(second.start)
        rest = first.end - first.start
        while rest > 0:
            size = min(_CHUNK, rest)
            if left.read(size) != right.read(size):
                return False
            rest -= size
    return True
