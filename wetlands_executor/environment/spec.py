"""``EnvironmentSpec``: what an environment shall hold, as a value.

Owns the fields, their check and their canonical form, from which the digest is made that names an
environment in the cache. Reads no file but through ``from_file``, which hands over to
``environment.formats``; starts no process. Any thread may enter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

from wetlands_executor.environment import libraries
from wetlands_executor.errors import SpecError

LockFormat = Literal["explicit", "pixi", "pylock", "requirements", "uv"]
ChannelPriority = Literal["strict", "flexible", "disabled"]

#: Goes into every digest; a higher number makes every environment of the cache a stranger.
DIGEST_VERSION: Final = 1
#: Lock files that say which conda packages there are.
CONDA_LOCKS: Final = ("explicit", "pixi")
#: What every virtual environment can have as well as a conda environment: asked for without a
#: version, it is no reason to need conda.
INSTALLERS: Final = ("pip",)

_CLAUSE = re.compile(r"(===|==|!=|~=|<=|>=|<|>|=|)\s*(v?\d[\w.!+-]*(?:\.\*)?)")
# name, perhaps behind "channel::" or "channel/subdir::", and what follows it.
_CONDA = re.compile(
    r"(?:[^\s:\[\]]+::)?(?P<name>[A-Za-z0-9_][\w.-]*?)(?P<rest>(?:[\s=<>!~\[*].*)?)"
)
_PYPI = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?\s*(?:$|[\s\[(<>=!~;@])")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_EXTRAS = re.compile(r"\[[\w\s,.-]*\]$")


class FrozenMapping(Mapping[str, str]):
    """A mapping of texts that cannot be changed, and so can be hashed; its order is of no account."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PyPIOptions:
    """How packages of Python indexes are to be found and chosen; a backend may refuse what it cannot do.

    Attributes:
        index_urls: package indexes, the most important first; none stands for the installer's own.
        extra_index_urls: indexes beside those.
        find_links: further pages, archives or folders with packages.
        no_index: True to use ``find_links`` alone.
        sources: normalised name of a package to the URL of the only index that it may come from.
        constraints: requirements that limit versions and ask for nothing.
        overrides: requirements that replace those of any package.
        prereleases: True if pre-releases may be chosen.
        only_binary: names of packages that must not be built here; ``":all:"`` is all.
        no_binary: names of packages that must be built here.
    """

    index_urls: tuple[str, ...] = ()
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    sources: Mapping[str, str] = field(default_factory=FrozenMapping)
    constraints: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    prereleases: bool = False
    only_binary: tuple[str, ...] = ()
    no_binary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "sources":
                object.__setattr__(self, each.name, FrozenMapping(_texts_of(each.name, value)))
            elif each.type == "bool":
                if not isinstance(value, bool):
                    raise SpecError(f"{each.name}={value!r} is neither True nor False")
            else:
                object.__setattr__(self, each.name, _texts(each.name, value))
        for name in ("constraints", "overrides"):
            for text in getattr(self, name):
                _check_requirement(name, text)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EnvironmentSpec:
    """What an environment shall hold. A value: frozen, comparable, hashable, picklable.

    Attributes:
        python: versions of Python that fit, as PEP 440 writes them (``">=3.9,<3.12"``); ``"3.11"``
            and conda's ``"=3.11"`` are kept as ``"==3.11.*"``. None leaves the choice to the backend.
        conda: conda packages as conda writes them: ``"gdal"``, ``"gdal >=3.6,<4"``, ``"gdal=3.6"``,
            ``"bioconda::samtools"``, ``"numpy[version='>=1.26', build='*_0']"``.
        pypi: PyPI packages as PEP 508 writes them.
        channels: of conda, names or URLs, the most important first.
        variables: environment variables that belong to the environment.
        editable: folders of projects that are installed in editable mode, absolute;
            ``"/home/me/tool[gui]"`` asks for extras too.
        lock: text of a lock file; what it lists is installed, and nothing is solved.
        lock_format: which format that text has; found from the text if it is not given.
        lock_groups: dependency groups of a ``pylock`` or ``uv`` lock that are installed too; the one
            environment of a ``pixi`` lock that is installed (none: ``default``).
        lock_extras: extras of a ``pylock`` or ``uv`` lock that are installed too.
        exclude_newer: what was published later is not there for the solver: a date or time of
            RFC 3339, or a duration as uv and pixi write it (``"7 days"``, ``"P7D"``).
        channel_priority: how much the order of channels counts; None is the backend's own rule.
        options: how PyPI packages are found and chosen.

    Raises:
        SpecError: a ValueError that names the value and the remedy.
    """

    python: str | None = None
    conda: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("conda-forge",)
    variables: Mapping[str, str] = field(default_factory=FrozenMapping)
    editable: tuple[str, ...] = ()
    lock: str | None = None
    lock_format: LockFormat | None = None
    lock_groups: tuple[str, ...] = ()
    lock_extras: tuple[str, ...] = ()
    exclude_newer: str | None = None
    channel_priority: ChannelPriority | None = None
    options: PyPIOptions = field(default_factory=PyPIOptions)

    def __post_init__(self) -> None:
        self._put("python", None if self.python is None else python_specifier(self.python))
        for name in ("conda", "pypi", "channels", "lock_groups", "lock_extras"):
            self._put(name, _texts(name, getattr(self, name)))
        self._put("editable", tuple(_folder(each) for each in _sequence("editable", self.editable)))
        self._put("variables", FrozenMapping(_variables(self.variables)))
        for text in self.conda:
            conda_name(text)
        for text in self.pypi:
            _check_requirement("pypi", text)
        if self.conda and not self.channels:
            raise SpecError("there are conda packages but no channels; name at least one channel")
        if not isinstance(self.options, PyPIOptions):
            raise SpecError(f"options={self.options!r} is no PyPIOptions")
        self._check_choice("channel_priority", ChannelPriority)
        if self.exclude_newer is not None:
            _check_text("exclude_newer", self.exclude_newer)
        self._check_lock()

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        groups: Iterable[str] = (),
        extras: Iterable[str] = (),
        environment: str | None = None,
    ) -> EnvironmentSpec:
        """Read what an environment shall hold from a file.

        The file's name says which format it has, else its content: ``environment.yml``,
        ``pixi.toml``, ``pyproject.toml``, ``requirements.txt``, ``pylock.toml``, ``uv.lock``,
        ``pixi.lock``, an ``@EXPLICIT`` list, or a Python file with a metadata block (PEP 723).

        Args:
            path: of the file; paths in it are relative to its folder.
            groups: dependency groups that are wanted too (``pyproject.toml``, ``pylock.toml``,
                ``uv.lock``).
            extras: extras of the project that are wanted too (the same files).
            environment: which environment of a pixi workspace; None stands for ``default``.

        Raises:
            SpecError: the file cannot be understood; the message has the line, the reason and what
                to do.
            OSError: the file cannot be read.
        """
        from wetlands_executor.environment import formats

        return formats.read(path, groups=groups, extras=extras, environment=environment)

    @property
    def needs_conda(self) -> bool:
        """True if only a conda package manager can make this environment."""
        if self.lock_format in CONDA_LOCKS:
            return True
        return any(text.strip() not in INSTALLERS for text in self.conda)

    @property
    def conda_python(self) -> str | None:
        """``python`` as conda writes it, for example ``"python >=3.9,<3.12"``; None if it is None."""
        if self.python is None:
            return None
        clauses = []
        for clause in self.python.split(","):
            if clause.startswith("==="):
                clause = clause.removeprefix("=")
            # conda reads "==3.11.*" as "==3.11"
            clauses.append(clause.removeprefix("==") if clause.endswith(".*") else clause)
        return f"python {','.join(clauses)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for JSON: lists, dictionaries, texts; ``from_dict`` reads it.

        URLs in it may hold passwords, as in the spec itself.
        """
        plain: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, PyPIOptions):
                value = {name: _plain(part) for name, part in _set_fields(value)}
            if value != each.default and value:
                plain[each.name] = _plain(value)
        if not self.channels:
            plain["channels"] = []
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> EnvironmentSpec:
        """Make the spec that ``as_dict`` has written.

        Raises:
            SpecError: it holds what no spec has.
        """
        values = dict(plain)
        try:
            if "options" in values:
                values["options"] = PyPIOptions(**values["options"])
            return cls(**values)
        except TypeError as error:
            raise SpecError(f"this is no spec of an environment: {error}") from error

    def digest(self) -> str:
        """Return the name of this content: 64 hexadecimal digits.

        Two specs that ask for the same in another order of packages have one digest; the order of
        channels and indexes counts. Nothing of this machine is in it.
        """
        plain = self.as_dict()
        for name in ("conda", "pypi", "editable", "lock_groups", "lock_extras"):
            if name in plain:
                plain[name] = sorted({" ".join(text.split()) for text in plain[name]})
        if self.lock is not None:
            plain["lock"] = "\n".join(self.lock.splitlines())
        for name in ("constraints", "overrides", "only_binary", "no_binary"):
            if name in plain.get("options", {}):
                plain["options"][name] = sorted(set(plain["options"][name]))
        text = json.dumps([DIGEST_VERSION, plain], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def __repr__(self) -> str:
        """Show what is set, without user names and passwords of URLs; of a lock only its size."""
        plain = self.as_dict()
        if "lock" in plain:
            plain["lock"] = f"<{len(plain['lock']):,} characters>"
        told = ", ".join(f"{name}={value!r}" for name, value in plain.items())
        return without_credentials(f"EnvironmentSpec({told})")

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_choice(self, name: str, choices: Any) -> None:
        value = getattr(self, name)
        if value is not None and value not in get_args(choices):
            known = ", ".join(repr(each) for each in get_args(choices))
            raise SpecError(f"{name}={value!r} is none of {known}")

    def _check_lock(self) -> None:
        if self.lock is None:
            if self.lock_format or self.lock_groups or self.lock_extras:
                raise SpecError("lock_format, lock_groups and lock_extras belong to a lock")
            return
        if not isinstance(self.lock, str):
            raise SpecError(f"lock={self.lock!r} is no text; give what the lock file holds")
        if self.lock_format is None:
            self._put("lock_format", lock_format_of(self.lock))
        self._check_choice("lock_format", LockFormat)


def without_credentials(text: str) -> str:
    """Return a text in which the URLs have ``***`` where they had a user name and a password."""
    return _CREDENTIALS.sub("***@", text)


def python_specifier(text: str) -> str:
    """Return versions of Python as PEP 440 writes them; a bare version stands for its releases.

    Raises:
        SpecError: it is no such text.
    """
    _check_text("python", text)
    clauses = []
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause.strip())
        if found is None:
            raise SpecError(
                f"python={text!r} is no set of versions; write '>=3.9,<3.12', '==3.11.*' or '3.11'"
                + (" (a choice by '|' goes among the conda packages)" if "|" in text else "")
            )
        operator, version = found[1], found[2].removeprefix("v")
        if operator in ("", "="):
            operator, version = "==", version.removesuffix(".*")
            # three numbers are one release
            version = version if re.fullmatch(r"\d+\.\d+\.\w+", version) else f"{version}.*"
        clauses.append(f"{operator}{version}")
    return ",".join(clauses)


def conda_name(text: str) -> str:
    """Return the name of the package that a conda specification asks for; of a URL, the URL.

    Raises:
        SpecError: it is no such text.
    """
    _check_text("conda", text)
    if "://" in text.partition("[")[0]:
        return text
    found = _CONDA.fullmatch(text.strip())
    if found is None:
        raise SpecError(
            f"conda={text!r} is no conda package; write it like 'gdal', 'gdal >=3.6,<4' or "
            f"'bioconda::samtools=1.19'"
        )
    return found["name"].lower()


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
        "requirements; give lock_format if it is one all the same"
    )


def _set_fields(options: PyPIOptions) -> Iterator[tuple[str, Any]]:
    for each in fields(options):
        value = getattr(options, each.name)
        if value:
            yield each.name, value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise SpecError(f"{name} holds {text!r}, which is no text")
    if not text.strip():
        raise SpecError(f"{name} holds an empty text; leave it out")
    if any(ord(character) < 32 and character != "\t" for character in text):
        raise SpecError(f"{name} holds {text!r}; line ends and control characters cannot be in it")
    if text.lstrip().startswith("-"):
        raise SpecError(f"{name} holds {text!r}; an option of a command cannot be given here")


def _sequence(name: str, value: object) -> Iterable[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise SpecError(f"{name}={value!r} is no sequence of texts; write {name}=({value!r},)")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    texts = tuple(_sequence(name, value))
    for text in texts:
        _check_text(name, text)
    return tuple(text.strip() for text in texts)


def _texts_of(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{name}={value!r} is no mapping of texts to texts")
    for key, text in value.items():
        _check_text(name, key)
        _check_text(name, text)
    return dict(value)


def _variables(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise SpecError(f"variables={value!r} is no mapping of names to values")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise SpecError(f"variables holds {name!r}: {text!r}; names and values are texts")
        if not name or "=" in name or "\0" in name + text:
            raise SpecError(f"no process can have a variable {name!r} with the value {text!r}")
    return dict(value)


def _folder(value: object) -> str:
    """Return the absolute path of a project, its extras behind it."""
    if not isinstance(value, (str, os.PathLike)):
        raise SpecError(f"editable holds {value!r}, which is no path")
    text = os.fsdecode(value)
    _check_text("editable", text)
    extras = _EXTRAS.search(text)
    if extras is None or os.path.exists(os.path.expanduser(text)):
        return os.path.abspath(os.path.expanduser(text))
    path = text[: extras.start()].strip() or os.curdir
    return os.path.abspath(os.path.expanduser(path)) + "".join(extras[0].split())


def _check_requirement(name: str, text: str) -> None:
    """Raise if a text is no requirement of PEP 508.

    The exact check is that of ``packaging`` (or pip's copy). Where there is neither, the shape is
    looked at, and the rest is left to the installer, which says what is wrong in its own words.
    """
    wrong: str | None = "it does not begin with a name"
    if _PYPI.match(text):
        wrong = libraries.requirement_fault(text)
    if wrong is not None:
        raise SpecError(
            f"{name} holds {text!r}, which is no requirement: {wrong}. "
            f"Write it like 'numpy', 'numpy>=1.26,<3', 'torch[cuda]==2.*' or "
            f"'tool @ https://example.org/tool.whl'"
        )
