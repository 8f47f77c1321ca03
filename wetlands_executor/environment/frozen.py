"""Host programs that are no Python interpreter: frozen ones, and programs that embed Python.

Owns what differs in such a program: which interpreter ``env=None`` stands for, which variables
belong to the bundle and must not reach other programs, and which modules exist in the bundle only.
Any thread may enter; the only state is caches of facts that do not change while a process lives.

Sources: PyInstaller's manual ("Run-time Information", "Launching external programs from the frozen
application"); ``sys.frozen`` is set by PyInstaller, cx_Freeze, py2exe and py2app, ``__compiled__``
by Nuitka. Only PyInstaller's bundles on Linux have been run.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Mapping
from typing import Final

from wetlands_executor.errors import EnvironmentNotFoundError

#: Names of programs that take ``-c``; without folder and without ``.exe``.
_INTERPRETER: Final = re.compile(
    r"\.?(python|pypy|graalpy|hython|mayapy)[a-z]{0,2}[\d.]*[a-z]{0,2}([-_.].*)?"
)
#: What PyInstaller's boot loader tells its own child processes.
_OF_BOOTLOADER: Final = re.compile(r"_PYI_.*|_MEIPASS2?")
#: Where the boot loader puts the bundle's folder first; the original value stands in ``NAME_ORIG``.
LIBRARY_PATHS: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LIBPATH")
#: Written by the PyInstaller hook: top-level names that were installed packages when the bundle was
#: made.
INSTALLED: Final = "frozen-packages.txt"


@functools.cache
def is_frozen() -> bool:
    """Return True if this program carries its modules in a bundle of its own."""
    if getattr(sys, "frozen", False) or hasattr(sys, "_MEIPASS"):
        return True
    return "__compiled__" in vars(sys.modules.get("__main__", sys))


def bundle_folder() -> str | None:
    """Return the folder into which the bundle was unpacked; None if this is no such program."""
    folder = getattr(sys, "_MEIPASS", None)
    if isinstance(folder, str):
        return folder
    return (
        os.path.dirname(os.path.abspath(sys.executable)) if is_frozen() and sys.executable else None
    )


def interpreter() -> str:
    """Return the interpreter that ``env=None`` stands for.

    In a program that is no interpreter, starting ``sys.executable`` would start the program again.
    It is the executable that ``multiprocessing`` was given (``multiprocessing.set_executable``)
    then.

    Raises:
        EnvironmentNotFoundError: there is none; the message says why and what to do.
    """
    own = sys.executable or ""
    frozen = is_frozen()
    # py2app sets sys.frozen to "macosx_app" and ships an interpreter as sys.executable.
    if (
        own
        and (not frozen or getattr(sys, "frozen", None) == "macosx_app")
        and _is_interpreter(own)
    ):
        return own
    chosen = _multiprocessing_executable()
    if chosen is not None and not _same_file(chosen, own):
        if not os.path.isfile(chosen):
            raise EnvironmentNotFoundError(
                f"multiprocessing.set_executable() was given {chosen!r}, and there is no such "
                f"file: "
                "give it the path of a Python interpreter"
            )
        return chosen
    if not own:
        what = "this program has no interpreter of its own (sys.executable is empty)"
    elif frozen:
        what = (
            f"this program is frozen: {own!r} is the program itself and no Python interpreter, so "
            f"it would only start again"
        )
    else:
        what = (
            f"this program embeds Python: {own!r} is no Python interpreter, so it would only "
            f"start again"
        )
    raise EnvironmentNotFoundError(
        f"env=None stands for the interpreter of this program, and {what}. Name an environment "
        f"(its name, its "
        "prefix, or the path of an interpreter), or call multiprocessing.set_executable(path) "
        "before"
    )


def _is_interpreter(path: str) -> bool:
    name = os.path.basename(path).lower().removesuffix(".exe")
    return _INTERPRETER.fullmatch(name) is not None and os.path.exists(path)


def _multiprocessing_executable() -> str | None:
    # Setting it imports this module; a program that has not imported it has not set it.
    spawn = sys.modules.get("multiprocessing.spawn")
    if spawn is None:
        return None
    found = spawn.get_executable()
    return os.fsdecode(found) if found else None


def _same_file(first: str, second: str) -> bool:
    if os.path.normcase(os.path.abspath(first)) == os.path.normcase(
        os.path.abspath(second or os.curdir)
    ):
        return True
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def without_bundle(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables as they were before the frozen program changed them for itself.

    What the boot loader tells its own children is removed; library paths get the value they had; of
    other variables, values that point into the bundle are removed, and such entries of lists of
    folders. In a program that is not frozen this is a copy.
    """
    folder = bundle_folder() if is_frozen() else None
    if folder is None:
        return dict(variables)
    kept: dict[str, str] = {}
    for name, value in variables.items():
        if _OF_BOOTLOADER.fullmatch(name) or (
            name.endswith("_ORIG") and name[:-5] in LIBRARY_PATHS
        ):
            continue
        left = _outside(value, folder)
        if not left and name in LIBRARY_PATHS:
            left = variables.get(name + "_ORIG", "")
        if left or not value:
            kept[name] = left
    for name in LIBRARY_PATHS:
        if name not in variables and variables.get(name + "_ORIG"):
            kept[name] = variables[name + "_ORIG"]
    return kept


def _outside(value: str, folder: str) -> str:
    """Return a value without its entries (all of it, if it is one path) that lie in ``folder``."""
    if folder not in value:
        return value
    entries = value.split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if not _lies_in(entry, folder))


def _lies_in(path: str, folder: str) -> bool:
    path = os.path.normcase(os.path.normpath(path)) if path else ""
    folder = os.path.normcase(os.path.normpath(folder))
    return path == folder or path.startswith(folder + os.sep)


def in_bundle(path: str) -> bool:
    """Return True if a file or folder belongs to the bundle of this frozen program."""
    folder = bundle_folder() if is_frozen() else None
    return folder is not None and _lies_in(os.path.abspath(path), folder)


def is_private(module: str) -> bool:
    """Return True if a module exists in this program's bundle only, so that its code must travel.

    Other environments have the standard library, and may have the packages that were installed
    where the bundle was made: those are named, as in a program that is not frozen.

    Args:
        module: dotted name of an imported module.
    """
    if not is_frozen():
        return False
    top = module.partition(".")[0]
    return (
        top not in sys.stdlib_module_names
        and top not in ("wetlands_executor", "cloudpickle")
        and not _is_installed(top)
    )


@functools.lru_cache(maxsize=1024)
def _is_installed(top: str) -> bool:
    from importlib import machinery, metadata  # slow to import, and most programs are not frozen

    names = _names_of_build()
    if names is not None:
        return top in names
    # Made without our hook: what has metadata, or code in C, is a package and not part of the
    # program.
    if top in metadata.packages_distributions():
        return True
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == top:
            loader = getattr(getattr(module, "__spec__", None), "loader", None)
            if isinstance(loader, machinery.ExtensionFileLoader):
                return True
    return False


@functools.cache
def _names_of_build() -> frozenset[str] | None:
    from importlib import resources

    try:
        text = (resources.files("wetlands_executor") / INSTALLED).read_text(encoding="utf-8")
    except (OSError, ModuleNotFoundError):
        return None
    return frozenset(text.split())
