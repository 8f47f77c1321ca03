"""Tables of TOML whose values are checked when they are taken: ``Table``, made by ``parse``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wetlands_executor.environment import libraries
from wetlands_executor.environment.formats.source import Source
from wetlands_executor.environment.formats.toml_lines import Keys, line_of
from wetlands_executor.errors import SpecError

_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a TOML file.

    Attributes:
        source: the file.
        data: the table's values; empty if the file does not have it.
        keys: its path in the file.
    """

    source: Source
    data: Mapping[str, Any]
    keys: Keys = ()

    def __bool__(self) -> bool:
        return bool(self.data)

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def named(self, key: str | None = None) -> str:
        """Return how a key of this table is called in messages: ``tool.uv.index[0].url``."""
        name = ""
        for part in self.keys if key is None else (*self.keys, key):
            if isinstance(part, int):
                name += f"[{part}]"
            else:
                name += ("." if name else "") + (
                    part if re.fullmatch(r"[\w-]+", part) else repr(part)
                )
        return name

    def line(self, key: str | None = None, value: object = None) -> int | None:
        """Return the line of a key, or of one of its values, in the source's text."""
        return line_of(self.source.text, self.keys if key is None else (*self.keys, key), value)

    def error(
        self, reason: str, remedy: str = "", key: str | None = None, value: object = None
    ) -> SpecError:
        """Return an error about this table, a key of it or one of the key's values."""
        return self.source.error(reason, remedy, self.line(key, value))

    def table(self, *keys: str) -> Table:
        """Return a table within; an empty one if it is not there."""
        found = self
        for key in keys:
            value = found.data.get(key, {})
            if not isinstance(value, Mapping):
                raise found.error(
                    f"{found.named(key)} is {_kind(value)}, not a table",
                    f"Write it as [{found.named(key)}] with keys below.",
                    key,
                )
            found = Table(self.source, value, (*found.keys, key))
        return found

    def tables(self, key: str) -> list[Table]:
        """Return the tables of an array of tables; none if it is not there."""
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
            raise self.error(
                f"{self.named(key)} is {_kind(value)}, not an array of tables",
                f"Write each as [[{self.named(key)}]] with keys below.",
                key,
            )
        return [Table(self.source, each, (*self.keys, key, at)) for at, each in enumerate(value)]

    def text(self, key: str) -> str | None:
        """Return a text; None if it is not there."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, str):
            raise self.error(
                f"{self.named(key)} is {_kind(value)}, not a string",
                f'Write it in quotes: {key} = "{self._written(key, value)}".',
                key,
            )
        return value

    def _written(self, key: str, value: object) -> str:
        """Return a value as it stands in the text: 3.10 is not 3.1."""
        line = self.line(key)
        lines = self.source.text.split("\n")
        text = lines[line - 1] if line is not None and line <= len(lines) else ""
        found = re.search(rf"\b{re.escape(key)}[\"']?\s*=\s*([\w.+:-]+)", text)
        if found is not None:
            return found[1]
        return str(value) if _is_plain(value) else "..."

    def needed(self, key: str) -> str:
        """Return a text that must be there."""
        value = self.text(key)
        if value is None:
            raise self.error(f"{self.named() or 'the file'} lacks {key!r}", f'Add {key} = "...".')
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return an array of texts; an empty one if it is not there."""
        value = self.data.get(key, [])
        if not isinstance(value, list):
            raise self.error(
                f"{self.named(key)} is {_kind(value)}, not an array of strings",
                f"Write it in brackets: {key} = [{_shown(value)}].",
                key,
            )
        for each in value:
            if not isinstance(each, str):
                raise self.error(
                    f"{self.named(key)} holds {_kind(each)}, not a string",
                    "Write each entry in quotes.",
                    key,
                )
        return tuple(value)

    def flag(self, key: str) -> bool | None:
        """Return true or false; None if it is not there."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(
                f"{self.named(key)} is {_kind(value)}, not true or false",
                f"Write {key} = true or {key} = false, without quotes.",
                key,
            )
        return value

    def choice(self, key: str, choices: Iterable[str]) -> str | None:
        """Return a text that is one of several; None if it is not there."""
        value, known = self.text(key), tuple(choices)
        if value is not None and value not in known:
            raise self.error(
                f"{self.named(key)} is {value!r}",
                f"It can be {' or '.join(repr(each) for each in known)}.",
                key,
            )
        return value

    def only(self, known: Iterable[str], why: str = "is not known here") -> None:
        """Raise for the first key that is not one of these."""
        names = tuple(known)
        for key in self.data:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                remedy = f"Did you mean {near[0]!r}?" if near else f"Take {key!r} out."
                raise self.error(f"{self.named(key)} {why}", remedy, key)


def parse(source: Source) -> Table:
    """Read a TOML text.

    Raises:
        SpecError: it is none for any reader of TOML that is here; or there is no reader.
    """
    first: Exception | None = None
    for toml in libraries.toml():
        try:
            return Table(source, toml.loads(source.text))
        except (ValueError, RecursionError) as error:
            first = first or error
    assert first is not None
    reason = str(first) or type(first).__name__
    line: int | None = None
    place = _PLACE.search(reason)
    if place:
        line = int(place[1]) if place[1] else source.text.rstrip("\n").count("\n") + 1
        column = f" (column {place[2]})" if place[2] else ""
        reason = f"{reason[: place.start()]}{column}"
    remedy = "Correct the line; see https://toml.io."
    if _is_newer(source.text, line):
        remedy = (
            f"A table in braces over several lines is TOML 1.1: write it in one line, or install "
            f"this library with the extra '{libraries.EXTRA}'."
        )
    raise source.error(f"this is no TOML: {reason}", remedy, line) from first


def _is_newer(text: str, line: int | None) -> bool:
    """Guess whether a fault is a table in braces that goes over several lines."""
    before = text.split("\n")[:line]
    return any(each.rstrip().endswith("{") for each in before[-3:])


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return kinds.get(type(value), f"a {type(value).__name__}")


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int, float))


def _shown(value: object) -> str:
    return f'"{value}"' if _is_plain(value) else "..."
