"""``pitstop generate``: what a checkpoint answers, to given prompts or in a session at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import BaseDirOption, TokenFileOption
from pitstop.cli.arguments.opening import ModelIdOption, RunArgument, choose, refuse, reporter, telling, who_answered
from pitstop.cli.generation.entities import Texts, find
from pitstop.cli.terminal.output import is_terminal, paint, print_json, say
from pitstop.configs.errors import DataError, SettingsError

if TYPE_CHECKING:
    from pitstop.trainers.using.answering import Answering
    from pitstop.trainers.using.opened import OpenModel


_MAX_NEW_TOKENS = 256


def generate(
    run: RunArgument,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A prompt. Repeatable.")] = None,
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", metavar="FILE", help="A prompt a line, or JSONL, JSON, CSV or Parquet with a field 'prompt'."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="TEXT", help="A text whose entities are asked for, of a run of the task ner. Repeatable."),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(
            "--texts", metavar="FILE", help="Such texts: one a line, or JSONL, JSON, CSV or Parquet with a field 'text'."
        ),
    ] = None,
    entity_type: Annotated[
        list[str] | None,
        typer.Option("--entity-type", metavar="NAME", help="Ask for this type (default: all of the training). Repeatable."),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, max=65536, help="Longest answer in tokens (default: 256).")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0.0, max=100.0, help="Sample with this temperature; 0 takes the most likely token."),
    ] = 0.0,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Sample among the likeliest tokens that add up to this share (default: 1).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the sampling (default: 0).")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=65536, help="Prompts answered at the same time.")] = 8,
    base: Annotated[bool, typer.Option("--base", help="Give the answers of the base model too, without the adapter.")] = False,
    multi_turn: Annotated[
        bool, typer.Option("--multi-turn", help="In a session at the terminal: each prompt goes on with the conversation.")
    ] = False,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, max=100_000, help="Images to make, of a run of the task diffusion (default: 16)."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Make images of this class, of a model that is told classes. Repeatable."),
    ] = None,
    sampling_steps: Annotated[
        int | None, typer.Option("--sampling-steps", min=2, max=1000, help="Steps for each image (default: as in training).")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="PNG for the images (default: named after run and checkpoint)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --output.")] = False,
    base_dir: BaseDirOption = None,
    env_file: TokenFileOption = None,
    model_id: ModelIdOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print prompts and answers as JSON.")] = False,
) -> int:
    """Let a checkpoint answer prompts, rendered exactly as in its training; or make images, if that is its task.

    Prompts come from --prompt, --prompts or, where it is no terminal, standard input (one a line). At a terminal, without any, a
    session begins in which /use 2@last changes to another checkpoint on the same base at once. Answers are the most likely
    ones unless --temperature asks for sampling, which is the same for the same --seed. Of a run of the task ner --text asks about
    a text as training did, a question for each entity type.

    Examples:

      pitstop generate 3
      pitstop generate 3@best --prompt 'List the drugs: aspirin was given.' --base
      pitstop generate 3 --prompts prompts.txt --temperature 0.7 --top-p 0.9 --seed 1 --json
      pitstop generate 3@last < prompts.txt
      pitstop generate 3 --text 'Aspirin eased her migraine.'
      pitstop generate base_training/1 --images 64 --seed 1 --output shoes.png
    """
    of_images = {
        "--images": images,
        "--class": classes,
        "--sampling-steps": sampling_steps,
        "--output": output,
        "--force": force or None,
    }
    of_ner = {"--text": text, "--texts": texts, "--entity-type": entity_type}
    of_text = {
        "--prompt": prompt,
        "--prompts": prompts,
        **of_ner,
        "--max-new-tokens": max_new_tokens,
        "--temperature": temperature or None,
        "--top-p": top_p,
        "--multi-turn": multi_turn or None,
    }
    about = Texts(tuple(text or ()), texts, tuple(entity_type or ()))
    if about.wanted:  # said at once, before the libraries are loaded
        _without_prompts({"--prompt": prompt, "--prompts": prompts, "--multi-turn": multi_turn or None})
        about.check()
    plan = choose(run, base_dir, env_file, model_id)
    makes_images = plan.settings.training.makes_images
    refuse(of_text if makes_images else of_images, plan)
    if makes_images:
        from pitstop.cli.generation.images import Wanted, make_images

        wanted = Wanted(images or 16, tuple(classes or ()), seed or 0, sampling_steps, batch_size, base, output, force)
        return make_images(plan, wanted, json_output=json_output)
    sampling = _sampling_values(temperature, top_p, seed)
    if plan.settings.training.task != "ner":
        refuse(of_ner, plan)
    if about.wanted:
        return find(plan, about, _how(max_new_tokens, batch_size, sampling), base=base, json_output=json_output)
    given = _given(prompt, prompts, session=multi_turn)
    if given is None and (json_output or base):
        option = "--json" if json_output else "--base"
        raise SettingsError(
            f"{option} needs prompts.", hint="Give --prompt or --prompts; in a session, /use base shows the base."
        )
    from pitstop.trainers.using.opened import open_model

    how = _how(max_new_tokens, batch_size, sampling)
    given = _read(given)
    opened = open_model(plan, reporter())
    if given is None:
        from pitstop.cli.generation.chat import Session

        where = (base_dir, env_file)
        return Session(opened, how, lambda reference: choose(reference, *where), multi_turn=multi_turn).run()
    return _answer_all(opened, given, how, with_base=base, json_output=json_output)


def _sampling_values(temperature: float, top_p: float | None, seed: int | None) -> tuple[float, float, int] | None:
    """Temperature, nucleus and seed; None for greedy. ``SettingsError`` for options that would do nothing."""
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise SettingsError(f"--top-p {top_p}: it must be above 0 and at most 1.", hint="0.9 is usual; 1 keeps every token.")
    if temperature == 0.0:
        unused = "--top-p" if top_p is not None else "--seed" if seed is not None else None
        if unused:
            raise SettingsError(f"{unused} means nothing without sampling.", hint="Add --temperature 0.7, say.")
        return None
    return temperature, 1.0 if top_p is None else top_p, seed or 0


def _how(max_new_tokens: int | None, batch_size: int, sampling: tuple[float, float, int] | None) -> Answering:
    from pitstop.trainers.models.generation import Sampling
    from pitstop.trainers.using.answering import Answering

    return Answering(max_new_tokens or _MAX_NEW_TOKENS, batch_size, Sampling(*sampling) if sampling else None)


def _without_prompts(options: Mapping[str, Any]) -> None:
    if given := [option for option, value in options.items() if value is not None]:
        raise SettingsError(f"{given[0]} does not go with questions about texts.", hint="Ask about texts, or give prompts.")


def _given(prompt: list[str] | None, prompts: str | None, *, session: bool) -> list[str] | Path | None:
    """The prompts, the file with them, or None for a session at the terminal."""
    if prompt and prompts is not None:
        raise SettingsError("Both --prompt and --prompts were given.", hint="Give one of them.")
    given: list[str] | Path | None = prompt or (Path(prompts).expanduser() if prompts is not None else None)
    if given is None and not is_terminal(sys.stdin):
        given = _from_stdin()
    if given is not None and session:
        raise SettingsError("--multi-turn is for a session at the terminal.", hint="Leave it out where prompts are given.")
    return given


def _from_stdin() -> list[str]:
    from pitstop.trainers.data.prompts import lines_of

    try:
        found = lines_of(sys.stdin.read())
    except UnicodeDecodeError as error:
        raise DataError("Standard input is not UTF-8 text.", hint="Convert it to UTF-8.") from error
    if not found:
        raise SettingsError(
            "There is no prompt on standard input.", hint="Give --prompt TEXT, --prompts FILE, or a line on stdin."
        )
    return found


def _read(given: list[str] | Path | None) -> list[str] | None:
    from pitstop.trainers.data.prompts import read_prompts

    return read_prompts(given) if isinstance(given, Path) else given


def _answer_all(opened: OpenModel, prompts: Sequence[str], how: Answering, *, with_base: bool, json_output: bool) -> int:
    from pitstop.trainers.using.answering import answer, follow

    if not json_output and not with_base and is_terminal():
        from pitstop.cli.generation.chat import show_piece

        for number, prompt in enumerate(prompts):
            if len(prompts) > 1:
                say(paint(f"> {prompt}", "bold"))
            follow(opened, prompt, how, show_piece, number=number)
            say()
        return 0
    turns, tell = opened.in_turn(with_base=with_base), telling(len(prompts))
    answers = {label: answer(opened, prompts, how, tell) for label in turns}
    if json_output:
        print_json(_report(opened, prompts, answers, how))
    else:
        _print(prompts, answers)
    return 0


def _print(prompts: Sequence[str], answers: dict[str, Any]) -> None:
    """Of one prompt and one model the answer alone, so that it can be piped; otherwise each with its prompt and model."""
    if len(prompts) == 1 and len(answers) == 1:
        say(next(iter(answers.values()))[0].text)
        return
    for number, prompt in enumerate(prompts):
        say(paint(f"> {prompt}", "bold"))
        for label, given in answers.items():
            head = f"{label}: " if len(answers) > 1 else ""
            say(f"{paint(head, 'cyan') if head else ''}{given[number].text}")
        say()


def _report(opened: OpenModel, prompts: Sequence[str], answers: dict[str, Any], how: Answering) -> dict[str, Any]:
    return {
        **who_answered(opened, how),
        "answers": [
            {"prompt": prompt, "answers": {label: asdict(given[number]) for label, given in answers.items()}}
            for number, prompt in enumerate(prompts)
        ],
    }
