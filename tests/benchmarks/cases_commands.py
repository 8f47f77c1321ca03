"""The command line: ``map`` beside GNU parallel, ``xargs -P`` and the executor in code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .model import Case, faster

PROGRAM = (sys.executable, "-m", "wetlands_executor")
TARGET = "def nothing(item):\n    return None\n"
JOBS = 2
#: What starts an interpreter for each item gets so many times fewer of them.
FEWER = 200


def _timed(command: list[str], items: int) -> float:
    """Seconds that a command takes which reads so many lines."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "target.py").write_text(TARGET)
        lines = "".join(f"{number}\n" for number in range(items)).encode()
        began = time.perf_counter()
        subprocess.run(
            command, input=lines, cwd=folder, check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return time.perf_counter() - began


def map_command(system: Any, count: int) -> dict[str, float]:
    """Seconds of an item of ``map`` on a function that does nothing, start and end included."""
    words = ["map", sys.executable, "target.py:nothing", "-", "-j", str(JOBS), "--quiet"]
    return {"time": _timed([*PROGRAM, *words], count) / count}


def _other(program: str, *words: str) -> Callable[[int], dict[str, float]]:
    def measure(count: int) -> dict[str, float]:
        if shutil.which(program) is None:
            raise NotImplementedError(f"{program} is not installed")
        items = max(count // FEWER, 1)
        return {"time": _timed([program, *words], items) / items}

    return measure


def _in_code(count: int) -> dict[str, float]:
    """Seconds of an item of ``executor.map``, start and end included."""
    code = (
        "import sys\nfrom wetlands_executor import CondaEnvExecutor\n"
        f"with CondaEnvExecutor(max_workers={JOBS}) as executor:\n"
        "    for _ in executor.map('target.py:nothing', map(str.rstrip, sys.stdin)):\n"
        "        pass\n"
    )
    return {"time": _timed([sys.executable, "-c", code], count) / count}


def start_of_help(system: Any, count: int) -> dict[str, float]:
    """Seconds until the help is printed, of the program and of one command; the least of some."""
    return {
        "time": min(_timed([*PROGRAM, "--help"], 0) for _ in range(count)),
        "of map": min(_timed([*PROGRAM, "map", "--help"], 0) for _ in range(count)),
    }


def _bare(count: int) -> dict[str, float]:
    command = [sys.executable, "-c", "import argparse, typing"]
    found = min(_timed(command, 0) for _ in range(count))
    return {"time": found, "of map": found}


CASES = [
    Case(
        "command-map", "an item of `map` on the command line, whose function does nothing",
        map_command, 20_000, 200, workers=0, systems=("ours",),
        others={
            "parallel": _other("parallel", "-j", str(JOBS), sys.executable, "-c", "pass", "{}"),
            "xargs": _other("xargs", "-P", str(JOBS), "-n", "1", sys.executable, "-c", "pass"),
            "in code": _in_code,
        },
        repeats=3, limit=120,
        bounds=(faster(10, "parallel", "xargs"),),
        note="All of them include their start and end. parallel and xargs start an interpreter for "
             f"each item, of which they get {FEWER} times fewer.",
    ),
    Case(
        "command-help", "the help of the command line, from the start of its process",
        start_of_help, 20, 1, {"time": "s", "of map": "s"}, workers=0, systems=("ours",),
        others={"import argparse": _bare}, repeats=3,
        note="With bytecode: where PYTHONDONTWRITEBYTECODE is set, all modules are compiled each "
             "time.",
    ),
]  # fmt: skip
