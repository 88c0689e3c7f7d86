"""Data sets of the Hub at the commit that they have when a run starts: the run records it, and a resume reads the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from pitstop.configs.datasets import split_weight
from pitstop.configs.errors import first_line
from pitstop.configs.notices import Notice
from pitstop.configs.schema import Settings
from pitstop.trainers.data.files.hub import HubPlace
from pitstop.trainers.data.files.places import hub_place
from pitstop.trainers.machine.processes import from_first
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.registry import task_class
from pitstop.trainers.tasks.text import TextTask

_PINNED = "{subject} is read at the commit that it has now"
_UNKNOWN = "The commit of {subject} is not known, so that a resume reads what the Hub has then"


def at_commits(settings: Settings, device: torch.device, reporter: Reporter) -> Settings:
    """``settings`` with the commit in each data set that is on the Hub; all processes take those of the first."""
    data = settings.data
    if not issubclass(task_class(settings), TextTask) or not any(map(_place, [*data.train, *data.eval])):
        return settings
    token = settings.hub.token_value

    def commits() -> bytes:
        return json.dumps([[_at_commit(text, token, reporter) for text in texts] for texts in (data.train, data.eval)]).encode()

    train, evaluation = json.loads(from_first(commits, device))
    return replace(settings, data=replace(data, train=train, eval=evaluation))


def _place(text: str) -> HubPlace | None:
    """Where on the Hub a data set is; None where it is not there."""
    spec = split_weight(text)[0]
    return None if any(Path(path).expanduser().exists() for path in (text, spec)) else hub_place(spec)


def _at_commit(text: str, token: str | None, reporter: Reporter) -> str:
    """``text`` with the commit as its revision. Where it cannot be had, reading tells why, or takes what is in its cache."""
    place = _place(text)
    if place is None:
        return text
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        commit = HfApi(token=token).dataset_info(place.repository, revision=place.revision).sha
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return text
    except Exception as error:  # noqa: BLE001  the library's, httpx's, the system's
        reporter.notice(Notice(_UNKNOWN, place.repository, remedy=f"{first_line(error)}.", loss=True))
        return text
    if commit is None or commit == place.revision:
        return text
    at_commit = str(replace(place, revision=commit))
    reporter.notice(Notice(_PINNED, at_commit))
    return at_commit + split_weight(text)[1]
