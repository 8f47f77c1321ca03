"""Fake environments, made of empty files, and a machine that has no others."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from wetlands_executor.environment import _platform

if TYPE_CHECKING:
    import pytest

_OF_THE_HOST = re.compile(
    r"(CONDA|MAMBA|_CONDA|_CE_|PIXI|__CONDA).*|CONDARC|XDG_(CONFIG|DATA)_HOME|VIRTUAL_ENV.*|PYTHONPATH|PYTHONHOME|BASH_ENV|ENV"
)


def isolate(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let this process see an empty home folder and no conda, whatever the machine has."""
    for name in [name for name in os.environ if _OF_THE_HOST.fullmatch(name)]:
        monkeypatch.delenv(name)
    # else it would see what the library has made for this machine
    for name in ("XDG_CACHE_HOME", "WETLANDS_EXECUTOR_ENVIRONMENTS"):
        monkeypatch.delenv(name, raising=False)
    home.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    in_home = [root for root in _platform.common_roots() if Path(root).is_relative_to(home)]
    monkeypatch.setattr(_platform, "common_roots", lambda: in_home)
    monkeypatch.setattr(_platform, "system_condarcs", list)


def interpreter(path: Path) -> Path:
    """Make a file that can be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return path


def conda(prefix: Path, *, python: bool = True) -> Path:
    """Make what tells a conda prefix from any other folder."""
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta" / "history").touch()
    if python:
        interpreter(prefix / "bin" / "python")
    return prefix


def venv(prefix: Path) -> Path:
    """Make a virtual environment whose interpreter is a link to one elsewhere."""
    real = interpreter(prefix.parent / f"real-{prefix.name}" / "bin" / "python3.11")
    (prefix / "bin").mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    (prefix / "bin" / "python").symlink_to(real)
    return prefix
