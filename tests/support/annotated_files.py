"""Files of the two annotated formats, PubTator and IOB, and what reading one gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.places import read_records
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.ner.annotated import ANNOTATED

PUBTATOR = """\
2004|t|Naloxone reverses the effect of clonidine.
2004|a|In rats, naloxone raised blood pressure: hypertension.
2004\t0\t8\tNaloxone\tChemical\tD009270
2004\t84\t96\thypertension\tDisease\tD006973
2004\t52\t60\tnaloxone\tChemical\tD009270
2004\tCID\tD009270\tD006973

77|t|No abstract, Ärger and pain.
77\t23\t27\tpain\tDisease|Sign\tD010146
"""
IOB = """\
-DOCSTART- -X- O O

Aspirin NN B-NP B-Chemical
eased VBD O O
chronic JJ O B-Disease
back NN O I-Disease
pain NN O I-Disease
. . O O

Nothing NN O O
helped VBD O O
"""

# Files are written: how long that takes on a busy machine says nothing.
in_files = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORD = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|"), min_size=1, max_size=6)
KIND = st.sampled_from(["chemical", "disease", "cell line", "x-y"])


def read_text(path: Path, text: str | bytes, *, skip: bool = False) -> tuple[list[dict[str, Any]], BadRows]:
    """The fields of the records of a file with ``text``, and its bad rows."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_place(path, skip=skip)


def read_place(path: Path, *, skip: bool = False) -> tuple[list[dict[str, Any]], BadRows]:
    """The same of what lies there."""
    bad = BadRows(skip)
    return [record.fields for record in read_records(str(path), bad, extra_formats=ANNOTATED)], bad


def refusal(path: Path, text: str | bytes) -> str:
    """The message with which ``text`` is refused."""
    with pytest.raises(DataError) as caught:
        read_text(path, text)
    return str(caught.value)
