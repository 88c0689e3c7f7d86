"""The sequential retriever: a recurrent network over a user's items (GRU4Rec, Hidasi et al. 2016), trained on the processor.

Every item of a training sequence is predicted from those before it. Padding stands on the right, where it reaches no real
position; it is no item, so it can neither be predicted nor recommended.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pitstop.configs.shown import human_duration
from pitstop.trainers.data.order import permutation
from pitstop.trainers.tasks.rank.draws import draws, sample
from pitstop.trainers.tasks.rank.histories import UserHistories
from pitstop.trainers.tasks.rank.measures import mean_measures

WIDTH = 64
LONGEST = 100  # items of a window
DROPOUT = 0.3
LEARNING_RATE, WEIGHT_DECAY, BATCH = 5e-3, 1e-4, 64
ALL_ITEMS = 4096  # of more items a sample of this many is told apart from the right one
JUDGES = 1000  # users whose validation item decides when training has gone on long enough
PATIENCE = 5
_SAMPLED, _JUDGED = 0x736D706C, 0x6A756467  # keys of the draws


class Gru(nn.Module):
    """Embeddings of the items, which are also the output weights, and one recurrent layer."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = items
        self.embedding = nn.Embedding(items + 1, WIDTH, padding_idx=items)
        self.recurrent = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.zeros(items))
        self.dropout = nn.Dropout(DROPOUT)
        with torch.no_grad():
            self.embedding.weight[:items].normal_(std=0.05)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """States of shape ``(rows, items, width)`` after each item of ``ids``, int64 of shape ``(rows, items)``."""
        return self.dropout(self.out(self.recurrent(self.dropout(self.embedding(ids)))[0]))

    def logits(self, states: torch.Tensor, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Scores of all items, or of the chosen ones, for states of shape ``(positions, width)``."""
        if chosen is None:
            return states @ self.embedding.weight[: self.items].T + self.bias
        return states @ self.embedding(chosen).T + self.bias[chosen]


class GruRetriever:
    """A trained network as a retriever."""

    def __init__(self, network: Gru) -> None:
        self.network = network

    @torch.no_grad()
    def scores(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """See ``Retriever``."""
        self.network.eval()
        recent = [history[-LONGEST:] for history in histories]
        last = torch.tensor([len(history) - 1 for history in recent])
        states = self.network(_padded(recent, self.network.items))[torch.arange(len(recent)), last]
        return np.asarray(self.network.logits(states).numpy())


def train_sequential(sequences: UserHistories, *, seed: int, epochs: int, say: Callable[[str], None]) -> GruRetriever:
    """Train for at most ``epochs`` passes and keep the pass whose NDCG@20 on validation items is best.

    A function of the data, the seed and the machine's arithmetic; the global generator is left as it was.
    """
    say(f"Training the retriever on {sequences.statistics.ratings:,} ratings; it is kept for later starts.")
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, epoch, quality = _train(sequences, seed, epochs)
    say(
        f"Retriever: the best of its passes was number {epoch}, with ndcg@20 {quality:.4f} on validation items "
        f"({human_duration(time.monotonic() - started)})."
    )
    return GruRetriever(network)


def _train(sequences: UserHistories, seed: int, epochs: int) -> tuple[Gru, int, float]:
    network = Gru(len(sequences.titles))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    windows = _windows(sequences)
    judges = sample(JUDGES, len(sequences.user_ids), seed, _JUDGED)
    best, best_epoch, best_state = -1.0, 0, copy.deepcopy(network.state_dict())
    for epoch in range(1, epochs + 1):
        network.train()
        order = permutation(len(windows), seed=seed, epoch=epoch)
        for start in range(0, len(order), BATCH):
            chosen = [windows[number] for number in order[start : start + BATCH]]
            loss = _loss(network, chosen, seed, epoch, start)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        quality = _quality(GruRetriever(network), sequences, judges)
        if quality > best:
            best, best_epoch, best_state = quality, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= PATIENCE:
            break
    network.load_state_dict(best_state)
    return network, best_epoch, best


def _windows(sequences: UserHistories) -> list[np.ndarray]:
    """Training sequences in pieces of at most ``LONGEST`` predictions, cut from the end."""
    windows = []
    for user in range(len(sequences.user_ids)):
        history = sequences.train(user)
        windows += [history[max(0, end - LONGEST - 1) : end] for end in range(len(history), 1, -LONGEST)]
    return windows


def _loss(network: Gru, windows: Sequence[np.ndarray], seed: int, epoch: int, start: int) -> torch.Tensor:
    """Mean cross-entropy of the next item, over all items or over the right one and a sample of the others."""
    ids = _padded(windows, network.items)
    states, targets = network(ids[:, :-1]), ids[:, 1:]
    real = targets != network.items
    states, targets = states[real], targets[real]
    if network.items <= ALL_ITEMS:
        return F.cross_entropy(network.logits(states), targets)
    drawn = draws(ALL_ITEMS, seed, _SAMPLED, epoch, start) % np.uint64(network.items)
    sampled = torch.from_numpy(np.unique(drawn).astype(np.int64))
    right = (states * network.embedding(targets)).sum(dim=1) + network.bias[targets]
    wrong = network.logits(states, sampled).masked_fill(sampled[None] == targets[:, None], float("-inf"))
    return (torch.logsumexp(torch.cat([right[:, None], wrong], dim=1), dim=1) - right).mean()


def _padded(sequences: Sequence[np.ndarray], pad: int) -> torch.Tensor:
    ids = torch.full((len(sequences), max(len(sequence) for sequence in sequences)), pad)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
    return ids


def _quality(retriever: GruRetriever, sequences: UserHistories, judges: np.ndarray) -> float:
    """Mean NDCG@20 of the judges' validation items, items of the history out of the way."""
    ranks: list[int | None] = []
    for start in range(0, len(judges), 256):
        users = judges[start : start + 256]
        histories = [sequences.history(user, "validation") for user in users]
        for values, history, user in zip(retriever.scores(histories), histories, users, strict=True):
            target = sequences.target(user, "validation")
            mine = values[target]
            values[history] = -np.inf
            ranks.append(None if target in history else 1 + int((values > mine).sum()))
    return mean_measures(ranks)["ndcg@20"]
