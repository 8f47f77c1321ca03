"""Figures about the package's structure, counted in its sources.

``python -m tests.support.structure``.

Owns the counting only; ``tests/house/test_structure.py`` has the limits. What is counted:

- *lines*: non-blank ones, comments and docstrings included; "per 1,000 lines" is of these.
- *foreign assignment*: an assignment (plain, augmented, annotated) to an attribute of anything but
  the names ``self`` and ``cls``: ``task._x = 1``, and ``self.task.x = 1`` too.
- *foreign private access*: an attribute with one leading underscore of anything but the names
  ``self`` and ``cls``, read or written.
- *class*: its lines from ``class`` to its end, its own ``def`` statements; with the bases of ours
  added for "stacked".
- *chain*: the classes of ours on the way from a class up to its last base of ours; exceptions,
  whose tree is public, are left out.
- *circle*: modules that reach each other by imports, those under ``if TYPE_CHECKING`` and those
  inside functions included.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.imports import (
    Package,
    circles,
    imports_of,
    installed,
    module_of,
    parsed,
    part,
    sizes,
)

OWN = {"self", "cls"}


@dataclass(frozen=True)
class Place:
    """Something found in a source: where, and what."""

    module: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.what}"


@dataclass(frozen=True)
class Class:
    """A class of the package.

    Attributes:
        module: dotted path of its file.
        name: its name.
        lines: from its first to its last line.
        methods: the number of its own ``def`` statements.
        bases: the names of its bases, as they are written, without what stands before a dot.
    """

    module: str
    name: str
    lines: int
    methods: int
    bases: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Function:
    """A function of the package: where, its name, and its lines."""

    module: str
    name: str
    lines: int

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Structure:
    """The figures of one package.

    Attributes:
        foreign_assignments: assignments to a field of another object.
        foreign_private: accesses to a private attribute of another object.
        classes: every class, nested ones included.
        functions: every function and method.
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self.foreign_assignments: list[Place] = []
        self.foreign_private: list[Place] = []
        self.classes: list[Class] = []
        self.functions: list[Function] = []
        for file, text in package.files.items():
            module = module_of(file)
            for node in _counted(parsed(text)):
                self._count(module, node)
            imports_of(module, text)  # while the tree is there

    def _count(self, module: str, node: ast.AST) -> None:
        if isinstance(node, ast.Attribute):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if private and not _is_own(node):
                self.foreign_private.append(Place(module, node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._count_assignments(module, target)
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            self._count_assignments(module, node.target)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.functions.append(Function(module, node.name, _length(node)))
        elif isinstance(node, ast.ClassDef):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            methods = (isinstance(each, kinds) for each in node.body)
            bases = (ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases)
            one = Class(module, node.name, _length(node), sum(methods), tuple(bases))
            self.classes.append(one)

    def _count_assignments(self, module: str, target: ast.expr) -> None:
        self.foreign_assignments += [
            Place(module, each.lineno, ast.unparse(each))
            for each in _unpacked(target)
            if isinstance(each, ast.Attribute) and not _is_own(each)
        ]

    @cached_property
    def lines(self) -> dict[str, int]:
        """The non-blank lines of each file."""
        files = self.package.files.items()
        return {file: sum(bool(line.strip()) for line in text.splitlines()) for file, text in files}

    @cached_property
    def lines_of_folders(self) -> dict[str, int]:
        """The same for each folder directly below the package, and for the modules there."""
        found: Counter[str] = Counter()
        for file, lines in self.lines.items():
            found[file.partition("/")[0] + "/" if "/" in file else "(top)"] += lines
        return dict(sorted(found.items()))

    def per_thousand(self, found: list[Place]) -> float:
        """Return how many of them there are in 1,000 lines."""
        return 1000 * len(found) / sum(self.lines.values())

    def stacked(self, one: Class) -> list[Class]:
        """Return a class and the classes of ours that it inherits from, itself first.

        A base is looked for by its name, in the same module first: worker and host have a few
        classes of the same name.
        """
        found = [one]
        for base in one.bases:
            named = [each for each in self.classes if each.name == base and each != one]
            near = [each for each in named if each.module == one.module] or named
            if near:
                found += [each for each in self.stacked(near[0]) if each not in found]
        return found

    def is_exception(self, one: Class) -> bool:
        """Say whether a class is an exception, by the names of its last bases."""
        last = {base for each in self.stacked(one) for base in each.bases}
        return any(base.endswith(("Exception", "Error", "Warning")) for base in last)

    def depth(self, one: Class) -> int:
        """Return how many classes of ours stand above each other, from this one up."""
        above = [each for each in self.stacked(one)[1:] if each.name in one.bases]
        return 1 + max(map(self.depth, above), default=0)

    @cached_property
    def longest_chain(self) -> list[Class]:
        """The longest chain of classes of ours."""
        plain = [each for each in self.classes if not self.is_exception(each)]
        return self.stacked(max(plain, key=self.depth))

    def circles(self, *, lazy: bool = True, typing: bool = True) -> list[list[str]]:
        """Return the groups of modules that import each other."""
        return circles(self.package.graph(lazy=lazy, typing=typing))


#: What ``Structure`` looks at.
_COUNTED = frozenset(
    (
        ast.Attribute, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.FunctionDef,
        ast.AsyncFunctionDef, ast.ClassDef,
    )
)  # fmt: skip
#: Nodes without nodes below them, two thirds of a tree.
_LEAVES = (
    ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.unaryop, ast.boolop,
)  # fmt: skip


def _counted(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what may be counted, in the order of the source; ``ast.walk`` takes thrice as long."""
    stack: list[Any] = [tree]
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is list:
            stack.extend(reversed(node))
        elif issubclass(kind, ast.AST) and not issubclass(kind, _LEAVES):
            if kind in _COUNTED:
                yield node
            stack.extend([getattr(node, name, None) for name in reversed(kind._fields)])


def _length(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _unpacked(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, (ast.Tuple, ast.List)):
        for each in target.elts:
            yield from _unpacked(each)
    elif isinstance(target, ast.Starred):
        yield from _unpacked(target.value)
    else:
        yield target


def _is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in OWN


@dataclass(frozen=True)
class Figures:
    """What is guarded. Each is better the smaller it is.

    Attributes:
        foreign_assignments: per 1,000 lines.
        foreign_private: per 1,000 lines.
        class_lines: lines of the longest class.
        class_methods: methods of the class that has most.
        stacked_lines: lines of the longest class with its bases of ours.
        stacked_methods: methods of the class that has most with its bases of ours.
        chain: classes of ours stacked on each other.
        file_lines: lines of the longest file, blank ones included.
        function_lines: lines of the longest function.
        long_functions: functions of more than 60 lines.
        circles_at_top: sizes of the circles of imports at module level.
        circles: sizes of the circles of all imports outside the worker.
        worker_circles: sizes of those within the worker.
    """

    foreign_assignments: float
    foreign_private: float
    class_lines: int
    class_methods: int
    stacked_lines: int
    stacked_methods: int
    chain: int
    file_lines: int
    function_lines: int
    long_functions: int
    circles_at_top: tuple[int, ...]
    circles: tuple[int, ...]
    worker_circles: tuple[int, ...]


@functools.cache
def measured() -> Structure:
    """Return the structure of the package that the tests import.

    What asks for its imports too does so afterwards: then each source has been parsed once.
    """
    return Structure(installed())


def figures(structure: Structure) -> Figures:
    """Count everything."""
    groups = structure.circles()
    stacks = [structure.stacked(each) for each in structure.classes]
    return Figures(
        foreign_assignments=structure.per_thousand(structure.foreign_assignments),
        foreign_private=structure.per_thousand(structure.foreign_private),
        class_lines=max(each.lines for each in structure.classes),
        class_methods=max(each.methods for each in structure.classes),
        stacked_lines=max(sum(each.lines for each in stack) for stack in stacks),
        stacked_methods=max(sum(each.methods for each in stack) for stack in stacks),
        chain=len(structure.longest_chain),
        file_lines=max(len(text.splitlines()) for text in structure.package.sources.values()),
        function_lines=max(each.lines for each in structure.functions),
        long_functions=sum(each.lines > 60 for each in structure.functions),
        circles_at_top=sizes(structure.circles(lazy=False, typing=False)),
        circles=sizes(group for group in groups if part(group[0]) != "worker"),
        worker_circles=sizes(group for group in groups if part(group[0]) == "worker"),
    )


def _report(structure: Structure) -> Iterator[str]:
    yield f"{sum(structure.lines.values()):,} non-blank lines in {len(structure.lines)} files"
    for folder, lines in structure.lines_of_folders.items():
        yield f"  {lines:6,}  {folder}"
    for title, found in (
        ("assignments to another object's field", structure.foreign_assignments),
        ("accesses to another object's private attribute", structure.foreign_private),
    ):
        yield f"{len(found)} {title}: {structure.per_thousand(found):.2f} per 1,000 lines"
        modules = Counter(each.module for each in found).most_common(8)
        yield "  " + ", ".join(f"{module} {count}" for module, count in modules)
    yield "largest classes (lines, methods)"
    for one in sorted(structure.classes, key=lambda each: -each.lines)[:8]:
        yield f"  {one.lines:4}  {one.methods:3}  {one}"
    yield "largest classes with their bases of ours (lines, methods, classes)"
    stacks = [stack for each in structure.classes if len(stack := structure.stacked(each)) > 1]
    for stack in sorted(stacks, key=lambda stack: -sum(each.lines for each in stack))[:4]:
        lines, methods = (sum(getattr(e, name) for e in stack) for name in ("lines", "methods"))
        yield f"  {lines:4}  {methods:3}  {len(stack)}  {stack[0]}"
    yield "longest chain: " + " < ".join(each.name for each in reversed(structure.longest_chain))
    yield "longest files"
    files = {file: len(text.splitlines()) for file, text in structure.package.files.items()}
    for file, count in sorted(files.items(), key=lambda item: -item[1])[:8]:
        yield f"  {count:4}  {file}"
    yield "longest functions"
    for function in sorted(structure.functions, key=lambda each: -each.lines)[:8]:
        yield f"  {function.lines:4}  {function}"
    for title, lazy, typing in (
        ("at module level", False, False),
        ("with those inside functions", True, False),
        ("with those for types", False, True),
        ("with both", True, True),
    ):
        found_circles = structure.circles(lazy=lazy, typing=typing)
        yield f"circles of imports, {title}: {', '.join(map(str, sizes(found_circles))) or 'none'}"
    for group in structure.circles():
        yield "  " + " ".join(group)
    yield str(figures(structure))


def main(arguments: list[str]) -> None:
    """Print the figures; with ``--places``, each foreign access too.

    Args:
        arguments: the command line; a folder is read instead of the installed package.
    """
    folders = [each for each in arguments if not each.startswith("-")]
    structure = Structure(Package.read(Path(folders[0])) if folders else installed())
    print("\n".join(_report(structure)))
    if "--places" in arguments:
        for place in structure.foreign_assignments:
            print(place, "=")
        print(*structure.foreign_private, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
