"""``pitstop generate``: what a checkpoint answers, to given prompts or in a session at the terminal."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from pitstop.cli.arguments.base_dir import BaseDirOption, TokenFileOption
from pitstop.cli.arguments.opening import ModelIdOption, RunArgument, choose, refuse
from pitstop.cli.generation.answers import Prompts, answer_prompts
from pitstop.cli.generation.decoding import Decoding
from pitstop.cli.generation.entities import Texts, print_entities
from pitstop.cli.generation.images import ImageOptions, make_images


def generate(
    run: RunArgument,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", metavar="TEXT", help="Prompt to answer. Repeatable.")] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts", metavar="FILE", help="File of prompts: one a line, or JSONL, JSON, CSV or Parquet with a field 'prompt'."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="TEXT", help="Text to find entities in (task ner). Repeatable."),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(
            "--texts", metavar="FILE", help="File of such texts: one a line, or JSONL, JSON, CSV or Parquet with a field 'text'."
        ),
    ] = None,
    entity_type: Annotated[
        list[str] | None,
        typer.Option(
            "--entity-type", metavar="NAME", help="Entity type to ask for (default: all types of the training). Repeatable."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, max=65536, help="Longest answer in tokens (default: 256).")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0.0, max=100.0, help="Sampling temperature; 0 decodes greedily."),
    ] = 0.0,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", help="Sample from the most likely tokens whose probabilities add up to this (default: 1)."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Random seed of sampled answers and of images (default: 0)."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=65536, help="Prompts answered, or images made, at the same time.")
    ] = 8,
    base: Annotated[bool, typer.Option("--base", help="Show what the base model gives too, without the adapter.")] = False,
    multi_turn: Annotated[
        bool, typer.Option("--multi-turn", help="In a session, each prompt continues the conversation.")
    ] = False,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, max=100_000, help="Number of images (task diffusion; default: 16)."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Class of the images, for a class-conditional model. Repeatable."),
    ] = None,
    sampling_steps: Annotated[
        int | None,
        typer.Option("--sampling-steps", min=2, max=1000, help="Sampler steps for each image (default: as in training)."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="PNG file for the images (default: named after run and checkpoint)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --output.")] = False,
    base_dir: BaseDirOption = None,
    env_file: TokenFileOption = None,
    model_id: ModelIdOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print prompts and answers as JSON.")] = False,
) -> int:
    """Answer prompts with a checkpoint, or make images if that is the run's task.

    Prompts are rendered exactly as in training. They come from --prompt, --prompts or standard input, one a line. On a
    terminal, without prompts, a session begins; in it, /use 2@last switches to another checkpoint on the same base.

    Answers are greedy unless --temperature turns sampling on; the same --seed then gives the same answers. With a run of the
    task ner, --text asks for the entities in a text, one question for each entity type as in training.

    Examples:

      pitstop generate 3
      pitstop generate 3@best --prompt 'List the drugs: aspirin was given.' --base
      pitstop generate 3 --prompts prompts.txt --temperature 0.7 --top-p 0.9 --seed 1 --json
      pitstop generate 3@last < prompts.txt
      pitstop generate 3 --text 'Aspirin eased her migraine.'
      pitstop generate base_training/1 --images 64 --seed 1 --output shoes.png
    """
    questions = Texts(tuple(text or ()), texts, tuple(entity_type or ()))
    prompt_options = Prompts(tuple(prompt or ()), prompts, multi_turn)
    decoding = Decoding(max_new_tokens, temperature, top_p, seed, batch_size)
    image_options = ImageOptions(images, tuple(classes or ()), sampling_steps, output, force)
    if questions.is_requested:  # checked before the libraries are loaded
        questions.check(prompt_options.flags)
    plan = choose(run, base_dir, env_file, model_id)
    if plan.settings.training.makes_images:
        refuse({**prompt_options.flags, **questions.flags, **decoding.flags}, plan)
        return make_images(plan, image_options, seed=seed or 0, batch_size=batch_size, with_base=base, json_output=json_output)
    refuse(image_options.flags, plan)
    decoding.check()
    if plan.settings.training.task != "ner":
        refuse(questions.flags, plan)
    if questions.is_requested:
        return print_entities(plan, questions, decoding, with_base=base, json_output=json_output)
    other_checkpoint = partial(choose, base_dir=base_dir, env_file=env_file)
    return answer_prompts(plan, prompt_options, decoding, other_checkpoint, with_base=base, json_output=json_output)
