"""A forked child of the host may use executors of its own, wherever and whenever it was forked."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def children_of(name: str, seed: int, *args: str) -> list[int]:
    """Run a program of ``forks.py``.

    Return the exit codes of the children, shown with what they say.
    """
    command = [sys.executable, "-m", "tests.faults.forks", name, str(seed), *args]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    codes: list[int] = ast.literal_eval(done.stdout.splitlines()[-1])
    return codes


@pytest.mark.parametrize("place", ["io", "output", "start", "callbacks"])
def test_forks_on_a_thread_of_a_pool(place):
    """The child's only thread is one of the program, also while a pool of the child starts a
    thread.
    """
    assert children_of("pool_thread", 0, place) == [0, 0]


@pytest.mark.parametrize(
    ("where", "count"), [("callback", 3), ("handler", 2), ("stream", 2), ("decoder", 2)]
)
def test_forks_in_code_of_the_program(where, count):
    codes = children_of(where, 0)
    assert len(codes) >= count
    assert not any(codes)


@pytest.mark.parametrize("when", ["finalizer", "handled_signal", "another_thread"])
def test_forks_at_any_step_of_a_start(stress_rng, when):
    codes = children_of(when, stress_rng.randrange(1 << 30))
    assert codes
    assert not any(codes)


@pytest.mark.parametrize("module", ["by_value", "changes", "code_reductions", "calls", "shm_arena"])
def test_forks_in_the_middle_of_a_late_import(module):
    assert children_of("half_made", 0, module) == [0]
