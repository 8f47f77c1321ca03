"""Values of numpy between different versions of numpy, in both directions.

One test per pair of versions and case.

All cases of a pair run in one host process with one worker, once; the tests read what it found. The
host of a pair is this process's own environment where that has numpy, else, and for older numpy, an
environment of its own that runs ``tests.data.exchange`` as a program.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT
from tests.data.environments import HOST, CannotMake, Environments

if importlib.util.find_spec("numpy") is None:
    pytest.skip("numpy is not installed here, and names the cases", allow_module_level=True)

from tests.data import numpy_cases

#: Seconds that all cases of a pair may take.
LIMIT = 120


class Side(NamedTuple):
    """One numpy: its requirement, and the Pythons that it is taken for."""

    requirement: str
    minors: tuple[str, ...]


SIDES = {
    "1.24": Side("numpy==1.24.*", ("3.10", "3.11")),
    "1.24 on 3.8": Side("numpy==1.24.*", ("3.8", "3.9", "3.10", "3.11")),
    "1.26": Side("numpy==1.26.*", ("3.12", "3.11", "3.10")),
    "2.x": Side("numpy>=2", ("3.13", "3.12", "3.11", "3.10")),
    "here": Side("", ()),
}
#: (host, worker)
PAIRS = (
    ("here", "1.24 on 3.8"),
    ("here", "1.26"),
    ("here", "2.x"),
    ("1.24", "1.26"),
    ("1.24", "2.x"),
    ("1.26", "1.24 on 3.8"),
    ("1.26", "2.x"),
)

#: What cannot be cured: case -> (major and minor of the first numpy that has it, what the error
#: says).
IMPOSSIBLE = {
    "StringDType": ((2, 0), "since numpy 2"),
    "array StringDType": ((2, 0), "since numpy 2"),
    "class of a dtype": ((1, 25), "same version"),
}
#: A value that the side does not have is no failure of the journey.
_ABSENT = re.compile(r"AttributeError: module '[\w.]+' has no attribute '(dtypes|StringDType)'")


def _python(environments: Environments, side: str) -> Path:
    requirement, minors = SIDES[side]
    return (
        environments.python(minors, (requirement, *HOST)) if requirement else Path(sys.executable)
    )


def _exchange(environments: Environments, pair: tuple[str, str]) -> dict[str, Any] | str:
    """Run all cases of a pair; return what was found, or why it cannot be run."""
    try:
        host, worker = (_python(environments, side) for side in pair)
    except CannotMake as reason:
        return str(reason)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PYTHONPATH": str(ROOT)
    }
    command = [host, "-W", "ignore", "-m", "tests.data.exchange", "tests.data.numpy_cases", worker]
    done = subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, f"the host of {pair} failed:\n{done.stderr[-4000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="session")
def exchanged(environments: Environments) -> dict[tuple[str, str], dict[str, Any] | str]:
    """What each pair has found."""
    with ThreadPoolExecutor(2) as threads:
        return dict(
            zip(PAIRS, threads.map(lambda pair: _exchange(environments, pair), PAIRS), strict=True)
        )


def _version(text: str) -> tuple[int, int]:
    return tuple(int(part) for part in text.split(".")[:2])  # type: ignore[return-value]


@pytest.mark.leaks_ok(
    reason="starts nothing: it reads what a fixture has found, thousands of times"
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [*numpy_cases.CASES, *numpy_cases.RAISES])
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}")
def test_numpy(
    exchanged: dict[tuple[str, str], dict[str, Any] | str], pair: tuple[str, str], name: str
) -> None:
    """It arrives as the sender's own numpy would read it again, comes back so, and so does what was
    made there.
    """
    found = exchanged[pair]
    if isinstance(found, str):
        pytest.skip(found)
    host, worker = (_version(found["versions"][side]) for side in ("host", "worker"))
    for direction, outcome in found[name].items():
        first, words = IMPOSSIBLE.get(name, ((0, 0), ""))
        sender, receiver = (worker, host) if direction == "made there" else (host, worker)
        if sender < first:
            assert outcome == "absent" or _ABSENT.search(outcome), f"{direction}: {outcome}"
        elif receiver < first:
            assert words in outcome, f"{direction}: {outcome}"
            assert ".".join(map(str, host)) in outcome, (
                f"{direction}, the host's version: {outcome}"
            )
            assert ".".join(map(str, worker)) in outcome, (
                f"{direction}, the worker's version: {outcome}"
            )
        else:
            assert outcome == "ok", f"{direction}: {outcome}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}")
def test_the_pair_is_the_one_that_was_asked_for(
    exchanged: dict[tuple[str, str], dict[str, Any] | str], pair: tuple[str, str]
) -> None:
    """Else the tests above would prove nothing.

    No old name was imported, which numpy would have warned about.
    """
    found = exchanged[pair]
    if isinstance(found, str):
        pytest.skip(found)
    for side, where in zip(pair, ("host", "worker"), strict=True):
        assert side == "here" or found["versions"][where].startswith(side[:2]), found["versions"]
    assert "numpy.core" not in found["warnings"]["host"]
    # the class itself, in 2.5
    assert "deprecated" not in found["warnings"]["host"].replace(
        "The chararray class is deprecated", ""
    )
