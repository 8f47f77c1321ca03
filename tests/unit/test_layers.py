"""Imports run downward only. Read from the sources, without importing them."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

PACKAGE = "wetlands_executor"

#: From top to bottom. A module imports from its own layer and from those below; one that is named nowhere stands with the executor.
LAYERS = (
    ("__main__", "cli", "demo", "doctor"),
    ("observe", "integrations"),
    ("__init__",),
    ("executor",),
    ("pool",),
    ("task", "events", "futures", "notebook", "bells", "threads"),
    ("environment",),
    ("worker",),
    ("errors", "seconds", "children", "arguments"),
)
EXECUTOR_LAYER = 3

#: What the core may import at module level besides the standard library.
DEPENDENCIES = {"cloudpickle", "psutil", "typing_extensions"}
#: Parts that use the public names and nothing else, and that nobody below imports.
OUTSIDERS = ("observe", "integrations")
#: What the pool's state has no business with.
IMPURE = {
    "_thread", "asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "psutil", "queue", "select", "selectors", "signal",
    "socket", "subprocess", "threading", "time", "weakref",
}  # fmt: skip
#: The name under which the worker's sources live in a worker.
SHIPPED_AS = "_wetlands_worker"


@dataclass(frozen=True)
class Import:
    """One import of one module.

    Attributes:
        importer: dotted path of the file within the package, ``pool.state`` for example.
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


def root() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


ROOT = root()
#: Sources by dotted path; those of the demo that run in environments of their own are data, not modules.
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
    if (path.parent / "__init__.py").exists()
}


def _is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _walk(node: ast.AST, lazy: bool = False, typing: bool = False) -> Iterator[tuple[ast.stmt, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, lazy, typing
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _walk(child, True, typing)
        elif isinstance(child, ast.If) and _is_typing_block(child):
            for statement in child.body:
                yield from _walk(ast.Module([statement], []), lazy, True)
            for statement in child.orelse:
                yield from _walk(ast.Module([statement], []), lazy, typing)
        else:
            yield from _walk(child, lazy, typing)


def imports_of(importer: str, text: str) -> list[Import]:
    """Return what a source imports, relative imports resolved."""
    found = []
    folder = [PACKAGE, *importer.split(".")[:-1]]
    for node, lazy, typing in _walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            assert isinstance(node, ast.ImportFrom)
            base = ".".join(folder[: len(folder) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            targets = [f"{module}.{alias.name}" for alias in node.names]
        found += [Import(importer, target, lazy, typing, node.lineno) for target in targets]
    return found


IMPORTS = [each for importer, path in SOURCES.items() for each in imports_of(importer, path.read_text(encoding="utf-8"))]


def own_module(target: str) -> str | None:
    """Return the dotted path of the module of ours that an import reaches; None if it is none of ours."""
    head, _, rest = target.partition(".")
    if head != PACKAGE:
        return None
    parts = rest.split(".") if rest else []
    while parts:
        for path in (".".join(parts), ".".join([*parts, "__init__"])):
            if path in SOURCES:
                return path
        parts.pop()
    return "__init__"


def part(module: str) -> str:
    return module.partition(".")[0]


def layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if part(module) in names:
            return number
    return EXECUTOR_LAYER


def test_the_sources_were_found() -> None:
    assert {"__init__", "executor", "errors", "pool.state", "worker.runner", "worker.wire"} <= set(SOURCES)
    assert any(each.lazy for each in IMPORTS)
    assert any(each.typing for each in IMPORTS)


def test_this_test_sees_every_kind_of_import() -> None:
    text = (
        "import os.path\nfrom . import wire\nfrom ..errors import X\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import numpy\ndef f():\n    try:\n        import rich\n    except ImportError: pass\n"
    )
    found = {(each.target, each.lazy, each.typing) for each in imports_of("worker.channel", text)}
    assert found == {
        ("os.path", False, False), ("wetlands_executor.worker.wire", False, False), ("wetlands_executor.errors.X", False, False),
        ("typing.TYPE_CHECKING", False, False), ("numpy", False, True), ("rich", True, False),
    }  # fmt: skip


def test_imports_run_downward() -> None:
    wrong = []
    for each in IMPORTS:
        target = own_module(each.target)
        if target is not None and not each.typing and layer(target) < layer(each.importer):
            wrong.append(str(each))
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for each in IMPORTS:
        target = own_module(each.target)
        if target is not None and not (each.lazy or each.typing) and not target.endswith("__init__"):
            graph[each.importer].add(target)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in graph[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", [name for name in SOURCES if part(name) == "worker"])
def test_the_worker_imports_the_standard_library_and_its_siblings(module: str) -> None:
    """In functions too; what the interpreter may lack is asked for with ``importlib``, not with an import statement."""
    wrong = [
        str(each)
        for each in IMPORTS
        if each.importer == module
        and part(each.target) not in {*sys.stdlib_module_names, SHIPPED_AS}
        and not (own_module(each.target) or "").startswith("worker.")
    ]
    assert wrong == []


@pytest.mark.parametrize("module", [name for name in SOURCES if part(name) == "worker"])
def test_the_worker_parses_as_python_3_8(module: str) -> None:
    ast.parse(SOURCES[module].read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_state_of_the_pool_is_pure() -> None:
    """It imports nothing but its own vocabulary, and neither has to do with threads, clocks, descriptors, futures or logging."""
    reached, waiting = set(), ["pool.state"]
    while waiting:
        module = waiting.pop()
        reached.add(module)
        for each in IMPORTS:
            target = own_module(each.target)
            if each.importer == module and target is not None and target not in reached:
                assert target.startswith("pool."), str(each)
                waiting.append(target)
    assert reached <= {"pool.state", "pool.moves"}
    assert [str(each) for each in IMPORTS if each.importer in reached and part(each.target) in IMPURE] == []


def test_errors_import_nobody_of_ours() -> None:
    assert [str(each) for each in IMPORTS if each.importer == "errors" and own_module(each.target)] == []


def test_outsiders_use_the_public_names() -> None:
    wrong = []
    for each in IMPORTS:
        if part(each.importer) in OUTSIDERS and (target := own_module(each.target)) is not None:
            public = target in ("__init__", "errors") or part(target) == part(each.importer)
            private = each.target.rpartition(".")[2].startswith("_")
            if not public or private:
                wrong.append(str(each))
    assert wrong == []


def test_nobody_below_imports_the_outsiders() -> None:
    wrong = [
        str(each)
        for each in IMPORTS
        if layer(each.importer) > 1 and (target := own_module(each.target)) is not None and part(target) in OUTSIDERS
    ]
    assert wrong == []


def test_the_core_needs_its_three_dependencies_and_nothing_else() -> None:
    """Everything else is an extra and imported where it is used."""
    wrong = [
        str(each)
        for each in IMPORTS
        if not (each.lazy or each.typing)
        and part(each.importer) not in OUTSIDERS
        and part(each.target) not in {*DEPENDENCIES, *sys.stdlib_module_names, PACKAGE}
    ]
    assert wrong == []


def test_the_dependencies_are_those_of_the_package() -> None:
    assert {part(each.target) for each in IMPORTS} >= DEPENDENCIES, "one of them is not used any more"
    requirements = metadata.requires(PACKAGE.replace("_", "-")) if _is_installed() else None
    if requirements is not None:
        core = {re.match(r"[\w.-]+", each)[0].replace("-", "_") for each in requirements if "extra ==" not in each}
        assert core == DEPENDENCIES


def _is_installed() -> bool:
    try:
        metadata.version(PACKAGE.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return False
    return True
