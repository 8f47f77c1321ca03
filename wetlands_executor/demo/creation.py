"""Make one virtual environment of the demo, in a thread, with a status that can be read meanwhile.

Owns the processes ``python -m venv`` and ``pip install``. ``stop`` may be called from any thread;
it ends their whole tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from wetlands_executor.demo.cache import Lock, Slot, python_of

if TYPE_CHECKING:
    from pathlib import Path

    from wetlands_executor.demo.interpreters import Interpreter

_LOOK_AGAIN = 0.5  # seconds between two looks at a lock of another process, which cannot wake us
_UNREACHABLE = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "SSLError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "Max retries exceeded",
    "Connection refused",
    "Network is unreachable",
    "(from versions: none)",  # no index knows even the name, or has anything for this machine
)
# Variables that would make pip install elsewhere, or the interpreter import from elsewhere.
_NOT_PASSED = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "PIP_PYTHON",
    "PIP_REQUIRE_VIRTUALENV",
    "__PYVENV_LAUNCHER__",
)


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


class RegistryUnreachableError(DemoError):
    """No package registry could be reached."""


class Creation:
    """The making of one environment.

    Attributes:
        slot: its place in the cache.
        interpreter: the Python that it is made from.
        status: what is being done now, in a few words. Written by the creating thread only.
        seconds: how long it took, once done.
    """

    def __init__(self, slot: Slot, interpreter: Interpreter, imports: tuple[str, ...]) -> None:
        self.slot = slot
        self.interpreter = interpreter
        self.status = "starting"
        self.seconds = 0.0
        self._imports = imports
        self._stopped = threading.Event()
        # Guards _process, so that stop() either finds the process or prevents it from being
        # started; never held while one runs.
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> Path:
        """Make the environment, or wait for another process that is making it; returns its prefix.

        Raises:
            DemoError: it could not be made, or was stopped.
        """
        started = time.monotonic()
        lock = Lock(self.slot)
        while not lock.take():
            ready = self.slot.ready()
            if ready is not None:
                return ready
            self.status = "waiting for another demo that is making it"
            self._stopped.wait(_LOOK_AGAIN)
            self._check()
        try:
            prefix = self.slot.ready() or self._make(lock)
        finally:
            lock.release()
        self.seconds = time.monotonic() - started
        self.status = "ready"
        return prefix

    def stop(self) -> None:
        """End the creation and its processes; ``run`` then raises and leaves nothing behind."""
        self._stopped.set()
        with self._lock:
            process = self._process
        if process is not None:
            _end(process.pid)

    def _check(self) -> None:
        """Raise if the creation was stopped."""
        if self._stopped.is_set():
            raise DemoError("stopped")

    def _make(self, lock: Lock) -> Path:
        """Build into a new folder and publish it."""
        self.slot.sweep()
        prefix = self.slot.fresh_prefix()
        python = str(python_of(prefix))
        install = [
            "-m",
            "pip",
            "install",
            "--only-binary",
            ":all:",
            "--no-input",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
        ]
        self.slot.log.write_bytes(b"")
        try:
            self._do(
                "making the environment",
                [self.interpreter.executable, "-m", "venv", str(prefix)],
                lock,
            )
            self._do("installing", [python, *install, *self.slot.requirements], lock)
            self._do("trying it", [python, "-c", f"import {', '.join(self._imports)}"], lock)
            self._check()
            self.slot.publish(prefix)
        except BaseException:
            shutil.rmtree(prefix, ignore_errors=True)
            raise
        return prefix

    def _do(self, status: str, command: list[str], lock: Lock) -> None:
        """Run one step, its output going to the log."""
        self.status = status
        variables = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
        with self.slot.log.open("ab") as log:
            with self._lock:
                self._check()
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables
                )
            while True:
                try:
                    code = self._process.wait(1.0)
                    break
                except subprocess.TimeoutExpired:
                    # a deadline for the sign of life and the status, not for the step
                    lock.refresh()
                    self.status = f"{status}{self._detail()}"
            with self._lock:
                self._process = None
        self._check()
        if code:
            raise self._failure(status, code)

    def _detail(self) -> str:
        """Describe what pip is busy with, from the last line of its log."""
        lines = self._tail(1)
        words = lines[0].split() if lines else []
        if words[:2] == ["Installing", "collected"]:
            return ": unpacking"
        if len(words) > 1 and words[0] in ("Collecting", "Downloading", "Using"):
            name = words[2] if words[0] == "Using" and len(words) > 2 else words[1]
            return f": {name.rsplit('/', 1)[-1].partition('-cp')[0].partition('-py')[0]}"
        return ""

    def _tail(self, count: int) -> list[str]:
        """Read the last lines of the log."""
        try:
            lines = self.slot.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        return [line.rstrip() for line in lines if line.strip()][-count:]

    def _failure(self, status: str, code: int) -> DemoError:
        """Say what failed, with the last lines of the output and a remedy."""
        lines = self._tail(12)
        told = "\n".join(f"    {line}" for line in lines)
        head = (
            f"{status} failed for the {self.slot.role} environment ({self.interpreter}, exit code "
            f"{code}). Last lines:\n{told}\n"
        )
        wanted = " ".join(f'"{requirement}"' for requirement in self.slot.requirements)
        if any(sign in line for line in self._tail(200) for sign in _UNREACHABLE):
            return RegistryUnreachableError(
                f"{head}  No package registry answered with these packages. Check the network, or "
                f"tell pip about a proxy or a mirror "
                f"(pip config set global.index-url ...), then run the demo again. The whole "
                f"output is in {self.slot.log}"
            )
        if status == "making the environment":
            remedy = (
                "This Python cannot make virtual environments; on Debian and Ubuntu the package "
                "python3-venv is missing."
            )
        else:
            remedy = f"Try by hand: python -m pip install --only-binary :all: {wanted}"
        return DemoError(f"{head}  {remedy}\n  The whole output is in {self.slot.log}")


def _end(pid: int) -> None:
    """End a process and its descendants: politely, then after three seconds by force."""
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=3)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
