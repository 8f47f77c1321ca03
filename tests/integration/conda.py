"""A real conda prefix without conda and without a network.

Repackage an interpreter, install the package with the standard library.

Owns the way from "there is a CPython here" to a prefix that conda itself would recognise::

    python = find_interpreter("3.12")                     # or a path, or None: the one that runs
    the tests factory = CondaPrefixFactory(folder)                  # keeps the extracted packages,
    as conda's `pkgs` folder does prefix = factory(dst, python=python, activate_scripts={"a.sh":
    "export A=1"}, env_vars={"B": "2"})

A package is a folder as conda extracts it: the files, ``info/index.json`` and ``info/paths.json``.
Text files that name the old prefix hold conda's kind of placeholder in the package and the new
prefix once they are installed; one binary file does so too, padded with NUL as conda pads it. The
interpreter's RUNPATH is overwritten by ``$ORIGIN``. What cannot be made is a ``CannotMake`` with
the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Stands for the prefix in a package; as long as conda's own, so that any real prefix fits into its
#: place.
PLACEHOLDER = ("/placeholder_of_the_prefix" * 10)[:255]

#: Parts of the standard library that no test needs.
_SKIPPED_FOLDERS = frozenset(
    {
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "idle_test",
    }
)
_SKIPPED_MODULES = (
    "_test",
    "_ctypes_test",
    "_tkinter",
    "_xxtestfuzz",
    "xxlimited",
    "_codecs_",
    "_dbm",
    "_gdbm",
)
_NAMES_THE_PREFIX = ("_sysconfigdata", "_sysconfig_vars")

_PROBE = """
import json, os, sys, sysconfig
print(json.dumps([list(sys.version_info[:3]), sys.implementation.name, sys.base_prefix,
                  os.path.realpath(sys.executable),
                  sorted({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})]))
"""

#: What the activation scripts of a prefix set unless a test wants others: everything that is hard
#: to carry through a shell.
MULTI = "line 1\nline 2 'single' \"double\" \\ $HOME `x` é ✓\n"
ACTIVATE_SCRIPTS: Mapping[str, str] = {
    "a_values.sh": """
echo "noise on stdout"
echo "noise on stderr" >&2
export WEX_SHARE="$CONDA_PREFIX/share/wex"
export WEX_SEEN_BY_SCRIPT="$WEX_FROM_ENV_VARS_D"
export WEX_ORDER="${WEX_ORDER:-}a"
export WEX_MULTI='line 1
line 2 '\\''single'\\'' "double" \\ $HOME `x` é ✓
'
""",
    "b_order.sh": """
export WEX_ORDER="${WEX_ORDER:-}b"
""",
}
ENV_VARS: Mapping[str, str] = {
    "WEX_FROM_ENV_VARS_D": "yes",
    "WEX_OVERRIDDEN": "by the package",
    "WEX_REMOVED": "by the package",
}
STATE: Mapping[str, str] = {"WEX_OVERRIDDEN": "by the user", "WEX_REMOVED": "***unset***"}


class CannotMake(Exception):
    """A conda prefix cannot be made on this machine; the message says why."""


class _File(NamedTuple):
    """One file of a package: what conda's ``paths.json`` says of it."""

    path: str
    path_type: str = "hardlink"
    placeholder: str | None = None  # "text" or "binary"

    def entry(self, folder: Path) -> dict[str, Any]:
        data = (folder / self.path).read_bytes()
        entry: dict[str, Any] = {
            "_path": self.path,
            "path_type": self.path_type,
            "size_in_bytes": len(data),
        }
        entry["sha256"] = hashlib.sha256(data).hexdigest()
        if self.placeholder:
            entry.update(file_mode=self.placeholder, prefix_placeholder=PLACEHOLDER)
        return entry


def find_interpreter(python: str | os.PathLike[str] | None = None) -> Path:
    """Return the interpreter to repackage.

    By path, by version (``"3.12"``, looked for among pyenv's), or the one that runs the tests.
    """
    if python is None:
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        candidates = [Path(sys.base_prefix, "bin", name), Path(sys.executable)]
    elif re.fullmatch(r"3\.\d+", str(python)):
        roots = [
            Path(root)
            for root in dict.fromkeys(
                [os.environ.get("PYENV_ROOT", ""), os.path.expanduser("~/.pyenv")]
            )
            if root
        ]
        candidates = [
            path for root in roots for path in sorted(root.glob(f"versions/{python}.*/bin/python"))
        ]
        candidates.append(Path(sys.base_prefix, "bin", f"python{python}"))
    else:
        candidates = [Path(python)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise CannotMake(f"there is no interpreter {python or 'of this version'} to repackage")


class CondaPrefixFactory:
    """Makes conda prefixes; the packages of an interpreter are built once."""

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "pkgs"
        self._pythons: dict[Path, Path] = {}
        self._count = 0

    def __call__(
        self,
        dst: str | os.PathLike[str],
        *,
        python: str | os.PathLike[str] | None = None,
        activate_scripts: Mapping[str, str] | None = None,
        env_vars: Mapping[str, str] | None = None,
        state: Mapping[str, str] | None = None,
    ) -> Path:
        """Make a conda prefix.

        Args:
            dst: its folder, which must not exist.
            python: the interpreter to repackage, see ``find_interpreter``.
            activate_scripts: text of the files in ``etc/conda/activate.d``; None:
                ``ACTIVATE_SCRIPTS``.
            env_vars: what a package declares in ``etc/conda/env_vars.d``; None: ``ENV_VARS``.
            state: what the user declared in ``conda-meta/state``; None: ``STATE``, but nothing if
                ``env_vars`` is given.
        """
        prefix = Path(os.path.abspath(dst))
        if len(os.fsencode(prefix)) > len(PLACEHOLDER):
            raise CannotMake(
                f"{prefix} is longer than the {len(PLACEHOLDER)} bytes that conda reserves"
            )
        if state is None:
            state = STATE if env_vars is None else {}
        packages = [self._python_package(find_interpreter(python))]
        packages.append(
            self._activation_package(
                ACTIVATE_SCRIPTS if activate_scripts is None else activate_scripts,
                ENV_VARS if env_vars is None else env_vars,
            )
        )
        install(packages, prefix)
        if state:
            (prefix / "conda-meta" / "state").write_text(
                json.dumps({"env_vars": dict(state)}), encoding="utf-8"
            )
        _verify(prefix)
        return prefix

    def _python_package(self, python: Path) -> Path:
        if python not in self._pythons:
            self._pythons[python] = package_interpreter(python, self.packages)
        return self._pythons[python]

    def _activation_package(self, scripts: Mapping[str, str], env_vars: Mapping[str, str]) -> Path:
        self._count += 1
        folder = self.packages / f"wex-activate-1.{self._count}-0"
        texts = {f"etc/conda/activate.d/{name}": text for name, text in scripts.items()}
        texts["etc/conda/env_vars.d/wex.json"] = json.dumps(dict(env_vars))
        texts["share/wex/prefix.txt"] = f"{PLACEHOLDER}/share/wex\n"
        for name, text in texts.items():
            _new(folder / name).write_text(text, encoding="utf-8")
        _new(folder / "share/wex/prefix.bin").write_bytes(
            b"\x7fBIN\0" + PLACEHOLDER.encode() + b"/share/wex\0tail\0\xff"
        )
        files = [
            _File(name, placeholder="text" if name.startswith("share") else None) for name in texts
        ]
        files.append(_File("share/wex/prefix.bin", placeholder="binary"))
        _write_info(folder, "wex-activate", f"1.{self._count}", files)
        return folder


def package_interpreter(python: Path, packages: Path) -> Path:
    """Return the folder of a conda package that holds an interpreter and its standard library."""
    if sys.platform != "linux":
        raise CannotMake("interpreters are repackaged on Linux only (ELF, $ORIGIN)")
    try:
        done = subprocess.run(
            [python, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=30, check=True
        )
        version, implementation, base, executable, libraries = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise CannotMake(f"{python} does not start: {error}") from error
    if implementation != "cpython":
        raise CannotMake(f"{python} is {implementation}, not CPython")
    number, minor = ".".join(map(str, version)), f"{version[0]}.{version[1]}"
    folder = packages / f"python-{number}-{hashlib.sha256(executable.encode()).hexdigest()[:8]}"
    files = [_File(f"bin/python{minor}")]
    _new(folder / files[0].path).write_bytes(
        _relocatable(Path(executable).read_bytes(), base, "$ORIGIN/../lib")
    )
    (folder / files[0].path).chmod(0o755)
    for name in ("python3", "python"):
        (folder / "bin" / name).symlink_to(f"python{minor}")
        files.append(_File(f"bin/{name}", "softlink"))
    for shared in Path(base, "lib").glob(f"libpython{minor}*.so.1.0"):
        files.append(_File(f"lib/{shared.name}"))
        _new(folder / files[-1].path).write_bytes(
            _relocatable(shared.read_bytes(), base, "$ORIGIN")
        )
    for library in libraries:
        files += _copy_library(Path(library), Path(base), folder)
    files.append(_File(f"lib/python{minor}/site-packages/README.txt"))
    _new(folder / files[-1].path).write_text("third-party modules go here\n")
    _write_info(folder, "python", number, files)
    return folder


def _relocatable(data: bytes, base: str, runpath: str) -> bytes:
    """Overwrite the RUNPATH of an ELF file by a shorter one that is relative to the file itself."""
    old, new = f"{base}/lib".encode() + b"\0", runpath.encode()
    if old not in data:
        return data
    if len(new) >= len(old):
        raise CannotMake(f"the RUNPATH {base}/lib is too short to be overwritten by {runpath}")
    return data.replace(b"\0" + old, b"\0" + new.ljust(len(old), b"\0"))


def _copy_library(library: Path, base: Path, folder: Path) -> Iterator[_File]:
    """Copy the standard library with its bytecode, times included, so that the bytecode stays
    valid.
    """
    if not library.is_relative_to(base):
        raise CannotMake(f"the standard library {library} does not lie in {base}")
    for root, folders, names in os.walk(library):
        folders[:] = [
            name
            for name in folders
            if name not in _SKIPPED_FOLDERS and not name.startswith("config-")
        ]
        for name in names:
            source = Path(root, name)
            if (
                name.endswith((".a", ".exe", ".opt-1.pyc", ".opt-2.pyc"))
                or name.startswith(_SKIPPED_MODULES)
                or not source.exists()
            ):
                continue
            relative = source.relative_to(base).as_posix()
            if name.startswith(_NAMES_THE_PREFIX):
                if name.endswith(".pyc"):
                    continue
                _new(folder / relative).write_bytes(
                    source.read_bytes().replace(str(base).encode(), PLACEHOLDER.encode())
                )
                yield _File(relative, placeholder="text")
            else:
                shutil.copy2(source, _new(folder / relative))
                yield _File(relative)


def _new(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_info(folder: Path, name: str, version: str, files: list[_File]) -> None:
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": [],
        "subdir": "linux-64",
        "license": "PSF-2.0",
    }
    _new(folder / "info" / "index.json").write_text(json.dumps(index))
    paths = {"paths": [file.entry(folder) for file in files], "paths_version": 1}
    (folder / "info" / "paths.json").write_text(json.dumps(paths))


def install(packages: list[Path], prefix: Path) -> None:
    """Install extracted packages into a new prefix, as conda does it.

    Copy, put the prefix in place of the placeholder, keep records.
    """
    meta = prefix / "conda-meta"
    meta.mkdir(parents=True)
    history = [f"==> {time.strftime('%Y-%m-%d %H:%M:%S')} <==", "# cmd: conda create"]
    for package in packages:
        index = json.loads((package / "info" / "index.json").read_text())
        paths = json.loads((package / "info" / "paths.json").read_text())["paths"]
        for entry in paths:
            _install_file(package / entry["_path"], _new(prefix / entry["_path"]), entry, prefix)
        stem = f"{index['name']}-{index['version']}-{index['build']}"
        record = dict(
            index,
            fn=f"{stem}.conda",
            url=package.as_uri(),
            channel="local",
            files=[entry["_path"] for entry in paths],
        )
        record.update(
            paths_data={"paths": paths, "paths_version": 1},
            link={"type": 3, "source": str(package)},
            requested_spec=index["name"],
        )
        (meta / f"{stem}.json").write_text(json.dumps(record))
        history.append(f"+local/linux-64::{stem}")
    (meta / "history").write_text("\n".join(history) + "\n")


def _install_file(source: Path, target: Path, entry: Mapping[str, Any], prefix: Path) -> None:
    if entry["path_type"] == "softlink":
        target.symlink_to(os.readlink(source))
    elif "prefix_placeholder" not in entry:
        shutil.copy2(source, target)
    else:
        old, new, data = (
            entry["prefix_placeholder"].encode(),
            os.fsencode(prefix),
            source.read_bytes(),
        )
        if entry["file_mode"] == "text":
            data = data.replace(old, new)
        else:
            # The string up to its NUL keeps its length: what the prefix is shorter is added behind.

            def shorter(match: re.Match[bytes]) -> bytes:
                return match[0].replace(old, new).ljust(len(match[0]), b"\0")

            data = re.sub(re.escape(old) + rb"[^\0]*", shorter, data)
        target.write_bytes(data)
        shutil.copymode(source, target)


def _verify(prefix: Path) -> None:
    """Start the new interpreter once; that also leaves the bytecode of what was relocated."""
    env = {"PATH": os.environ.get("PATH", os.defpath)}
    code = "import sys, json, sysconfig, threading; sysconfig.get_config_vars(); print(sys.prefix)"
    try:
        done = subprocess.run(
            [prefix / "bin" / "python", "-c", code],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", "")
        raise CannotMake(f"the repackaged interpreter does not start: {error} {detail}") from error
    if done.stdout.strip() != os.path.realpath(prefix) and done.stdout.strip() != str(prefix):
        raise CannotMake(
            f"the repackaged interpreter of {prefix} believes to live in {done.stdout.strip()}"
        )
