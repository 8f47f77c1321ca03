"""The soak (``python -m tests.soak``): it runs, and it finds what it looks for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Runs the soak with one ingredient of a test's own, which keeps whatever it likes in `kept`.
PROGRAM = """
import os, subprocess, sys, threading
from tests.soak import __main__ as soak
kept = []
def ingredient(kitchen):
    kept.append(None)
    {body}
soak.INGREDIENTS = {{"ingredient": ingredient}}
sys.exit(soak.main(["--seconds", "1", "--rounds", "{rounds}", "--seed", "5", "--drivers", "1"]))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_a_short_soak_of_some_ingredients() -> None:
    done = run(
        "-m",
        "tests.soak",
        "--seconds",
        "2",
        "--rounds",
        "2",
        "--seed",
        "3",
        "--drivers",
        "2",
        "--only",
        "values",
        "census",
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("soak: --seed 3")
    assert last.startswith("soak: well")


def test_the_ingredients_can_be_listed() -> None:
    done = run("-m", "tests.soak", "--list")
    assert done.returncode == 0
    assert {"values", "crashes", "interrupted_host"} <= {
        line.split()[0] for line in done.stdout.splitlines()
    }


@pytest.mark.parametrize(
    ("body", "found", "rounds"),
    [
        (
            'kitchen.value(kitchen.submit(kitchen.executor("plain"), abs, -1), 2)',
            "1 instead of 2",
            1,
        ),
        (
            'kitchen.value(kitchen.submit(kitchen.executor("plain"), abs, "x"), 2)',
            "should have the value 2",
            1,
        ),
        (
            'kept.append(kitchen.submit(kitchen.executor("plain"), abs, -1))',
            "nothing should keep",
            1,
        ),
        ("1 // 0", "ZeroDivisionError", 1),
        ("kept.append(os.open(os.devnull, os.O_RDONLY)); kitchen.rng.choice(())", "left behind", 1),
        ('kept.append(subprocess.Popen(["sleep", "60"])); 1 // 0', "left behind", 1),
        (
            "threading.Thread(target=threading.Event().wait, daemon=True).start(); 1 // 0",
            "left behind",
            1,
        ),
        ("threading.Event().wait(0.1)", "", 1),
    ],
    ids=["value", "failure", "task", "exception", "descriptor", "process", "thread", "nothing"],
)
def test_what_does_not_hold_is_found(body: str, found: str, rounds: int) -> None:
    """By one ingredient that does it, or (the last one) by none."""
    done = run("-c", PROGRAM.format(body=body, rounds=rounds))
    assert done.returncode == bool(found), done.stdout + done.stderr
    assert found in done.stdout
    assert ("VIOLATION (--seed 5): " in done.stdout) is bool(found)


def test_memory_that_grows_from_round_to_round_is_found() -> None:
    """A few large blocks kept in each round."""
    body = (
        "kept.append(b'x' * 4_000_000) if len(kept) < 10_000 else None; "
        "threading.Event().wait(0.02)"
    )
    done = run(
        "-c", PROGRAM.format(body=body, rounds=3).replace('"1", "--rounds"', '"9", "--rounds"')
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "memory have grown" in done.stdout
