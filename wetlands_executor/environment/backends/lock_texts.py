"""Lock texts that are written here, from which an environment is made again.

``pylock.toml`` (PEP 751) for PyPI packages, ``pixi.lock`` (version 6) for conda and PyPI packages,
``@EXPLICIT`` lists for conda packages, and requirements with hashes. What uv, pip and pixi have
written themselves is kept as it is, unless it depends on a folder, a group or an extra.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from wetlands_executor.environment import libraries
from wetlands_executor.environment.pins import CondaPin, PyPIPin
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.subdir import subdir

#: What YAML 1.1 reads as something else than a text.
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


@dataclass(frozen=True, slots=True)
class Locked:
    """A PyPI package of a lock.

    Attributes:
        name, version: of the package.
        url: of its file, folder or repository.
        hashes: algorithm to hexadecimal digits.
        editable: it is a folder that is installed in editable mode.
    """

    name: str
    version: str
    url: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    editable: bool = False


def locked(pin: PyPIPin, tags: Sequence[str] | None) -> Locked | None:
    """Return a package of a lock with the one archive that was installed.

    Args:
        pin: the package, with all its archives.
        tags: those of the wheel that was installed; none if it was built here.

    Returns:
        None if it is not clear which archive that was.
    """
    version = pin.version or ""
    if pin.url is not None:
        hashes = dict(each.split(":", 1) for each in pin.hashes)
        return Locked(pin.name, version, pin.url, hashes, pin.editable)
    wheels = [each for each in pin.archives if each[0].endswith(".whl")]
    fitting = [each for each in wheels if tags and set(tags) == set(_tags_of(each[0]))]
    others = [each for each in pin.archives if not each[0].endswith(".whl")]
    # Some wheels are renamed and keep their tags; if there is one alone, it was that.
    found = fitting or (others if not wheels else wheels if not others else [])
    if len(found) != 1:
        return None
    url, digest = found[0]
    return Locked(pin.name, version, url, dict([digest.split(":", 1)]) if digest else {})


def _tags_of(url: str) -> Iterator[str]:
    stem = unquote(urlsplit(url).path).rsplit("/", 1)[-1].removesuffix(".whl")
    parts = [part.split(".") for part in stem.rsplit("-", 3)[1:]]
    return ("-".join(each) for each in itertools.product(*parts))


def locked_folder(path: str) -> Locked:
    """Return a project that is installed in editable mode; extras behind its path are left out."""
    folder = path if Path(path).exists() else re.sub(r"\[[^\]]*\]$", "", path)
    try:
        text = Path(folder, "pyproject.toml").read_text(encoding="utf-8")
        name = str(next(iter(libraries.toml())).loads(text)["project"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        name = Path(folder).name
    return Locked(name, "", Path(folder).as_uri(), editable=True)


def needs_rewriting(spec: EnvironmentSpec) -> bool:
    """Return True if the text of a spec's lock alone does not say all."""
    beside = spec.pypi or spec.editable or spec.options.find_links or spec.options.index_url
    return bool(
        beside
        or spec.lock_groups
        or spec.lock_extras
        or spec.lock_folder
        or spec.options.extra_index_urls
    )


def toml_text(value: str) -> str:
    """Return a basic string of TOML; JSON's escapes are a part of TOML's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def pinned_requirements(python: str, packages: Mapping[str, str]) -> str:
    """Return requirements of exactly these packages, for this Python; there may be none.

    Args:
        python: version of the Python in which they are.
        packages: name to version.
    """
    pins = [f"{name}=={version}" for name, version in packages.items()]
    # the first line is LOCKED_REQUIREMENTS of formats/detect.py
    return "\n".join([f"# Python {python}, locked by wetlands-executor", *pins, ""])


# ------------------------------------------------------------------------------------ pylock.toml


def pylock(python: str, packages: Iterable[Locked]) -> str:
    """Return a pylock.toml (PEP 751) that installs exactly these packages.

    Args:
        python: version of the Python for which they were chosen.
        packages: the packages.
    """
    packages = list(packages)
    text = _head(python, packages)
    for package in sorted(packages, key=lambda each: each.name.lower()):
        text += _package(package.name, package.version)
        url = urlsplit(package.url)
        if not package.hashes and url.scheme == "file":
            text.append(_directory(package.url, package.editable))
            continue
        file = unquote(url.path).rsplit("/", 1)[-1]
        entry = _archive(package.url, package.hashes)
        text.append(f"wheels = [{entry}]" if file.endswith(".whl") else f"sdist = {entry}")
    return "\n".join([*text, ""])


def pylock_of_pins(python: str, pins: Sequence[PyPIPin]) -> str | None:
    """Return a pylock.toml that installs the packages of another lock.

    Args:
        python: version of the Python for which they were chosen.
        pins: the packages.

    Returns:
        None if the other lock does not say enough: an archive elsewhere without its hash.
    """
    text = _head(python, pins)
    for pin in sorted(pins, key=lambda each: each.name.lower()):
        text += _package(pin.name, pin.version)
        if pin.url is None:
            archives = [_hashed(url, digest) for url, digest in pin.archives]
            wheels = [entry for url, entry in archives if url.endswith(".whl") and entry]
            others = [entry for url, entry in archives if not url.endswith(".whl") and entry]
            if not wheels and not others:
                return None
            if pin.index is not None:
                text.append(f"index = {toml_text(pin.index)}")
            text += [f"sdist = {entry}" for entry in others[:1]]
            text += [f"wheels = [{', '.join(wheels)}]"] if wheels else []
            continue
        line = _direct(pin)
        if line is None:
            return None
        text.append(line)
    return "\n".join([*text, ""])


def _head(python: str, packages: Sequence[object]) -> list[str]:
    minor = ".".join(python.split(".")[:2])
    return [
        'lock-version = "1.0"',
        'created-by = "wetlands-executor"',
        f"requires-python = {toml_text(f'=={minor}.*')}",
        *([] if packages else ["packages = []"]),
    ]


def _package(name: str, version: str | None) -> list[str]:
    normal = re.sub(r"[-_.]+", "-", name).lower()
    lines = ["", "[[packages]]", f"name = {toml_text(normal)}"]
    return [*lines, f"version = {toml_text(version)}"] if version is not None else lines


def _directory(url: str, editable: bool) -> str:
    end = ", editable = true" if editable else ""
    return f"directory = {{ path = {toml_text(_path_of(url))}{end} }}"


def _archive(url: str, hashes: Mapping[str, str]) -> str:
    place = f"path = {toml_text(_path_of(url))}" if url.startswith("file:") else None
    place = place or f"url = {toml_text(url)}"
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    found = ", ".join(f"{kind} = {toml_text(value)}" for kind, value in hashes.items())
    return f"{{ name = {toml_text(name)}, {place}, hashes = {{ {found} }} }}"


def _hashed(url: str, digest: str | None) -> tuple[str, str | None]:
    """Return the entry of an archive; the hash of one on this machine is found out if need be."""
    if digest is None and url.startswith("file:"):
        try:
            data = Path(_path_of(url)).read_bytes()
        except OSError:
            return url, None
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest is None:
        return url, None
    kind, _, value = digest.partition(":")
    return url, _archive(url, {kind: value})


def _direct(pin: PyPIPin) -> str | None:
    """Return the line for a package that comes from a URL, a repository or a folder."""
    assert pin.url is not None
    plain, _, fragment = pin.url.partition("#")
    found = re.search(r"subdirectory=([^&]+)", fragment)
    inner = f", subdirectory = {toml_text(found[1])}" if found else ""
    repository = re.fullmatch(r"(\w+)\+(.+)@([^@/]+)", plain)
    if repository is not None:
        kind, url, commit = repository.groups()
        return (
            f"vcs = {{ type = {toml_text(kind)}, url = {toml_text(url)}, "
            f"commit-id = {toml_text(commit)}{inner} }}"
        )
    if plain.startswith("file:") and Path(_path_of(plain)).is_dir():
        return _directory(plain, pin.editable)
    digest = pin.hashes[0] if pin.hashes else None
    _, entry = _hashed(plain, digest)
    if entry is None:
        return None
    return f"archive = {_without_name(entry, inner)}"


def _without_name(entry: str, inner: str) -> str:
    return "{ " + re.sub(r"^\{ name = \"[^\"]*\", ", "", entry).removesuffix(" }") + f"{inner} }}"


def _path_of(url: str) -> str:
    return url2pathname(urlsplit(url).path)


# ------------------------------------------------------------------------------------ requirements


def requirements(spec: EnvironmentSpec) -> str:
    """Return a file of requirements for a spec whose lock is one."""
    options = spec.options
    lines = ["--no-index"] if options.no_index else []
    if options.index_url is not None:
        lines.append(f"--index-url {shlex.quote(options.index_url)}")
    lines += [f"--extra-index-url {shlex.quote(each)}" for each in options.extra_index_urls]
    lines += [f"--find-links {shlex.quote(each)}" for each in options.find_links]
    lines += (spec.lock or "").splitlines()
    for text in spec.pypi:
        name, _, url = text.partition("@")
        # Read as what is installed without a hash; nothing is edited.
        lines.append(f"-e {url.strip()}#egg={name.strip()}")
    lines += [f"-e {each}" for each in spec.editable]
    return "\n".join([*lines, ""])


# ---------------------------------------------------------------------------------- conda packages


def explicit(urls: Sequence[str]) -> str:
    """Return an ``@EXPLICIT`` list.

    Args:
        urls: of the packages, with their hashes behind ``#``.
    """
    return "\n".join([f"# platform: {subdir()}", "@EXPLICIT", *urls, ""])


def pixi(conda: Sequence[CondaPin], pypi: Sequence[Locked]) -> str:
    """Return a ``pixi.lock`` (version 6) with one environment for this platform.

    Args:
        conda: the conda packages.
        pypi: the PyPI packages.
    """
    channels = dict.fromkeys(pin.url.rsplit("/", 2)[0] + "/" for pin in conda)
    text = ["version: 6", "environments:", "  default:", "    channels:"]
    text += [f"    - url: {_scalar(each)}" for each in channels]
    if pypi:
        text += ["    indexes:", "    - https://pypi.org/simple"]
    text += ["    packages:", f"      {subdir()}:"]
    text += [f"      - conda: {_scalar(pin.url)}" for pin in conda]
    text += [f"      - pypi: {_scalar(each.url)}" for each in pypi]
    text.append("packages:")
    for pin in conda:
        text += _entry("conda", pin.url, [("sha256", pin.sha256), ("md5", pin.md5)])
    for each in pypi:
        told = [
            ("name", re.sub(r"[-_.]+", "-", each.name).lower()),
            ("version", each.version or None),
            ("sha256", each.hashes.get("sha256")),
        ]
        text += _entry("pypi", each.url, told)
        if each.editable:
            text.append("  editable: true")
    return "\n".join([*text, ""])


def _entry(kind: str, url: str, told: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    yield f"- {kind}: {_scalar(url)}"
    for key, value in told:
        if value is not None:
            yield f"  {key}: {_scalar(value)}"


def _scalar(text: str) -> str:
    """Return a text as YAML writes it: in quotes if it might be read as something else."""
    is_plain = re.fullmatch(r"[A-Za-z][\w./+@%~-]*(://[\w./+@%~&=#?!-]*)?", text, re.ASCII)
    if is_plain and text.lower() not in _WORDS:
        return text
    return "'" + text.replace("'", "''") + "'"
