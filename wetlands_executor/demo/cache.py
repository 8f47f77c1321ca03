"""Where the demo keeps its environments, and how one is known to be complete.

An environment is built in a folder with a unique name; a small JSON file beside it, put in
place by one atomic rename, says that it is finished and where it is. What no such file names does
not exist for a later run: an interrupted build is done anew, and two demos that build at once
cannot mix their files. A lock (a folder: making one is atomic) only spares the second the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

_FORGOTTEN = 60.0  # seconds without a sign of life after which the lock of another machine is void


def default_folder() -> Path:
    """Give the user's cache folder of the demo, by the custom of the platform."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "wetlands-executor" / "demo"


def python_of(prefix: Path) -> Path:
    """Give the interpreter of a virtual environment."""
    return (
        prefix / "Scripts" / "python.exe" if sys.platform == "win32" else prefix / "bin" / "python"
    )


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one environment in the cache.

    Attributes:
        folder: the cache.
        role: what the demo calls the environment.
        minor: of the Python in it.
        requirements: what is installed in it.
    """

    folder: Path
    role: str
    minor: int
    requirements: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the files of this slot.

        Role, Python and a digest of everything that makes two environments differ.
        """
        told = json.dumps([self.requirements, sys.platform, platform.machine()])
        return f"{self.role}-py3{self.minor}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"

    @property
    def marker(self) -> Path:
        """The file that says that the environment is complete."""
        return self.folder / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """What pip wrote."""
        return self.folder / f"{self.name}.log"

    def ready(self) -> Path | None:
        """Return the prefix of the finished environment; None if its interpreter is missing."""
        try:
            told = json.loads(self.marker.read_text(encoding="utf-8"))
            prefix = self.folder / told["prefix"]
            if told["requirements"] != list(self.requirements):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # follows the link: a removed base interpreter counts as missing
        return prefix if python_of(prefix).exists() else None

    def fresh_prefix(self) -> Path:
        """Return a new folder name, which no other process builds in."""
        return self.folder / f"{self.name}-{uuid4().hex[:8]}"

    def publish(self, prefix: Path) -> None:
        """Declare an environment complete; from here on other runs use it."""
        told = {
            "prefix": prefix.name,
            "requirements": list(self.requirements),
            "made": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        draft = prefix / "wetlands-demo.json"
        draft.write_text(json.dumps(told, indent=1), encoding="utf-8")
        draft.replace(self.marker)

    def forget(self) -> None:
        """Take the environment back, so that the next run builds it anew."""
        self.marker.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what interrupted builds left. Only for the holder of the lock."""
        kept = self.ready()
        for left in self.folder.glob(f"{self.name}-*"):
            if left.is_dir() and left != kept:
                shutil.rmtree(left, ignore_errors=True)


class Lock:
    """Lets one process at a time build a slot, on all machines that share the folder."""

    def __init__(self, slot: Slot) -> None:
        self._path = slot.folder / f"{slot.name}.lock"
        self._held = False

    def take(self) -> bool:
        """Take the lock if it is free or its owner is gone; never waits."""
        if self._abandoned() and not self._clear():
            return False
        try:
            self._path.mkdir(parents=True)
        except FileExistsError:
            return False
        self._held = True
        owner = {"host": socket.gethostname(), "pid": os.getpid()}
        (self._path / "owner.json").write_text(json.dumps(owner), encoding="utf-8")
        return True

    def _clear(self) -> bool:
        """Remove an abandoned lock; False if another process is about to.

        Race: between the judgement and the removal another process may have cleared the lock and
        taken it. So both happen under a lock of their own; no other process removes a lock that
        it does not own.
        """
        clearing = self._path.with_name(f"{self._path.name}-clearing")
        try:
            clearing.mkdir()
        except FileExistsError:
            try:
                if time.time() - clearing.stat().st_mtime > _FORGOTTEN:
                    clearing.rmdir()  # its maker died on the way; the next try succeeds
            except OSError:
                pass  # it has just gone
            return False
        try:
            if self._abandoned():
                aside = self._path.with_name(f"{self._path.name}-{uuid4().hex[:8]}")
                self._path.rename(aside)
                shutil.rmtree(aside, ignore_errors=True)
        except OSError:
            return False
        finally:
            clearing.rmdir()
        return True

    def refresh(self) -> None:
        """Show other machines that the owner lives."""
        try:
            os.utime(self._path)
        except OSError:
            pass

    def release(self) -> None:
        """Give the lock back."""
        if self._held:
            self._held = False
            shutil.rmtree(self._path, ignore_errors=True)

    def _abandoned(self) -> bool:
        """Judge whether the owner is gone.

        By its process on this machine, by the age of its last sign of life on another.
        """
        try:
            age = time.time() - self._path.stat().st_mtime
        except OSError:
            return False
        try:
            owner = json.loads((self._path / "owner.json").read_text(encoding="utf-8"))
            here, pid = owner["host"] == socket.gethostname(), int(owner["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            # Race: the owner may be between making the folder and writing its name
            return age > _FORGOTTEN
        return not psutil.pid_exists(pid) if here else age > _FORGOTTEN
