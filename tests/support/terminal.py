"""A program on a terminal of its own, whose screen can be read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyte
from pexpect.fdpexpect import fdspawn
from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that a test waits for something on the screen before it fails.
DEADLINE = 30.0


class Terminal:
    """A terminal, and the program that has it as its controlling terminal.

    Args:
        argv: the program.
        columns, rows: of the terminal.
        cwd: folder of the program; None: that of this process.
        **env: further variables of the program.

    Attributes:
        pid: of the program, leader of a session of its own.
        code: its exit code, minus the signal's number if it was killed; None before its end.
    """

    def __init__(
        self,
        *argv: object,
        columns: int = 80,
        rows: int = 24,
        cwd: Path | None = None,
        **env: str,
    ) -> None:
        unwanted = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI")
        variables = {key: text for key, text in os.environ.items() if key not in unwanted}
        variables.update({"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"})
        variables.update(env)
        self.code: int | None = None
        self.raw = b""
        self._screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.pid, self._fd = start(argv, variables, columns, rows, cwd)

    # --- reading

    def wait_until(self, what: Callable[[str], object], why: str = "") -> str:
        """Read until the screen is so; return its text. Fail with what it shows instead."""
        end = time.monotonic() + DEADLINE
        while not what(self.text):
            left = end - time.monotonic()
            assert left > 0, f"not shown: {why}\n{self.text}\nraw: {self.raw[-2000:]!r}"
            if not self._read(left):
                assert what(self.text), f"the program ended before {why}:\n{self.text}"
        return self.text

    def wait_for(self, *texts: str) -> str:
        """Read until all these texts are on the screen; return all of it."""
        return self.wait_until(lambda shown: all(text in shown for text in texts), str(texts))

    def finish(self) -> str:
        """Read until the program ends; return what the screen and what scrolled out show."""
        end = time.monotonic() + DEADLINE
        while self._read(max(end - time.monotonic(), 0)):
            pass
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.text

    def _read(self, timeout: float) -> bool:
        """Read once; return False at the end."""
        ready, _, _ = select.select([self._fd], [], [], timeout)
        assert ready, f"nothing was written for long:\n{self.text}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nothing has it open any more
            data = b""
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    @property
    def text(self) -> str:
        """The lines of the screen, and of what has scrolled out of it, without blanks at ends."""
        past = [
            "".join(line[column].data for column in range(self._screen.columns))
            for line in self._screen.history.top
        ]
        return "\n".join(line.rstrip() for line in [*past, *self._screen.display]).rstrip()

    @property
    def cursor(self) -> Any:
        """The cursor of the screen: ``x``, ``y``, ``hidden``."""
        return self._screen.cursor

    # --- writing

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._fd, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, as a window does."""
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def modes(self) -> list[Any]:
        """The settings of the terminal, as ``termios.tcgetattr`` gives them."""
        return termios.tcgetattr(self._fd)

    # --- the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            for process in (os.getpgid(self.pid), self.pid):
                try:
                    os.killpg(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._fd)


class Dialogue(fdspawn):  # type: ignore[misc]
    """A program on a terminal of its own, which pexpect talks to.

    As ``pexpect.spawn``, but that this process, which has threads, does not fork.

    Args:
        argv: the program.
        cwd, env: its folder and variables; None: those of this process.
        timeout: seconds that ``expect`` waits.
        dimensions: rows and columns.

    Attributes:
        pid: of the program, leader of a session of its own.
        exitstatus: its exit code, once it is closed; None if a signal has ended it.
    """

    def __init__(
        self,
        argv: Sequence[object],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = DEADLINE,
        dimensions: tuple[int, int] = (24, 80),
    ) -> None:
        rows, columns = dimensions
        variables = dict(os.environ if env is None else env)
        self.pid, fd = start(argv, variables, columns, rows, cwd)
        self.exitstatus: int | None = None
        self._ended = False
        super().__init__(fd, timeout=timeout, encoding="utf-8")

    def sendintr(self) -> None:
        """Type Ctrl-C."""
        self.send("\x03")

    def close(self) -> None:
        """Close the terminal, which ends what is left of the program, and wait for its end."""
        if self._ended:
            return
        self._ended = True
        super().close()  # SIGHUP for the session
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGHUP)
        code = os.waitstatus_to_exitcode(_wait(self.pid))
        self.exitstatus = code if code >= 0 else None


def start(
    argv: Sequence[object],
    variables: Mapping[str, str],
    columns: int,
    rows: int,
    cwd: Path | None = None,
) -> tuple[int, int]:
    """Start a program on a new terminal; return its process id and the terminal's other end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # A small program takes the terminal as its controlling one, and becomes the wanted one: no fork
    # of this process, which has threads.
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", _TAKE, str(cwd or "."), *map(str, argv)],
        variables,
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs, fd) for fd in (0, 1, 2)],
        setsid=True,
    )
    os.close(theirs)
    return pid, ours


def _wait(pid: int) -> int:
    """Wait for the end of a child, which is killed if it takes long; return its status."""
    timer = threading.Timer(DEADLINE, os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        return os.waitpid(pid, 0)[1]
    finally:
        timer.cancel()
        timer.join()


_TAKE = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.chdir(sys.argv[1])
os.execvp(sys.argv[2], sys.argv[2:])
"""


def python(module: str, *args: object) -> Sequence[object]:
    """Return the command that runs a module of the tests."""
    return (sys.executable, "-W", "error", "-m", module, *args)
