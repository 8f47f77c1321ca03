"""Projects as people lay them out, and the program in each that lets its modules run in workers.

``PROGRAM`` is the same in all of them: it imports ``animals.work`` and prints what the workers
(interpreters given as arguments) make of it.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

WORK = '''
"""A module of the project, with a neighbour, a class and an import that comes late."""
import dataclasses
import os
import sys
from animals import names


@dataclasses.dataclass
class Animal:
    name: str
    legs: int = 4


def where():
    return os.path.realpath(__file__), list(sys.version_info[:2])


def rename(animal):
    return type(animal).__module__, dataclasses.replace(animal, name=names.loud(animal.name))


def late():
    from animals.deep import later
    return later.VALUE


def path():
    return sys.path


def imports(name):
    __import__(name)
    return sys.modules[name].__file__


class Failure(Exception):
    pass


def fail():
    raise Failure("it", 2)
'''

PROGRAM = """
import json
import sys

from animals import work
from wetlands_executor import CondaEnvExecutor


def tried(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main():
    found = []
    for python in sys.argv[1:]:
        with CondaEnvExecutor(python, max_workers=1) as executor:
            def run(function, *arguments):
                return tried(lambda: executor.submit(function, *arguments).result(60))

            target = run("animals.work:where")  # first: nothing else has said where the project is
            animal = run(work.rename, work.Animal("cat"))
            if isinstance(animal, tuple):
                animal = [animal[0], type(animal[1]) is work.Animal, animal[1].name]
            found.append({
                "target": target,
                "function": run(work.where),
                "animal": animal,
                "late": run(work.late),
                "failure": run(work.fail),
                "path": run(work.path),
                "only on the host": run(work.imports, "only_on_the_host"),
                "only on the host, by name": run("only_on_the_host:f"),
                "python": python,
            })
    print(json.dumps(found))


if __name__ == "__main__":
    main()
"""

PACKAGE = {
    "animals/__init__.py": "",
    "animals/names.py": "def loud(name):\n    return name.upper()\n",
    "animals/work.py": WORK,
    "animals/deep/__init__.py": "",
    "animals/deep/later.py": "VALUE = 'late'\n",
}
#: The same as a namespace package: no ``__init__.py``.
NAMESPACE = {name: text for name, text in PACKAGE.items() if not name.endswith("__init__.py")}

SETUPTOOLS = """
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"
[project]
name = "animals"
version = "1.0"
[tool.setuptools.packages.find]
where = ["{where}"]
include = ["animals*"]
namespaces = {namespaces}
"""
HATCHLING = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "animals"
version = "1.0"
[tool.hatch.build.targets.wheel]
packages = ["src/animals"]
"""


def write(folder: Path, files: dict[str, str], prefix: str = "") -> None:
    """Write files below a folder."""
    for name, text in files.items():
        path = folder / prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
