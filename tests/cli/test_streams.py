"""Commands whose output is not UTF-8, or is read by nobody: in processes of their own, as a shell starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import Cli, Result, pitstop_process
from support.new_runs import start

PITSTOP = (sys.executable, "-P", "-m", "pitstop.cli")
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0"}
ENCODINGS = [{"PYTHONIOENCODING": name} for name in ("latin-1", "ascii", "cp1252", "ascii:strict", "utf-16")] + [C_LOCALE]
_IDS = [" ".join(f"{name}={value}" for name, value in variables.items()) for variables in ENCODINGS]


def _printed(variables: dict[str, str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, read in the encoding that the command was to use."""
    encoding = variables.get("PYTHONIOENCODING", "ascii").partition(":")[0]
    done = subprocess.run([*PITSTOP, *words], env={**os.environ, **variables}, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)


def _cafe(variables: dict[str, str]) -> str:
    return "caf?" if variables == C_LOCALE or "ascii" in variables["PYTHONIOENCODING"] else "café"


@pytest.mark.parametrize("variables", ENCODINGS, ids=_IDS)
def test_a_table_and_its_json_come_in_any_encoding(variables: dict[str, str]) -> None:
    start(Path("checkpoints"), "café-↯")
    code, table, problems = _printed(variables, "list-runs")
    assert (code, problems) == (0, "")
    assert table.splitlines()[1].split()[:2] == ["1", "café-↯" if "utf" in str(variables) else f"{_cafe(variables)}-?"]
    code, document, problems = _printed(variables, "list-runs", "--json")
    assert (code, problems) == (0, "")
    assert json.loads(document)[0]["name"] == "café-↯", "a value of the result is whole in any encoding"


@pytest.mark.by_turns("words")
@pytest.mark.parametrize("variables", ENCODINGS, ids=_IDS)
@pytest.mark.parametrize("words", [["--help"], ["show", "nöwhere-↯"], ["show", "1"]], ids=["help", "an error", "a report"])
def test_help_an_error_and_a_report_come_in_any_encoding(variables: dict[str, str], words: list[str]) -> None:
    start(Path("checkpoints"), "first")
    code, printed, problems = _printed(variables, *words)
    assert "Traceback" not in problems
    if words[-1].startswith("nö"):
        assert code == 2 and "error:" in problems
    else:
        assert (code, problems) == (0, "") and ("first" in printed or words == ["--help"])


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("ascii", "a... <- -> x - * +--+ | # caf? ?"),
        ("latin-1", "a... <- -> × - * +--+ | # café ?"),
        ("cp1252", "a… <- -> × - * +--+ | # café ?"),
        ("utf-8", "a… ← → × − ★ ┌──┐ │ ▇ café ?"),
    ],
)
def test_signs_that_an_encoding_lacks_become_plain_ones(encoding: str, printed: str) -> None:
    program = (
        "import sys; from pitstop.cli.terminal import streams; streams.prepare(); print(sys.argv[1].replace('@', '\\udc80'))"
    )
    words = [sys.executable, "-c", program, "a… ← → × − ★ ┌──┐ │ ▇ café @"]
    done = subprocess.run(words, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=True)
    assert done.stdout.decode(encoding).rstrip("\n") == printed


@pytest.mark.by_turns("closed")
@pytest.mark.parametrize("words", [["--help"], ["list-runs"], ["show", "1"], ["train", "--help"]], ids=" ".join)
@pytest.mark.parametrize("closed", [False, True], ids=["a reader that has gone", "closed from the beginning"])
def test_a_short_command_that_nobody_reads_ends_quietly(words: list[str], closed: bool) -> None:
    start(Path("checkpoints"))
    code, problems = _unread(words, 1, closed=closed)
    assert (code, problems) == (0, "")


@pytest.mark.parametrize("closed", [False, True], ids=["a reader that has gone", "closed from the beginning"])
def test_the_exit_code_of_an_error_is_its_own_where_nobody_reads_it(closed: bool) -> None:
    code, output = _unread(["show", "9"], 2, closed=closed)
    assert (code, output) == (2, ""), "stderr is not printed on stdout instead"


def _unread(words: list[str], descriptor: int, *, closed: bool) -> tuple[int, str]:
    """Exit code, and what came on the other stream, of a command whose ``descriptor`` nobody reads."""
    end, begin = os.pipe()
    os.close(end)
    redirections = f"{descriptor}>&-" if closed else f"{descriptor}>&{begin}"
    command = ["bash", "-c", f'"$@" {redirections}', "bash", *PITSTOP, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[begin], stdin=subprocess.DEVNULL)
    os.close(begin)
    return done.returncode, done.stderr if descriptor == 1 else done.stdout


def test_a_result_that_a_full_disk_does_not_take_is_no_success() -> None:
    start(Path("checkpoints"))
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PITSTOP, "list-runs", "--json"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (6, "error: some of the output could not be written: No space left on device\n")


def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    """The lock of a run or a checkpoint would otherwise get descriptor 2, and what a library prints there."""
    program = "import os; from pitstop.cli.terminal import streams; streams.prepare(); print(os.open('checkpoint', os.O_CREAT))"
    done = subprocess.run(
        ["bash", "-c", '"$@" 2>&- <&-', "bash", sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 2


@pytest.fixture(scope="module")
def usual() -> Result:
    return pitstop_process("name", "--help")


@pytest.mark.by_turns("name")
@pytest.mark.parametrize("name", ["COLUMNS", "LINES", "TERMINAL_WIDTH"])
@pytest.mark.parametrize("value", ["", "0", "-3", "abc", "²", "1e3", "99999999999"])
def test_a_size_that_is_none_is_passed_over(name: str, value: str, usual: Result) -> None:
    assert pitstop_process("name", "--help", env={name: value}) == usual


@pytest.mark.parametrize(
    "variables",
    [
        {"TERM": "dumb"},
        {"TERM": "no-such-terminal"},
        {"TZ": "Nowhere/At_All"},
        {"LANG": "xx_YY.UTF-9", "LC_ALL": "zz"},
        {"TMPDIR": "/no/such/directory"},
        {"OMP_NUM_THREADS": "many"},
    ],
    ids=str,
)
def test_surroundings_that_mean_nothing_change_nothing(variables: dict[str, str]) -> None:
    start(Path("checkpoints"))
    expected = pitstop_process("list-runs")
    assert expected.code == 0 and pitstop_process("list-runs", env=variables) == expected


@pytest.mark.parametrize("variables", [*ENCODINGS[:3], C_LOCALE, {}], ids=str)
def test_what_comes_on_stdin_is_utf_8_wherever_its_encoding_cannot_say_otherwise(variables: dict[str, str]) -> None:
    program = "import json, sys; from pitstop.cli.terminal import streams as s; s.prepare(); print(json.dumps(s.text_of(sys.stdin.read())))"
    encoding = "latin-1" if "latin-1" in str(variables) else "cp1252" if "cp1252" in str(variables) else "utf-8"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        input="wie heißt é".encode(encoding),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == "wie heißt é"


def test_a_connection_that_is_cut_is_no_reader_that_has_gone(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer ends without a word at the error of a closed pipe, whosever pipe it was."""

    def cut(*arguments: object, **named: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("pitstop.cli.commands.list_runs.read_runs", cut)
    result = pitstop("list-runs")
    assert result.code == 1
    assert "a connection was cut" in result.stderr


def test_names_and_paths_are_utf_8_in_a_c_locale_too() -> None:
    run = start(Path("é"), "naïve")
    code, document, _ = _printed(C_LOCALE, "list-runs", "--base-dir", "é", "--json")
    assert code == 0
    assert (json.loads(document)[0]["path"], run.name) == ("é/run_001", "naïve")
    code, document, _ = _printed(C_LOCALE, "config", "show", "--experiment-name", "naïve", "--json")
    assert json.loads(document)["settings"]["naming"]["experiment_name"] == "naïve"


def test_an_argument_that_is_no_utf_8_is_refused() -> None:
    done = subprocess.run([*PITSTOP, "name", "--experiment-name", b"na\xefve"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--experiment-name" in done.stderr and "not UTF-8" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_pipe_that_does_not_block_gets_everything(unbuffered: str) -> None:
    program = (
        "import os; from pitstop.cli.terminal import streams as s; os.set_blocking(1, False); s.prepare(); print('x' * 1_000_000)"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True, timeout=60)
    assert (len(done.stdout), done.stderr) == (1_000_001, b"")
