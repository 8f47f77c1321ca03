"""Each part of the engine has a unit test, with a fake feed and no process.

Read from the imports of ``tests/unit``, what its tests share included: a module that none of its
files imports has none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.imports import PACKAGE, imports_of, installed, part

#: The folders whose modules are parts.
FOLDERS = ("pool", "scheduling", "map")
#: Modules that no unit test makes, and why.
WITHOUT = {
    "pool.spawn": "it starts processes; tests/worker",
    "pool.fork_server": "it starts processes; tests/worker",
    "pool.pool": "it composes the parts, and has a thread and processes; tests/contract",
    "map.protocols": "protocols alone: nothing runs",
}
OURS = installed()
PARTS = sorted(
    name for name in OURS.sources if part(name) in FOLDERS and not name.endswith("__init__")
)


def imported(texts: dict[str, str]) -> set[str]:
    """Return the modules of the package that files import, by their texts."""
    found = (
        OURS.own_module(each.target)
        for name, text in texts.items()
        for each in imports_of(name, text)
        if each.target.startswith(f"{PACKAGE}.")
    )
    return {name for name in found if name is not None}


@pytest.fixture(scope="module")
def tested() -> set[str]:
    folder = Path(__file__).parents[1] / "unit"
    return imported({f"unit.{file.stem}": file.read_text("utf-8") for file in folder.glob("*.py")})


@pytest.mark.parametrize("module", PARTS)
def test_a_part_has_a_unit_test_or_a_reason(module: str, tested: set[str]) -> None:
    assert (module in tested) is not (module in WITHOUT)


def test_the_reasons_are_of_parts() -> None:
    assert set(WITHOUT) <= set(PARTS)
    assert {part(name) for name in PARTS} == set(FOLDERS)


def test_the_ways_to_import_a_part() -> None:
    text = (
        f"from {PACKAGE}.pool import direct, inbound\nfrom {PACKAGE}.map.packing import pack\n"
        f"import {PACKAGE}.scheduling.state\nfrom {PACKAGE} import Task\n"
    )
    assert {name for name in imported({"unit.x": text}) if part(name) in FOLDERS} == {
        "pool.direct", "pool.inbound", "map.packing", "scheduling.state",
    }  # fmt: skip
