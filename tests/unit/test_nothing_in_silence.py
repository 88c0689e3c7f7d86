"""Nothing that lies in a file or directory is passed over without a word, by any reader that there is.

First the sums: what a file holds is yielded, malformed or noticed, for a file of each registered format; what a directory holds is
read or noticed, for each kind of directory. A format without a case here fails. Then the source: where a loader or reader passes over
something (an exception that ends in nothing, a loop that goes on to the next) it says so to whoever counts, or stands in a list
here with the reason why nothing is lost.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.files.packed import PACKED
from pitstop.trainers.data.files.places import USUAL, read_records
from pitstop.trainers.data.images.reading import read_images
from pitstop.trainers.data.records import BadRows, Formats
from pitstop.trainers.data.unread import DIRECTORIES, FILES, OTHER_SPLITS
from pitstop.trainers.tasks.ner.annotated import ANNOTATED
from pitstop.trainers.tasks.rank.formats import FORMATS
from pitstop.trainers.tasks.rank.reading import read_ratings
from support.image_files import write_cifar, write_folder, write_idx
from support.rating_files import item_line

REPOSITORY = Path(__file__).parents[2]


# Files ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A file's content, or what writes it; how many units it holds, and how many of these are good."""

    content: bytes | Callable[[Path], None]
    units: int
    good: int

    def write(self, path: Path) -> None:
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)


def _table(write: Callable[[pa.Table, Path], None]) -> Callable[[Path], None]:
    table = pa.table({"text": ["a", "b", "c"], "when": pa.array([0, 2**62, 1], pa.timestamp("us"))})
    return lambda path: write(table, path)


def _arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


JSONL = Case(b'{"text": "a"}\n\n[1]\n{"text": \n{"text": "\xff"}\n{"text": "b"}', 5, 2)
CSV = b'text,n\na,1\nb\n"c"d,2\n\xff,3\ne,4,5\nf,6\n'
IOB = Case(b"-DOCSTART- O\n\na O\nb B-X\n\nc\n\nd Q\n\ne I-X\n\xff O\n\nf O\n", 5, 2)
PUBTATOR = Case(
    b"1|t|Naloxone.\n1|a|It works.\n1\t0\t8\tNaloxone\tChemical\tD1\n1\tCID\tD1\tD2\n1\tCID\tD1\tD3\n\n"
    b"2|t|Other.\n2\t0\t3\tOther\tChemical\n\n3|a|No title.\n\n4|t|Last.\n",
    6,  # four articles, two relations
    2,
)
CASES: dict[str, dict[str, Case]] = {
    "usual": {
        ".jsonl": JSONL,
        ".ndjson": JSONL,
        ".json": Case(json.dumps([{"text": "a"}, 3, None, ["b"], {"text": "c"}]).encode(), 5, 2),
        ".csv": Case(CSV, 6, 2),
        ".tsv": Case(CSV.replace(b",", b"\t"), 6, 2),
        ".parquet": Case(_table(pyarrow.parquet.write_table), 3, 2),
        ".arrow": Case(_table(_arrow), 3, 2),
        ".feather": Case(_table(_arrow), 3, 2),
        ".txt": Case(b"\xff", 1, 0),
    },
    "ner": {".pubtator": PUBTATOR, ".txt": PUBTATOR, **dict.fromkeys((".conll", ".iob", ".iob2", ".bio", ".bioes", ".bilou", ".tsv"), IOB)},
}  # fmt: skip
REGISTRIES: dict[str, Formats] = {"usual": USUAL, "ner": ANNOTATED}


def test_every_registered_format_has_a_case() -> None:
    assert {name: formats.keys() for name, formats in REGISTRIES.items()} == {name: cases.keys() for name, cases in CASES.items()}


@pytest.mark.parametrize(("registry", "suffix"), [(registry, suffix) for registry, cases in CASES.items() for suffix in cases])
def test_of_every_format_each_unit_is_yielded_or_counted(tmp_path: Path, registry: str, suffix: str) -> None:
    case, path, bad = CASES[registry][suffix], tmp_path / f"a{suffix}", BadRows(skip=True)
    case.write(path)
    extra = REGISTRIES[registry] if registry != "usual" else {}
    records = list(read_records(str(path), bad, extra_formats=extra))
    assert len(records) == case.good
    assert len(records) + _total(bad.notices) == case.units
    assert _total(notice for notice in bad.notices if "malformed" in notice.reason) == bad.count


@pytest.mark.parametrize("suffix", [suffix for suffix, format_ in USUAL.items() if format_.packed])
def test_a_compressed_file_has_the_units_of_the_file(tmp_path: Path, suffix: str) -> None:
    case = CASES["usual"][suffix]
    assert isinstance(case.content, bytes)
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    for ending in set(PACKED) - {".zst"}:
        bad, path = BadRows(skip=True), tmp_path / f"a{suffix}{ending}"
        path.write_bytes(pack[ending](case.content))
        assert len(list(read_records(str(path), bad))) + bad.count == case.units


GOOD, BAD = ['{"text": "a"}', '{"n": [1, {}]}'], ["{", "[]", "3", "null", '{"a": ', "nonsense", '{"a": "\udcff"}', '"' + "x" * 9]


@given(st.lists(st.sampled_from([*GOOD, *BAD, "", "  "]), max_size=30), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_whatever_lines_there_are_each_is_a_record_or_malformed(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, last: bool
) -> None:
    path, bad = tmp_path_factory.mktemp("lines") / "a.jsonl", BadRows(skip=True)
    path.write_bytes((end.join(lines) + (end if last else "")).encode("utf-8", "surrogateescape"))
    records = list(read_records(str(path), bad))
    assert len(records) == sum(line in GOOD for line in lines) and bad.count == sum(line in BAD for line in lines)


# Ratings -------------------------------------------------------------------------------------------------------------

RATINGS: dict[tuple[str, str], list[bytes]] = {
    ("MovieLens 100K", "ratings"): [b"1\t1\t5\t900", b"2\t1\tx\t900", b"1\t2\t3\t901"],
    ("MovieLens 100K", "titles"): [item_line(1, "One").strip().encode(), b"broken|line", item_line(9, "Unrated").strip().encode(), item_line(1, "Again").strip().encode(), item_line(2, "").strip().encode()],
    ("MovieLens 1M", "ratings"): [b"1::1::5::900", b"2::1::5", b"1::2::3::901"],
    ("MovieLens 1M", "titles"): [b"1::One::Comedy", b"2::Two", b"9::Unrated::Drama"],
    ("RecBole", "ratings"): [b"1\t1\t5\t900", b"2\t1", b"1\t2\t3\t901"],
    ("RecBole", "titles"): [b"1\tOne", b"9\tUnrated", b"1\tAgain"],
    ("Amazon", "ratings"): [b'{"reviewerID": "u", "asin": "1", "overall": 5, "unixReviewTime": 9}', b'{"reviewerID": "u"}', b'{"reviewerID": "u", "asin": "2", "overall": 5, "unixReviewTime": 9}'],
    ("Amazon", "titles"): [b'{"asin": "1", "title": "One"}', b'{"asin": "9", "title": "Unrated"}', b'{"asin": 3}'],
    ("Yelp", "ratings"): [b'{"review_id": "r", "user_id": "u", "business_id": "1", "stars": 5, "date": "2020-01-01"}', b'{"review_id": "r", "user_id": "u", "business_id": "1", "stars": 5, "date": "never"}'],
    ("Yelp", "titles"): [b'{"business_id": "1", "name": "One"}', b'{"business_id": "9", "name": "Unrated"}', b"{"],
}  # fmt: skip
HEADS = {("RecBole", "ratings"): b"user_id:token\titem_id:token\trating:float\ttimestamp:float", ("RecBole", "titles"): b"item_id:token\tmovie_title:token_seq"}  # fmt: skip


def test_every_rating_format_has_a_case() -> None:
    assert {(format_.family, format_.role) for format_ in FORMATS} == RATINGS.keys()


@pytest.mark.parametrize("family", sorted({family for family, _ in RATINGS}))
def test_of_ratings_and_titles_each_line_is_used_or_counted(tmp_path: Path, family: str) -> None:
    bad, units = BadRows(skip=True), 0
    for role in ("ratings", "titles"):
        lines = RATINGS[family, role]
        units += len(lines)
        head = [HEADS[family, role]] if (family, role) in HEADS else []
        (tmp_path / f"{role}.txt").write_bytes(b"\n".join([*head, *lines]) + b"\n")
    ratings = read_ratings(str(tmp_path), bad)
    assert len(ratings) + len(ratings.titles) + _total(bad.notices) == units


# Directories ---------------------------------------------------------------------------------------------------------


def _total(notices: Iterable[Notice]) -> int:
    return sum(notice.count for notice in notices)


def _unread(notices: Iterable[Notice]) -> int:
    """Files and folders at the top that are not read."""
    return sum(
        notice.count
        for notice in notices
        if notice.reason in (FILES, DIRECTORIES, OTHER_SPLITS) or "left behind" in notice.reason
    )


LITTER = ("README.md", "notes.doc", "data.jsonl.lz4", "Thumbs.db", "a.parquet.gz")


def _leave(directory: Path, *names: str) -> None:
    for name in (*LITTER, *names):
        (directory / name).write_bytes(b"x")
    (directory / "folder").mkdir()
    (directory / "folder" / "a.bin").write_bytes(b"x")


def test_of_a_directory_of_records_each_file_is_read_or_counted(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.JSONL", "c.ndjson", "train.jsonl", "test.jsonl", "val.csv"):
        (tmp_path / name).write_text('{"text": "a"}\n' if not name.endswith("csv") else "text\na\n")
    _leave(tmp_path, "a.txt")
    for split in ("train", "validation", "test"):
        bad = BadRows(skip=False)
        files = {record.place.partition(" line")[0] for record in read_records(str(tmp_path), bad, split=split)}
        assert len(files) + _unread(bad.notices) == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_of_a_folder_of_images_each_file_is_read_malformed_or_counted(tmp_path: Path, split: str) -> None:
    write_folder(tmp_path, classes=("cat", "dog"), splits={"train": 3, "val": 2, "test": 1})
    _leave(tmp_path)
    _leave(tmp_path / "train")
    _leave(tmp_path / "val" / "cat")
    (tmp_path / "train" / "cat" / "broken.png").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "x.png").write_bytes(b"x")
    files = sum(path.is_file() for path in tmp_path.rglob("*"))
    images = read_images(str(tmp_path), split=split, size=8, channels=3, skip_bad_rows=True)
    assert len(images) + images.bad + _unread(images.notices) == files


@pytest.mark.parametrize("kind", ["cifar directory", "cifar archive", "idx"])
def test_of_a_directory_of_archives_each_file_is_the_data_sets_or_counted(tmp_path: Path, kind: str) -> None:
    if kind == "idx":
        write_idx(tmp_path)
    else:
        write_cifar(tmp_path, archive=kind.endswith("archive"))
    own = len(list(tmp_path.iterdir()))
    _leave(tmp_path)
    images = read_images(str(tmp_path), split="train", size=32, channels=3)
    assert own + _unread(images.notices) == len(list(tmp_path.iterdir()))


def test_of_a_directory_of_ratings_each_file_is_read_or_counted(tmp_path: Path) -> None:
    for role in ("ratings", "titles"):
        (tmp_path / f"{role}.txt").write_bytes(b"\n".join(RATINGS["MovieLens 1M", role]) + b"\n")
    _leave(tmp_path)
    bad = BadRows(skip=True)
    read_ratings(str(tmp_path), bad)
    assert 2 + _unread(bad.notices) == len(list(tmp_path.iterdir()))
    with pytest.raises(DataError):
        read_ratings(str(tmp_path / "folder"), bad)


def test_an_image_set_holds_as_many_images_as_its_files_say(tmp_path: Path) -> None:
    write_idx(tmp_path)
    images = read_images(str(tmp_path), split="train", size=32, channels=1)
    assert np.bincount(images.labels).sum() == len(images) > 0


# The source ----------------------------------------------------------------------------------------------------------

LOADERS = ("trainers/data", "trainers/tasks", "trainers/models", "configs")
RENDERING = "trainers/data/chat"
"""Neither reads nor loads: it asks templates by trying them, and every answer of a record is in the sums of its counts."""
TELLING = {"Notice", "report", "notice", "add", "unread", "warn", "_warn", "leave_out_answers"}
"""Calls that count or tell; so does an exception."""

PASSED_OVER: dict[str, dict[str, int]] = {
    "the tokenised data is made again, or the next start is slower": {
        "trainers/data/cache/cache.py DataCache._open": 1,
        "trainers/data/cache/cache.py DataCache._evict": 2,
        "trainers/data/cache/cache.py DataCache.digest": 2,
        "trainers/data/cache/cache.py _entries": 1,
        "trainers/data/cache/entry.py KeptExamples.arranged": 2,
        "trainers/tasks/rank/retrieval.py _from_cache": 1,
    },
    "reading it tells what is wrong, right after": {
        "trainers/data/cache/key.py is_large": 1,
        "trainers/data/cache/key.py _all_files": 1,
        "trainers/data/images/picture.py is_picture": 1,
        "trainers/data/images/picture.py brightest": 1,
        "trainers/data/images/reading.py _existing": 1,
        "trainers/tasks/ner/annotated.py _recognised": 1,
        "trainers/tasks/pinned_data.py _at_commit": 1,
        "trainers/tasks/ner/task.py NerTask._types_of_training_data": 1,
        "configs/datasets.py _exists": 1,
    },
    "the error is given back, and whoever asked counts it": {
        "trainers/data/files/tables.py _rows": 1,
        "trainers/data/files/text.py read_json": 1,
    },
    "a question, and the exception answers it": {
        "trainers/data/files/hub.py _chosen_wrongly": 1,
        "trainers/data/images/folder.py has_folder_split": 1,
        "trainers/data/row_json.py is_unicode": 1,
        "trainers/data/shapes/normal_form.py NormalForm.shape": 1,
        "trainers/data/shapes/preferences.py _parsed": 1,
        "trainers/data/shapes/preferences.py margin": 1,
        "trainers/data/lengths.py LengthFitter._encoded": 1,
        "trainers/models/attention.py keeps_documents_apart": 1,
        "trainers/models/origin.py check_origin": 2,
        "trainers/models/demo_model.py _marked_files": 1,
        "trainers/models/demo_model.py _size": 1,
        "trainers/tasks/rank/formats.py _has.recognises": 1,
        "trainers/tasks/rank/formats.py _number": 1,
        "configs/paths.py obstacle": 1,
        "configs/record_fields.py _value": 1,
        "configs/values.py _is_day": 1,
        "configs/values.py _number": 1,
    },
    "nothing is there to be read: a blank line, a header, a turn that is handled above": {
        "trainers/data/shapes/paths.py PromptTemplate.question": 1,
        "trainers/data/preview/tokens.py token_texts": 1,
        "configs/record_fields.py split_template": 1,
        "trainers/tasks/ner/pubtator.py _whole": 1,
        "trainers/tasks/rank/reading.py _read": 2,
    },
    "all rows that are asked for are read": {"trainers/data/reading.py read_outcomes": 1},
    "a miss of the retriever counts in the metric's number of users": {"trainers/tasks/rank/task.py RankTask._evaluation_rows": 1},
    "another tool's name is told by pass_on, and the environment's own spelling goes first as documented": {
        "configs/sources.py read_env_file": 2
    },
    "what others wrote into metadata.json, not data": {"configs/notices.py recorded_texts": 1},
}  # fmt: skip


def passed_over(source: str) -> Iterator[tuple[str, int]]:
    """The function and line of each place that may pass over something: an exception that is neither raised nor told nor given back, a suppressed one, a loop that goes on without a word."""

    def calls(nodes: list[ast.stmt]) -> set[str]:
        found = (node.func for statement in nodes for node in ast.walk(statement) if isinstance(node, ast.Call))
        return {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in found}

    def is_silent(nodes: list[ast.stmt]) -> bool:
        raises = any(isinstance(node, ast.Raise) for statement in nodes for node in ast.walk(statement))
        return not raises and not calls(nodes) & TELLING

    def uses(nodes: list[ast.stmt], name: str | None) -> bool:
        return any(isinstance(node, ast.Name) and node.id == name for statement in nodes for node in ast.walk(statement))

    def visit(node: ast.AST, place: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            is_named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            inner = f"{place}.{child.name}".strip(".") if is_named else place
            if isinstance(child, ast.ExceptHandler) and is_silent(child.body) and not uses(child.body, child.name):
                yield place, child.lineno
            if isinstance(child, ast.If) and isinstance(child.body[-1], ast.Continue) and is_silent(child.body):
                yield place, child.lineno
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and child.func.attr == "suppress":
                yield place, child.lineno
            yield from visit(child, inner)

    return visit(ast.parse(source), "")


@pytest.mark.parametrize(
    "code",
    [
        "for line in lines:\n    try:\n        parse(line)\n    except ValueError:\n        continue",
        "for line in lines:\n    if not line:\n        continue",
        "try:\n    parse()\nexcept ValueError:\n    pass",
        "try:\n    return parse()\nexcept ValueError:\n    return None",
        "with contextlib.suppress(ValueError):\n    parse()",
    ],
)
def test_the_search_finds_what_it_is_for(code: str) -> None:
    assert len(list(passed_over(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "for line in lines:\n    try:\n        parse(line)\n    except ValueError as error:\n        bad.report(line, error)\n        continue",
        "for name in names:\n    if name in unknown:\n        notices.add(name)\n        continue",
        "try:\n    parse()\nexcept ValueError as error:\n    raise DataError() from error",
    ],
)
def test_the_search_passes_what_tells(code: str) -> None:
    assert not list(passed_over(code))


def test_where_a_loader_passes_over_something_it_tells_so_or_the_reason_stands_here() -> None:
    places: Counter[str] = Counter()
    lines: dict[str, list[int]] = {}
    for room in LOADERS:
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            if path.is_relative_to(REPOSITORY / RENDERING):
                continue
            for function, line in passed_over(path.read_text(encoding="utf-8")):
                place = f"{path.relative_to(REPOSITORY)} {function}"
                places[place] += 1
                lines.setdefault(place, []).append(line)
    allowed = Counter({place: count for group in PASSED_OVER.values() for place, count in group.items()})
    new = {place: lines[place] for place in places if places[place] > allowed[place]}
    assert not new, "tell what is passed over here (BadRows.report, notices.add, a Notice), or say above why nothing is lost"
    assert not allowed - places, "no longer there"
