"""Values of YAML with their lines: ``Node``, made by ``parse``.

Scalars are kept as they are written: what YAML 1.1 makes of ``3.10``, ``yes`` or ``1e3`` is no
version and no name of a package. Aliases are followed, and not copied: a text that is nothing but
aliases of aliases fills no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from wetlands_executor.environment import libraries
from wetlands_executor.environment.formats.source import Source
from wetlands_executor.errors import SpecError

#: How deep mappings and sequences may lie in each other.
DEEPEST: Final = 20
_NULL: Final = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a YAML file.

    Attributes:
        source: the file.
        node: PyYAML's node; None if the value is not there.
        name: how it is called in messages.
    """

    source: Source
    node: Any
    name: str

    def __bool__(self) -> bool:
        return self.node is not None and not (self.kind == "scalar" and self.node.tag == _NULL)

    @property
    def kind(self) -> str:
        """``"mapping"``, ``"sequence"``, ``"scalar"`` or ``"nothing"``."""
        return "nothing" if self.node is None else str(self.node.id)

    @property
    def line(self) -> int | None:
        """The line it begins in."""
        return None if self.node is None else self.node.start_mark.line + 1

    def error(self, reason: str, remedy: str = "") -> SpecError:
        """Return an error about this value."""
        return self.source.error(reason, remedy, self.line)

    def items(self) -> Iterator[tuple[str, Node]]:
        """List the entries of a mapping; none if it is not there."""
        if not self:
            return
        if self.kind != "mapping":
            name = self.name or "the file"
            raise self.error(f"{name} is no mapping", "Write 'key: value' lines below it.")
        seen = set()
        for key, value in self.node.value:
            if str(key.value) in seen:
                raise self.source.error(
                    f"{key.value!r} is there twice", "Make one of the two.", key.start_mark.line + 1
                )
            seen.add(str(key.value))
            yield str(key.value), Node(self.source, value, f"{self.name}.{key.value}".lstrip("."))

    def get(self, key: str) -> Node:
        """Return an entry of a mapping; one that is false if it is not there."""
        found = dict(self.items()).get(key)
        return (
            found
            if found is not None
            else Node(self.source, None, f"{self.name}.{key}".lstrip("."))
        )

    def list(self) -> Iterator[Node]:
        """List the entries of a sequence; none if it is not there."""
        if not self:
            return
        if self.kind != "sequence":
            raise self.error(
                f"{self.name} is no list", "Write lines that begin with '- ' below it."
            )
        for number, value in enumerate(self.node.value):
            yield Node(self.source, value, f"{self.name}[{number}]")

    def text(self) -> str:
        """Return a scalar as it is written.

        Raises:
            SpecError: it is none.
        """
        if not self or self.kind != "scalar":
            raise self.error(f"{self.name} is no text", "Write one value, in quotes if in doubt.")
        return str(self.node.value)


def parse(source: Source) -> Node:
    """Read a YAML text.

    Raises:
        SpecError: it is none; or there is no reader of YAML.
    """
    yaml = libraries.yaml()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        root = yaml.compose(source.text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        reason = " ".join(
            part
            for part in (getattr(error, "context", None), getattr(error, "problem", None))
            if part
        )
        raise source.error(
            f"this is no YAML: {reason or error}",
            "Correct the line; indent with blanks, not with tabs.",
            # at the end of the text, the reader of YAML counts one line more than there is
            None if mark is None else min(mark.line, source.text.count("\n")) + 1,
        ) from error
    except RecursionError as error:
        raise source.error("this YAML lies too deep", "Write it flatter.") from error
    _check_depth(source, root, 0)
    return Node(source, root, "")


def _check_depth(source: Source, node: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise source.error(
            "this YAML lies too deep in itself", "Write it flatter.", node.start_mark.line + 1
        )
    if node is not None and node.id != "scalar":
        inner = (
            [each for pair in node.value for each in pair] if node.id == "mapping" else node.value
        )
        for each in {id(each): each for each in inner}.values():
            if each.id != "scalar":
                _check_depth(source, each, depth + 1)
