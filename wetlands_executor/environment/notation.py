"""How conda, PEP 440 and PEP 508 write what is asked for: checks of texts, and names in them.

Owns the notation only, no object that holds such texts. Pure functions but for the exact check of a
requirement, which imports ``packaging``. Every fault is a ``SpecError`` without a place, to which
the reader of a file adds path and line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from wetlands_executor.environment import libraries
from wetlands_executor.errors import SpecError

LockFormat = Literal["explicit", "pixi", "pylock", "requirements", "uv"]

_CLAUSE = re.compile(r"(===|==|!=|~=|<=|>=|<|>|=|)\s*(v?\d[\w.!+-]*(?:\.\*)?)", re.ASCII)
# name, perhaps behind "channel::" or "channel/subdir::", and what follows it.
_CONDA = re.compile(
    r"(?:[^\s:\[\]]+::)?(?P<name>[A-Za-z0-9_][\w.-]*?)(?P<rest>(?:[\s=<>!~\[*].*)?)", re.ASCII
)
_PYPI = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?\s*(?:$|[\s\[(<>=!~;@])", re.ASCII)
_VERSIONS = "Write '>=3.9,<3.12', '==3.11.*' or '3.11'"
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
#: What no specification ends with.
_OPERATORS = ("=", "<", ">", "!", "~", ",", "|", ":")
_EXTRAS = re.compile(r"\[[\w\s,.-]*\]$")


class FrozenMapping(Mapping[str, str]):
    """A mapping of texts that cannot be changed, so that it can be hashed; in any order."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._items = dict(sorted(dict(items).items()))

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._items,)


def without_credentials(text: str) -> str:
    """Return a text in which the URLs have ``***`` where they had a user name and a password."""
    return _CREDENTIALS.sub("***@", text)


def python_specifier(text: str, name: str = "python") -> str:
    """Return versions of Python as PEP 440 writes them; a bare version stands for its releases.

    Raises:
        SpecError: it is no such text.
    """
    check_text(name, text)
    clauses = []
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause.strip())
        if found is None:
            choice = "; a choice by '|' goes among the conda packages" if "|" in text else ""
            raise SpecError(f"{name} = {text!r} is no set of versions", f"{_VERSIONS}{choice}.")
        operator, version = found[1], found[2].removeprefix("v")
        if operator in ("", "="):
            operator, version = "==", version.removesuffix(".*")
            # three numbers are one release
            version = version if re.fullmatch(r"\d+\.\d+\.\w+", version) else f"{version}.*"
        clauses.append(f"{operator}{version}")
    specifier = ",".join(clauses)
    wrong = libraries.specifier_fault(specifier)
    if wrong is not None:
        raise SpecError(f"{name} = {text!r} is no set of versions: {wrong}", f"{_VERSIONS}.")
    return specifier


def conda_name(text: str, name: str = "conda") -> str:
    """Return the name of the package that a conda specification asks for; of a URL, the URL.

    Raises:
        SpecError: it is no such text.
    """
    check_text(name, text)
    if "://" in text.partition("[")[0]:
        return text
    found = _CONDA.fullmatch(text.strip())
    plain = text.partition("[")[0].rstrip()
    if found is None or re.fullmatch(r"[\d.]+", found["name"]) or plain.endswith(_OPERATORS):
        raise SpecError(
            f"{name} holds {text!r}, which is no conda package",
            "Write it like 'gdal', 'gdal >=3.6,<4' or 'bioconda::samtools=1.19'.",
        )
    return found["name"].lower()


def conda_text(text: str) -> str:
    """Return a conda specification without the blanks that some solvers take for separators.

    ``"numpy >= 1.26, <2"`` becomes ``"numpy >=1.26,<2"``; what is in brackets is kept.
    """
    plain, bracket, rest = text.strip().partition("[")
    plain = re.sub(r"\s*([,|])\s*", r"\1", plain)
    return re.sub(r"([<>=!~])\s+", r"\1", plain) + bracket + rest


def lock_format_of(text: str) -> LockFormat:
    """Return which format of lock files a text has.

    Raises:
        SpecError: it is none that is known.
    """
    if re.search(r"^@EXPLICIT\s*$", text, re.MULTILINE):
        return "explicit"
    if re.search(r"^lock-version\s*=", text, re.MULTILINE):
        return "pylock"
    if re.search(r"^version\s*=\s*\d+", text, re.MULTILINE) and "[[package]]" in text:
        return "uv"
    if re.search(r"^version:\s*\d+", text, re.MULTILINE) and "\nenvironments:" in text:
        return "pixi"
    if re.search(r"^[A-Za-z0-9][\w.-]*(\[.*\])?\s*(==|@)", text, re.MULTILINE):
        return "requirements"
    raise SpecError(
        "lock is no text of pylock.toml, uv.lock, pixi.lock, an @EXPLICIT list or pinned "
        "requirements",
        "Give lock_format if it is one all the same.",
    )


def check_text(name: str, text: object) -> None:
    """Raise if something is no text of one line, is empty, or looks like an option of a command."""
    if not isinstance(text, str):
        raise SpecError(f"{name} holds {text!r}, which is no text")
    if not text.strip():
        raise SpecError(f"{name} holds an empty text", "Leave it out.")
    if any(ord(character) < 32 and character != "\t" for character in text):
        raise SpecError(
            f"{name} holds {text!r}, which has line ends or control characters",
            "Write one text for each entry.",
        )
    if text.lstrip().startswith("-"):
        raise SpecError(f"{name} holds {text!r}, an option of a command", "Leave it out.")


def checked_sequence(name: str, value: object) -> Iterable[Any]:
    """Return a sequence; raise if it is a single text or no sequence."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise SpecError(f"{name}={value!r} is no sequence of texts", f"Write {name}=({value!r},).")
    return value


def checked_texts(name: str, value: object) -> tuple[str, ...]:
    """Return a sequence of texts as a tuple; raise if it is none."""
    texts = tuple(checked_sequence(name, value))
    for text in texts:
        check_text(name, text)
    return tuple(text.strip() for text in texts)


def checked_mapping(name: str, value: object) -> dict[str, str]:
    """Return a mapping of texts to texts as a dictionary; raise if it is none."""
    if not isinstance(value, Mapping):
        raise SpecError(f"{name}={value!r} is no mapping of texts to texts")
    for key, text in value.items():
        check_text(name, key)
        check_text(name, text)
    return dict(value)


def checked_variables(value: object) -> dict[str, str]:
    """Return a mapping of names to values that a process can have; raise if it is none."""
    if not isinstance(value, Mapping):
        raise SpecError(f"variables={value!r} is no mapping of names to values")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise SpecError(
                f"variables holds {name!r}: {text!r}, not texts", "Write both in quotes."
            )
        if not name or "=" in name or "\0" in name + text:
            raise SpecError(
                f"no process can have a variable {name!r} with the value {text!r}",
                "Take '=' out of the name and NUL characters out of both.",
            )
    return dict(value)


def project_folder(value: object) -> str:
    """Return the absolute path of a project, its extras behind it."""
    if not isinstance(value, (str, os.PathLike)):
        raise SpecError(f"editable holds {value!r}, which is no path")
    text = os.fsdecode(value)
    check_text("editable", text)
    extras = _EXTRAS.search(text)
    if extras is None or os.path.exists(os.path.expanduser(text)):
        return os.path.abspath(os.path.expanduser(text))
    path = text[: extras.start()].strip() or os.curdir
    return os.path.abspath(os.path.expanduser(path)) + "".join(extras[0].split())


def check_requirement(name: str, text: str) -> None:
    """Raise if a text is no requirement of PEP 508.

    The exact check is that of ``packaging`` (or pip's copy). Where there is neither, the shape is
    looked at, and the rest is left to the installer, which says what is wrong in its own words.
    """
    wrong: str | None = "it does not begin with a name"
    if _PYPI.match(text):
        wrong = libraries.requirement_fault(text)
    if wrong is not None:
        raise SpecError(
            without_credentials(f"{name} holds {text!r}, which is no requirement: {wrong}"),
            "Write it like 'numpy', 'numpy>=1.26,<3', 'torch[cuda]==2.*' or "
            "'tool @ https://example.org/tool.whl'.",
        )
