"""Out of memory: what to turn is said, and with --auto-batch-size no step is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forked import kill_at_step, pitstop, two_ranks
from support.training import EXACT_FILES, arguments, assert_same_end, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")
LARGE: dict[str, Any] = {
    "batch_size": 4,
    "no_packing": True,
    "save_strategy": "steps",
    "save_steps": 1,
    "keep_last_n": None,
    "epochs": 3,
}


def _fits(examples: int, *, from_step: int = 0) -> Callable[[], None]:
    """Memory holds so many examples a micro-batch; before ``from_step`` any number."""

    def prepare() -> None:
        import torch

        from pitstop.trainers.loop.loop import Loop
        from pitstop.trainers.models.loss import TokenObjective

        real, real_step, step = TokenObjective.losses, Loop.step, 0

        def losses(self: TokenObjective, model: Any, batch: Any) -> Any:
            found = real(self, model, batch)
            if step >= from_step and len(batch.inputs["doc_lengths"]) > examples:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return found

        def stepping(self: Loop) -> None:
            nonlocal step
            step = self.progress.step + 1
            real_step(self)

        TokenObjective.losses = TokenObjective.evaluated = losses  # type: ignore[method-assign]
        Loop.step = stepping  # type: ignore[method-assign]

    return prepare


def test_without_the_flag_it_ends_with_code_6_and_says_what_to_turn(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **LARGE), prepare=_fits(2, from_step=3))
    assert ended.code == 6, ended.output
    assert "Traceback" not in ended.output
    for words in (
        "Out of memory at step 3",
        "--batch-size 2 --gradient-accumulation-steps 2",
        "--auto-batch-size",
        "--gradient-checkpointing",
        "pitstop resume 1",
        "checkpoint-2",
    ):
        assert words in ended.output, words
    assert checkpoints(tmp_path / "run_001") == ["checkpoint-1", "checkpoint-2"]
    assert metadata(tmp_path / "run_001")["status"] == "failed"
    ended = pitstop("resume", 1, "--base-dir", tmp_path, "--batch-size", 2, "--gradient-accumulation-steps", 2, prepare=_fits(2))
    assert ended.code == 0, ended.output


def test_with_it_the_step_is_repeated_in_smaller_pieces_and_the_run_is_that_of_a_smaller_start(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    ended = pitstop(*arguments(tiny_model, data, large, **LARGE, auto_batch_size=True), prepare=_fits(1))
    assert ended.code == 0, ended.output
    assert "Memory ran out at step 1: going on with --batch-size 2 --gradient-accumulation-steps 2" in ended.output
    assert "--batch-size 1 --gradient-accumulation-steps 4" in ended.output
    assert pitstop(*arguments(tiny_model, data, small, **{**LARGE, "batch_size": 1, "gradient_accumulation_steps": 4})).code == 0
    assert_same_end(large / "run_001", small / "run_001")
    changes = metadata(large / "run_001")["batch_size_changes"]
    assert [change["batch_size"] for change in changes] == [[4, 2], [2, 1]]
    assert [row["step"] for row in rows(large / "run_001")] == list(range(1, 10))


def test_a_run_that_shrank_in_the_middle_is_resumed_exactly(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start = {**LARGE, "auto_batch_size": True}
    assert pitstop(*arguments(tiny_model, data, whole, **start), prepare=_fits(2, from_step=4)).code == 0

    def prepare() -> None:
        _fits(2, from_step=4)()
        kill_at_step(7)()

    assert pitstop(*arguments(tiny_model, data, broken, **start), prepare=prepare).code == -signal.SIGKILL
    ended = pitstop("resume", 1, "--base-dir", broken, prepare=_fits(2))
    assert ended.code == 0, ended.output
    assert "Memory ran out" not in ended.output, "the checkpoint knows the size that fits"
    assert_same_end(whole / "run_001", broken / "run_001")


def test_an_evaluation_that_does_not_fit_is_repeated_too(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    def prepare() -> None:

        from pitstop.trainers.models.loss import TokenObjective

        real = TokenObjective.evaluated

        def losses(self: TokenObjective, model: Any, batch: Any) -> Any:
            if len(batch.inputs["doc_lengths"]) > 1:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
            return real(self, model, batch)

        TokenObjective.evaluated = losses

    ended = pitstop(*arguments(tiny_model, data, tmp_path, **LARGE, auto_batch_size=True), prepare=prepare)
    assert ended.code == 0, ended.output
    assert metadata(tmp_path / "run_001")["batch_size_changes"][-1]["batch_size"] == [2, 1]


def _answers_fit(prompts: int) -> Callable[[], None]:
    """Memory holds the answers to so many prompts at once."""

    def prepare() -> None:
        import torch

        from pitstop.trainers.models import generation

        real = generation.answer_batch

        def answer_batch(model: Any, tokenizer: Any, asked: dict[int, Any], **options: Any) -> Any:
            found = real(model, tokenizer, asked, **options)
            if len(asked) > prompts:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return found

        generation.answer_batch = answer_batch

    return prepare


@pytest.fixture
def asking(data: Path, tmp_path: Path) -> dict[str, Any]:
    """A training that answers prompts at its evaluations, to be scored and to be looked at."""
    pairs = [{"prompt": f"{text}?", "completion": "- aspirin", "entity_type": "drug"} for text in ("a", "bb", "ccc", "dddd")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "prompts.txt").write_text("a\nb\nc\n")
    files = {"task": "ner", "dataset": tmp_path / "pairs.jsonl", "eval_dataset": tmp_path / "pairs.jsonl"}
    return {**files, "sample_prompts": tmp_path / "prompts.txt", "eval_max_new_tokens": 4, "epochs": 1}


def test_answers_that_do_not_fit_side_by_side_are_given_in_smaller_batches_without_being_asked(
    tiny_model: Path, data: Path, tmp_path: Path, asking: dict[str, Any]
) -> None:
    ample, scarce = tmp_path / "ample", tmp_path / "scarce"
    assert pitstop(*arguments(tiny_model, data, ample, **asking)).code == 0
    ended = pitstop(*arguments(tiny_model, data, scarce, **asking), prepare=_answers_fit(1))
    assert ended.code == 0, ended.output
    assert_same_end(ample / "run_001", scarce / "run_001")
    logs = [(base / "run_001/logs/samples.jsonl").read_text().splitlines() for base in (ample, scarce)]
    assert logs[0] == logs[1] and len(logs[0]) == 3
    assert "ner_f1" in rows(scarce / "run_001")[-1]
    words = ["evaluate", 1, "--base-dir", scarce, "--score-examples", "none", "--json"]
    assert pitstop(*words, prepare=_answers_fit(1)).json()["metrics"] == pitstop(*words).json()["metrics"]


def test_an_answer_that_does_not_fit_alone_ends_with_code_6_and_names_what_it_depends_on(
    tiny_model: Path, data: Path, tmp_path: Path, asking: dict[str, Any]
) -> None:
    runs = tmp_path / "runs"
    ended = pitstop(*arguments(tiny_model, data, runs, **{**asking, "sample_prompts": None}), prepare=_answers_fit(0))
    assert ended.code == 6, ended.output
    hint = ended.output.split("hint:")[1]
    assert "--eval-max-new-tokens" in hint and "--eval-score-examples 0" in hint and "--batch-size" not in hint
    ended = pitstop(*arguments(tiny_model, data, runs, **asking, eval_score_examples=0), prepare=_answers_fit(0))
    assert ended.code == 6, ended.output
    assert "A sample prompt does not fit" in ended.output
    assert pitstop(*arguments(tiny_model, data, runs, **asking)).code == 0
    ended = pitstop("evaluate", 3, "--base-dir", runs, prepare=_answers_fit(0))
    assert ended.code == 6, ended.output
    assert "--score-examples 0" in ended.output.split("hint:")[1]


def test_a_single_example_that_does_not_fit_is_the_end(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **LARGE, auto_batch_size=True), prepare=_fits(0))
    assert ended.code == 6, ended.output
    assert "--max-length" in ended.output and "no checkpoint yet" in ended.output
    assert "--batch-size" not in ended.output.split("hint:")[1]


def test_the_kernel_refusing_memory_is_out_of_memory(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    """For real: a limit on the address space that a step of these sizes cannot stay under."""

    def prepare() -> None:
        import resource

        from pitstop.trainers.loop.loop import Loop

        real = Loop.step

        def stepping(self: Loop) -> None:
            if self.progress.step == 2:
                import torch

                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
                torch.zeros(1 << 30)  # what a larger model would ask for
            real(self)

        Loop.step = stepping  # type: ignore[method-assign]

    ended = pitstop(*arguments(tiny_model, data, tmp_path, **LARGE), prepare=prepare)
    assert ended.code == 6, ended.output
    assert "Out of memory at step 3" in ended.output
    assert EXACT_FILES[0] in {path.name for path in (tmp_path / "run_001/lora_weights/checkpoint-2").iterdir()}


TWO: dict[str, Any] = {**LARGE, "num_processes": 2, "method": "lora", "batch_size": 2}


def test_two_processes_shrink_together_when_memory_runs_out_on_one(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    prepare = [None, _fits(1, from_step=2)]
    ended = two_ranks(*arguments(tiny_model, data, large, **TWO, auto_batch_size=True), prepare=prepare)
    assert [one.code for one in ended] == [0, 0], ended
    assert "Memory ran out at step 2: going on with --batch-size 1 --gradient-accumulation-steps 2" in ended[0].output
    assert metadata(large / "run_001")["batch_size_changes"][0]["batch_size"] == [2, 1]
    assert [row["step"] for row in rows(large / "run_001")] == list(range(1, 10))
    # A run that never had to shrink goes the same way up to rounding: gradients are exchanged after the backward pass there.
    ended = two_ranks(*arguments(tiny_model, data, small, **{**TWO, "lora_dropout": 0.0, "auto_batch_size": True}))
    assert [one.code for one in ended] == [0, 0], ended
    usual = tmp_path / "usual"
    ended = two_ranks(*arguments(tiny_model, data, usual, **{**TWO, "lora_dropout": 0.0}))
    assert [one.code for one in ended] == [0, 0], ended
    for mine, theirs in zip(rows(small / "run_001"), rows(usual / "run_001"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=2e-2)


def test_two_processes_without_leave_to_shrink_end_with_code_6(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = two_ranks(*arguments(tiny_model, data, tmp_path, **TWO), prepare=[None, _fits(1, from_step=2)])
    assert [one.code for one in ended] == [6, 6], ended
    assert all("Traceback" not in one.output for one in ended)
