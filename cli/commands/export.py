"""``pitstop export``: a checkpoint in a form that other programs read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import BaseDirOption, TokenFileOption
from pitstop.cli.arguments.opening import ModelIdOption, RunArgument, choose, reporter
from pitstop.cli.terminal.output import print_json, say, warn
from pitstop.configs.errors import SettingsError
from pitstop.configs.shown import human_size

_FORMATS = ("adapter", "merged", "ckpt")
_SIZE = re.compile(r"[1-9][0-9]*(?:KB|MB|GB|TB|KiB|MiB|GiB|TiB)", re.IGNORECASE)
_LARGE_DIFFERENCE = 0.05  # of the largest logit; rounding to bfloat16 gives some thousandths


def export(
    run: RunArgument,
    form: Annotated[
        str, typer.Option("--format", metavar="adapter|merged|ckpt", help="Format of the export, as described above.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="Directory to create; for ckpt, the file.")],
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", metavar="SIZE", help="Largest weights file of a merged export (default: 5GB)."),
    ] = None,
    base_id: Annotated[
        str | None,
        typer.Option(
            "--base-id",
            metavar="ID",
            help="Hub id of the base for adapter and merged exports, if the run read it from a directory.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    base_dir: BaseDirOption = None,
    env_file: TokenFileOption = None,
    model_id: ModelIdOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> int:
    """Export a checkpoint for other programs.

    adapter: a directory with adapter, tokenizer and model card, for PEFT. merged: base and adapter as one model in bfloat16,
    for AutoModelForCausalLM; its logits are compared with those of base and adapter. ckpt: one file with adapter, optimizer,
    metrics and settings, for torch.load(weights_only=True). An export that fails leaves nothing behind.

    Examples:

      pitstop export 3 --format adapter --output my-adapter
      pitstop export 3@best --format merged --output my-model --max-shard-size 2GB
      pitstop export 3@last --format ckpt --output last.ckpt --json
    """
    _check(form, max_shard_size, base_id)
    target = Path(output).expanduser()
    plan = choose(run, base_dir, env_file, model_id)
    from pitstop.trainers.machine.signals import leaving_on_signals
    from pitstop.trainers.using.exporting import ExportRequest, as_json
    from pitstop.trainers.using.exporting import export as write

    request = ExportRequest(target, form, max_shard_size or "5GB", base_id, force)
    with leaving_on_signals():
        result = write(plan, request, reporter())
    if json_output:
        print_json(as_json(result))
        return 0
    say(f"{result['run']}@{result['checkpoint']} as {form} in {target} ({human_size(result['size_bytes'])})")
    if "difference" in result:
        _tell_difference(result["difference"])
    if "image_difference" in result:
        say(
            f"Its images differ from those of base and adapter by at most {result['image_difference']:.2g} (pixels go from -1 to 1)."
        )
    return 0


def _check(form: str, max_shard_size: str | None, base_id: str | None) -> None:
    """Raises ``SettingsError`` for values that cannot be, and for options that would do nothing."""
    if form not in _FORMATS:
        raise SettingsError(
            f"--format: '{form}' is not one of {', '.join(_FORMATS)}.", hint="merged is for serving, adapter for PEFT."
        )
    if max_shard_size is not None and form != "merged":
        raise SettingsError(
            "--max-shard-size is for --format merged.", hint="Leave it out: the other forms are one file of weights."
        )
    if max_shard_size is not None and not _SIZE.fullmatch(max_shard_size):
        raise SettingsError(f"--max-shard-size: '{max_shard_size}' is not a size.", hint="Write 500MB or 5GB.")
    if base_id is not None and form == "ckpt":
        raise SettingsError("--base-id is for --format adapter and merged.", hint="Leave it out.")


def _tell_difference(difference: dict[str, Any]) -> None:
    largest, of = difference["largest"], difference["largest_logit"]
    say(
        f"On {difference['tokens']} tokens its logits differ from those of base and adapter by at most {largest:.3g} "
        f"(the largest logit is {of:.3g}); the likeliest token is the same at {difference['same_choice']:.1%} of the places."
    )
    if largest > _LARGE_DIFFERENCE * of:
        warn("That is more than rounding to bfloat16 explains; compare the answers of both before you use it.")
