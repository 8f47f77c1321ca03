"""The imports of a package, read from its sources without importing them.

Owns the reading only; which imports are wrong is said by ``tests/house/test_layers.py``, and the
circles are counted by ``tests/support/structure.py``.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

#: The package that all of this is about.
PACKAGE = "wetlands_executor"


@dataclass(frozen=True)
class Import:
    """One import of one module.

    Attributes:
        importer: dotted path of the file within the package, ``scheduling.state`` for example.
        target: full dotted name of what is imported; of a name within a module, with the name.
        lazy: whether it stands inside a function.
        typing: whether it stands under ``if TYPE_CHECKING``.
        line: its line.
    """

    importer: str
    target: str
    lazy: bool
    typing: bool
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


@dataclass(frozen=True)
class Package:
    """The sources of a package: those that are installed, or these with a change that a test made.

    Attributes:
        files: the text of each source, by its path below the package, ``pool/core.py`` for
            example.
        only: the file whose imports are looked at; None looks at those of all files.
    """

    files: Mapping[str, str]
    only: str | None = None

    @classmethod
    def read(cls, root: Path) -> Package:
        """Read all sources below a folder."""
        paths = sorted(root.rglob("*.py"))
        return cls({p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in paths})

    def planted(self, file: str, text: str) -> Package:
        """Return a copy in which a file has more text at its end, or exists at all."""
        changed = Package({**self.files, file: self.files.get(file, "") + text}, self.only)
        if module_of(file) in self.sources:  # which is cached, and takes most of the time
            sources = {**self.sources, module_of(file): changed.files[file]}
            changed.__dict__["sources"] = sources
        return changed

    def looking_at(self, file: str) -> Package:
        """Return a copy that looks at the imports of one file only."""
        alike = Package(self.files, file)
        alike.__dict__["sources"] = self.sources
        return alike

    @cached_property
    def sources(self) -> dict[str, str]:
        """The texts by dotted path, ``pool.__init__`` for example.

        A folder without ``__init__.py`` is data (programs that run in other environments).
        """
        return {
            module_of(file): text
            for file, text in self.files.items()
            if file[: file.rfind("/") + 1] + "__init__.py" in self.files
        }

    @cached_property
    def parts(self) -> frozenset[str]:
        """The modules and folders directly below the package, folders of data included."""
        return frozenset(file.partition("/")[0].removesuffix(".py") for file in self.files)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import of every file that is looked at."""
        sources = self.sources
        names = sources if self.only is None else {module_of(self.only)} & sources.keys()
        return tuple(each for name in names for each in imports_of(name, sources[name]))

    @cached_property
    def inward(self) -> tuple[tuple[Import, str], ...]:
        """The imports of modules of ours, with the module that each reaches."""
        modules = {each.target: self.own_module(each.target) for each in self.imports}
        reached = ((each, modules[each.target]) for each in self.imports)
        return tuple((each, target) for each, target in reached if target is not None)

    def own_module(self, target: str) -> str | None:
        """Return the dotted path of the module of ours that an import reaches; None if it is
        none of ours.
        """
        head, _, rest = target.partition(".")
        if head != PACKAGE:
            return None
        parts = rest.split(".") if rest else []
        while parts:
            for path in (".".join(parts), ".".join([*parts, "__init__"])):
                if path in self.sources:
                    return path
            parts.pop()
        return "__init__"

    def graph(self, *, lazy: bool, typing: bool) -> dict[str, set[str]]:
        """Return for each module the modules of ours that it imports.

        An import of a package's ``__init__`` is no arrow: Python runs it before any module of the
        package, whatever imports what.

        Args:
            lazy: whether imports inside functions count.
            typing: whether imports under ``if TYPE_CHECKING`` count.
        """
        found: dict[str, set[str]] = {module: set() for module in self.sources}
        for each, target in self.inward:
            if target.endswith("__init__") or target == each.importer:
                continue
            if (lazy or not each.lazy) and (typing or not each.typing):
                found[each.importer].add(target)
        return found


@functools.cache
def installed() -> Package:
    """Return the package that the tests import."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations
    return Package.read(Path(next(iter(spec.submodule_search_locations))))


def module_of(file: str) -> str:
    """Return the dotted path of a source, given by its path below the package."""
    return file.removesuffix(".py").replace("/", ".")


def part(module: str) -> str:
    """Return the first name of a dotted one."""
    return module.partition(".")[0]


@functools.lru_cache(maxsize=1)
def parsed(text: str) -> ast.Module:
    """Return the tree of a source; shared, so leave it as it is.

    No more than one is kept: a collection of garbage looks at every node, and tests collect.
    """
    return ast.parse(text)


@functools.cache
def imports_of(importer: str, text: str) -> tuple[Import, ...]:
    """Return what a source imports, relative imports resolved."""
    found = []
    folder = [PACKAGE, *importer.split(".")[:-1]]
    for node, lazy, typing in _walk(parsed(text).body):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            base = ".".join(folder[: len(folder) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            targets = [f"{module}.{alias.name}" for alias in node.names]
        found += [Import(importer, target, lazy, typing, node.lineno) for target in targets]
    return tuple(found)


def _walk(
    block: Iterable[ast.AST], lazy: bool = False, typing: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    """Go through statements; expressions, most of a tree, have no imports in them."""
    for node in block:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, lazy, typing
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _walk(node.body, True, typing)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _walk(node.body, lazy, True)
            yield from _walk(node.orelse, lazy, typing)
        else:
            for name in ("body", "handlers", "orelse", "finalbody", "cases"):
                yield from _walk(getattr(node, name, ()), lazy, typing)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other, largest first (Tarjan, 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for target in sorted(graph[module]):
            if target not in order:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], order[target])
        if lowest[module] == order[module]:
            first = stack.index(module)
            group = stack[first:]
            del stack[first:]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return sorted(found, key=lambda group: (-len(group), group))


def sizes(groups: Iterable[list[str]]) -> tuple[int, ...]:
    """Return how many modules each circle has."""
    return tuple(len(group) for group in groups)
