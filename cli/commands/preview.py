"""``pitstop preview``: what ``train`` would learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import find_base_run
from pitstop.cli.arguments.foreign import pass_on
from pitstop.cli.arguments.options import with_settings
from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import leaves
from pitstop.configs.load import load_settings

_GROUPS = ("model", "data", "ner", "rank")
_MORE = ("training.task", "training.method", "training.seed", "training.checkpoint.base_dir")
_NOT_OF_TOKENS = (
    "model.gradient_checkpointing",
    "model.use_flash_attention",
    "model.use_fp16",
    "model.config",
    "data.classes",
    "data.label",
    "data.root",
    "data.eval_fraction",
    "data.packing",
    "data.duplicates",
    "data.skip_bad_rows",
    "data.cache",
    "data.cache_gb",
)
_OTHERS = [
    leaf.path for leaf in leaves() if leaf.path in _NOT_OF_TOKENS or (leaf.group not in _GROUPS and leaf.path not in _MORE)
]


@with_settings(exclude=_OTHERS)
def preview(
    records: Annotated[
        int, typer.Option("--records", "-n", min=0, max=10_000, metavar="N", help="Number of records of each data set.")
    ] = 3,
    record: Annotated[
        int | None,
        typer.Option("--record", min=1, metavar="N", help="Show all of the record with this number: its line, or its row."),
    ] = None,
    odd: Annotated[
        bool,
        typer.Option(
            "--odd",
            help="Show odd records: the first for each thing that is told, the longest, those of which most or least is learnt.",
        ),
    ] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Show each token by itself, with its number.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> int:
    """Show records as training gets them, and which of their tokens are learnt.

    All data is read and tokenised as train does it, with the tokenizer alone; nothing is written. Text is decoded from the token
    ids. What is learnt is green, or between ⟦ and ⟧ where there are no colours; ↵ is a line break. The figures of each data
    set come behind its records. Malformed records are counted, where train stops at the first.

    Examples:

      pitstop preview --model-id ./my-model --dataset data.jsonl
      pitstop preview --odd
      pitstop preview --record 88 --ids
      pitstop preview --dataset a.jsonl --dataset b.jsonl -n 1 --json
      pitstop preview --dataset pairs.jsonl --shape preference
    """
    if record is not None and odd:
        raise SettingsError("--record shows one record, and --odd chooses by itself.", hint="Give one of the two.")
    loaded = load_settings(
        flags=flags, config_files=config_files, env_file=env_file, require_model_and_data=True, find_base_run=find_base_run
    )
    from pitstop.cli.reports.preview import show_preview
    from pitstop.trainers.data.preview.gathering import Wish

    return show_preview(loaded, pass_on(env_file), Wish(records, record, odd), ids=ids, json_output=json_output)
