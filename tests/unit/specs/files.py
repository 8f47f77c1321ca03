"""Files that describe environments, written for one test and read."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import SpecError


class Folder:
    """A folder in which files are written and read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return file

    def read(self, name: str, text: str, **wanted: Any) -> EnvironmentSpec:
        return EnvironmentSpec.from_file(self.write(name, text), **wanted)

    def fault(self, name: str, text: str, **wanted: Any) -> SpecError:
        """Return the error, which names the file, gives a reason and says what to do."""
        file = self.write(name, text)
        with pytest.raises(SpecError) as caught:
            EnvironmentSpec.from_file(file, **wanted)
        error = caught.value
        assert error.path == str(file)
        assert str(error).startswith(f"{file}:")
        assert error.reason in str(error)
        assert error.remedy
        assert error.remedy in str(error)
        return error
