"""Where environments with names live.

Conda's folders of environments, its root prefixes, and the list it keeps.

Owns the search order and nothing of what is done with it. Everything is read anew at each call:
variables, settings and folders change while a program runs, and a look takes well under a
millisecond.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from wetlands_executor.environment import _platform
from wetlands_executor.environment.condarc import envs_dirs, expand, settings_files
from wetlands_executor.environment.layout import (
    conda_name,
    interpreter_of,
    is_conda_prefix,
    is_environment,
    looks_like_root,
    pixi_global_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Place(NamedTuple):
    """A folder to look in, and what named it."""

    folder: str
    source: str


class Places:
    """The places of one moment.

    Attributes:
        roots: root prefixes that variables name; these decide what ``base`` is.
        common: root prefixes where installers usually put them.
        folders: folders whose sub-folders are environments, in the order of the search.
        listed: prefixes that ``~/.conda/environments.txt`` lists, without the lines that are stale.
    """

    def __init__(self) -> None:
        home = os.path.expanduser("~")
        self.roots = list(_unique(_roots_of_variables()))
        self.common = list(_unique(Place(root, "usual place") for root in _platform.common_roots()))
        self.environments_txt = os.path.join(home, ".conda", "environments.txt")
        self.listed = [
            Place(prefix, self.environments_txt) for prefix in _listed(self.environments_txt)
        ]
        shared = os.environ.get("XDG_DATA_HOME", "")
        mamba = [
            os.path.join(home, "micromamba"),
            *([os.path.join(shared, "mamba")] if shared else ()),
        ]
        mamba.append(os.path.join(home, ".local", "share", "mamba"))
        all_roots = [place.folder for place in (*self.roots, *self.common)]
        folders = [*_envs_dirs_of_variables(), *_envs_dirs_of_settings([*all_roots, *mamba])]
        folders += [Place(os.path.join(root, "envs"), source) for root, source in self.roots]
        folders += [Place(folder, "conda's default") for folder in _platform.user_envs_dirs()]
        folders += [Place(os.path.join(root, "envs"), "mamba's default") for root in mamba]
        folders += [Place(os.path.join(root, "envs"), source) for root, source in self.common]
        folders.append(Place(pixi_global_folder(), "pixi global"))
        self.folders = list(_unique(folders))
        self._folder_paths = {place.folder for place in self.folders}
        self.common += [Place(root, "mamba's default") for root in mamba]
        self._root_paths = {os.path.realpath(place.folder) for place in (*self.roots, *self.common)}

    def is_root(self, prefix: str) -> bool:
        """Return True if a conda prefix is a root prefix, whose name is ``base``."""
        if os.path.realpath(prefix) in self._root_paths:
            return True
        # Conda may be installed in an ordinary environment too; what lies in a folder of
        # environments is one.
        return os.path.dirname(prefix) not in self._folder_paths and looks_like_root(prefix)

    def named(self, name: str) -> list[str]:
        """Return the prefixes of that name, in the order of the search, each once."""
        if name in ("base", "root"):
            return self._bases()
        found = [os.path.join(folder, name) for folder, _ in self.folders]
        found += [
            prefix for prefix, _ in self.listed if conda_name(prefix, self.is_root)[0] == name
        ]
        return _distinct(prefix for prefix in found if is_environment(prefix))

    def _bases(self) -> list[str]:
        """Return the root prefixes.

        Those that variables name count alone, as ``base`` is that of the conda in use.
        """
        listed = [place for place in self.listed if self.is_root(place.folder)]
        for places in (self.roots, self.common, listed):
            found = _distinct(place.folder for place in places if is_conda_prefix(place.folder))
            if found:
                return found
        return []

    def all_prefixes(self) -> list[str]:
        """Return every environment with a name that has an interpreter, each once."""
        found = [place.folder for place in (*self.roots, *self.common)]
        for folder, _ in self.folders:
            found += [os.path.join(folder, name) for name in _names_in(folder)]
        found += [place.folder for place in self.listed]
        return _distinct(
            prefix for prefix in found if is_environment(prefix) and interpreter_of(prefix)
        )

    def names(self) -> list[str]:
        """Return every name that can be found, for suggestions."""
        found = self.all_prefixes()
        return sorted(
            {
                conda_name(prefix, self.is_root)[0]
                if is_conda_prefix(prefix)
                else os.path.basename(prefix)
                for prefix in found
            }
        )

    def searched(self, name: str) -> list[Place]:
        """Return where ``named`` has looked, for the error."""
        places = [*self.roots, *self.common] if name in ("base", "root") else self.folders
        return [*places, Place(self.environments_txt, "conda's list")]


def _roots_of_variables() -> Iterator[Place]:
    for variable in ("CONDA_EXE", "MAMBA_ROOT_PREFIX", "MAMBA_EXE", "CONDA_PREFIX"):
        value = os.environ.get(variable, "")
        if not value:
            continue
        path = expand(value)
        # <root>/bin/conda, <root>/condabin/conda; micromamba's may be anywhere
        if variable.endswith("_EXE"):
            path = os.path.dirname(os.path.dirname(path))
            if not (is_conda_prefix(path) or os.path.isdir(os.path.join(path, "envs"))):
                continue
        elif variable == "CONDA_PREFIX":
            parent = os.path.dirname(path)
            if os.path.basename(parent) == "envs":
                path = os.path.dirname(parent)
                if os.path.basename(path) == ".pixi":
                    continue
            elif not (looks_like_root(path) or os.path.isdir(os.path.join(path, "envs"))):
                continue  # an environment that lies on its own tells nothing of the root
        yield Place(path, variable)


def _envs_dirs_of_variables() -> Iterator[Place]:
    for variable in ("CONDA_ENVS_DIRS", "CONDA_ENVS_PATH"):
        for folder in os.environ.get(variable, "").split(os.pathsep):
            if folder.strip():
                yield Place(expand(folder.strip()), variable)


def _envs_dirs_of_settings(roots: Iterable[str]) -> Iterator[Place]:
    for file in settings_files(roots):
        for folder in envs_dirs(file):
            yield Place(folder, file)


def _listed(file: str) -> Iterator[str]:
    """Yield the prefixes of ``environments.txt``.

    Conda never removes the line of a folder that was deleted by hand.
    """
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return
    for line in lines:
        prefix = line.strip()
        if os.path.isabs(prefix) and is_conda_prefix(prefix):
            yield os.path.abspath(prefix)


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # not there, or not ours to read: stale places are common and no error
        return []


def _unique(places: Iterable[Place]) -> Iterator[Place]:
    seen: set[str] = set()
    for place in places:
        if place.folder not in seen:
            seen.add(place.folder)
            yield place


def _distinct(prefixes: Iterable[str]) -> list[str]:
    """Drop what is the same folder after links are followed; the first spelling stays."""
    seen: dict[str, str] = {}
    for prefix in prefixes:
        seen.setdefault(os.path.normcase(os.path.realpath(prefix)), prefix)
    return list(seen.values())
