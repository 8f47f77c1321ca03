"""What a file was found to ask for, while it is read: ``Draft``.

Every text is checked when it is added, so that an error names the line it stands in.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wetlands_executor.environment.conda_notation import conda_versions
from wetlands_executor.environment.formats.source import Source
from wetlands_executor.environment.notation import (
    check_requirement,
    check_text,
    checked_variables,
    conda_name,
    python_specifier,
)
from wetlands_executor.errors import SpecError


@dataclass(slots=True)
class Draft:
    """The fields of an ``EnvironmentSpec`` that are to be made.

    Attributes:
        source: the file.
        fields: what was found so far, by the names of ``EnvironmentSpec``; lists grow.
        options: the same for ``PyPIOptions``.
    """

    source: Source
    fields: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, value: object, line: int | None = None) -> None:
        """Set a field, if there is something to set."""
        if value is not None:
            with self.source.at(line):
                if isinstance(value, str) and name != "lock":
                    check_text(name, value)
            self.fields[name] = value

    def add(self, name: str, text: str, line: int | None = None) -> None:
        """Add a text to a field that holds several; one that it holds already is not added."""
        with self.source.at(line):
            check_text(name, text)
        found = self.fields.setdefault(name, [])
        if text not in found:
            found.append(text)

    def python(self, text: str, line: int | None = None, name: str = "requires-python") -> None:
        """Add versions of Python that fit; all that are added must fit."""
        with self.source.at(line):
            versions = python_specifier(text, name)
        before = self.fields.get("python")
        self.fields["python"] = versions if before is None else f"{before},{versions}"

    def conda(self, text: str, line: int | None = None, name: str = "dependencies") -> None:
        """Add a conda package; ``python`` without a build goes among the versions of Python."""
        with self.source.at(line):
            package = conda_name(text, name)
        if package == "python" and "://" not in text:
            if text.strip() == "python":
                return
            versions = conda_versions(text.strip()[len("python") :])
            if versions is not None:
                self.python(versions, line)
                return
        self.add("conda", text.strip(), line)

    def pypi(self, text: str, line: int | None = None, name: str = "dependencies") -> None:
        """Add a PyPI package."""
        with self.source.at(line):
            check_requirement(name, text)
            text = self._absolute(text.strip())
        self.add("pypi", text, line)

    def _absolute(self, text: str) -> str:
        """Return a requirement whose direct reference is a URL; uv takes a path there, too."""
        found = re.fullmatch(r"([\w.-]+\s*(?:\[[^\]]*\])?)\s*@\s*(\S[^;]*?)(\s+;.*)?", text)
        if found is None or re.match(r"[\w.+-]+:", found[2]):
            return text
        path = self.source.absolute(found[2])
        if not os.path.exists(path):
            raise SpecError(
                f"{path!r} does not exist", f"Paths are relative to {self.source.folder!r}."
            )
        return f"{found[1].strip()} @ {Path(path).as_uri()}{found[3] or ''}"

    def variable(self, name: str, value: str, line: int | None = None) -> None:
        """Add an environment variable."""
        with self.source.at(line):
            self.fields.setdefault("variables", {}).update(checked_variables({name: value}))

    def option(self, name: str, value: object) -> None:
        """Set an option, if there is something to set; sequences grow, mappings are merged."""
        if not value:
            return
        if isinstance(value, (tuple, list)):
            found = self.options.setdefault(name, [])
            found += [each for each in value if each not in found]
        elif isinstance(value, dict):
            self.options.setdefault(name, {}).update(value)
        else:
            self.options[name] = value
