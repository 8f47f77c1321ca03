"""Tensors, with torch on both sides or on one.

``pytest -m heavy tests/data`` (installs about 1 GB).

The build for the processor alone is asked for by its version, because the usual one for Linux is
several gigabytes larger. Where the registry does not have it, these tests are skipped.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.data import torch_cases
from tests.data.environments import HOST, CannotMake, Environments

pytestmark = [pytest.mark.heavy, pytest.mark.registry, pytest.mark.timeout(900)]

LIMIT = 300
_CPU = "+cpu" if sys.platform.startswith("linux") else ""
_WITHOUT = ("numpy>=2", *HOST)
_WITH = (
    f"torch==2.13.0{_CPU}",
    *_WITHOUT,
    "filelock",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "fsspec",
    "setuptools",
)
_MINORS = ("3.11", "3.12", "3.13")
#: (host, worker)
PAIRS = (("torch", "torch"), ("torch", "none"), ("none", "torch"))
CHECKS = (
    "private",
    "without_a_copy",
    "gradients",
    "parts",
    "files",
    "functions",
    "tried_again",
    "grown",
    "many",
    "older_torch",
)
#: Name -> further variables.
WORLDS = {
    "blocks": {},
    "pipe": {"WETLANDS_EXECUTOR_ARENA": "0"},
    "plain": {"WETLANDS_EXECUTOR_PLAIN": "1"},
}


@pytest.fixture(scope="session")
def python(environments: Environments) -> Callable[[str], Path]:
    """Return the interpreter with or without torch."""

    def python(side: str) -> Path:
        try:
            return environments.python(_MINORS, _WITH if side == "torch" else _WITHOUT)
        except CannotMake as reason:
            pytest.skip(str(reason))

    return python


def _run(module: str, host: Path, *args: object, **variables: str) -> str:
    command = [host, "-W", "ignore", "-m", module, *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, f"the host failed:\n{done.stderr[-4000:]}"
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def exchanged() -> dict[tuple[str, str], dict[str, Any]]:
    """What each pair has found, as far as it was asked for."""
    return {}


@pytest.mark.parametrize("name", torch_cases.CASES)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}")
def test_values(
    python: Callable[[str], Path],
    exchanged: dict[tuple[str, str], dict[str, Any]],
    pair: tuple[str, str],
    name: str,
) -> None:
    """They arrive as torch's own pickle would, or an error names what is missing and where."""
    if pair not in exchanged:
        host, worker = map(python, pair)
        exchanged[pair] = json.loads(
            _run("tests.data.exchange", host, "tests.data.torch_cases", worker)
        )
    found = exchanged[pair][name]
    if pair == ("torch", "torch"):
        assert found == {"there": "ok", "back": "ok", "made there": "ok"}
    elif pair[1] == "none":
        for outcome in found.values():
            assert re.match(
                r"ModuleNotFoundError: No module named 'torch' in the environment ", outcome
            )
        assert name == "torch storage" or "Remedy: install it there" in found["there"]
    else:
        assert found["there"] == found["back"] == "absent"
        assert re.search(
            r"lacks, torch \(the environment has torch 2\.13\.0[+\w]*\): install it "
            r"here",
            found["made there"],
        )


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("world", WORLDS)
def test_memory(python: Callable[[str], Path], tmp_path: Path, world: str, check: str) -> None:
    """Of the process that has the tensor; in blocks and through the pipe."""
    if check == "without_a_copy" and world != "blocks":
        pytest.skip("there are no blocks in this world")
    torch = python("torch")
    assert _run("tests.data.torch_host", torch, check, torch, tmp_path, **WORLDS[world]) == "well"


def test_every_check_is_run(python: Callable[[str], Path]) -> None:
    """The names above are those of the program, which only a Python with torch can import."""
    command = [
        python("torch"),
        "-c",
        "from tests.data import torch_host; print(*torch_host.CHECKS)",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert done.stdout.split() == list(CHECKS)
