"""rank: a retriever finds candidates for the next item, and a language model ranks them (LlamaRec, Yue et al. 2023)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.dataset import Dataset, Sequences
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.loop.scoring import Scoring
from pitstop.trainers.machine.device import choose_device
from pitstop.trainers.machine.processes import from_first
from pitstop.trainers.tasks.base import Direction
from pitstop.trainers.tasks.rank import letters
from pitstop.trainers.tasks.rank.draws import sample, shuffled, unseen
from pitstop.trainers.tasks.rank.histories import SPLITS, UserHistories, build_histories
from pitstop.trainers.tasks.rank.measures import NAMES
from pitstop.trainers.tasks.rank.reading import read_ratings
from pitstop.trainers.tasks.rank.retrieval import RetrievedCandidates, retrieve
from pitstop.trainers.tasks.rank.scoring import score
from pitstop.trainers.tasks.text import TextTask

_ROWS, _NEGATIVES, _ORDER = 0x726F7773, 0x6E656773, 0x6F726472  # keys of the draws


@dataclass(frozen=True)
class _Read:
    """A data set as it was read, and what was wrong with it, so that it is read once for all splits."""

    sequences: UserHistories
    bad_rows: BadRows


class RankTask(TextTask):
    """Makes training rows out of prefixes, evaluation rows out of what the retriever found, and ranks by letters."""

    name = "rank"
    headline = ("recall@10", "mrr@10", "ndcg@10", "retrieved_share")

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        super().__init__(tokenizer, settings)
        self._letters = letters.find_letters(self.chat, settings.rank.candidates)
        self._titles: dict[str, str] = {}
        self._read: dict[str, _Read] = {}
        self._retrieved: dict[str, RetrievedCandidates] = {}

    # Records -----------------------------------------------------------------------------------------------------

    def splits_itself(self) -> bool:
        """Each user's last two ratings are held out."""
        return True

    def records(self, spec: str, bad_rows: BadRows, *, split: str, token: str | None) -> Iterator[Record]:
        """Training rows for the split ``train``, else one row for each evaluated user whose target was retrieved.

        Raises ``DataError`` for data that cannot be read or that leaves nothing to train or evaluate on.
        """
        del token  # nothing is read from the Hub
        if split not in SPLITS:
            raise DataError(f"{spec}: the task rank has no split {split!r}.", hint=f"It has {', '.join(SPLITS)}.")
        sequences = self._sequences(spec, bad_rows)
        return self._training_rows(spec, sequences) if split == "train" else self._evaluation_rows(spec, sequences, split)

    def _sequences(self, spec: str, bad_rows: BadRows) -> UserHistories:
        if spec not in self._read:
            reading_errors = BadRows(bad_rows.skip)
            ratings = read_ratings(spec, reading_errors)
            sequences = build_histories(ratings, min_interactions=self.settings.rank.min_interactions, name=spec)
            for notice in sequences.notices:
                reading_errors.notices.add(notice)
            self._read[spec] = _Read(sequences, reading_errors)
            self.say(f"{spec}: {sequences.statistics}.")
        read = self._read[spec]
        bad_rows.count += read.bad_rows.count
        bad_rows.reasons = (*bad_rows.reasons, *read.bad_rows.reasons)[:3]
        for notice in read.bad_rows.notices:
            bad_rows.notices.add(notice)
        return read.sequences

    def _training_rows(self, spec: str, sequences: UserHistories) -> Iterator[Record]:
        """Every prefix of two or more items of a training sequence: its last item is to be found among random unseen ones."""
        rank, seed = self.settings.rank, self.settings.training.seed
        rows_of = np.maximum(np.diff(sequences.offsets) - 3, 0)  # of a sequence of n, two are held out and one has no history
        ends = np.cumsum(rows_of)
        for row in sample(rank.max_train_rows or int(ends[-1]), int(ends[-1]), seed, _ROWS).tolist():
            user = int(np.searchsorted(ends, row, side="right"))
            position = row - int(ends[user]) + int(rows_of[user]) + 1
            history = sequences.train(user)
            target = int(history[position])
            key = (seed, user, position)
            negatives = unseen(rank.candidates - 1, len(sequences.titles), frozenset(history.tolist()), _NEGATIVES, *key)
            candidates = shuffled(np.append(negatives, target), _ORDER, *key)
            place = f"{spec} user {sequences.user_ids[user]} item {position + 1}"
            yield self._record(sequences, history[:position], candidates, target, place)

    def _evaluation_rows(self, spec: str, sequences: UserHistories, split: str) -> Iterator[Record]:
        """Candidates stand in random order: in the retriever's, a liking for early letters would already rank well."""
        retrieved = self._candidates(spec, sequences)
        count = 0
        for user, row in zip(retrieved.users.tolist(), retrieved.items[split], strict=True):
            target = sequences.target(user, split)
            place = np.flatnonzero(row == target)
            if not len(place):
                continue  # a miss, whatever the model says; the number of users tells
            count += 1
            candidates = shuffled(row[row >= 0], _ORDER, self.settings.training.seed, user, SPLITS.index(split))
            yield self._record(
                sequences,
                sequences.history(user, split),
                candidates,
                target,
                f"{spec} user {sequences.user_ids[user]} ({split})",
                set=spec,
                users=len(retrieved.users),
                retriever_rank=int(place[0]) + 1,
            )
        if not count:
            raise DataError(
                f"{spec}: the retriever {self.settings.rank.retriever} found the next item of none of {len(retrieved.users)} users.",
                hint="Evaluate more users (--rank-eval-users none), or take another --rank-retriever.",
            )

    def _record(
        self, sequences: UserHistories, history: np.ndarray, candidates: np.ndarray, target: int, place: str, **about: Any
    ) -> Record:
        titles = sequences.titles
        fields = {
            "history": [titles[item] for item in history[-self.settings.rank.history :].tolist()],
            "candidates": [titles[item] for item in candidates.tolist()],
            "answer": int(np.flatnonzero(candidates == target)[0]),
            **about,
        }
        return Record(fields, place)

    def _candidates(self, spec: str, sequences: UserHistories) -> RetrievedCandidates:
        """The first process finds them and the others get its bytes: they would not find the very same on another machine."""
        if spec not in self._retrieved:

            def retrieved() -> bytes:
                return retrieve(sequences, self.settings.rank, self.settings.training.seed, self.say).to_bytes()

            self._retrieved[spec] = RetrievedCandidates.from_bytes(from_first(retrieved, choose_device()))
        return self._retrieved[spec]

    # Examples ----------------------------------------------------------------------------------------------------

    def examples(self, record: Record) -> list[Example]:
        """One example a record: prompt, letter, end token. The oldest titles go where it is too long for MAX_LENGTH."""
        fields = record.fields
        history, candidates = self._shortened(fields["history"]), self._shortened(fields["candidates"])
        tail = [*self._letters.lead, self._letters.ids[fields["answer"]], self._letters.end]
        ids, cut = self._fitting(history, candidates, self.settings.data.max_length - len(tail))
        supervised = np.zeros(len(ids) + len(tail), dtype=bool)
        supervised[-2:] = True
        return [Example(np.array([*ids, *tail], dtype=np.int32), supervised, reference=_reference(fields), cut=cut)]

    def _fitting(self, history: Sequence[str], candidates: Sequence[str], room: int) -> tuple[list[int], bool]:
        """The prompt's tokens with as much of the history as there is room for, at least one title, and whether some went."""
        prompt_ids = self._question_ids(history, candidates)
        if len(prompt_ids) <= room or len(history) == 1:
            return prompt_ids, False
        best = self._question_ids(history[-1:], candidates)
        fitting, too_many = 1, len(history)
        while too_many - fitting > 1:
            middle = (fitting + too_many) // 2
            ids = self._question_ids(history[-middle:], candidates)
            if len(ids) <= room:
                fitting, best = middle, ids
            else:
                too_many = middle
        return best, len(best) <= room

    def _question_ids(self, history: Sequence[str], candidates: Sequence[str]) -> list[int]:
        return self.chat.opening_ids(letters.prompt(history, candidates).join(self._letters.frame))

    def _shortened(self, titles: Sequence[str]) -> list[str]:
        for title in titles:
            if title not in self._titles:
                self._titles[title] = letters.shorten(self.tokenizer, title, self.settings.rank.title_tokens)
        return [self._titles[title] for title in titles]

    # Metrics -----------------------------------------------------------------------------------------------------

    def metrics(self, evaluation: Sequences) -> Mapping[str, Direction]:
        """Overall, on the retrieved subset, and the share that was retrieved; more is better."""
        del evaluation
        return dict.fromkeys(NAMES, "max")

    def score(self, evaluation: Sequences, scoring: Scoring) -> dict[str, float]:
        """See ``Task.score``."""
        assert isinstance(evaluation, Dataset)
        return score(evaluation, scoring, self._letters.ids)


def _reference(fields: Mapping[str, Any]) -> str:
    """What the scorer needs of a row; empty for a training row, whose ``users`` are not counted."""
    if "users" not in fields:
        return ""
    reference = {key: fields[key] for key in ("answer", "set", "users", "retriever_rank")}
    return json.dumps({**reference, "candidates": len(fields["candidates"])}, sort_keys=True)
