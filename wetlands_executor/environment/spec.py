"""``EnvironmentSpec``: what an environment should contain, as a value.

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

from wetlands_executor.environment.notation import (
    FrozenMapping,
    LockFormat,
    check_requirement,
    check_text,
    checked_sequence,
    checked_texts,
    checked_variables,
    conda_name,
    conda_text,
    lock_format_of,
    project_folder,
    python_specifier,
    without_credentials,
)
from wetlands_executor.environment.pypi_options import PyPIOptions
from wetlands_executor.errors import SpecError

__all__ = ["EnvironmentSpec", "PyPIOptions", "without_credentials"]

ChannelPriority = Literal["strict", "flexible", "disabled"]
Strategy = Literal["highest", "lowest", "lowest-direct"]

#: Goes into every digest; a higher number makes every environment of the cache a stranger.
DIGEST_VERSION: Final = 1
#: Lock files that say which conda packages there are.
CONDA_LOCKS: Final = ("explicit", "pixi")
#: What every virtual environment can have as well as a conda environment: asked for without a
#: version, it is no reason to need conda.
INSTALLERS: Final = ("pip",)
#: Fields in which order does not count.
_UNORDERED: Final = (
    "conda", "conda_constraints", "pypi", "editable", "lock_groups", "lock_extras", "constraints",
    "overrides", "only_binary", "no_binary",
)  # fmt: skip
#: Fields that say more about a lock.
_OF_LOCK: Final = ("lock_format", "lock_groups", "lock_extras", "lock_folder")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EnvironmentSpec:
    """What an environment should contain. A value: frozen, comparable, hashable, picklable.

    Attributes:
        python: versions of Python that fit, as PEP 440 writes them (``">=3.9,<3.12"``); ``"3.11"``
            and conda's ``"=3.11"`` are kept as ``"==3.11.*"``. None leaves it to the backend.
        conda: conda packages as conda writes them: ``"gdal"``, ``"gdal >=3.6,<4"``, ``"gdal=3.6"``,
            ``"bioconda::samtools"``, ``"numpy[version='>=1.26', build='*_0']"``.
        pypi: PyPI packages as PEP 508 writes them.
        conda_constraints: conda packages that are not asked for, with the versions that may be
            there if another package asks for them.
        channels: of conda, names or URLs, the most important first.
        channel_priority: how much the order of channels counts; None is the backend's own rule.
        variables: environment variables that belong to the environment.
        editable: folders of projects that are installed in editable mode, absolute;
            ``"/home/me/tool[gui]"`` asks for extras too.
        strategy: whether the highest or the lowest versions that fit are wanted; None is the
            highest.
        exclude_newer: what was published later is not there for the solver: a date or time of
            RFC 3339, or a duration as uv and pixi write it (``"7 days"``, ``"P7D"``).
        lock: text of a lock file; what it lists is installed, and nothing is solved. ``editable``
            projects and direct references in ``pypi`` may stand beside it.
        lock_format: which format that text has; found from the text if it is not given.
        lock_groups: dependency groups of a ``pylock`` or ``uv`` lock that are installed too; the
            one environment of a ``pixi`` lock that is installed (none: ``default``).
        lock_extras: extras of a ``pylock`` or ``uv`` lock that are installed too.
        lock_folder: absolute path to which paths in the lock are relative; None if it has none.
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
    lock_folder: str | None = None
    conda_constraints: tuple[str, ...] = ()
    channel_priority: ChannelPriority | None = None
    strategy: Strategy | None = None
    exclude_newer: str | None = None
    options: PyPIOptions = field(default_factory=PyPIOptions)

    def __post_init__(self) -> None:
        self._put("python", None if self.python is None else python_specifier(self.python))
        for name in (
            "conda",
            "conda_constraints",
            "pypi",
            "channels",
            "lock_groups",
            "lock_extras",
        ):
            self._put(name, checked_texts(name, getattr(self, name)))
        folders = checked_sequence("editable", self.editable)
        self._put("editable", tuple(project_folder(each) for each in folders))
        self._put("variables", FrozenMapping(checked_variables(self.variables)))
        for name in ("conda", "conda_constraints"):
            for text in getattr(self, name):
                conda_name(text, name)
            self._put(name, tuple(conda_text(text) for text in getattr(self, name)))
        for text in self.pypi:
            check_requirement("pypi", text)
        if self.conda and not self.channels:
            raise SpecError("there are conda packages but no channels", "Name at least one.")
        if not isinstance(self.options, PyPIOptions):
            raise SpecError(f"options={self.options!r} is no PyPIOptions")
        self._check_choice("channel_priority", ChannelPriority)
        self._check_choice("strategy", Strategy)
        if self.exclude_newer is not None:
            check_text("exclude_newer", self.exclude_newer)
            if not re.search(r"\d", self.exclude_newer):
                raise SpecError(
                    f"exclude_newer={self.exclude_newer!r} is neither a date nor a duration",
                    "Write it like '2026-05-01', '2026-05-01T10:00:00Z' or '7 days'.",
                )
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
        """Read what an environment should contain from a file.

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
        from wetlands_executor.environment.formats import read

        found = read(path, groups=tuple(groups), extras=tuple(extras), environment=environment)
        try:
            return cls(**found)
        except SpecError as error:
            if error.path is not None:
                raise
            raise SpecError(error.reason, error.remedy, os.fspath(path)) from error

    @property
    def needs_conda(self) -> bool:
        """True if only a conda package manager can make this environment."""
        if self.lock_format in CONDA_LOCKS:
            return True
        return any(text.strip() not in INSTALLERS for text in self.conda)

    @property
    def conda_python(self) -> str | None:
        """``python`` as conda writes it, for example ``"python >=3.9,<3.12"``; None if it is."""
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
        """Return the fields that are set, in types of JSON; ``from_dict`` reads them.

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
        channels and indexes counts. Of this machine only the paths that the spec has are in it.
        """
        plain = self.as_dict()
        for part in (plain, plain.get("options", {})):
            for name in _UNORDERED:
                if name in part:
                    part[name] = sorted({" ".join(text.split()) for text in part[name]})
        if self.lock is not None:
            plain["lock"] = "\n".join(self.lock.splitlines())
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
            for name in _OF_LOCK:
                if getattr(self, name):
                    raise SpecError(f"{name}={getattr(self, name)!r} is given without a lock")
            return
        if not isinstance(self.lock, str):
            raise SpecError(f"lock={self.lock!r} is no text; give what the lock file holds")
        if self.lock_format is None:
            self._put("lock_format", lock_format_of(self.lock))
        self._check_choice("lock_format", LockFormat)
        loose = [text for text in self.pypi if "@" not in text.partition(";")[0]]
        for text in (*self.conda, *loose):
            raise SpecError(
                f"{text!r} is asked for beside a lock, with which nothing is solved",
                "Lock it with the rest, or give the spec without a lock.",
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
