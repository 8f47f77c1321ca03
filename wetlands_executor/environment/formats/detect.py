"""Which format a file has: by its name, else by what is in it."""

from __future__ import annotations

import os
import re
from typing import Final

from wetlands_executor.environment.formats.source import Source

#: Names of files and the module that reads them.
NAMES: Final = {
    "environment.yml": "environment_yml", "environment.yaml": "environment_yml",
    "pixi.lock": "pixi_lock", "pixi.toml": "pixi_toml", "pylock.toml": "pylock",
    "pyproject.toml": "pyproject", "uv.lock": "uv_lock",
}  # fmt: skip
#: Ends of names that may describe an environment.
ENDS: Final = (".py", ".pyw", ".yml", ".yaml", ".toml", ".txt", ".in", ".lock")
#: Files of tools that are not read, and what to do about it.
_NOT_READ: Final = {
    "Pipfile": "Export it: pipenv requirements > requirements.txt.",
    "Pipfile.lock": "Export it: pipenv requirements > requirements.txt.",
    "poetry.lock": "Export it: poetry export -f requirements.txt.",
    "pdm.lock": "Export it: pdm export -f pylock.",
    "setup.cfg": "Write the dependencies into [project] of a pyproject.toml.",
    "setup.py": "Write the dependencies into [project] of a pyproject.toml.",
    "conda-lock.yml": "Render it: conda-lock render --kind explicit.",
    "meta.yaml": "Write an environment.yml; this is the recipe of a package.",
    "recipe.yaml": "Write an environment.yml; this is the recipe of a package.",
}  # fmt: skip
#: The first line of requirements that are a lock of this library's.
LOCKED_REQUIREMENTS: Final = re.compile(
    r"\A# Python (\d+\.\d+)\S*, locked by wetlands-executor$", re.MULTILINE
)
#: How files begin that are locks, whatever their name: ``Environment.lock()`` returns one of these,
#: so the file may have been named before that was known.
_LOCKS: Final = tuple(
    (re.compile(r"\A(?:[ \t]*(?:#.*)?\n)*" + beginning, re.MULTILINE), module)
    for beginning, module in (
        (r"@EXPLICIT\s*$", "explicit"),
        (r"lock-version\s*=", "pylock"),
        (r"version:\s*\d+\s*\nenvironments:", "pixi_lock"),
    )
)
#: What the content of a file looks like, tried in this order.
_CONTENTS: Final = (
    (r"^@EXPLICIT\s*$", "explicit"),
    (r"^# /// script\s*$", "script"),
    (r"^lock-version\s*=", "pylock"),
    (r"(?s)^version = 1$.*^\[\[package\]\]$", "uv_lock"),
    (r"(?s)^version:\s*\d+.*^environments:", "pixi_lock"),
    (r"^\[(project|dependency-groups|tool\.[\w.-]+)\]", "pyproject"),
    (r"^\[(workspace|dependencies|pypi-dependencies)\]", "pixi_toml"),
    (r"^dependencies:", "environment_yml"),
)


def may_describe(path: str) -> bool:
    """Return True if a file of this name may describe an environment; the file is not read."""
    name = os.path.basename(path)
    return name in NAMES or name.lower().endswith(ENDS)


def format_of(source: Source) -> str:
    """Return the name of the module that reads a file.

    Raises:
        SpecError: its format is not known.
    """
    name = os.path.basename(source.path)
    if name in _NOT_READ:
        if name == "setup.py" and re.search(r"^# /// script\s*$", source.text, re.MULTILINE):
            return "script"
        raise source.error(f"files of the format of {name!r} are not read", _NOT_READ[name])
    if LOCKED_REQUIREMENTS.search(source.text):
        return "requirements"
    for begins, module in _LOCKS:
        if begins.match(source.text):
            return module
    if name in NAMES:
        return NAMES[name]
    if name.endswith((".py", ".pyw")):
        return "script"
    if re.fullmatch(r"pylock\.[^.]+\.toml", name):
        return "pylock"
    if name.endswith("pixi.lock"):
        return "pixi_lock"
    for pattern, module in _CONTENTS:
        if re.search(pattern, source.text, re.MULTILINE):
            return module
    if name.endswith((".txt", ".in")):
        return "requirements"
    raise source.error(
        "this file has no known format",
        "Known are environment.yml, pixi.toml, pyproject.toml, requirements.txt, pylock.toml, "
        "uv.lock, pixi.lock, @EXPLICIT lists, and Python files with a metadata block (PEP 723).",
    )
