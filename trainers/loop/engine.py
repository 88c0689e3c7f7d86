"""One optimizer step and one evaluation, on one device or many, through Accelerate."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from pitstop.configs.errors import is_out_of_memory
from pitstop.configs.schema import EvaluationSettings
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.data.order import BatchShape, micro_batches
from pitstop.trainers.loop.ema import Ema
from pitstop.trainers.loop.optim import trainable
from pitstop.trainers.loop.scoring import Interrupted, Scoring
from pitstop.trainers.machine.processes import agree, gather_bytes
from pitstop.trainers.models.objective import Objective
from pitstop.trainers.models.trained import Trained, TrainedAdapter


@dataclass(frozen=True)
class StepStats:
    """One optimizer step: loss sum over all its ``units`` (supervised tokens, in nats; or images), gradient norm before clipping.

    ``by_source`` has sum and units of each of several data sets, in their order.
    """

    loss_sum: float
    units: int
    grad_norm: float
    by_source: tuple[tuple[float, int], ...] = ()


class Engine:
    """Owns the model and optimizer as Accelerate prepared them.

    ``model`` is the ``PeftModel``, or the model itself where all of it is trained, as ``trained`` says; gradients are averaged
    over processes by DistributedDataParallel. With ``ema_decay`` an average of the weights is kept, and evaluated.
    """

    def __init__(
        self,
        accelerator: Any,
        model: Any,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        max_grad_norm: float,
        *,
        trained: Trained | None = None,
        ema_decay: float | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.trained: Trained = trained or TrainedAdapter(model)
        self.objective = objective
        self.max_grad_norm = max_grad_norm
        self.raw_optimizer = optimizer
        self.parameters = trainable(model)
        self.ema = Ema(self.parameters, ema_decay) if ema_decay is not None else None
        self._forward_model: nn.Module = accelerator.prepare_model(model)
        self.optimizer = accelerator.prepare_optimizer(optimizer)

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        return torch.device(self.accelerator.device)

    @property
    def names(self) -> dict[int, str]:
        """Parameter names by ``id(parameter)``."""
        return {id(p): name for name, p in self.parameters.items()}

    def train_step(
        self, data: Sequences, step_ids: np.ndarray, shape: BatchShape, learning_rate: float, *, recover: bool = False
    ) -> StepStats | None:
        """Train on the sequences of one optimizer step.

        The gradient is that of the mean loss over *all* units (supervised tokens) of the step, on every process and in every
        micro-batch, so cutting a step up differently changes nothing but rounding.

        With ``recover``, ``None`` says that memory ran out on some process before the update: parameters, optimizer and
        generators are then as they were, on all of them. Otherwise the error comes through.
        """
        total = data.supervised_tokens(step_ids)
        generators = [torch.get_rng_state()] if recover else None  # that a step draws from
        if generators is not None and self.device.type == "cuda":
            generators.append(torch.cuda.get_rng_state(self.device))
        sums = self._accumulate(data, step_ids, shape, recover)
        if generators is not None:
            if agree(int(sums is None), self.device):
                self._forget(generators)
                return None
            self._average_gradients()
        assert sums is not None
        norm = self._update(learning_rate)
        # Over processes, added in the order of ranks, so that the sums are the same in every run.
        columns = self.accelerator.gather(sums[None]).cpu().double().T.tolist()
        loss_sum, *of_sources = [float(sum(column)) for column in columns]
        learnt, sources = data.supervised_in(step_ids), data.sources_of(step_ids)
        tokens = [int(learnt[sources == number].sum()) for number in range(len(of_sources))]
        return StepStats(loss_sum, total, float(norm), tuple(zip(of_sources, tokens, strict=True)))

    def _accumulate(self, data: Sequences, step_ids: np.ndarray, shape: BatchShape, recover: bool) -> torch.Tensor | None:
        """Add up the gradients of a step and return the loss sum, then that of each of several data sets.

        With ``recover`` None says that memory ran out.
        """
        scale = shape.world_size / data.supervised_tokens(step_ids)  # gradients are averaged over processes
        batches = micro_batches(step_ids, shape, self.accelerator.process_index)
        self._forward_model.train()
        sums = torch.zeros(1 + len(data.names), device=self.device)
        try:
            for number, own_ids in enumerate(batches):
                idle = len(own_ids) == 0  # others have work left: take part in the gradient exchange with weight zero
                ids = step_ids[:1] if idle else own_ids
                batch = self.objective.batch(data, ids, self.device)
                # To recover, all must know of each other's memory before gradients are exchanged: that is then done later.
                exchange = number == len(batches) - 1 and not recover
                with contextlib.nullcontext() if exchange else self.accelerator.no_sync(self._forward_model):
                    unit_losses = self.objective.losses(self._forward_model, batch).per_unit
                    summed = unit_losses.sum() * (0.0 if idle else 1.0)
                    self.accelerator.backward(summed * scale)
                sums[0] += summed.detach()
                if data.names and not idle:
                    pieces = unit_losses.detach().split(data.supervised_in(ids).tolist())
                    for source, piece in zip(data.sources_of(ids).tolist(), pieces, strict=True):
                        sums[1 + source] += piece.sum()
        except (RuntimeError, MemoryError) as error:
            if not recover or not is_out_of_memory(error):
                raise
            return None  # not retried here: the traceback keeps the activations of the failed attempt alive
        return sums

    def _forget(self, generators: list[torch.Tensor]) -> None:
        """Drop the gradients of a step that did not fit, free what it used and put the generators back."""
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state(generators[1], self.device)
        torch.set_rng_state(generators[0])

    def _average_gradients(self) -> None:
        """What DistributedDataParallel does during the last backward pass, done after it."""
        world = self.accelerator.num_processes
        if world == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters.values()]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= world
        parts = flat.split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(self.parameters.values(), parts, strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def _update(self, learning_rate: float) -> torch.Tensor:
        for group in self.raw_optimizer.param_groups:
            group["lr"] = learning_rate
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        norm: torch.Tensor = self.accelerator.clip_grad_norm_(list(self.parameters.values()), limit)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def evaluate(
        self, data: Sequences, batch_size: int, give_up: Callable[[], bool], *, recover: bool = False
    ) -> dict[str, float] | None:
        """What the objective logs of a data set's mean loss; of text nats a supervised token, perplexity and token accuracy.

        Of several data sets each has its loss too, ``val_loss_NAME``. Processes take batches in turn and sums are exact
        (``math.fsum``), so the result does not depend on how many there are. Raises ``Interrupted`` when ``give_up`` says so; it is asked only where one process decides alone.
        With ``recover``, ``None`` says that memory ran out on some process.
        """
        self.model.eval()
        batches = data.batches(batch_size)
        with self.evaluated_weights():
            sums = self._score(data, batches, give_up, recover)
        if recover and agree(int(sums is None), self.device):
            return None
        assert sums is not None
        sums += [[0.0, 0.0, 0.0]] * (math.ceil(len(batches) / self.accelerator.num_processes) - len(sums))
        losses, correct, sources = self._gather_rows(sums)
        units = data.counts.supervised_tokens
        metrics = self.objective.metrics(math.fsum(losses) / units, math.fsum(correct) / units)
        for number, name in enumerate(data.names):
            loss_sum = math.fsum(value for value, source in zip(losses, sources, strict=True) if source == number)
            metrics[f"val_loss_{name}"] = loss_sum / data.parts[number].counts.supervised_tokens
        return metrics

    def evaluated_weights(self) -> contextlib.AbstractContextManager[None]:
        """Have the weights that are judged in the model while inside: their average where one is kept."""
        return self.ema.in_place() if self.ema is not None else contextlib.nullcontext()

    def average(self) -> Mapping[str, torch.Tensor]:
        """The live tensors of the average, by the names that the weights are saved under."""
        assert self.ema is not None
        with self.ema.in_place():
            return self.trained.tensors()

    def scoring(self, tokenizer: Any, settings: EvaluationSettings, give_up: Callable[[], bool]) -> Scoring:
        """What a task's scorer computes with here."""
        return Scoring(
            model=self.model,
            tokenizer=tokenizer,
            device=self.device,
            autocast=self.accelerator.autocast,
            batch_size=settings.generation_batch_size,
            max_new_tokens=settings.max_new_tokens,
            limit=settings.score_examples,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            gather=lambda data: gather_bytes(data, self.device),
            give_up=give_up,
        )

    def _score(
        self, data: Sequences, batches: Sequence[np.ndarray], give_up: Callable[[], bool], recover: bool
    ) -> list[list[float]] | None:
        """For each of this process's batches loss sum, right answers, and the number of the data set that it is of."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        sums: list[list[float]] = []
        try:
            for ids in batches[rank::world]:
                if world == 1 and give_up():
                    raise Interrupted
                losses = self.objective.evaluated(self.model, self.objective.batch(data, ids, self.device))
                source = float(data.sources_of(ids[:1])[0])
                right = 0.0 if losses.correct is None else float(losses.correct.sum())
                sums.append([float(losses.per_unit.cpu().double().sum()), right, source])
        except (RuntimeError, MemoryError) as error:
            if not recover or not is_out_of_memory(error):
                raise
            return None
        return sums

    def _gather_rows(self, rows: list[list[float]]) -> list[list[float]]:
        """The columns of all processes' rows; float64 on the way, where the device has it."""
        table = torch.tensor(rows, dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            table = self.accelerator.gather(table.to(self.device)).cpu()
        return [list(column) for column in zip(*table.tolist(), strict=True)]
