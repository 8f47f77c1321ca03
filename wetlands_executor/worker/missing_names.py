"""Error messages for what this environment lacks.

Modules that cannot be imported, names that its versions do not have.

Runs only after a failure. The worker knows its own side; what it cannot know, the host's versions,
the host adds (``serialize/versions.py``), for which the error carries two attributes, of builtin
types, that are taken off there.
"""

from __future__ import annotations

import sys

from . import moved_names

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable

#: Attributes of an error on its way to the host: package -> its version here or "", for whatever
#: the unpickled bytes have named.
VERSIONS = "_wetlands_versions"
#: The package without which, or without whose version, it does not work.
LACKED = "_wetlands_lacked"


def explain(error: BaseException, module: str, name: str) -> BaseException:
    """Return the error for a name in an argument that this environment does not have."""
    package = module.partition(".")[0]
    here = "the environment %s (Python %s)" % (sys.prefix, sys.version.split()[0])
    remedy = remedy_for(module, name)
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        text = "No module named %r in %s, which an argument needs (%s.%s); looked in: %s" % (
            package,
            here,
            module,
            name,
            places(),
        )
        remedy = remedy or "install it there, or pass builtin types or arrays"
        new: BaseException = ModuleNotFoundError(
            "%s. Remedy: %s" % (text, remedy), name=package, path=error.path
        )
    elif (
        isinstance(error, ModuleNotFoundError)
        and error.name != module
        and not module.startswith(str(error.name) + ".")
    ):
        name_places(error)  # the module is there; something that it imports is not
        return error
    else:
        version = version_of(package)
        owner = (
            "Python"
            if is_standard(package)
            else "%s %s" % (package, version)
            if version
            else package
        )
        text = "an argument needs %s.%s, which %s of %s does not have" % (module, name, owner, here)
        remedy = (
            remedy
            or "give both sides the same version of %s, or pass builtin types or arrays"
            % ("Python" if owner == "Python" else package)
        )
        kind = (
            type(error)
            if type(error) in (AttributeError, ImportError, ModuleNotFoundError)
            else ImportError
        )
        new = kind("%s. Remedy: %s" % (text, remedy))
    setattr(new, LACKED, package)
    return new


def remedy_for(module: str, name: str) -> str:
    """Return what to do about a name that is known not to exist everywhere.

    Empty if nothing is known.
    """
    whole = "%s.%s" % (module, name)
    return next(
        (remedy for word, remedy in moved_names.REMEDIES.items() if word.lower() in whole.lower()),
        "",
    )


def name_places(error: Any) -> None:
    """Add to an error of an import which environment looked where.

    One that was made by hand is left alone.
    """
    plain = "No module named %r" % error.name
    if (
        error.name
        and isinstance(error.msg, str)
        and (error.msg == plain or error.msg.startswith(plain + "; "))
    ):
        version = sys.version.split()[0]
        said = "in the environment %s (Python %s); looked in: %s" % (sys.prefix, version, places())
        reword(error, "%s %s" % (error.msg, said))


def reword(error: BaseException, message: str) -> None:
    """Give an error another message."""
    error.args = (message, *error.args[1:])
    if isinstance(error, ImportError):
        error.msg = message


def places() -> str:
    """Return where modules are looked for."""
    return ", ".join(path for path in sys.path if path)


def add_versions(error: BaseException, modules: Iterable[str]) -> None:
    """Note in an error which packages, of which versions, could not read an argument."""
    packages = {module.partition(".")[0] for module in modules}
    found: Dict[str, str] = {
        name: version_of(name) for name in sorted(packages) if not is_standard(name)
    }
    found = {name: version for name, version in found.items() if version}
    found["Python"] = sys.version.split()[0]
    try:
        setattr(error, VERSIONS, found)
    except Exception:  # noqa: BLE001
        # an exception class of the user's may refuse attributes: then the host adds nothing
        pass


def is_standard(package: str) -> bool:
    """Return True for packages of the standard library, and for ours."""
    if package in ("wetlands_executor", "_wetlands_worker", "builtins", "cloudpickle"):
        return True
    names: Any = getattr(sys, "stdlib_module_names", None)
    if names is not None:
        return package in names
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in sys.builtin_module_names or (
        "site-packages" not in file and file.startswith(sys.base_prefix)
    )


def version_of(package: str) -> str:
    """Return the version of a loaded package; empty if it does not tell."""
    version = getattr(sys.modules.get(package), "__version__", "")
    return version if isinstance(version, str) else ""
