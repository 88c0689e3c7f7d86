"""One optimizer step and one evaluation, beside the same computed directly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pitstop.configs.schema import LoraSettings
from pitstop.trainers.data.batch import flat_batch
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.mixture import Mixture
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.loop.optim import trainable
from pitstop.trainers.loop.scoring import Interrupted
from pitstop.trainers.machine.hardware import build_accelerator
from pitstop.trainers.models.adapter import add_adapter, prepare_for_training
from pitstop.trainers.models.loss import TokenObjective, takes_logits_to_keep, token_losses

CPU = torch.device("cpu")
LENGTHS = [7, 12, 2, 20, 9, 5, 16, 3]


@pytest.fixture(scope="module")
def accelerator() -> Any:
    """Accelerate's handle on one CPU process in float32."""
    return build_accelerator("no", CPU)


@pytest.fixture
def make_engine(accelerator: Any, load_tiny: Callable[..., Any]) -> Callable[..., Engine]:
    """Makes an engine on the tiny model with an adapter whose B is not zero, and plain SGD, which shows the gradient."""

    def make(*, flat: bool = True, max_grad_norm: float = 0.0, checkpointing: bool = False) -> Engine:
        base = load_tiny()
        if not flat:
            base.set_attn_implementation("sdpa")
        settings = LoraSettings(rank=4, alpha=8, dropout=0.0, target_modules=["all-linear"])
        model = add_adapter(base, settings, seed=1, model_id="tiny")
        prepare_for_training(model, gradient_checkpointing=checkpointing)
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                if "lora_B" in name:
                    parameter.normal_(std=0.05)
        optimizer = torch.optim.SGD(trainable(model).values(), lr=123.0)
        return Engine(
            accelerator,
            model,
            optimizer,
            TokenObjective(flat, False, 2, takes_logits_to_keep(model.get_base_model())),
            max_grad_norm,
        )

    return make


@pytest.fixture
def data(make_dataset: Callable[..., Dataset], make_examples: Callable[..., list[Example]]) -> Dataset:
    """Eight examples of very different lengths, one a sequence."""
    return make_dataset(make_examples(LENGTHS))


def _weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in engine.parameters.items()}


def _direct(engine: Engine, data: Dataset, ids: list[int]) -> tuple[float, int, dict[str, torch.Tensor]]:
    """Loss sum, supervised tokens and gradient of the mean loss over all supervised tokens, example by example."""
    losses = [
        token_losses(engine.model, flat_batch([data.examples[i]], CPU, flash=False), keep_positions=False).per_unit for i in ids
    ]
    nll = torch.cat(losses)
    gradients = torch.autograd.grad(nll.mean(), list(engine.parameters.values()))
    return float(nll.detach().sum()), len(nll), dict(zip(engine.parameters, gradients, strict=True))


def test_a_step_follows_the_gradient_of_the_mean_over_all_supervised_tokens(
    make_engine: Callable[..., Engine], data: Dataset
) -> None:
    engine = make_engine()
    ids = np.array([3, 0, 5, 2])
    before = _weights(engine)
    loss_sum, tokens, gradient = _direct(engine, data, ids.tolist())
    stats = engine.train_step(data, ids, BatchShape(1, 4, 1), learning_rate=0.5)
    assert stats.units == tokens == sum(int(data.examples[i].supervised.sum()) for i in ids)
    assert stats.loss_sum == pytest.approx(loss_sum, rel=1e-5)
    assert stats.grad_norm == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in gradient.values())), rel=1e-4)
    for name, weight in _weights(engine).items():
        torch.testing.assert_close(weight, before[name] - 0.5 * gradient[name], rtol=1e-4, atol=1e-6, msg=name)
    assert all(p.grad is None for p in engine.parameters.values())


@pytest.mark.parametrize(
    ("flat", "shape"),
    [
        (True, BatchShape(4, 1, 1)),
        (True, BatchShape(2, 2, 1)),
        (True, BatchShape(3, 2, 1)),  # the second micro-batch is not full
        (False, BatchShape(4, 1, 1)),
        (False, BatchShape(1, 4, 1)),
    ],
)
def test_cutting_a_step_up_changes_nothing(
    make_engine: Callable[..., Engine], data: Dataset, flat: bool, shape: BatchShape
) -> None:
    ids = np.array([3, 0, 5, 2])
    reference, other = make_engine(), make_engine(flat=flat)
    stats = [
        engine.train_step(data, ids, cut, learning_rate=1.0) for engine, cut in ((reference, BatchShape(1, 4, 1)), (other, shape))
    ]
    assert stats[0].loss_sum == pytest.approx(stats[1].loss_sum, rel=1e-5)
    assert stats[0].grad_norm == pytest.approx(stats[1].grad_norm, rel=1e-4)
    assert stats[0].units == stats[1].units
    weights = _weights(other)
    for name, weight in _weights(reference).items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=1e-6, msg=name)


class _Rank:
    """An accelerator that takes itself for one process of several, without a connection to the others."""

    def __init__(self, accelerator: Any, rank: int) -> None:
        self._accelerator, self.process_index = accelerator, rank

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)


@pytest.mark.parametrize("ids", [[3, 0, 5, 2], [3, 0, 5], [4]])
def test_the_mean_over_two_processes_is_the_step_of_one(
    make_engine: Callable[..., Engine], data: Dataset, ids: list[int]
) -> None:
    alone = make_engine()
    before = _weights(alone)
    stats = alone.train_step(data, np.array(ids), BatchShape(4, 1, 1), 1.0)
    ranks = [make_engine(), make_engine()]
    parts = []
    for rank, engine in enumerate(ranks):
        engine.accelerator = _Rank(engine.accelerator, rank)
        parts.append(engine.train_step(data, np.array(ids), BatchShape(1, 2, 2), 1.0))
    assert parts[0].units == parts[1].units == stats.units
    assert parts[0].loss_sum + parts[1].loss_sum == pytest.approx(stats.loss_sum, rel=1e-5)
    moved = [_weights(engine) for engine in ranks]
    for name, weight in _weights(alone).items():
        mean = (moved[0][name] + moved[1][name]) / 2
        torch.testing.assert_close(mean - before[name], weight - before[name], rtol=1e-3, atol=1e-6, msg=name)


def test_packing_changes_no_step(make_engine: Callable[..., Engine], make_dataset: Callable[..., Dataset], data: Dataset) -> None:
    packed = make_dataset(data.examples, max_length=40, packing=True)
    assert len(packed) < len(data)
    plain, dense = make_engine(), make_engine()
    a = plain.train_step(data, np.arange(len(data)), BatchShape(8, 1, 1), 1.0)
    b = dense.train_step(packed, np.arange(len(packed)), BatchShape(8, 1, 1), 1.0)
    assert a.loss_sum == pytest.approx(b.loss_sum, rel=1e-5) and a.units == b.units
    weights = _weights(dense)
    for name, weight in _weights(plain).items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=1e-6, msg=name)


def test_gradient_checkpointing_changes_no_step(make_engine: Callable[..., Engine], data: Dataset) -> None:
    engines = make_engine(), make_engine(checkpointing=True)
    stats = [engine.train_step(data, np.arange(4), BatchShape(4, 1, 1), 1.0) for engine in engines]
    assert stats[0].loss_sum == pytest.approx(stats[1].loss_sum, rel=1e-6)
    assert stats[0].grad_norm == pytest.approx(stats[1].grad_norm, rel=1e-5) and stats[0].grad_norm > 0


@pytest.fixture
def mixture(make_dataset: Callable[..., Dataset], make_examples: Callable[..., list[Example]]) -> Mixture:
    """The same eight examples from three sources: five, one and two of them."""
    examples = make_examples(LENGTHS)
    return Mixture([make_dataset(part) for part in (examples[:5], examples[5:6], examples[6:])], ["a", "b", "c"])


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("shape", [BatchShape(8, 1, 1), BatchShape(1, 5, 1), BatchShape(3, 2, 1)])
def test_each_source_has_its_own_loss_however_the_step_is_cut_up(
    make_engine: Callable[..., Engine], mixture: Mixture, flat: bool, shape: BatchShape
) -> None:
    ids = np.array([6, 0, 7, 2, 3])  # nothing of the second source
    engine = make_engine(flat=flat)
    expected = [_direct(engine, mixture, part)[:2] if part else (0.0, 0) for part in ([0, 2, 3], [], [6, 7])] if flat else None
    stats = engine.train_step(mixture, ids, shape, 1.0)
    assert [tokens for _, tokens in stats.by_source] == [
        sum(int(mixture.examples[i].supervised.sum()) for i in part) for part in ([0, 2, 3], [], [6, 7])
    ]
    assert sum(loss for loss, _ in stats.by_source) == pytest.approx(stats.loss_sum, rel=1e-6) and stats.by_source[1] == (0.0, 0)
    for (loss, _), (wanted, _) in zip(stats.by_source, expected or (), strict=expected is not None):
        assert loss == pytest.approx(wanted, rel=1e-5)


def test_sources_change_no_step(make_engine: Callable[..., Engine], data: Dataset, mixture: Mixture) -> None:
    engines, ids = (make_engine(), make_engine()), np.array([6, 0, 5, 2])
    stats = [
        engine.train_step(each, ids, BatchShape(2, 2, 1), 1.0) for engine, each in zip(engines, (data, mixture), strict=True)
    ]
    assert stats[0] == replace(stats[1], by_source=())
    weights = [_weights(engine) for engine in engines]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_over_two_processes_each_source_counts_once(make_engine: Callable[..., Engine], mixture: Mixture) -> None:
    ids = np.array([6, 0, 5])  # the second process has nothing to do in the second round
    alone = make_engine().train_step(mixture, ids, BatchShape(4, 1, 1), 1.0)
    parts = []
    for rank in range(2):
        engine = make_engine()
        engine.accelerator = _Rank(engine.accelerator, rank)
        parts.append(engine.train_step(mixture, ids, BatchShape(1, 2, 2), 1.0))
    for number, (loss, tokens) in enumerate(alone.by_source):
        assert sum(part.by_source[number][0] for part in parts) == pytest.approx(loss, rel=1e-5)
        assert {part.by_source[number][1] for part in parts} == {tokens}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_an_evaluation_of_several_sources_by_hand(make_engine: Callable[..., Engine], mixture: Mixture, batch_size: int) -> None:
    engine = make_engine()
    found = engine.evaluate(mixture, batch_size, lambda: False)
    assert list(found) == ["val_loss", "val_perplexity", "val_token_accuracy", "val_loss_a", "val_loss_b", "val_loss_c"]
    for name, part in zip(mixture.names, mixture.parts, strict=True):
        assert found[f"val_loss_{name}"] == pytest.approx(engine.evaluate(part, 8, lambda: False)["val_loss"], rel=1e-5)
    whole = sum(found[f"val_loss_{n}"] * p.counts.supervised_tokens for n, p in zip(mixture.names, mixture.parts, strict=True))
    assert found["val_loss"] == pytest.approx(whole / mixture.counts.supervised_tokens, rel=1e-9)


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_clipping_limits_the_step_and_reports_the_norm_before(
    make_engine: Callable[..., Engine], data: Dataset, limit: float
) -> None:
    engine = make_engine(max_grad_norm=limit)
    before = _weights(engine)
    _, _, gradient = _direct(engine, data, [0, 1])
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))
    stats = engine.train_step(data, np.array([0, 1]), BatchShape(2, 1, 1), 1.0)
    moved = math.sqrt(sum(float((w - before[n]).square().sum()) for n, w in _weights(engine).items()))
    assert stats.grad_norm == pytest.approx(norm, rel=1e-4)
    assert moved == pytest.approx(min(limit, norm), rel=1e-3)


def test_a_limit_of_zero_does_not_clip(make_engine: Callable[..., Engine], data: Dataset) -> None:
    engine = make_engine(max_grad_norm=0.0)
    before = _weights(engine)
    stats = engine.train_step(data, np.array([0, 1]), BatchShape(2, 1, 1), 1.0)
    moved = math.sqrt(sum(float((w - before[n]).square().sum()) for n, w in _weights(engine).items()))
    assert moved == pytest.approx(stats.grad_norm, rel=1e-3) and moved > 0.01


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("flat", [True, False])
def test_evaluation_by_hand(make_engine: Callable[..., Engine], data: Dataset, batch_size: int, flat: bool) -> None:
    engine = make_engine(flat=flat)
    total, tokens, hits = 0.0, 0, 0
    with torch.no_grad():
        for example in data.examples:
            inputs = {} if not flat else {"doc_lengths": (len(example),)}
            ids = torch.tensor(example.input_ids.astype(np.int64))[None]
            log_probabilities = engine.model.eval()(input_ids=ids, **inputs).logits[0].log_softmax(-1)
            for position in np.flatnonzero(example.supervised):
                total -= float(log_probabilities[position - 1, ids[0, position]])
                hits += int(log_probabilities[position - 1].argmax() == ids[0, position])
                tokens += 1
    metrics = engine.evaluate(data, batch_size, lambda: False)
    assert metrics == {
        "val_loss": pytest.approx(total / tokens, rel=1e-5),
        "val_perplexity": pytest.approx(math.exp(total / tokens), rel=1e-4),
        "val_token_accuracy": hits / tokens,
    }


def test_evaluation_has_no_dropout_and_moves_nothing(make_engine: Callable[..., Engine], data: Dataset) -> None:
    engine = make_engine()
    for module in engine.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    before, random = _weights(engine), torch.get_rng_state()
    first, second = (engine.evaluate(data, 2, lambda: False) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(weight, before[name]) for name, weight in _weights(engine).items())


def test_a_step_after_an_evaluation_trains_with_dropout_again(make_engine: Callable[..., Engine], data: Dataset) -> None:
    engine = make_engine()
    engine.evaluate(data, 8, lambda: False)
    assert not engine.model.training
    engine.train_step(data, np.array([0]), BatchShape(1, 1, 1), 0.1)
    assert engine.model.training


def test_an_evaluation_is_given_up_between_batches(make_engine: Callable[..., Engine], data: Dataset) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Interrupted):
        make_engine().evaluate(data, 2, lambda: next(answers))
    assert next(answers, "all asked") == "all asked"


def test_a_hopeless_loss_has_a_finite_perplexity(make_engine: Callable[..., Engine], data: Dataset) -> None:
    engine = make_engine()
    with torch.no_grad():
        engine.model.get_base_model().lm_head.weight.mul_(1e6)
    metrics = engine.evaluate(data, 8, lambda: False)
    assert metrics["val_loss"] > 700 and math.isfinite(metrics["val_perplexity"])


def test_names_are_those_of_the_model(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    assert {engine.names[id(p)] for p in engine.parameters.values()} == set(engine.parameters)
    assert all("lora_" in name for name in engine.parameters)


class _WithLosses:
    """An objective with other losses."""

    def __init__(self, real: Any, losses: Callable[[Any, Any], Any]) -> None:
        self._real, self.losses, self.evaluated = real, losses, losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _exhausted(engine: Engine, *, at_call: int) -> None:
    """Let the engine run out of memory once, after the forward pass number ``at_call`` (from 1) has been computed."""
    real, calls = engine.objective.losses, 0

    def losses(model: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        found = real(model, batch)
        if calls == at_call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return found

    engine.objective = _WithLosses(engine.objective, losses)


@pytest.mark.parametrize("at_call", [1, 2])
def test_running_out_of_memory_changes_nothing_and_the_smaller_step_is_the_one_that_would_have_been(
    make_engine: Callable[..., Engine], data: Dataset, at_call: int
) -> None:
    ids = np.array([3, 0, 5, 2])
    straight, engine = make_engine(), make_engine()
    for each in (straight, engine):
        for module in each.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5  # draws from the generator
    torch.manual_seed(3)
    expected = straight.train_step(data, ids, BatchShape(1, 4, 1), learning_rate=0.5)
    torch.manual_seed(3)
    _exhausted(engine, at_call=at_call)
    before, generator = _weights(engine), torch.get_rng_state()
    assert engine.train_step(data, ids, BatchShape(2, 2, 1), learning_rate=0.5, recover=True) is None
    assert all(torch.equal(weight, before[name]) for name, weight in _weights(engine).items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in engine.parameters.values())
    assert engine.train_step(data, ids, BatchShape(1, 4, 1), learning_rate=0.5, recover=True) == expected
    wanted = _weights(straight)
    assert all(torch.equal(weight, wanted[name]) for name, weight in _weights(engine).items())


def test_without_leave_to_recover_running_out_of_memory_is_an_error(make_engine: Callable[..., Engine], data: Dataset) -> None:
    engine = make_engine()
    _exhausted(engine, at_call=1)
    with pytest.raises(torch.OutOfMemoryError):
        engine.train_step(data, np.array([3, 0]), BatchShape(2, 1, 1), learning_rate=0.5)
    _exhausted(engine, at_call=1)
    with pytest.raises(torch.OutOfMemoryError):
        engine.evaluate(data, 2, lambda: False)


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_engine: Callable[..., Engine], data: Dataset) -> None:
    engine = make_engine()

    def losses(model: Any, batch: Any) -> Any:
        raise RuntimeError("shapes do not match")

    engine.objective = _WithLosses(engine.objective, losses)
    with pytest.raises(RuntimeError, match="shapes"):
        engine.train_step(data, np.array([3, 0]), BatchShape(2, 1, 1), learning_rate=0.5, recover=True)


def test_an_evaluation_that_does_not_fit_says_so(make_engine: Callable[..., Engine], data: Dataset) -> None:
    engine = make_engine()
    _exhausted(engine, at_call=1)
    assert engine.evaluate(data, 2, lambda: False, recover=True) is None
    assert engine.evaluate(data, 1, lambda: False, recover=True) is not None
