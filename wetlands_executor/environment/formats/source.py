"""A file that is read: its text, and errors that say where in it something is wrong."""

from __future__ import annotations

import codecs
import io
import os
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wetlands_executor.errors import SpecError


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a file, or of a block in one.

    Attributes:
        path: of the file, as it was given.
        folder: absolute path of the folder that has it.
        text: what is read.
        first_line: number of the file's line that is the first of ``text``.
    """

    path: str
    folder: str
    text: str
    first_line: int = 1

    def error(self, reason: str, remedy: str = "", line: int | None = None) -> SpecError:
        """Return an error about this file; ``line`` counts from 1 in ``text``."""
        number = None if line is None else line + self.first_line - 1
        return SpecError(reason, remedy, self.path, number)

    @contextmanager
    def at(self, line: int | None) -> Iterator[None]:
        """Say of an error that is raised within that it is about this line of ``text``."""
        try:
            yield
        except SpecError as error:
            if error.path is not None:
                raise
            raise self.error(error.reason, error.remedy, line) from error

    def absolute(self, path: str) -> str:
        """Return the absolute path for one that is relative to the file's folder."""
        return os.path.normpath(os.path.join(self.folder, os.path.expanduser(path)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a file is wanted where it has a choice.

    Attributes:
        groups: dependency groups.
        extras: extras of the project.
        environment: of a pixi workspace; None stands for ``default``.
    """

    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    environment: str | None = None


def load(path: str | os.PathLike[str]) -> Source:
    """Read a text file; one of Python in the encoding that it declares, any other as UTF-8.

    Raises:
        SpecError: it is no text.
        OSError: it cannot be read.
    """
    name = os.fsdecode(path)
    absolute = os.path.abspath(os.path.expanduser(name))
    with open(absolute, "rb") as file:
        data = file.read()
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"  # what Windows PowerShell writes with '>'
    try:
        if name.endswith((".py", ".pyw")) and encoding != "utf-16":
            encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        line = data[: error.start].count(b"\n") + 1 if isinstance(error, UnicodeDecodeError) else 1
        raise SpecError(
            f"the file is no text in {encoding.replace('utf-8-sig', 'utf-8')}: {error}",
            "Save it as UTF-8.",
            name,
            line,
        ) from error
    return Source(name, os.path.dirname(absolute), text.replace("\r\n", "\n").replace("\r", "\n"))
