"""How the process ends: one of several must not shut the interpreter down while a thread of gloo may still ask for its lock."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, threading, time
from pitstop.cli.main import run

class Witness:
    def __del__(self):
        print("shut down", flush=True)

witness = Witness()
atexit.register(lambda: print("at exit"))
threading.Thread(target=lambda: (time.sleep(0.3), print("thread ended"))).start()
run()
"""


def _run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", PROGRAM, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ})


@pytest.mark.parametrize("word, code", [("--version", 0), ("--versoin", 2)])
def test_one_of_several_does_what_is_due_at_exit_and_does_not_shut_the_interpreter_down(word: str, code: int) -> None:
    done = _run(word, RANK="1", LOCAL_RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    assert done.returncode == code, done.stderr
    ending = done.stdout.splitlines()[-2:]
    assert ending == ["thread ended", "at exit"]
    assert done.stdout.startswith("pitstop ") or "--versoin" in done.stderr


def test_a_process_by_itself_ends_as_any_other() -> None:
    done = _run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["thread ended", "at exit", "shut down"]
