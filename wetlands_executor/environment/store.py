"""Where made environments are kept, and how one is known to be complete.

::

    <root>/cached/<digest>.json     the record of an environment that was made for its content
    <root>/named/<name>.json        the record of one that was given a name
    <root>/locks/<key>              held while one is made
    <root>/logs/<key>.txt           what the package manager wrote
    <root>/made/<key>-<random>/     one creation: the environment in a folder of its name

An environment is made in a folder that no other creation uses. A record, put in place by one atomic
replacement, says that it is complete and where it is. What no record names does not exist for a
lookup: a creation that was interrupted is done anew. Environments cannot be moved (their files hold
their place), so the record is what changes in one step.

Lookups only read, so a root may be read-only and shared. Several roots may be given by the variable
``WETLANDS_EXECUTOR_ENVIRONMENTS``: all are searched, environments are made in the first.

Any thread and any process may enter; what changes an entry happens under its lock (``locks``).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from platform import machine
from typing import Any, Final

from wetlands_executor.environment import _platform
from wetlands_executor.environment.layout import interpreter_of
from wetlands_executor.environment.locks import Lease, end_tree, users_of
from wetlands_executor.errors import EnvironmentCreationError

#: The variable that names other roots, separated as on PATH.
VARIABLE: Final = "WETLANDS_EXECUTOR_ENVIRONMENTS"
#: Version of the records; others are not read.
VERSION: Final = 1
#: File of a creation that says that its environment is complete.
COMPLETE: Final = "complete"
#: File of a creation that the users of the environment lock; its time is that of the last use.
USED: Final = "used"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a made environment.

    Attributes:
        root: the root that it lies in.
        name: what it is called.
        named: its user has chosen the name; else it was made for its content.
        digest: of its content on this platform.
        making: name of its folder below ``made``; the name of the field in the files of records.
        backend: who made it.
        python: version of its Python.
        made: when, as ``time.time()``.
        seconds: how long it took.
        spec: what was asked for (``EnvironmentSpec.as_dict``).
    """

    root: str
    name: str
    named: bool
    digest: str
    making: str
    backend: str
    python: str
    made: float
    seconds: float
    spec: dict[str, Any]

    @property
    def key(self) -> str:
        """Name of its lock and its log."""
        return f"named-{self.name}" if self.named else self.digest

    @property
    def folder(self) -> Path:
        """The folder of its creation."""
        return Path(self.root, "made", self.making)

    @property
    def prefix(self) -> Path:
        """The environment."""
        return self.folder / self.name

    @property
    def file(self) -> Path:
        """Where the record is."""
        if self.named:
            return Path(self.root, "named", f"{self.name}.json")
        return Path(self.root, "cached", f"{self.digest}.json")

    @property
    def last_used(self) -> float:
        """When it was last used, as ``time.time()``; when it was made if that is unknown."""
        try:
            return max(self.made, (self.folder / USED).stat().st_mtime)
        except OSError:
            return self.made

    def is_usable(self) -> bool:
        """Return True if its interpreter can be started and no removal of it has begun."""
        return (
            interpreter_of(str(self.prefix)) is not None  # links are followed
            and (self.folder / COMPLETE).exists()
        )

    def note_use(self) -> None:
        """Remember that it is used now, where that can be written."""
        with suppress(OSError):
            os.utime(self.folder / USED)

    def lease(self) -> Lease | None:
        """Keep it from being removed until the lease is closed; None if it is being removed."""
        return Lease.take(self.folder / USED)

    def read_lock(self) -> str | None:
        """Return the lock text that its backend has left; None if there is none."""
        try:
            return (self.folder / "lock").read_text(encoding="utf-8")
        except OSError:
            return None


def check_name(name: str) -> str:
    """Return a name that an environment can be given.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or name in ("base", "root"):
        raise ValueError(
            f"name={name!r}: a name has at most 64 letters, digits, dots, dashes and underscores, "
            f"begins with a letter, a digit or an underscore, and is neither 'base' nor 'root'"
        )
    return name


def key_of(digest: str) -> str:
    """Return the digest of a content on this platform."""
    import hashlib

    text = json.dumps([VERSION, digest, sys.platform, machine()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """The environments that were made.

    Args:
        roots: folders; environments are made in the first. None stands for those of the variable
            ``WETLANDS_EXECUTOR_ENVIRONMENTS``, else for the user's cache folder.
    """

    def __init__(self, *roots: str | os.PathLike[str]) -> None:
        if not roots:
            named = os.environ.get(VARIABLE, "").split(os.pathsep)
            roots = tuple(os.path.expanduser(root) for root in named if root) or (
                os.path.join(_platform.cache_folder(), "environments"),
            )
        self.roots = tuple(Path(os.path.abspath(root)) for root in roots)

    @property
    def root(self) -> Path:
        """Where environments are made."""
        return self.roots[0]

    # --- lookups, which only read

    def cached(self, digest: str) -> Record | None:
        """Return the complete environment of that content whose interpreter is there."""
        return self._first("cached", digest)

    def named(self, name: str) -> Record | None:
        """Return the environment of that name, in the same way."""
        return self._first("named", name) if _NAME.fullmatch(name) else None

    def called(self, name: str) -> list[Record]:
        """Return what answers to a name: the environment that was given it, and cached ones."""
        found = self.named(name)
        cached = (
            [record for record in self.records() if record.name == name and record.is_usable()]
            if name.startswith(CACHED)
            else []
        )
        return ([found] if found is not None else []) + [
            record for record in cached if not record.named
        ]

    def records(self) -> Iterator[Record]:
        """Yield every environment, usable or not; what cannot be read is passed over."""
        seen: set[tuple[str, str]] = set()
        for root in self.roots:
            for kind in ("named", "cached"):
                for file in _json_files(root / kind):
                    if (kind, file.stem) not in seen:
                        record = _read(root, kind, file)
                        if record is not None:
                            seen.add((kind, file.stem))
                            yield record

    def owner_of(self, prefix: str | os.PathLike[str]) -> Record | None:
        """Return the record of the environment at a prefix; None if it is none of ours."""
        wanted = os.path.normcase(os.path.abspath(prefix))
        for root in self.roots:
            if not wanted.startswith(os.path.normcase(os.path.join(root, "made", ""))):
                continue
            for record in self.records():
                if os.path.normcase(str(record.prefix)) == wanted:
                    return record
        return None

    def _first(self, kind: str, stem: str) -> Record | None:
        for root in self.roots:
            record = _read(root, kind, root / kind / f"{stem}.json")
            if record is not None and record.is_usable():
                return record
        return None

    # --- changes, under the lock of the key

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            EnvironmentCreationError: that is not possible.
        """
        try:
            for name in ("cached", "named", "locks", "logs", "made"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                marker = self.root / "CACHEDIR.TAG"  # so that backups leave it out
                if not marker.exists():
                    marker.write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
        except OSError as error:
            raise EnvironmentCreationError(
                f"the folder {str(self.root)!r} for environments cannot be made: {error}; choose "
                f"another one with the variable {VARIABLE}"
            ) from error

    def lock_of(self, key: str) -> Path:
        """Return the file that is locked while the environment of a key is made."""
        return self.root / "locks" / key

    def log_of(self, key: str) -> Path:
        """Return the file that gets the output of the package manager."""
        return self.root / "logs" / f"{key}.txt"

    def begin(self, key: str) -> Path:
        """Make the folder of a new creation."""
        folder = self.root / "made" / f"{key}-{secrets.token_hex(4)}"
        folder.mkdir()
        return folder

    def publish(self, record: Record) -> None:
        """Declare an environment complete, in one step; from here on lookups find it."""
        text = json.dumps({"version": VERSION, **asdict(record)}, indent=1)
        (record.folder / USED).touch()
        draft = record.folder / COMPLETE
        for file in (draft, record.folder / "record"):
            with file.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(record.folder / "record", record.file)

    def forget(self, record: Record) -> None:
        """Take a record back: lookups do not find the environment any more."""
        record.file.unlink(missing_ok=True)

    def sweep(self, key: str, keep: Record | None) -> None:
        """Remove what interrupted creations of a key have left, and replaced ones that are unused.

        A package manager may have outlived the program that had started it: it is ended.
        """
        for folder in (self.root / "made").glob(f"{key}-????????"):
            if keep is not None and folder == keep.folder:
                continue
            if not (folder / COMPLETE).exists():
                for process in users_of(folder, mentions=True):
                    end_tree(process.pid, kill=True)
                remove_folder(folder)
            else:
                self.discard(folder)

    def discard(self, folder: Path) -> bool:
        """Remove the folder of a complete environment that no record names, unless it is in use."""
        lease = Lease.take(folder / USED, alone=True)
        if lease is None:
            return False
        try:
            if users_of(folder):
                return False
            # Order: before its files go, so that what is left of an interrupted removal is no
            # complete environment.
            (folder / COMPLETE).unlink(missing_ok=True)
            remove_folder(folder)
        finally:
            lease.close()
        return True


#: How the names of environments begin that were made for their content.
CACHED: Final = "env-"


def remove_folder(folder: Path) -> None:
    """Remove a folder, read-only files and folders in it too; what is left is swept later."""

    def unlock(function: Any, path: str, _: object) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            os.chmod(path, 0o700)
            function(path)

    shutil.rmtree(folder, onerror=unlock)


def size_of(folder: Path) -> int:
    """Return how many bytes the files of a folder take, each file once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = os.lstat(os.path.join(place, name))
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += getattr(status, "st_blocks", 0) * 512 or status.st_size
    return total


def _json_files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix == ".json")
    except OSError:
        return []


def _read(root: Path, kind: str, file: Path) -> Record | None:
    """Read a record; None if there is none, or none of this library's present form."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if told.pop("version") != VERSION:
            return None
        record = Record(**told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    # An environment that was moved or copied does not work: its files hold their place.
    if record.root != str(root) or record.file != file or record.named is not (kind == "named"):
        return None
    return record


def new_record(root: Path, name: str | None, digest: str, folder: Path, **facts: Any) -> Record:
    """Return the record of an environment that is complete now."""
    return Record(
        root=str(root),
        name=name if name is not None else CACHED + digest[:10],
        named=name is not None,
        digest=digest,
        making=folder.name,
        made=time.time(),
        **facts,
    )
