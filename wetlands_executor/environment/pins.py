"""From a lock to the exact packages that are to be installed on one platform, for one Python.

What a lock says for several platforms and Pythons is narrowed down here, so that a backend installs
a list: of URLs of conda packages, and of lines of a requirements file that have hashes. Reads
nothing but the spec's own text; starts no process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from wetlands_executor.environment import libraries
from wetlands_executor.environment.formats import nodes, pixi_lock, tables, uv_lock
from wetlands_executor.environment.formats.source import Source
from wetlands_executor.environment.formats.tables import Table
from wetlands_executor.environment.formats.uv_settings import normalized
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import SpecError

#: A program for the Python of the environment: prints the variables of markers, as JSON.
MARKERS_PROGRAM = """
import json, os, platform, sys
v = sys.implementation.version
end = v.releaselevel[0] + str(v.serial) if v.releaselevel != "final" else ""
print(json.dumps({
    "implementation_name": sys.implementation.name,
    "implementation_version": "%d.%d.%d" % v[:3] + end,
    "os_name": os.name, "platform_machine": platform.machine(),
    "platform_release": platform.release(), "platform_system": platform.system(),
    "platform_version": platform.version(), "python_full_version": platform.python_version(),
    "platform_python_implementation": platform.python_implementation(),
    "python_version": ".".join(platform.python_version_tuple()[:2]), "sys_platform": sys.platform,
}))
"""
_ALGORITHMS = ("sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaPin:
    """One conda package.

    Attributes:
        url: of its archive.
        sha256: its hash, hexadecimal; None if the lock has none.
        md5: the same.
    """

    url: str
    sha256: str | None = None
    md5: str | None = None

    def line(self) -> str:
        """Return it as a line of an ``@EXPLICIT`` list.

        conda reads a SHA-256 hash with and without its name before it, micromamba only with it.
        """
        if self.sha256:
            return f"{self.url}#sha256:{self.sha256}"
        return f"{self.url}#{self.md5}" if self.md5 else self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class PyPIPin:
    """One PyPI package.

    Attributes:
        name: of it.
        version: exact; None if ``url`` decides.
        url: of its archive, repository or folder; None if an index has it.
        hashes: of its archives, ``"sha256:..."``.
        index: URL of the index that has it; None is any.
        editable: True if it is a folder that is installed in editable mode.
        archives: URLs of what the index has of that version, each with its hash or None.
    """

    name: str
    version: str | None = None
    url: str | None = None
    hashes: tuple[str, ...] = ()
    index: str | None = None
    editable: bool = False
    archives: tuple[tuple[str, str | None], ...] = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of this machine that stand for an index of it; empty if it has a real one."""
        local = [_parent(url) for url, _ in self.archives if url.startswith("file:")]
        return tuple(dict.fromkeys(local))

    def line(self) -> str:
        """Return it as a line of a requirements file."""
        if self.editable:
            return f"-e {self.url}"
        asked = f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"
        return " ".join([asked, *(f"--hash={each}" for each in self.hashes)])


def conda_pins(spec: EnvironmentSpec, platform: str) -> tuple[CondaPin, ...]:
    """Return the conda packages of an ``explicit`` or ``pixi`` lock on a platform (``linux-64``).

    Raises:
        SpecError: the lock does not have that platform.
    """
    if spec.lock is None or spec.lock_format not in ("explicit", "pixi"):
        return ()
    if spec.lock_format == "explicit":
        return tuple(_explicit(spec, spec.lock))
    root = nodes.parse(_source(spec))
    known = _records(root, "conda")
    pins = []
    for kind, address, _ in pixi_lock.packages_of(root, _environment(spec), platform):
        if kind == "conda":
            record = known.get(address)
            pins.append(
                CondaPin(
                    url=_uri(spec, address),
                    sha256=_scalar(record, "sha256"),
                    md5=_scalar(record, "md5"),
                )
            )
    return tuple(pins)


def pypi_pins(
    spec: EnvironmentSpec, platform: str, markers: Mapping[str, str]
) -> tuple[PyPIPin, ...]:
    """Return the PyPI packages of a ``pylock``, ``uv`` or ``pixi`` lock for one Python.

    Those of a ``requirements`` lock are its own lines, which installers read.

    pip wants hashes for every line of one call or for none: folders and repositories, which have
    none, go into a second call.

    Args:
        spec: has the lock.
        platform: conda's name of it, for a ``pixi`` lock.
        markers: what the Python of the environment has answered to ``MARKERS_PROGRAM``.

    Raises:
        SpecError: the lock does not have that platform, or is not for that Python.
    """
    if spec.lock is None:
        return ()
    if spec.lock_format == "pixi":
        return tuple(_of_pixi(spec, platform))
    if spec.lock_format == "pylock":
        return tuple(_of_pylock(spec, tables.parse(_source(spec)), dict(markers)))
    if spec.lock_format == "uv":
        return tuple(_UvGraph(spec, tables.parse(_source(spec)), dict(markers)).pins())
    return ()


def _source(spec: EnvironmentSpec) -> Source:
    return Source("the lock", spec.lock_folder or os.curdir, spec.lock or "")


def _environment(spec: EnvironmentSpec) -> str | None:
    return spec.lock_groups[0] if spec.lock_groups else None


def _uri(spec: EnvironmentSpec, address: str, folder: str = "") -> str:
    if "://" in address:
        return address
    path = os.path.join(spec.lock_folder or os.curdir, folder, address)
    return Path(os.path.abspath(path)).as_uri()


def _parent(url: str) -> str:
    return os.path.dirname(url2pathname(urlsplit(url).path))


def _explicit(spec: EnvironmentSpec, text: str) -> Iterator[CondaPin]:
    for line in text.splitlines():
        if line and not line.startswith(("#", "@")):
            address, _, digest = line.partition("#")
            digest = digest.removeprefix("sha256:")
            yield CondaPin(
                url=_uri(spec, os.path.expanduser(address)),
                sha256=digest if len(digest) == 64 else None,
                md5=digest if len(digest) == 32 else None,
            )


def _records(root: nodes.Node, kind: str) -> dict[str, dict[str, nodes.Node]]:
    """Return what a pixi lock tells of its packages, by address; older versions have ``url``."""
    found = {}
    for entry in root.get("packages").list():
        record = dict(entry.items())
        address = record.get(kind) or record.get("url") or record.get("path")
        if address:
            found[address.text()] = record
    return found


def _scalar(record: dict[str, nodes.Node] | None, key: str) -> str | None:
    node = record.get(key) if record is not None else None
    return node.text() if node else None


def _of_pixi(spec: EnvironmentSpec, platform: str) -> Iterator[PyPIPin]:
    root = nodes.parse(_source(spec))
    known = _records(root, "pypi")
    for kind, address, entry in pixi_lock.packages_of(root, _environment(spec), platform):
        if kind != "pypi":
            continue
        record = known.get(address)
        name = _scalar(record, "name")
        if name is None:
            raise entry.error(f"the lock tells nothing of {address!r}", "Lock again: pixi lock.")
        digest = _scalar(record, "sha256")
        url = _uri(spec, address.removeprefix("direct+"))
        yield PyPIPin(
            name=name,
            version=_scalar(record, "version"),
            url=url,
            hashes=(f"sha256:{digest}",) if digest and "://" in address else (),
            editable=_scalar(record, "editable") == "true",
        )


def _of_pylock(spec: EnvironmentSpec, root: Table, markers: dict[str, str]) -> Iterator[PyPIPin]:
    _check_python(root, markers)
    groups = spec.lock_groups or root.texts("default-groups")
    selected: dict[str, Any] = {
        **markers, "extras": frozenset(map(normalized, spec.lock_extras)),
        "dependency_groups": frozenset(map(normalized, groups)),
    }  # fmt: skip
    environments = root.texts("environments")
    if environments and not any(_holds(root, each, markers) for each in environments):
        raise root.error(
            f"the lock is for {' or '.join(environments)}", "Lock for this machine.", "environments"
        )
    for package in root.tables("packages"):
        marker = package.text("marker")
        if marker is None or _holds(package, marker, selected, "lock_file"):
            yield _pylock_pin(spec, package)


def _pylock_pin(spec: EnvironmentSpec, package: Table) -> PyPIPin:
    name = package.needed("name")
    for key in ("vcs", "directory", "archive"):
        if key not in package:
            continue
        origin = package.table(key)
        address = origin.text("url") or origin.needed("path")
        fragment = origin.text("subdirectory")
        end = f"#subdirectory={fragment}" if fragment else ""
        if key == "vcs":
            url = f"{origin.needed('type')}+{_uri(spec, address)}@{origin.needed('commit-id')}"
            return PyPIPin(name=name, url=url + end)
        return PyPIPin(
            name=name,
            url=_uri(spec, address) + end,
            hashes=_digests([origin]) if key == "archive" else (),
            editable=key == "directory" and bool(origin.flag("editable")),
        )
    archives = [
        *package.tables("wheels"),
        *([package.table("sdist")] if "sdist" in package else []),
    ]
    if not archives:
        raise package.error(f"the lock has no archive of {name!r}", "Lock again.")
    version = package.text("version")
    found = tuple(
        (_uri(spec, each.text("url") or each.needed("path")), next(iter(_digests([each])), None))
        for each in archives
    )
    if version is None:
        if len(archives) > 1:
            raise package.error(f"the lock does not say the version of {name!r}", "Lock again.")
        return PyPIPin(name=name, url=found[0][0], hashes=_digests(archives))
    return PyPIPin(
        name=name,
        version=version,
        hashes=_digests(archives),
        index=package.text("index"),
        archives=found,
    )


def _digests(archives: list[Table]) -> tuple[str, ...]:
    found = []
    for archive in archives:
        hashes = archive.table("hashes")
        for algorithm in _ALGORITHMS:
            digest = hashes.text(algorithm)
            if digest:
                found.append(f"{algorithm}:{digest}")
                break
    return tuple(dict.fromkeys(found))


def _holds(
    table: Table, marker: str, environment: Mapping[str, Any], context: str = "metadata"
) -> bool:
    markers = libraries.packaging("markers")
    if markers is None or not hasattr(markers.Marker, "evaluate"):
        raise _lacks_packaging(table)
    try:
        if context == "metadata":
            return bool(markers.Marker(marker).evaluate(dict(environment)))
        return bool(markers.Marker(marker).evaluate(dict(environment), context=context))
    except TypeError as error:  # older releases know no context
        raise _lacks_packaging(table) from error
    except (markers.InvalidMarker, markers.UndefinedComparison, KeyError) as error:
        reason = " ".join(str(error).split())
        raise table.error(f"{marker!r} is no marker: {reason}", "Lock again.") from error


def _lacks_packaging(table: Table) -> SpecError:
    return table.source.error(
        "reading this lock takes the package 'packaging', 25.0 or newer",
        f"Install it, or this library with the extra '{libraries.EXTRA}'.",
    )


def _check_python(root: Table, markers: Mapping[str, str]) -> None:
    wanted, has = root.text("requires-python"), markers.get("python_full_version")
    specifiers = libraries.packaging("specifiers")
    if not wanted or not has or specifiers is None:
        return
    if not specifiers.SpecifierSet(wanted).contains(has, prereleases=True):
        raise root.error(
            f"the lock is for Python {wanted}, and the environment has {has}",
            "Choose another Python.",
            "requires-python",
        )


class _UvGraph:
    """The packages of a ``uv.lock``, walked from the project along what holds for one Python."""

    def __init__(self, spec: EnvironmentSpec, root: Table, markers: dict[str, str]) -> None:
        self._spec = spec
        self._root = root
        self._markers = markers
        self._by_name: dict[str, list[Table]] = {}
        for package in root.tables("package"):
            self._by_name.setdefault(package.needed("name"), []).append(package)

    def pins(self) -> Iterator[PyPIPin]:
        """List what is to be installed, each once."""
        _check_python(self._root, self._markers)
        reached: dict[int, Table] = {}
        walked: set[tuple[int, str]] = set()
        waiting = self._first()
        while waiting:
            package, extra = waiting.pop()
            if (id(package.data), extra) in walked:
                continue
            walked.add((id(package.data), extra))
            reached[id(package.data)] = package
            waiting += self._needs(package, extra)
        for package in sorted(reached.values(), key=lambda each: each.needed("name")):
            if "virtual" not in package.table("source"):
                yield self._pin(package)

    def _first(self) -> list[tuple[Table, str]]:
        project = uv_lock.project_of(self._root)
        if project is None:
            entries = self._root.table("manifest").tables("requirements")
            found = []
            for entry in entries:
                if self._applies(entry):
                    named = self._by_name.get(entry.needed("name"), [])
                    found += [(named[0], each) for each in ("", *entry.texts("extras")) if named]
            return found
        first = [(project, ""), *((project, extra) for extra in self._spec.lock_extras)]
        groups = project.table("dev-dependencies")
        for name in groups:
            if normalized(name) in map(normalized, self._spec.lock_groups):
                for entry in groups.tables(name):
                    first += self._follow(entry)
        return first

    def _needs(self, package: Table, extra: str) -> list[tuple[Table, str]]:
        entries = package.tables("dependencies")
        if extra:
            optional = package.table("optional-dependencies")
            entries = [
                entry
                for name in optional
                if normalized(name) == normalized(extra)
                for entry in optional.tables(name)
            ]
        return [each for entry in entries for each in self._follow(entry)]

    def _follow(self, entry: Table) -> list[tuple[Table, str]]:
        if not self._applies(entry):
            return []
        version, source = entry.text("version"), entry.data.get("source")
        fitting = [
            package
            for package in self._by_name.get(entry.needed("name"), [])
            if (version is None or package.text("version") == version)
            and (source is None or package.data.get("source") == source)
        ]
        if len(fitting) != 1:
            raise entry.error(
                f"the lock has {len(fitting)} packages for {entry.needed('name')!r}",
                "Lock again: uv lock.",
            )
        return [(fitting[0], extra) for extra in ("", *entry.texts("extra"))]

    def _applies(self, entry: Table) -> bool:
        marker = entry.text("marker")
        return marker is None or _holds(entry, marker, self._markers)

    def _pin(self, package: Table) -> PyPIPin:
        name, source = package.needed("name"), package.table("source")
        hashes = self._hashes(package)
        if "git" in source:
            found = re.fullmatch(r"([^?#]+)(?:\?([^#]*))?#([0-9a-f]+)", source.needed("git"))
            if found is None or "lfs=true" in (found[2] or ""):
                raise source.error(f"{name!r} comes from {source.text('git')!r}", "Lock again.")
            folder = re.search(r"subdirectory=([^&]+)", found[2] or "")
            end = f"#subdirectory={folder[1]}" if folder else ""
            return PyPIPin(name=name, url=f"git+{found[1]}@{found[3]}{end}")
        if "url" in source:
            folder_of_url = source.text("subdirectory")
            end = f"#subdirectory={folder_of_url}" if folder_of_url else ""
            return PyPIPin(name=name, url=source.needed("url") + end, hashes=hashes)
        for key in ("path", "directory", "editable"):
            if key in source:
                url = _uri(self._spec, source.needed(key))
                own = hashes if key == "path" else ()
                return PyPIPin(name=name, url=url, hashes=own, editable=key == "editable")
        index = source.needed("registry")
        local = index if "://" not in index else ""
        archives = [
            (_uri(self._spec, each.text("url") or each.needed("path"), local), each.text("hash"))
            for each in _archives(package)
        ]
        return PyPIPin(
            name=name,
            version=package.needed("version"),
            hashes=hashes,
            index=None if local else index,
            archives=tuple(archives),
        )

    @staticmethod
    def _hashes(package: Table) -> tuple[str, ...]:
        found = [archive.text("hash") for archive in _archives(package)]
        return tuple(dict.fromkeys(each for each in found if each))


def _archives(package: Table) -> list[Table]:
    """Return the archives that a ``uv.lock`` lists of a package."""
    return [each for each in (package.table("sdist"), *package.tables("wheels")) if each]
