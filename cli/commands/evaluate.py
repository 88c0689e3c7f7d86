"""``pitstop evaluate``: the metrics of a checkpoint, on its own data or on other data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import BaseDirOption, TokenFileOption
from pitstop.cli.arguments.opening import ModelIdOption, RunArgument, choose, refuse, reporter
from pitstop.cli.terminal.output import Column, notice, print_json, say, table, warn
from pitstop.configs.errors import SettingsError

if TYPE_CHECKING:
    from pitstop.trainers.data.dataset import Dataset, Sequences
    from pitstop.trainers.using.evaluating import Evaluated, EvaluationRequest
    from pitstop.trainers.using.opened import OpenModel

_SPLITS = ("validation", "test", "train")


def evaluate(
    run: RunArgument,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="DATA", help="Evaluate on this data instead of the run's own. Repeatable."),
    ] = None,
    split: Annotated[
        str,
        typer.Option("--split", metavar="validation|test|train", help="Split of the run's data, or of a data set on the Hub."),
    ] = "validation",
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Use only the first N examples.")] = None,
    score_examples: Annotated[
        str | None,
        typer.Option(
            "--score-examples",
            metavar="N",
            help="Examples whose answers are scored; 'none' scores all (default: EVAL_SCORE_EXAMPLES of the run).",
        ),
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Evaluate the base model too, without the adapter.")] = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the answer to each example to this JSONL file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --output.")] = False,
    base_dir: BaseDirOption = None,
    env_file: TokenFileOption = None,
    model_id: ModelIdOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> int:
    """Evaluate a checkpoint as its training did: the loss and the metrics of the task.

    Without --dataset the run's own evaluation data is used, and the metrics are those that training logged at that checkpoint.

    Examples:

      pitstop evaluate 3
      pitstop evaluate 3@last --base
      pitstop evaluate 3 --dataset test.jsonl --limit 200 --output answers.jsonl
      pitstop evaluate 3 --split test --score-examples none --json
    """
    _check(split, output, force=force)
    scored_examples = _score_examples(score_examples)
    plan = choose(run, base_dir, env_file, model_id)
    if plan.settings.training.makes_images:  # its models answer nothing
        refuse({"--output": output, "--score-examples": score_examples}, plan)
    from pitstop.trainers.using.evaluating import EvaluationRequest, check_room, is_recorded_data, read_evaluation
    from pitstop.trainers.using.export_files import check_target
    from pitstop.trainers.using.opened import open_model

    request = EvaluationRequest(split, tuple(dataset or ()), limit, scored_examples)
    target = Path(output).expanduser() if output is not None else None
    if target is not None:
        check_target(target, plan.run.path, directory=False, force=force)
    opened = open_model(plan, reporter())
    data = read_evaluation(opened, request, reporter())
    if target is not None:
        check_room(opened, _examples(data))
    comparable = request.as_in_training and is_recorded_data(opened, data) is not False
    if request.as_in_training and not comparable:
        warn("The evaluation data is not what it was when the run started; the metrics differ from the recorded ones.")
    results = _evaluate(opened, data, request, with_base=base)
    content = _content(opened, data, request, results, comparable=comparable)
    if target is not None:
        _write_answers(opened, _examples(data), results, target)
        content["output"] = str(target)
    if json_output:
        print_json(content)
    else:
        _print(content)
    return 0


def _check(split: str, output: str | None, *, force: bool) -> None:
    if split not in _SPLITS:
        raise SettingsError(
            f"--split: '{split}' is not one of {', '.join(_SPLITS)}.", hint="Leave it out for the evaluation data."
        )
    if force and output is None:
        raise SettingsError("--force means nothing without --output.", hint="Leave it out.")


def _score_examples(text: str | None) -> int | str | None:
    """How many examples are scored: a number, None for all, or ``run`` for the run's own setting."""
    if text is None or text == "none":
        return "run" if text is None else None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise SettingsError(f"--score-examples: '{text}' is not a count.", hint="Give 200, or none for all; 0 scores nothing.")
    return int(text)


def _examples(data: Sequences) -> Dataset:
    """``data`` as records of text: runs of images are refused before."""
    from pitstop.trainers.data.dataset import Dataset

    assert isinstance(data, Dataset)
    return data


def _evaluate(opened: OpenModel, data: Sequences, request: EvaluationRequest, *, with_base: bool) -> dict[str, Evaluated]:
    """The results by the label of the model."""
    from pitstop.trainers.using.evaluating import evaluate as evaluate_opened

    results: dict[str, Evaluated] = {}
    for label in opened.in_turn(with_base=with_base):
        notice(f"evaluating {label} on {data.counts.used:,} examples …")
        results[label] = evaluate_opened(opened, data, request)
    return results


def _content(
    opened: OpenModel, data: Sequences, request: EvaluationRequest, results: Mapping[str, Evaluated], *, comparable: bool
) -> dict[str, Any]:
    """The report as JSON has it; ``comparable`` says whether training evaluated on the same data."""
    from pitstop.trainers.using.evaluating import scored as scoring_of

    plan = opened.chosen
    recorded = {name: value for name, value in plan.info.metrics.items() if name != "train_loss"}
    limit = scoring_of(plan.settings.evaluation, request).score_examples
    are_scored = opened.task.metrics(data) and opened.task.unit == "tokens"
    return {
        "run": plan.run.label,
        "checkpoint": plan.info.name,
        "step": plan.info.step,
        "split": request.split,
        "dataset": list(request.specs) or None,
        "examples": data.counts.used,
        "scored_examples": min(data.counts.used, data.counts.used if limit is None else limit) if are_scored else 0,
        "data": data.in_words(),
        "tokens": data.counts.tokens,
        "supervised_tokens": data.counts.supervised_tokens,
        "fingerprint": data.fingerprint,
        "metrics": {label: result.metrics for label, result in results.items()},
        "recorded": recorded if comparable else None,
    }


def _write_answers(opened: OpenModel, data: Dataset, results: Mapping[str, Evaluated], target: Path) -> None:
    from pitstop.trainers.using.evaluating import predictions
    from pitstop.trainers.using.export_files import in_place_of

    total = data.counts.used
    with in_place_of(target) as temporary, temporary.open("x", encoding="utf-8") as file:
        for row in predictions(opened, data, results, lambda count: notice(f"{count:,} of {total:,} answered")):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _print(content: Mapping[str, Any]) -> None:
    say(content["data"])
    if content["scored_examples"] not in (0, content["examples"]):
        say(f"answers scored: the first {content['scored_examples']:,}; --score-examples none scores all")
    columns: dict[str, Mapping[str, Any]] = dict(content["metrics"])
    if content["recorded"]:
        columns["in training"] = content["recorded"]
    names = list(next(iter(content["metrics"].values())))
    rows = []
    for name in names:
        values = [metrics.get(name) for metrics in columns.values()]
        rows.append([name, *("-" if value is None else f"{value:.6g}" for value in values)])
    table(["Metric", *(Column(label, "right") for label in columns)], rows)
    if "output" in content:
        say(f"answers in {content['output']}")
