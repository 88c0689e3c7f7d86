"""A run goes to the real Hugging Face Hub and comes back. Needs HF_TOKEN_FOR_TESTS, a token that may write; skipped without.

All that talks to the Hub runs in processes of its own: here, sockets lead to loopback only.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.hub.pushed import SETTINGS
from support.tiny_model import write_data
from support.training import arguments, assert_same_end

TOKEN = os.environ.get("HF_TOKEN_FOR_TESTS", "")

pytestmark = [
    pytest.mark.real_hub,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not TOKEN, reason="HF_TOKEN_FOR_TESTS holds no token"),
]

FOUR = {**SETTINGS, "max_steps": 4}
_WHO = "import sys; from huggingface_hub import HfApi; sys.stdout.write(HfApi().whoami()['name'])"
_DELETE = "import sys; from huggingface_hub import HfApi; HfApi().delete_repo(sys.argv[1], missing_ok=True)"


@dataclass(frozen=True)
class Account:
    """An account on the Hub, in a machine's directory ``home``."""

    home: Path

    def call(self, *words: object, code: int = 0) -> str:
        """Run a Python program to its end; returns what it printed."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = {**kept, "HF_TOKEN": TOKEN, "HF_HOME": str(self.home / "hf"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, env=environment, cwd=self.home, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout

    def pitstop(self, *words: object, code: int = 0) -> str:
        """``pitstop WORDS``."""
        return self.call("-m", "pitstop.cli", *words, code=code)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path)


@pytest.fixture
def repo(account: Account) -> Iterator[str]:
    """The id of a repository that is not there yet, and not after the test."""
    name = f"{account.call('-c', _WHO)}/pitstop-test-{secrets.token_hex(6)}"
    yield name
    account.call("-c", _DELETE, name)


def runs_in(account: Account, base_dir: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(account.pitstop("list-runs", "--base-dir", base_dir, "--json"))
    return found


def test_a_run_goes_to_the_hub_and_back_and_is_deleted_there(
    account: Account, repo: str, tiny_model: Path, tmp_path: Path
) -> None:
    data, there, here = write_data(tmp_path / "data", 12, 4), tmp_path / "there", tmp_path / "here"
    account.pitstop(*arguments(tiny_model, data, tmp_path / "whole", **FOUR))
    pushing = {**FOUR, "push_to_hub": True, "hub_repo": repo, "push_base": True, "push_required": True}
    account.pitstop(*arguments(tiny_model, data, there, **pushing))
    (run,) = runs_in(account, there)
    assert run["hub"] == {"repo": repo, "state": "in step", "behind": 0, "problem": None}
    again = json.loads(account.pitstop("push", 1, "--base-dir", there, "--json"))
    assert again == {"run": "run_001", "repo": repo, "commits": 0, "left": [], "problem": None}

    there.rename(tmp_path / "gone")
    words = ("--base-dir", here, "--dataset", data / "train.jsonl")
    account.pitstop("resume", "--from-hub", f"{repo}@checkpoint-2", *words)
    assert_same_end(tmp_path / "whole/run_001", here / "run_001")
    (run,) = runs_in(account, here)
    assert (run["status"], run["hub"]["state"]) == ("completed", "in step")
    account.pitstop("pull", repo, "--base-dir", tmp_path / "pulled")
    assert_same_end(tmp_path / "whole/run_001", tmp_path / "pulled/run_001")

    account.pitstop("delete", 1, "--hub", "--yes", "--base-dir", here)
    assert runs_in(account, here) == []
    account.pitstop("pull", repo, "--base-dir", tmp_path / "none", code=5)
