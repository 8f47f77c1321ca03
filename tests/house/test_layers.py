"""Imports run downward only, those for types and those inside functions included.

Read from the sources, without importing them. Each rule is a function of a ``Package`` that returns
what breaks it, so that a copy (in memory) with a planted wrong import shows that it can fail.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.imports import PACKAGE, Package, imports_of, installed, part
from tests.support.structure import measured

#: From top to bottom: each module and folder of the package, those to come included. A module
#: imports from its own layer and from those below.
LAYERS = (
    ("__main__", "cli", "demo", "doctor"),
    ("observe", "integrations", "tasks"),
    ("__init__",),
    (
        "default", "executor", "remote", "views", "submission", "settings", "ending",
        "creation_tasks", "in_process", "carried", "watching", "forms", "debugging",
    ),
    ("map",),
    ("pool",),
    ("futures",),
    ("serialize",),
    ("sharedmem", "arguments"),
    ("scheduling",),
    ("environment",),
    ("threads",),
    ("worker",),
    ("errors", "seconds", "children", "descriptors", "notebook", "system"),
)
#: Arrows between parts that go up and are still to be cut; no other may be added.
#: REVIEW section 5 says how.
STILL_UPWARD: set[tuple[str, str]] = set()

#: What the core may import at module level besides the standard library.
DEPENDENCIES = {"cloudpickle", "psutil", "typing_extensions"}
#: Parts that use the public names and nothing else, and that nothing below imports.
OUTSIDERS = ("cli", "demo", "doctor", "integrations", "observe", "tasks")
#: Those of them that do not exist yet.
TO_COME: set[str] = set()
#: What the doctor examines is the inside of these parts.
EXAMINED = {
    ("doctor", "environment.activate"), ("doctor", "serialize.interpreter"),
    ("doctor", "pool.spawn"),
    ("doctor", "descriptors"), ("doctor", "system"),
}  # fmt: skip
#: What decisions have no business with.
IMPURE = {
    "_thread", "asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "psutil", "queue",
    "select", "selectors", "signal",
    "socket", "subprocess", "threading", "time", "weakref",
}  # fmt: skip
#: The name under which the worker's sources live in a worker.
SHIPPED_AS = "_wetlands_worker"

OURS = installed()


NUMBERS = {name: number for number, names in enumerate(LAYERS) for name in names}


def layer(module: str) -> int:
    """Return the number of a module's layer, from the top; -1 if none is said."""
    return NUMBERS.get(part(module), -1)


# ---------------------------------------------------------------------------------------- the rules


def parts_without_a_layer(package: Package) -> list[str]:
    return sorted(package.parts - {name for names in LAYERS for name in names})


def upward_imports(package: Package) -> list[str]:
    return [
        str(each)
        for each, target in package.inward
        if layer(target) < layer(each.importer)
        and (part(each.importer), part(target)) not in STILL_UPWARD
    ]


def outsiders_that_look_inside(package: Package) -> list[str]:
    wrong = []
    for each, target in package.inward:
        if part(each.importer) in OUTSIDERS:
            public = target in ("__init__", "environment.__init__", "errors")
            public |= part(target) in OUTSIDERS or (part(each.importer), target) in EXAMINED
            if not public or each.target.rpartition(".")[2].startswith("_"):
                wrong.append(str(each))
    return [each for each in wrong if not each.endswith(".__version__")]


def imports_of_outsiders(package: Package) -> list[str]:
    within = {*OUTSIDERS, "__main__"}
    return [
        str(each)
        for each, target in package.inward
        if part(target) in OUTSIDERS and part(each.importer) not in within
    ]


def needs_beyond_the_dependencies(package: Package) -> list[str]:
    return [
        str(each)
        for each in package.imports
        if not (each.lazy or each.typing)
        and part(each.importer) != "integrations"
        and part(each.target) not in {*DEPENDENCIES, *sys.stdlib_module_names, PACKAGE}
    ]


def foreign_imports_of_the_worker(package: Package) -> list[str]:
    return [
        str(each)
        for each in package.imports
        if part(each.importer) == "worker"
        and part(each.target) not in {*sys.stdlib_module_names, SHIPPED_AS}
        and not (package.own_module(each.target) or "").startswith("worker.")
    ]


def impurities(package: Package) -> list[str]:
    """What the folder of decisions imports besides its own vocabulary and harmless modules."""
    pure = {name for name in package.sources if part(name) == "scheduling"}
    assert pure >= {"scheduling.messages", "scheduling.state", "scheduling.retry"}
    wrong = []
    for each in package.imports:
        target = package.own_module(each.target)
        if each.importer in pure and (part(each.target) in IMPURE or target not in {None, *pure}):
            wrong.append(str(each))
    return wrong


def what_errors_import(package: Package) -> list[str]:
    return [str(each) for each, _ in package.inward if each.importer == "errors"]


RULES: tuple[Callable[[Package], list[str]], ...] = (
    parts_without_a_layer,
    upward_imports,
    outsiders_that_look_inside,
    imports_of_outsiders,
    needs_beyond_the_dependencies,
    foreign_imports_of_the_worker,
    impurities,
    what_errors_import,
)


@pytest.fixture(scope="module", autouse=True)
def parsed_once() -> None:
    """Whichever is first, these tests or those of the figures: both read the same trees."""
    measured()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_obeys_the_rule(rule: Callable[[Package], list[str]]) -> None:
    assert rule(OURS) == []


# ------------------------------------------------------------------------------ rules that can fail

IN_FUNCTION = "\ndef planted():\n    {}\n"
FOR_TYPES = "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\n"
AT_TOP = "\n{}\n"

#: For each rule, the file that gets a wrong import, and the import.
PLANTED = [
    (parts_without_a_layer, "unheard_of/__init__.py", "import os"),
    (parts_without_a_layer, "unheard_of.py", "import os"),
    (parts_without_a_layer, "data_without_init/program.py", "import os"),
    (upward_imports, "pool/polling.py", "from wetlands_executor.executor import CondaEnvExecutor"),
    (upward_imports, "pool/planted.py", "from wetlands_executor import share"),
    (upward_imports, "worker/wire.py", "from wetlands_executor.pool import pool"),
    (upward_imports, "environment/places.py", "import wetlands_executor.executor"),
    (upward_imports, "errors.py", "from .futures.future import Task"),
    (upward_imports, "scheduling/__init__.py", "from wetlands_executor.serialize import calls"),
    (upward_imports, "serialize/__init__.py", "from wetlands_executor.futures.future import Task"),
    (upward_imports, "futures/__init__.py", "from wetlands_executor.pool import pool"),
    (
        outsiders_that_look_inside,
        "demo/pipeline.py",
        "from wetlands_executor.pool.pool import Pool",
    ),
    (outsiders_that_look_inside, "demo/pipeline.py", "from wetlands_executor import _private"),
    (outsiders_that_look_inside, "doctor/show.py", "from wetlands_executor.pool import core"),
    (
        outsiders_that_look_inside,
        "cli/call.py",
        "from wetlands_executor.futures.future import Task",
    ),
    (outsiders_that_look_inside, "observe/__init__.py", "from wetlands_executor.pool import pool"),
    (imports_of_outsiders, "executor.py", "from wetlands_executor.demo import command"),
    (imports_of_outsiders, "__init__.py", "import wetlands_executor.cli"),
    (needs_beyond_the_dependencies, "pool/polling.py", "import numpy"),
    (foreign_imports_of_the_worker, "worker/wire.py", "import cloudpickle"),
    (
        foreign_imports_of_the_worker,
        "worker/wire.py",
        "from wetlands_executor.errors import ScriptExit",
    ),
    (impurities, "scheduling/state.py", "import time"),
    (impurities, "scheduling/state.py", "from wetlands_executor.pool import ports"),
    (impurities, "scheduling/__init__.py", "import threading"),
    (what_errors_import, "errors.py", "from wetlands_executor.seconds import checked"),
]


@pytest.mark.parametrize("form", [AT_TOP, IN_FUNCTION, FOR_TYPES], ids=["top", "function", "types"])
@pytest.mark.parametrize(
    ("rule", "file", "statement"),
    PLANTED,
    ids=[f"{p[0].__name__}-{p[1]}-{n}" for n, p in enumerate(PLANTED)],
)
def test_a_planted_import_breaks_the_rule(
    rule: Callable[[Package], list[str]], file: str, statement: str, form: str
) -> None:
    ours = OURS.looking_at(file)
    before = rule(ours)
    found = [
        each for each in rule(ours.planted(file, form.format(statement))) if each not in before
    ]
    if rule is needs_beyond_the_dependencies and form != AT_TOP:
        assert found == [], "what is imported where it is used is an extra, and allowed"
    elif rule is parts_without_a_layer:
        assert found == [file.partition("/")[0].removesuffix(".py")]
    else:
        assert len(found) == 1
        assert found[0].startswith(".".join(Path(file).with_suffix("").parts) + ":")


# -------------------------------------------------------------------------------- what is looked at


def test_the_sources_were_found() -> None:
    assert {
        "__init__",
        "executor",
        "errors",
        "scheduling.state",
        "worker.runner",
        "worker.wire",
    } <= set(OURS.sources)
    assert any(each.lazy for each in OURS.imports)
    assert any(each.typing for each in OURS.imports)


def test_this_test_sees_every_kind_of_import() -> None:
    text = (
        "import os.path\nfrom . import wire\nfrom ..errors import X\nfrom typing import "
        "TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import numpy\ndef f():\n    try:\n        import rich\n    except "
        "ImportError: pass\n"
    )
    found = {(each.target, each.lazy, each.typing) for each in imports_of("worker.channel", text)}
    assert found == {
        ("os.path", False, False), ("wetlands_executor.worker.wire", False, False),
        ("wetlands_executor.errors.X", False, False),
        ("typing.TYPE_CHECKING", False, False), ("numpy", False, True), ("rich", True, False),
    }  # fmt: skip


def test_the_outsiders_exist() -> None:
    """A rule about a part that does not exist cannot fail."""
    assert set(OUTSIDERS) - OURS.parts <= TO_COME


def test_each_outsider_imports_something_of_ours() -> None:
    present = {part(each.importer) for each, _ in OURS.inward}
    assert {"cli", "demo", "doctor"} <= present


@pytest.mark.parametrize("module", [name for name in OURS.sources if part(name) == "worker"])
def test_the_worker_parses_as_python_3_8(module: str) -> None:
    ast.parse(OURS.sources[module], feature_version=(3, 8))


def test_the_dependencies_are_those_of_the_package() -> None:
    used = {part(each.target) for each in OURS.imports}
    assert used >= DEPENDENCIES, "one of them is not used any more"
    requirements = metadata.requires(PACKAGE.replace("_", "-")) if _is_installed() else None
    if requirements is not None:
        named = [re.match(r"[\w.-]+", each) for each in requirements if "extra ==" not in each]
        assert {each[0].replace("-", "_") for each in named if each} == DEPENDENCIES


def _is_installed() -> bool:
    try:
        metadata.version(PACKAGE.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return False
    return True
