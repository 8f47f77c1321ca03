"""Branches of the core on the platform stand in one file per side.

Read from the sources. What asks the platform is an attribute (``sys.platform``), a look whether a
module of the system has a name (``hasattr(os, "eventfd")``), or the import of a module that some
platform lacks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.imports import installed, parsed, part
from wetlands_executor.worker.stage0 import STAGE0

#: The one file of the host, and that of the worker.
SIDES = ("system", "worker.system")
#: Parts that are not the core. Those that use the public names alone may not import ``system``
#: (``test_layers.py``); ``environment/`` has its own file, ``_platform.py``.
OUTSIDE = {"__main__", "cli", "demo", "doctor", "environment", "integrations", "observe", "tasks"}
#: The only branch elsewhere, and why.
ALLOWED = {
    "worker.fork_server": ["sys.platform"],  # says to type checkers that it runs on Linux alone
}
ASKED = {"sys.platform", "sys.getwindowsversion", "os.name", "os.uname"}
#: Modules whose names differ between platforms. A ``hasattr(sys, ...)`` asks for the version.
VARYING = {
    "_signal", "ctypes", "errno", "faulthandler", "fcntl", "mmap", "os", "resource", "select",
    "signal", "socket", "stat", "time",
}  # fmt: skip
LACKING = {
    "_winapi", "fcntl", "grp", "msvcrt", "nt", "posix", "pwd", "resource", "termios", "winreg",
}  # fmt: skip

OURS = installed()
CORE = sorted(name for name in OURS.sources if part(name) not in OUTSIDE and name not in SIDES)


def branches(tree: ast.AST) -> Iterator[str]:
    """Yield what asks for the platform in a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text in ASKED or text.startswith("platform.") and node.attr in ("system", "machine"):
                yield text
        elif isinstance(node, ast.Call):
            looks = isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
            if looks and isinstance(node.args[0], ast.Name) and node.args[0].id in VARYING:
                yield ast.unparse(node)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in LACKING)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module in LACKING:
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "sys"):
            wanted = {f"{node.module}.{each.name}" for each in node.names}
            yield from sorted(wanted & ASKED)


@pytest.mark.parametrize("module", CORE)
def test_the_core_asks_the_platform_in_one_file_per_side(module: str) -> None:
    assert list(branches(parsed(OURS.sources[module]))) == ALLOWED.get(module, [])


def test_the_first_lines_of_a_worker_ask_once() -> None:
    """They run before anything can be imported; ``worker/stage0.py`` says why."""
    assert sorted(branches(ast.parse(STAGE0))) == ["msvcrt", "os.name"]


@pytest.mark.parametrize("module", SIDES)
def test_both_files_are_there(module: str) -> None:
    assert list(branches(parsed(OURS.sources[module])))


PLANTED = {
    "if sys.platform == 'win32': pass": ["sys.platform"],
    "x = os.name": ["os.name"],
    "from sys import platform": ["sys.platform"],
    "x = hasattr(os, 'eventfd') and getattr(signal, 'SIGCHLD', 0)": [
        "hasattr(os, 'eventfd')", "getattr(signal, 'SIGCHLD', 0)",
    ],
    "def f():\n    import fcntl": ["fcntl"],
    "from msvcrt import get_osfhandle": ["msvcrt"],
    "if platform.system() == 'Darwin': pass": ["platform.system"],
    "from .posix import x": [],
    "getattr(sys, 'argv', None); platform.python_version(); hasattr(self, 'x')": [],
}  # fmt: skip


@pytest.mark.parametrize("text", PLANTED)
def test_what_counts_as_a_branch(text: str) -> None:
    assert sorted(branches(ast.parse(text))) == sorted(PLANTED[text])
