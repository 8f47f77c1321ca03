"""The host's end of ``breakpoint()`` in a worker (``debug=True``): lends the terminal.

Owns a socket in a folder that only this user can enter, and a thread that serves one stopped worker
after another; the protocol stands in ``worker/debugger.py``. What arrives is shown and nothing
else: no line of it is evaluated here.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import socket
import sys
import tempfile
import time
from typing import Any

from wetlands_executor import threads
from wetlands_executor.environment.file_locks import lock_file
from wetlands_executor.system import AF_UNIX

LOGGER = logging.getLogger("wetlands_executor")

_PREFIX = "wetlands-debug-"
#: Seconds of a folder's age below which it is not looked at.
FRESH = 60.0
#: Bytes of one read from a terminal, which gives a line at a time.
LINE = 65536


class Debugging:
    """Serves the breakpoints of the workers of one executor.

    Attributes:
        address: what workers connect to.

    Raises:
        NotImplementedError: this system has no such sockets.
    """

    def __init__(self) -> None:
        if not AF_UNIX:
            raise NotImplementedError(
                "debug=True needs a system with Unix sockets; attach debugpy here, or run the "
                "function in this process, with InProcessExecutor(0)"
            )
        self._folder = Folder()
        self._listener = socket.socket(AF_UNIX, socket.SOCK_STREAM)
        self.address = os.path.join(self._folder.path, "s")
        # Who had the terminal last.
        self._shown = ""
        # Writing, or closing, the one wakes the thread that looks at the other.
        self._end, self._ended = socket.socketpair()
        try:
            self._listener.bind(self.address)
            self._listener.listen(64)
            threads.start(self._serve, (), "wetlands-debugger", threads.CALLBACKS)
        except BaseException:
            self._ended.close()
            self._close()
            raise

    def end(self) -> None:
        """Serve no more. Any thread; may be repeated."""
        self._end.close()
        # Not left to the thread, which the end of the interpreter may stop before it comes to that.
        self._folder.remove()

    def _close(self) -> None:
        self._end.close()
        self._listener.close()
        self._folder.remove()

    def _serve(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self._listener, self._ended], [], [])
                if self._ended in ready:
                    return
                connection, _ = self._listener.accept()
                try:
                    with connection, connection.makefile("rw", encoding="utf-8") as file:
                        self._lend(connection, file)
                except (OSError, ValueError):
                    LOGGER.debug("wetlands_executor: a debugger has gone", exc_info=True)
        finally:
            self._ended.close()
            self._close()

    def _lend(self, connection: socket.socket, file: Any) -> None:
        """Serve a worker that has stopped, until it goes on or dies."""

        def send(message: dict[str, Any]) -> None:
            file.write(json.dumps(message) + "\n")
            file.flush()

        who = json.loads(file.readline() or "{}").get("who", "")
        try:
            terminal = HostTerminal()
        except OSError as error:
            send({"refused": f"this program has no terminal to debug on ({error})"})
            return
        if who != self._shown:
            self._shown = who
            terminal.write(f"\n--- breakpoint() in {who} ---\n")
        send({"go": True})
        for line in file:
            message = json.loads(line)
            if "out" in message:
                terminal.write(str(message["out"]))
            elif "ask" in message:
                found = terminal.read_line(connection, self._ended)
                if found is None:
                    return
                send({"line": found})


class Folder:
    """A folder for a socket that only this user can enter, until ``remove``.

    It is locked as long as this process lives. When another one is made, those are removed that a
    killed process has left behind: they are locked no more.

    Attributes:
        path: of it.
    """

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix=_PREFIX)  # mode 0700
        self._lock = os.open(self.path, os.O_RDONLY)
        lock_file(self._lock, wait=False)
        again = os.open(self.path, os.O_RDONLY)
        try:
            if not lock_file(again, wait=False):  # else this file system knows no locks
                _remove_unlocked(os.path.dirname(self.path))
        finally:
            os.close(again)

    def remove(self) -> None:
        """Remove it. May be repeated, by several threads."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def _remove_unlocked(parent: str) -> None:
    """Remove folders of processes that have ended."""
    for entry in list(os.scandir(parent)):
        try:
            if not entry.name.startswith(_PREFIX) or not entry.is_dir(follow_symlinks=False):
                continue
            found = entry.stat(follow_symlinks=False)
            # Race: a folder that was made just now may not be locked yet.
            if time.time() - found.st_mtime < FRESH:
                continue
            descriptor = os.open(entry.path, os.O_RDONLY)
        except OSError:
            continue  # it has gone meanwhile
        try:
            if lock_file(descriptor, wait=False):
                shutil.rmtree(entry.path, ignore_errors=True)
        finally:
            os.close(descriptor)


class HostTerminal:
    """The terminal of this program.

    Raises:
        OSError: its standard input is none.
    """

    def __init__(self) -> None:
        stdin = sys.__stdin__
        if stdin is None or stdin.closed or not stdin.isatty():
            raise OSError("its standard input is none")
        self._input = stdin.fileno()
        stdout = sys.__stdout__
        # The terminal may be read from and written to by either descriptor.
        shown = stdout is not None and not stdout.closed and stdout.isatty()
        self._output = stdout.fileno() if shown and stdout is not None else self._input

    def write(self, text: str) -> None:
        """Show a text."""
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._output, data) :]

    def read_line(self, *watched: socket.socket) -> str | None:
        """Return the line that is typed, empty at the end of the input.

        Args:
            watched: None is returned as soon as one of these can be read.
        """
        descriptors = [each.fileno() for each in watched]
        ready, _, _ = select.select([self._input, *descriptors], [], [])
        if any(each in ready for each in descriptors):
            return None
        return os.read(self._input, LINE).decode("utf-8", "replace")
