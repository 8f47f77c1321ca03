"""From what a user wrote to the one environment that is meant: ``locate(what)``.

Owns the decision between name and path, the choice among candidates, and the messages for what was
not found.
"""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from pathlib import Path

from wetlands_executor.environment import _platform, frozen
from wetlands_executor.environment.layout import Layout, describe
from wetlands_executor.environment.places import Places
from wetlands_executor.environment.store import Store
from wetlands_executor.errors import EnvironmentNotFoundError


def locate(what: object) -> Layout:
    """Return the environment of a name, a path, None, or an object with ``.prefix`` or ``.path``.

    Raises:
        EnvironmentNotFoundError: none, or more than one, answers to it.
        TypeError: it is nothing of these.
    """
    if what is None:
        return current()
    if isinstance(what, str):
        if not what.strip():
            raise EnvironmentNotFoundError(
                f"{what!r} is no environment; give a name, a path, or None for this environment"
            )
        if "\0" in what:
            raise EnvironmentNotFoundError(
                f"{what!r} is no environment: neither a name nor a path can hold a NUL character"
            )
        if _platform.has_separator(what) or what.startswith("~") or what in (os.curdir, os.pardir):
            return by_path(what)
        return by_name(what)
    if isinstance(what, os.PathLike):
        return by_path(_path_text(what, what))
    return _by_attribute(what)


def current() -> Layout:
    """Return the environment of this very interpreter.

    In a program that is none, of the one it has chosen.
    """
    python = frozen.interpreter()
    if python != sys.executable:
        return by_path(python)
    return Layout(None, Path(sys.prefix), Path(python), "current")


def by_path(path: str) -> Layout:
    """Return the environment at a path; ``~`` is expanded, links are not followed."""
    absolute = os.path.abspath(os.path.expanduser(path))
    return describe(absolute, Places().is_root)


def by_name(name: str) -> Layout:
    """Return the environment of that name.

    Raises:
        EnvironmentNotFoundError: there is none, or there are several; the message lists places or
            candidates.
    """
    places = Places()
    found = [*(str(record.prefix) for record in Store().called(name)), *places.named(name)]
    if len(found) > 1:
        candidates = "\n".join(f"  {prefix}" for prefix in found)
        raise EnvironmentNotFoundError(
            f"{len(found)} environments are called {name!r}; give the path of one:\n{candidates}"
        )
    if not found:
        raise EnvironmentNotFoundError(_not_found(name, places))
    return describe(found[0], places.is_root)


def everything() -> list[Layout]:
    """Return every conda environment that can be found, sorted by name and prefix.

    Stale places are passed over.
    """
    places = Places()
    found: list[Layout] = []
    made = (str(record.prefix) for record in Store().records() if record.is_usable())
    for prefix in dict.fromkeys((*places.all_prefixes(), *made)):
        try:
            found.append(describe(prefix, places.is_root))
        except (
            EnvironmentNotFoundError,
            OSError,
        ):  # Race: it may have been removed since it was listed
            continue
    return sorted(found, key=lambda layout: (layout.name or "", str(layout.prefix)))


def _not_found(name: str, places: Places) -> str:
    text = [f"no environment is called {name!r}"]
    names = [*places.names(), *(record.name for record in Store().records())]
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        text.append("; did you mean " + " or ".join(repr(word) for word in near) + "?")
    if os.path.exists(name):
        here = os.path.join(os.curdir, name)
        text.append(f"\nThere is a folder of that name here: write {here!r} if you mean it.")
    else:
        program = shutil.which(name)
        if program:
            text.append(
                f"\nThere is a program of that name: write {program!r} if you mean that "
                f"interpreter."
            )
    text.append("\nSearched, in this order:")
    text += [f"\n  {root} (made by Environment.create)" for root in Store().roots]
    text += [f"\n  {folder} ({source})" for folder, source in places.searched(name)]
    return "".join(text)


def _by_attribute(what: object) -> Layout:
    """Return the environment of a foreign object.

    It has an attribute ``prefix``, ``path``, or (Appose) ``base``, which is a method there.
    """
    if isinstance(what, int) and not isinstance(what, bool):
        raise TypeError(
            f"{what!r} is no environment; for the number of workers write `max_workers={what!r}`"
        )
    known = [name for name in ("prefix", "path", "base") if hasattr(what, name)]
    for name in known:
        value = getattr(what, name)
        if name == "base" and callable(value):
            value = value()
        if isinstance(value, (str, os.PathLike)) and str(value):
            return by_path(_path_text(value, what))
    if known:
        values = ", ".join(f".{name} is {getattr(what, name)!r}" for name in known)
        raise TypeError(f"{what!r} is no environment that has a path: {values}")
    expected = "a name, a path, None, or an object with a .prefix or .path"
    raise TypeError(
        f"{what!r} is no environment; {expected} is expected, not {type(what).__name__}"
    )


def _path_text(value: str | os.PathLike[str], what: object) -> str:
    path = os.fsdecode(value)  # not fspath: an os.DirEntry may be of bytes
    if not path or "\0" in path:
        raise EnvironmentNotFoundError(f"{what!r} is no environment: its path is {path!r}")
    return path
