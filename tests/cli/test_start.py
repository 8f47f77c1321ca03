"""That a command imports only what it needs: so its help and completion answer at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Program
from wetlands_executor.cli.commands import COMMANDS

CODE = """\
import sys
from wetlands_executor.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""
#: What no help needs.
HEAVY = {
    "asyncio", "cloudpickle", "concurrent.futures", "json", "logging", "multiprocessing", "pathlib",
    "psutil", "rich", "subprocess", "wetlands_executor.environment.environment",
    "wetlands_executor.executor", "wetlands_executor.observe", "wetlands_executor.pool",
}  # fmt: skip


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]
)
def test_help_imports_little(program: Program, words: list[str]) -> None:
    # -I -S: what the installation itself imports at the start of Python does not count
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{CODE}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(done.stderr.split())
