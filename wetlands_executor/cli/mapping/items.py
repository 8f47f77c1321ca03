"""Items: what ``map`` calls the function with. Read lazily, and never kept."""

from __future__ import annotations

import csv
import glob
import json
import mmap
import os
import random
import re
import shlex
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from wetlands_executor.cli.errors import CommandError

#: The item that stands for standard input.
STANDARD_INPUT: Final = "-"
READ_SIZE: Final = 65536


@dataclass(slots=True)
class Item:
    """One call of the function.

    Attributes:
        seq: its number in the input, from 1.
        shown: the item itself, in types of JSON.
        args: positional arguments.
        kwargs: keyword arguments.
        problem: why it cannot be called; None if it can.
    """

    seq: int
    shown: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None = None
    problem: str | None = None

    @property
    def text(self) -> str:
        """The item as messages show it."""
        if isinstance(self.shown, str):
            return self.shown
        if isinstance(self.shown, list) and all(isinstance(each, str) for each in self.shown):
            return " ".join(self.shown)
        return json.dumps(self.shown, ensure_ascii=False)

    def words(self) -> str:
        """Return the item as words of a shell, on one line."""
        if isinstance(self.shown, list):
            return " ".join(map(_quoted, self.shown))
        if isinstance(self.shown, dict):
            return " ".join(f"{name}={_quoted(value)}" for name, value in self.shown.items())
        return _quoted(self.shown)


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if not _CONTROL.search(text):
        return shlex.quote(text)
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return (
        "$'"
        + _CONTROL.sub(lambda found: _ESCAPES.get(found[0], f"\\x{ord(found[0]):02x}"), text)
        + "'"
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """Where items come from, and how a text becomes one.

    Attributes:
        words: items, or ``-`` for standard input.
        files: files with one item on each line; ``-`` for standard input.
        null: items end with NUL instead of a line's end.
        colsep: regular expression between the arguments of an item.
        csv: items are rows of CSV.
        header: the first row names the arguments.
        json: items are JSON: a list holds arguments, an object keyword arguments.
        shuffle: in random order, for which all are read first.
        kwargs: keyword arguments of every call.
    """

    words: Sequence[str] = ()
    files: Sequence[str] = ()
    null: bool = False
    colsep: str | None = None
    csv: bool = False
    header: bool = False
    json: bool = False
    shuffle: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)

    def count(self) -> int | None:
        """Return how many items there are; None if that is not known before they are read."""
        if self.files or self.header or STANDARD_INPUT in self.words:
            return None
        return len(self.words)

    def check(self) -> None:
        """Look whether the files can be read.

        Raises:
            CommandError: one cannot.
        """
        for path in self.files:
            if path != STANDARD_INPUT:
                _opened(path).close()

    def listed(self, names: Collection[str]) -> Iterator[str]:
        """Yield arguments of the listed items whose last part is one of these names.

        Pipes are not read. A list is parsed only if one of the names occurs in it.

        Args:
            names: of files, without folders.
        """
        for path in self.files:
            if path == STANDARD_INPUT or not _has_one(path, map(os.fsencode, names)):
                continue
            for item in replace(self, words=(), files=(path,), shuffle=False).items():
                for arg in (*item.args, *(item.kwargs or {}).values()):
                    if isinstance(arg, str) and os.path.basename(arg) in names:
                        yield arg

    def items(self, before_wait: Callable[[], object] = lambda: None) -> Iterator[Item]:
        """Yield the items.

        Args:
            before_wait: called before each read of a stream, which may take any time.

        Raises:
            CommandError: a file cannot be read.
        """
        found = self._rows(before_wait) if self.csv else self._parsed(before_wait)
        if self.shuffle:
            everything = list(found)
            random.shuffle(everything)
            return iter(everything)
        return found

    def _texts(self, before_wait: Callable[[], object]) -> Iterator[str]:
        end = b"\0" if self.null else b"\n"
        for word in self.words:
            if word == STANDARD_INPUT:
                yield from _lines(0, end, before_wait)
            else:
                yield word
        for path in self.files:
            if path == STANDARD_INPUT:
                yield from _lines(0, end, before_wait)
            else:
                with _opened(path) as stream:
                    yield from _lines(stream.fileno(), end, before_wait)

    def _parsed(self, before_wait: Callable[[], object]) -> Iterator[Item]:
        texts = (text for text in self._texts(before_wait) if text)
        if self.json:
            return (self._of_json(seq, text) for seq, text in enumerate(texts, 1))
        if self.colsep is not None:
            split = re.compile(self.colsep).split
            return self._named(split(text) for text in texts)
        kwargs = self.kwargs or None
        return (Item(seq, text, (text,), kwargs) for seq, text in enumerate(texts, 1))

    def _rows(self, before_wait: Callable[[], object]) -> Iterator[Item]:
        lines = (f"{text}\n" for text in self._texts(before_wait))
        try:
            yield from self._named(row for row in csv.reader(lines) if row)
        except csv.Error as error:
            raise CommandError(f"the items are no CSV: {error}") from error

    def _named(self, rows: Iterator[list[str]]) -> Iterator[Item]:
        """Yield an item for each row, of which the first may name the arguments."""
        names = next(rows, None) if self.header else None
        for seq, row in enumerate(rows, 1):
            if names is None:
                yield Item(seq, row, tuple(row), self.kwargs or None)
                continue
            problem = None
            if len(row) != len(names):
                problem = f"{len(row)} values for the {len(names)} columns {', '.join(names)}"
            named = dict(zip(names, row, strict=False))
            yield Item(seq, named, (), {**self.kwargs, **named}, problem)

    def _of_json(self, seq: int, text: str) -> Item:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Item(seq, text, (), None, f"not JSON: {error}")
        if isinstance(value, list):
            return Item(seq, value, tuple(value), self.kwargs or None)
        if isinstance(value, dict):
            return Item(seq, value, (), {**self.kwargs, **value})
        return Item(seq, value, (value,), self.kwargs or None)


def expanded(words: Sequence[str]) -> list[str]:
    """Return the words with the names of files in the places of patterns.

    Order: this comes before the files of the run are made, which a pattern may match.

    Raises:
        CommandError: a pattern matches nothing.
    """
    found = []
    for word in words:
        if word == STANDARD_INPUT or not glob.has_magic(word) or os.path.lexists(word):
            found.append(word)
            continue
        names = sorted(glob.glob(word, recursive=True))
        if not names:
            raise CommandError(
                f"no file matches {word!r}; an item that is no pattern of file names can be given "
                f"by --from or -"
            )
        # a file may be called as what stands for standard input
        found += [f"./{name}" if name == STANDARD_INPUT else name for name in names]
    return found


def _has_one(path: str, parts: Iterable[bytes]) -> bool:
    """Return True if a regular file has one of these in it."""
    with _opened(path) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(part) >= 0 for part in parts)


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).expanduser().open("rb", buffering=0)
    except OSError as error:
        raise CommandError(f"--from {path}: {error.strerror or error}") from error


def _lines(descriptor: int, end: bytes, before_wait: Callable[[], object]) -> Iterator[str]:
    """Yield what ends with ``end``, and what follows the last one.

    Bytes that are no UTF-8 become surrogates, as in every name of a file.
    """
    begun: list[bytes] = []
    while True:
        before_wait()
        data = os.read(descriptor, READ_SIZE)
        first, *others = data.split(end)
        begun.append(first)
        if not data or others:
            text = b"".join(begun)
            if text:
                yield os.fsdecode(text)
            if not data:
                return
            begun = [others.pop()]
            yield from map(os.fsdecode, others)
