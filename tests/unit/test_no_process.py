"""That unit tests cannot start a process."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable

import pytest


async def by_asyncio() -> None:
    await asyncio.create_subprocess_exec(sys.executable, "-c", "")


STARTS: dict[str, Callable[[], object]] = {
    "Popen": lambda: subprocess.Popen([sys.executable, "-c", ""]),
    "run": lambda: subprocess.run("true", shell=True, check=False),
    "popen": lambda: os.popen("true"),
    "system": lambda: os.system("true"),
    "asyncio": lambda: asyncio.run(by_asyncio()),
    "spawn": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
}
if os.name == "posix":
    STARTS |= {
        "fork": lambda: os.fork(),  # looked up when it is called: before, it is the real one
        "posix_spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
        "spawnl": lambda: os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", ""),
    }


@pytest.mark.parametrize("name", STARTS)
def test_a_start_is_refused(name: str, refused_starts: list[str]) -> None:
    with pytest.raises(RuntimeError, match="this test may start no process"):
        STARTS[name]()
    assert len(refused_starts) == 1
    refused_starts.clear()
