"""Which package, of which version, on which side: the words for data that one side cannot read.

Runs only after a failure, in the thread that has met it. Reads ``sys.modules`` here and the names
of ``*.dist-info`` folders there; imports and starts nothing.
"""

from __future__ import annotations

import glob
import importlib.metadata
import os
import pickle
import platform
import re
import sys
from collections.abc import Iterable
from typing import Any

from wetlands_executor.errors import because
from wetlands_executor.worker import missing_names

#: Packages whose distribution has another name.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
#: Attribute of an error: the name that a result asked for.
_NAME = "_wetlands_name"
_REMEDY = (
    "Give both sides the same version, or pass numpy arrays or builtin types (for a table: "
    "frame.to_dict() or frame.to_records())"
)
RESULT_REMEDY = (
    "Return builtin types or numpy arrays (for a table: frame.to_dict() or frame.to_records()), "
    "or give both sides the same version"
)


def version_here(package: str) -> str:
    """Return the version of a package in this process or environment; empty if it is not here."""
    found = missing_names.version_of(package)
    if found:
        return found
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return ""


def version_there(package: str, prefix: str) -> str:
    """Return the version of a package under a prefix; empty if none is found.

    The name of its metadata folder says it.
    """
    wanted = _normal(_DISTRIBUTIONS.get(package, package))
    for pattern in (
        ("lib/python3*/site-packages", "lib/site-packages", "Lib/site-packages") if prefix else ()
    ):
        for folder in glob.glob(os.path.join(glob.escape(prefix), pattern)):
            for entry in os.listdir(folder):
                name, _, rest = entry.partition("-")
                if rest.endswith((".dist-info", ".egg-info")) and _normal(name) == wanted:
                    return rest.rpartition(".")[0].partition("-")[0]
    return ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def note_packages(error: BaseException, modules: Iterable[str]) -> None:
    """Keep which packages a result has named, for ``explain_result``."""
    packages = {module.partition(".")[0] for module in modules}
    found = sorted(name for name in packages if not missing_names.is_standard(name))
    try:
        setattr(error, missing_names.VERSIONS, dict.fromkeys(found, ""))
    except Exception:  # noqa: BLE001, S110
        # an exception class of the user's may refuse attributes: then nothing is added to it
        pass


def note_name(error: BaseException, module: str, name: str) -> None:
    """Keep which name of a result is not here."""
    setattr(error, _NAME, (module, name))


def explain_result(error: BaseException, what: str, prefix: str, python: str) -> BaseException:
    """Return the exception for a result that this process cannot read.

    It names both versions if they differ.

    Args:
        error: what unpickling raised.
        what: name of the task.
        prefix: of the environment that sent it; empty if it is not known.
        python: version of its Python; empty if it is not known.
    """
    named: dict[str, str] = _take(error, missing_names.VERSIONS, {})
    module, name = _take(error, _NAME, ("", ""))
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        there = version_there(package, prefix)
        has = f" (the environment has {package} {there})" if there else ""
        if not version_here(package) and package not in sys.modules:
            text = (
                f"The result of {what} needs a package that this process lacks, {package}{has}: "
                f"install it here, or return builtin types or arrays"
            )
            return _again(error, f"{error}. {text}")
    differences = _differences(
        {package: (version_here(package), version_there(package, prefix)) for package in named}
    )
    if not differences and isinstance(error, _OF_VERSIONS):
        differences = _differences({"Python": (platform.python_version(), python)})
    if differences or isinstance(error, (ImportError, AttributeError)):
        reason = f"; {differences}" if differences else ""
        remedy = _capital(missing_names.remedy_for(module, name)) or RESULT_REMEDY
        return _again(
            error,
            f"{error}. The result of {what} cannot be rebuilt in this process{reason}. {remedy}",
        )
    return error


def explain_argument(error: BaseException) -> tuple[BaseException, str]:
    """Add the versions here to an error about an argument that a worker could not read.

    Returns:
        The error, and what was added, for the traceback: empty if nothing was.
    """
    there: dict[str, str] = _take(error, missing_names.VERSIONS, {})
    lacked: str = _take(error, missing_names.LACKED, "")
    python = there.pop("Python", "")
    versions = {package: (version_here(package), version) for package, version in there.items()}
    if lacked and version_here(lacked):
        versions.setdefault(lacked, (version_here(lacked), "none"))
    elif not lacked and isinstance(error, ImportError):
        # a module of the user's that imports something that is not there: its message says all
        return error, ""
    differences = _differences(versions)
    if not differences and python and isinstance(error, _OF_VERSIONS):
        differences = _differences({"Python": (platform.python_version(), python)})
    if not differences:
        return error, ""
    added = f"An argument could not be rebuilt in the worker; {differences}" + (
        "" if lacked else f". {_remedy(differences)}"
    )
    if error.args and isinstance(error.args[0], str):
        missing_names.reword(error, f"{error.args[0]}. {added}")
    else:
        error = _again(error, f"{error}. {added}")
    return error, f"\n{added}\n"


#: What a difference between versions looks like when data are read; other errors of unpickling
#: speak for themselves.
_OF_VERSIONS = (TypeError, AttributeError, ImportError, NameError, pickle.UnpicklingError)


def _differences(versions: dict[str, tuple[str, str]]) -> str:
    """Return "pandas is 3.0 in this process and 2.2 in the worker's environment" for what differs.

    Of Python the minor version counts.
    """
    found = [
        f"{name} is {here} in this process and {there} in the worker's environment"
        for name, (here, there) in versions.items()
        if here
        and there
        and (here.split(".")[:2] != there.split(".")[:2] if name == "Python" else here != there)
    ]
    return ", ".join(found)


def _remedy(differences: str) -> str:
    return "Pass builtin types" if differences.startswith("Python") else _REMEDY


def _take(error: BaseException, name: str, default: Any) -> Any:
    try:
        return error.__dict__.pop(name, default)
    except Exception:  # noqa: BLE001 - an exception class of the user's may hide its attributes
        return default


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _again(error: BaseException, message: str) -> BaseException:
    """Return an error of the same kind that says more; its cause is the first one."""
    kind: Any = type(error) if type(error).__module__ == "builtins" else RuntimeError
    try:
        new: BaseException = (
            kind(message, name=error.name, path=error.path)
            if isinstance(error, ImportError)
            else kind(message)
        )
    except TypeError:  # UnicodeDecodeError and its like want five arguments
        new = RuntimeError(f"{type(error).__name__}: {message}")
    return because(new, error)
