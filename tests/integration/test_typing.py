"""What a type checker says about programs that use the public names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

from wetlands_executor import CondaEnvExecutor, Task, TaskEvent


def area(side: int) -> float:
    return side * 1.5


async def load(name: str) -> bytes:
    return name.encode()


def listener(event: TaskEvent) -> None:
    assert_type(event.task, Task[Any])
    event.task.cancel()
    print(event.task.arguments.upper(), event.task.progress)


with CondaEnvExecutor() as executor:
    view = executor.options(timeout=5).options(name="areas")
    assert_type(executor.submit(area, 2), Task[float])
    assert_type(view.submit(area, 2), Task[float])
    assert_type(view.submit(load, "a"), Task[bytes])
    assert_type(view.submit("mod:f", 1), Task[Any])
    assert_type(view.submit(Path("mod.py:f"), 1), Task[Any])
    assert_type(executor.map_tasks(area, [1, 2]), list[Task[float]])
    assert_type(view.map_tasks(area, [1, 2]), list[Task[float]])
    assert_type(list(view.map(area, [1, 2], timeout=3)), list[float])
    assert_type(view.submit_script("a.py"), Task[None])
    assert_type(view.submit(area, 2).listen(listener).result(), float)
    assert_type(executor.submit(area, 2).arguments, str)
"""


def test_views_and_events_are_typed_as_the_executor_is(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "cache"),
        str(program),
    ]
    # As a user's program sees the package: in the folder of the sources, mypy would check those
    # too.
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
