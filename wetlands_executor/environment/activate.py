"""The complete variables for a process of an environment, as activation would have left them.

Owns the order of conda's activation (conda/activate.py) and the cache of its one expensive step,
the shell. Any thread may enter.

The order: the host's own activation is taken off; PATH and CONDA_* of the new prefix are put on;
``etc/conda/env_vars.d/*.json``; ``conda-meta/state``, which overrides; ``etc/conda/activate.d/*``
sorted by name and then the caller's lines, in one shell. Without a script or a line no process is
started. The host's ``deactivate.d`` scripts are not run: what its own activation has left is found
by name and by value (``inherited.TABLE``).
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Final

from wetlands_executor.environment import _platform, frozen
from wetlands_executor.environment.condarc import forces_upper_case
from wetlands_executor.environment.inherited import without_leaks
from wetlands_executor.environment.shell import variables_after
from wetlands_executor.errors import ActivationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wetlands_executor.environment.layout import Located

_UNSET: Final = "***unset***"
#: File of a prefix with variables that were asked for when this library made it.
VARIABLES: Final = "wetlands-variables.json"

#: Answers of the shell that are kept; a program that alternates between more than these pays a few
#: milliseconds each time.
CACHE_SIZE: Final = 32
_Key = tuple[object, ...]
# Least recently used first. No lock, which an exception from a signal handler could leave locked
# for the thread that starts workers: each step here is harmless if another thread comes in between.
# Two first callers may both run the shell.
_cache: dict[_Key, dict[str, str]] = {}


def activation(
    env: Located,
    extra_lines: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> dict[str, str]:
    """Return the complete variables for a process of an environment.

    Args:
        env: the environment.
        extra_lines: shell lines to run after its activation scripts, in the same shell.
        environ: variables of the host; None stands for those of this process.
        timeout: seconds that scripts and lines together may take.

    Returns:
        A dictionary of the caller's own.

    Raises:
        ActivationError: a file cannot be read, or a script or line failed; the message names it and
            holds what it wrote.
    """
    host = frozen.without_bundle(_platform.normalized(os.environ if environ is None else environ))
    base = host if env.kind == "current" else _before_scripts(env, host)
    scripts = activation_scripts(env)
    lines = tuple(extra_lines)
    if not scripts and not lines:
        return base
    # The key holds all that the answer depends on. The JSON files are in it by their effect on
    # `base`. Race: a script that changes between this look and its run is cached under the older
    # look, which the next call does not match.
    startup = base.get("BASH_ENV", "") if lines else ""
    files = (*scripts, *([startup] if os.path.isfile(startup) else ()))
    key = (
        env,
        lines,
        tuple(map(_fingerprint, files)),
        frozenset(base.items()),
        _cwd() if lines else "",
    )
    found = _cache.pop(key, None)
    if found is None:
        found = variables_after(env.label, str(env.python), scripts, lines, base, timeout)
    _cache[key] = found
    while len(_cache) > CACHE_SIZE:
        try:
            _cache.pop(next(iter(_cache)), None)
        except (RuntimeError, StopIteration):
            pass  # another thread has changed it in between
    return dict(found)


def forget() -> None:
    """Empty the cache, for scripts that depend on more than themselves and the variables."""
    _cache.clear()


def _before_scripts(env: Located, host: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment as they are before its scripts run."""
    prefix = str(env.prefix)
    result = without_leaks(host, prefix)
    if env.kind == "venv":
        first = _platform.venv_path_dirs(prefix)
        result["VIRTUAL_ENV"] = prefix
    elif env.kind == "python":
        first = _platform.python_path_dirs(str(env.python))
    else:
        first = _platform.conda_path_dirs(prefix)
        default_env = _default_env(env)
        result.update(
            CONDA_PREFIX=prefix,
            CONDA_SHLVL="1",
            CONDA_DEFAULT_ENV=default_env,
            CONDA_PROMPT_MODIFIER=f"({default_env}) ",
        )
    own = os.path.join(prefix, VARIABLES)
    if os.path.exists(own):  # of an environment that this library has made
        result.update(
            {name: value for name, value in _variables(own, None, env.label).items() if value}
        )
    result["PATH"] = os.pathsep.join([*first, *_path_without(host, first)])
    if env.kind in ("conda", "pixi"):
        for name, value in _declared(prefix, env.label).items():
            if value is None:
                result.pop(name, None)
            elif value != _UNSET:
                # as conda: such an entry is as good as absent, a value of the host's stays
                result[name] = value
    return result


def _default_env(env: Located) -> str:
    """Return CONDA_DEFAULT_ENV by conda's rule.

    A name only where conda itself would find the environment by it.
    """
    if env.kind == "pixi" or env.name == "base":
        return str(env.name)
    return env.prefix.name if env.prefix.parent.name == "envs" else str(env.prefix)


def _path_without(host: Mapping[str, str], new: Sequence[str]) -> list[str]:
    """Return the host's PATH without the folders of its active environments.

    Those in ``new``, which come first anyway, are left out too.
    """
    gone = set(map(_normal, new))
    for name, value in host.items():
        if re.fullmatch(r"CONDA_PREFIX(_\d+)?", name) and value:
            gone.update(map(_normal, _platform.conda_path_dirs(value)))
        elif name == "VIRTUAL_ENV" and value:
            gone.update(map(_normal, _platform.venv_path_dirs(value)))
    path = host.get("PATH") or os.defpath
    return [
        folder for folder in path.split(os.pathsep) if not folder or _normal(folder) not in gone
    ]


def _normal(folder: str) -> str:
    return os.path.normcase(os.path.normpath(folder))


def _declared(prefix: str, label: str) -> dict[str, str | None]:
    """Return the variables that packages and ``conda env config vars`` declare.

    None is a variable to take away.
    """
    declared: dict[str, str | None] = {}
    folder = os.path.join(prefix, "etc", "conda", "env_vars.d")
    for name in _listed(folder):
        if name.endswith(".json"):
            declared.update(_variables(os.path.join(folder, name), None, label))
    state = os.path.join(prefix, "conda-meta", "state")
    if os.path.exists(state):
        declared.update(_variables(state, "env_vars", label))
    if all(name == name.upper() for name in declared) or (
        not _platform.WINDOWS and not forces_upper_case(prefix)
    ):
        return declared
    return {name.upper(): value for name, value in declared.items()}


def _variables(file: str, member: str | None, label: str) -> dict[str, str | None]:
    """Return the variables of one JSON file."""
    try:
        with open(file, encoding="utf-8") as stream:
            content = json.load(stream)
        if member is not None:
            content = content.get(member) or {}
        result: dict[str, str | None] = {}
        for name, value in content.items():
            if value is not None and not isinstance(value, (str, int, float)):
                raise TypeError(f"the value of {name!r} is a {type(value).__name__}")
            text = None if value is None else str(value)
            if not name or "=" in name or "\0" in name or (text and "\0" in text):
                raise ValueError(f"{name!r} is no variable that a process can have")
            result[name] = text
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # ValueError: no JSON; AttributeError: no object
        raise ActivationError(
            f"activating {label}: {file!r} cannot be read as variables: {error}"
        ) from error
    return result


def activation_scripts(env: Located) -> list[str]:
    """Return the activation scripts of an environment, in the order in which conda sources them."""
    if env.kind not in ("conda", "pixi"):
        return []
    folder = os.path.join(str(env.prefix), "etc", "conda", "activate.d")
    suffix = _platform.script_suffix()
    paths = [
        os.path.join(folder, name)
        for name in _listed(folder)
        if name.endswith(suffix) and not name.startswith(".")
    ]
    scripts = [path for path in paths if os.path.isfile(path)]
    for path in scripts:
        if not os.access(path, os.R_OK):
            raise ActivationError(
                f"activating {env.label}: the script {path!r} cannot be read; "
                f"correct its permissions"
            )
    return scripts


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ActivationError(
            f"the activation files in {folder!r} cannot be listed: {error}"
        ) from error


def _fingerprint(path: str) -> tuple[object, ...]:
    status = os.stat(path)
    return path, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _cwd() -> str:
    """Return the folder in which the caller's lines run; they may name files relative to it."""
    try:
        return os.getcwd()
    except OSError:  # it was removed; the shell will say so if it matters
        return ""
