"""The fault matrix: what is broken on purpose, what must hold then, how often that was tried and how often it held.

A pytest plugin. ``pytest -m faults`` runs the matrix with small counts, ``--full-faults`` with the full ones, and the
table stands at the end of the session; ``--faults-report=FILE`` puts it between the markers of a Markdown file. A test
takes its row by the fault's name and wraps each trial::

    def test_…(matrix: Matrix) -> None:
        row = matrix("one flipped bit anywhere in a checkpoint")
        for number in row.numbers():
            with row.trial(f"seed {number}"):
                …

Where pytest-xdist spreads the tests over processes, each of them counts for itself, and the table sums them.
"""

from __future__ import annotations

import contextlib
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- fault matrix: begin -->", "<!-- fault matrix: end -->"
FULL_TIMEOUT_S = 4 * 3600


@dataclass
class Row:
    """One kind of fault. ``test`` and ``full`` are how many trials it wants; 0: the trials are all there are."""

    fault: str
    must_hold: str
    test: int
    full: int
    is_full: bool = False
    tried: int = 0
    held: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Trials wanted in this session."""
        return self.full if self.is_full else self.test

    def numbers(self, part: int = 0, of: int = 1) -> range:
        """The numbers of the trials that ``part`` (from 0) of ``of`` tests of this row makes, at least one."""
        numbers = range(part, self.count, of)
        return numbers if len(numbers) else range(part, part + 1)

    @contextlib.contextmanager
    def trial(self, label: str = "") -> Iterator[None]:
        """One trial: tried when it begins, held when it ends without an exception; ``label`` goes with the exception."""
        self.tried += 1
        try:
            yield
        except pytest.skip.Exception:
            self.tried -= 1
            raise
        except BaseException as error:
            error.add_note(f"fault matrix: {self.fault}: trial {self.tried}{f' ({label})' if label else ''}")
            raise
        self.held += 1

    def not_run(self, reason: str) -> None:
        """Say in the table why this row has no trials, or fewer than it should."""
        if reason not in self.reasons:
            self.reasons.append(reason)


def _rows() -> list[Row]:
    """The matrix, in the order in which it is told."""
    recovered = "the step recovered is the last one acknowledged or the one after, and valid"
    return [
        Row("SIGKILL at a random moment of a saving process", recovered, 40, 1_000),
        Row("_exit before every single I/O operation of a save", recovered, 0, 0),
        Row(
            "power loss: unsynced writes dropped, reordered, torn",
            f"{recovered}; at least min(keep, acknowledged) valid checkpoints; the log has every row up to each of them",
            1_200,
            15_000,
        ),
        Row("mutants of the protocol", "each is caught by one of the checks of this table", 0, 0),
        Row(
            "ENOSPC, EIO, EDQUOT, short write at the k-th operation, for every k",
            "older checkpoints intact, an error of ours, nothing temporary left",
            0,
            0,
        ),
        Row(
            "a real full tmpfs",
            "training goes on with an alarm and ends where it would have ended; exit 6 after three misses",
            5,
            20,
        ),
        Row("one flipped bit anywhere in a checkpoint", "detected and named; the one before is used", 300, 2_000),
        Row("truncate, extend, zero, delete, swap each file", "detected, named and set aside; the one before is used", 0, 0),
        Row("every checkpoint bad", "exit 4, nothing deleted", 10, 10),
        Row("pointer missing, stale, dangling, garbage", "the manifests win; the pointer is repaired", 20, 100),
        Row(
            "crash during recovery or retention, again and again",
            "the next recovery finishes it; nothing that is kept is lost",
            20,
            500,
        ),
        Row(
            "resume at every step of a short run, one to three interruptions",
            "equal end checkpoints byte for byte, equal rows of metrics, equal batches",
            7,
            200,
        ),
        Row("SIGTERM at a random phase", "exit 143, valid checkpoints, exact resume", 3, 100),
        Row("SIGHUP at a random phase", "exit 129, valid checkpoints, exact resume", 3, 100),
        Row("SIGUSR1 at a random phase", "exit 0, an extra valid checkpoint, exact resume from it", 3, 100),
        Row("SIGINT at a random phase", "exit 130, valid checkpoints, exact resume", 3, 100),
        Row("SIGINT twice at random phases", "exit 130, valid checkpoints, exact resume", 3, 100),
        Row(
            "one of two gloo ranks killed during a save",
            "no hang, an error of ours, valid checkpoints only, exact resume",
            2,
            100,
        ),
        Row("16 processes allocate runs", "numbers and names unique and without a gap", 160, 1_600),
        Row("state mutated while an async save writes", "the checkpoint equals the snapshot", 20, 200),
        Row(
            "Hub: 429, 500, lost answers, cut lines, killed uploader, retention racing it",
            "training unaffected; the remote is the old or the new state",
            8,
            200,
        ),
        Row("a pulled run with one bad file", "rejected before anything parses it", 20, 50),
        Row(
            "hostile input: pickle, ../, absolute path, symlink, huge safetensors header, duplicate names",
            "refused, without a side effect",
            0,
            0,
        ),
        Row("golden checkpoints of each released format version", "loaded, or refused by name", 0, 0),
    ]


def is_caught(check: Callable[[], object]) -> bool:
    """Whether ``check`` fails: what a mutant of the product must bring about."""
    try:
        check()
    except (Exception, pytest.fail.Exception):  # the latter is what a missing pytest.raises raises
        return True
    return False


class Matrix:
    """Gives a test its row, and the row the test's time."""

    def __init__(self, rows: dict[str, Row]) -> None:
        self._rows = rows
        self._open: tuple[Row, float] | None = None

    def __call__(self, fault: str) -> Row:
        """The row of ``fault``; what the test takes from now on counts as that row's time."""
        if fault not in self._rows:
            raise KeyError(f"{fault!r} is no row of the fault matrix; they are declared in tests/support/fault_matrix.py")
        self.close()
        row = self._rows[fault]
        self._open = row, time.monotonic()
        return row

    def close(self) -> None:
        """No row is being tried any more."""
        if self._open is not None:
            row, since = self._open
            row.seconds += time.monotonic() - since
            self._open = None


_KEY = pytest.StashKey[dict[str, Row]]()
_LOST = pytest.StashKey[list[str]]()
_SENT = "fault matrix"  # the key of the counts in what a process of pytest-xdist sends when it ends


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the matrix."""
    group = parser.getgroup("faults")
    group.addoption("--full-faults", action="store_true", help="run the fault matrix with its full counts")
    group.addoption("--faults-report", type=Path, metavar="FILE", help="write the fault matrix between the markers of FILE")


def pytest_configure(config: pytest.Config) -> None:
    """Set the table up."""
    full = bool(config.getoption("--full-faults"))
    rows = _rows()
    for row in rows:
        row.is_full = full
    config.stash[_KEY] = {row.fault: row for row in rows}
    config.stash[_LOST] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes: send what was counted here to the one that prints the table."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        rows = session.config.stash[_KEY].values()
        output[_SENT] = [[row.fault, row.tried, row.held, row.seconds, row.reasons] for row in rows]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The one that prints the table: add what a process counted. One that died has sent nothing, and the table says so."""
    rows, output = node.config.stash[_KEY], getattr(node, "workeroutput", None)
    if output is None:
        node.config.stash[_LOST].append(node.gateway.id)
        return
    for fault, tried, held, seconds, reasons in output[_SENT]:
        row = rows[fault]
        row.tried, row.held, row.seconds = row.tried + tried, row.held + held, row.seconds + seconds
        for reason in reasons:
            row.not_run(reason)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The full counts take longer than any single test may."""
    if config.getoption("--full-faults"):
        for item in items:
            if item.get_closest_marker("faults") is not None:
                item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_S), append=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that is marked with ``fault_row(fault)`` is one trial of that row."""
    outcome: Any = yield
    report, marker = outcome.get_result(), item.get_closest_marker("fault_row")
    if marker is None or report.when != "call" or report.skipped:
        return
    row = item.config.stash[_KEY][marker.args[0]]
    row.tried += 1
    row.held += report.passed
    row.seconds += report.duration


@pytest.fixture
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    """``matrix(fault)`` gives the row to count trials in."""
    matrix = Matrix(request.config.stash[_KEY])
    yield matrix
    matrix.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was tried, and write the report if one is asked for."""
    rows, lost = list(config.stash[_KEY].values()), config.stash[_LOST]
    if not lost and not any(row.tried or row.reasons for row in rows):
        return
    terminalreporter.write_sep("=", f"fault matrix, {_counts(rows)}")
    if lost:
        terminalreporter.write_line(f"without what {', '.join(lost)} counted, which died", red=True)
    width = max(len(row.fault) for row in rows)
    for row in rows:
        if row.tried or row.reasons:
            line = f"{row.fault:{width}}  {row.tried:>6,} tried  {row.held:>6,} held  {row.seconds:>7.1f} s  {_remark(row)}"
            terminalreporter.write_line(line.rstrip(), red=row.held < row.tried, green=0 < row.held == row.tried)
    report: Path | None = config.getoption("--faults-report")
    if report is not None:
        path = report if report.is_absolute() else config.invocation_params.dir / report
        _write_report(path, rows)
        terminalreporter.write_line(f"written to {report}")


def _counts(rows: list[Row]) -> str:
    return "full counts" if rows[0].is_full else "small counts"


def _remark(row: Row) -> str:
    if row.held < row.tried:
        return "BROKEN"
    if row.reasons:
        return f"not run: {'; '.join(row.reasons)}" if not row.tried else "; ".join(row.reasons)
    if not row.tried:
        return "not run"
    return f"of {row.count:,}" if row.tried < row.count else ""


def _write_report(path: Path, rows: list[Row]) -> None:
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise pytest.UsageError(f"{path} needs a line {BEGIN} and a line {END}; the table goes between them")
    path.write_text(f"{head}{begin}\n{report(rows)}{end}{tail}", encoding="utf-8")


def report(rows: list[Row]) -> str:
    """The table in Markdown, with when and on what it was made."""
    lines = [
        f"{date.today().isoformat()}, {_counts(rows)}. {_machine()}.",
        "",
        "| fault | what must hold | tried | held | seconds |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        remark = f" ({_remark(row)})" if _remark(row) else ""
        tried = f"{row.tried:,}" if row.tried else "–"
        held = f"{row.held:,}" if row.tried else "–"
        lines.append(f"| {row.fault}{remark} | {row.must_hold} | {tried} | {held} | {row.seconds:,.0f} |")
    tried, held, seconds = sum(row.tried for row in rows), sum(row.held for row in rows), sum(row.seconds for row in rows)
    lines.append(f"| **all** | | **{tried:,}** | **{held:,}** | **{seconds:,.0f}** |")
    return "\n".join(lines) + "\n"


def _machine() -> str:
    """Processor, cores and versions in words; no host name, no paths."""
    if str(REPOSITORY) not in sys.path:
        sys.path.append(str(REPOSITORY))  # last, so that it hides nothing
    try:
        from benchmarks.machine import describe
    finally:
        sys.path.remove(str(REPOSITORY))
    machine = describe()
    system = re.sub(r"\s+\S*\d\S*", "", str(machine["system"]))  # the kernel's release may carry a machine's name
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    cores = machine["cpus"]
    return (
        f"{machine['processor']}, {cores} core{'s' if cores != 1 else ''}, {machine['memory_gib']} GiB, {system}; "
        f"Python {platform.python_version()}, {versions}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
