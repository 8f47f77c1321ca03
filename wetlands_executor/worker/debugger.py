"""``breakpoint()`` in a worker: pdb, whose terminal is the host's.

A worker has no terminal of its own: it lives in a session apart. Each time the debugger stops, it
connects to the host by a socket in a folder that belongs to the user alone, waits for its turn, and
gives the terminal back when the function goes on. The other end is ``debugging.py`` of the host.

Lines of JSON. From here: ``{"who": text}`` first, ``{"out": text}``, ``{"ask": true}``. From there:
``{"go": true}`` or ``{"refused": text}``, then ``{"line": text}`` for each question; an empty line
is the end. Entered by the threads of a task.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, List


class Refused(Exception):  # noqa: N818 - as the host says it
    """The host has no terminal."""


class Terminal:
    """The host's terminal, as the file that pdb writes to and reads from.

    Args:
        address: of the host's socket.
    """

    encoding = "utf-8"

    def __init__(self, address: str) -> None:
        self._address = address
        self._file: Any = None
        #: What pdb has written before it stopped.
        self._before: List[str] = []

    def open(self, who: str) -> None:
        """Wait until the terminal is free.

        Raises:
            Refused: there is none, or no host.
        """
        import socket

        family: Any = vars(socket)["AF_UNIX"]  # the host has made sure that there is one
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.connect(self._address)
            self._file = connection.makefile("rw", encoding="utf-8", newline="\n")
            self._send({"who": who})
            answer = self._receive()
        except OSError as error:
            self.close()
            raise Refused(str(error)) from None
        finally:
            connection.close()  # the file keeps it
        if "go" not in answer:
            self.close()
            raise Refused(str(answer.get("refused", "the host has gone")))
        while self._before:
            self.write(self._before.pop(0))

    def close(self) -> None:
        """Give the terminal back."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                pass  # the host has gone

    def _send(self, message: Dict[str, Any]) -> None:
        import json

        self._file.write(json.dumps(message) + "\n")
        self._file.flush()

    def _receive(self) -> Dict[str, Any]:
        import json

        line = self._file.readline()
        answer: Dict[str, Any] = json.loads(line) if line else {}
        return answer

    def write(self, text: str) -> int:
        """Show a text."""
        if self._file is None:
            self._before.append(text)
        else:
            self._send({"out": text})
        return len(text)

    def flush(self) -> None:
        """Do nothing: each text goes at once."""

    def readline(self) -> str:
        """Return the next line that is typed; empty at the end of the input."""
        if self._file is None:
            return ""
        self._send({"ask": True})
        return str(self._receive().get("line", ""))

    def isatty(self) -> bool:
        """Return False: there is neither history nor colour."""
        return False


def make_debugger(address: str) -> Any:
    """Return a debugger on the host's terminal."""
    import pdb  # noqa: T100 - it is the debugger

    from .current_task import current_task

    terminal: Any = Terminal(address)

    class Debugger(pdb.Pdb):
        """pdb, which takes the terminal while it has stopped."""

        def interaction(self, *args: Any, **kwargs: Any) -> None:
            task = current_task()
            name = "task %s (%s)" % (task.id, task.name) if task.id else "no task"
            try:
                terminal.open("%s, pid %d" % (name, os.getpid()))
            except Refused as error:
                sys.stderr.write("wetlands_executor: breakpoint() is passed over: %s\n" % error)
                self.set_continue()
                return
            try:
                super().interaction(*args, **kwargs)
            finally:
                terminal.close()

    # Where our own functions call those of the user there is nothing to see.
    return Debugger(
        stdin=terminal, stdout=terminal, nosigint=True, readrc=False, skip=["_wetlands_worker.*"]
    )


def hook(address: str) -> Any:
    """Return a ``sys.breakpointhook`` that opens a debugger on the host's terminal.

    Args:
        address: of the host's socket.
    """
    # One for this process, which keeps its breakpoints.
    made: List[Any] = []

    def stop(*_args: Any, **_kwargs: Any) -> None:
        if not made:
            made.append(make_debugger(address))
        made[0].set_trace(sys._getframe(1))

    return stop
