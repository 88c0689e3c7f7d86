"""Sample prompts: read and measured before training, answered at a step, and logged by the first process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.tasks.sft import SftTask
from pitstop.trainers.training.samples import SamplePrompts, read_samples, samples_log
from support.fake_training import settings_with
from support.new_runs import start


def _task(tokenizer: Any, **flags: Any) -> SftTask:
    return SftTask(tokenizer, settings_with(**flags))


def test_without_a_file_there_are_no_samples(tokenizer: Any) -> None:
    task = _task(tokenizer)
    assert read_samples(task.settings, task) is None


def test_prompts_are_rendered_as_generation_begins(tokenizer: Any) -> None:
    Path("prompts.txt").write_text("Name a drug.\n\nAnother?\n")
    task = _task(tokenizer, evaluation__sample_prompts="prompts.txt")
    samples = read_samples(task.settings, task)
    assert samples is not None and samples.texts == ("Name a drug.", "Another?")
    assert tokenizer.decode(samples.ids[0]) == "<|start|>user\nName a drug.<|end|>\n<|start|>assistant\n"


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (None, {}, "prompts.txt"),
        ("", {}, "there is no prompt in it"),
        ("word " * 40, {"data__max_length": 16}, "prompts.txt: prompt 1: it is .* tokens long, and there is room for 16"),
    ],
)
def test_what_cannot_be_used_names_the_setting_and_both_ways_out(
    tokenizer: Any, content: str | None, flags: dict[str, Any], message: str
) -> None:
    if content is not None:
        Path("prompts.txt").write_text(content)
    task = _task(tokenizer, evaluation__sample_prompts="prompts.txt", **flags)
    with pytest.raises(DataError, match=f"^SAMPLE_PROMPTS: .*{message}") as caught:
        read_samples(task.settings, task)
    assert "--sample-prompts none does without." in str(caught.value.hint)


def test_a_prompt_that_leaves_the_model_no_room_for_an_answer_is_refused() -> None:
    limits = SimpleNamespace(max_position_embeddings=10)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: limits))
    prompts = SamplePrompts(("a", "b"), ((1, 2), (1, 2, 3)))
    prompts.check_room(model, 7)
    with pytest.raises(DataError, match="prompt 2 is 3 tokens long, and the model has room for 2"):
        prompts.check_room(model, 8)
    limits.max_position_embeddings = None
    prompts.check_room(model, 1_000)


def test_answers_of_a_step_are_logged_told_and_given_to_the_trackers(
    tokenizer: Any, load_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    import contextlib

    import torch

    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.training.samples import Samples
    from support.fake_training import Lines

    Path("prompts.txt").write_text("Name a drug.\n" + "long " * 30 + "\n")
    task = _task(tokenizer, evaluation__sample_prompts="prompts.txt", evaluation__max_new_tokens=4)
    prompts = read_samples(task.settings, task)
    assert prompts is not None
    accelerator = SimpleNamespace(process_index=0, num_processes=1, autocast=contextlib.nullcontext)
    engine = SimpleNamespace(accelerator=accelerator, model=load_tiny().eval(), device=torch.device("cpu"))
    display, run, texts = Lines(), start(tmp_path), list[tuple[str, int]]()
    tracking = SimpleNamespace(log_text=lambda key, text, step: texts.append((key, step)))
    context = SimpleNamespace(engine=engine, settings=task.settings, progress=None, signals=None)
    training = SimpleNamespace(context=context, reporter=Reporter(display), tracking=tracking, run=run)
    samples: Any = Samples(prompts, tokenizer, training)  # type: ignore[arg-type]
    samples.make(3, lambda: None)
    samples.log.close()
    logged = [json.loads(line) for line in samples_log(run).path.read_text().splitlines()]
    assert [(row["step"], row["prompt"]) for row in logged] == [(3, text) for text in prompts.texts]
    assert texts == [("samples/1", 3), ("samples/2", 3)]
    assert display.lines == [
        f"step 3: 2 samples in logs/samples.jsonl, the first: “Name a drug.” → “{' '.join(logged[0]['answer'].split())}”"
    ]
