r"""Standard streams of a worker.

What tasks print goes to private pipes that the host turns into whole lines.

Owns ``sys.stdout`` and ``sys.stderr`` of the worker. Text is handed to the pipe when a line ends
(``\n`` or ``\r``) and at the end of a task; nothing here ever blocks on the host for longer than
the pipe is full, and a stream that the task has closed or broken is opened again for the next one
(a task must not be able to take its neighbours' output away).
"""

from __future__ import annotations

import io
import os
import sys

from . import threads, wire
from .system import set_blocking

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from .running import Running


class TaskStream(io.TextIOWrapper):
    """Text stream over descriptor 1 or 2 that knows whether something waits in its buffer."""

    mode = "w"  # as of one that ``open`` has made
    dirty = False
    # Takes what is written, while a script runs whose last lines may be asked for.
    _copy: Any = None

    def write(self, text: str) -> int:
        """Write text; a line's end flushes."""
        self.dirty = True
        if self._copy is not None:
            self._copy.append(text)
        return super().write(text)

    def copy_to(self, said: Any) -> None:
        """Let ``said`` take what is written from now on."""
        self._copy = said

    def stop_copy(self, said: Any) -> None:
        """Stop that copy, unless another one has replaced it."""
        if self._copy is said:
            self._copy = None

    def flush_written(self) -> None:
        """Flush if something was written since the last time."""
        if self.dirty:
            self.dirty = False
            self.flush()

    def close(self) -> None:
        """Close; the next call gets another stream."""
        self.dirty = True
        super().close()

    def detach(self) -> Any:
        """Give the buffer away; the next call gets another stream."""
        self.dirty = True
        return super().detach()


class PipeWriter(io.FileIO):
    """Descriptor 1 or 2, which a task, or a command of it, may have made non-blocking."""

    def write(self, data: Any) -> int:
        """Write what fits; wait while nothing does."""
        done: Any = super().write(data)
        while done is None:
            set_blocking(self.fileno(), True)
            done = super().write(data)
        return int(done)


class FrameWriter(io.RawIOBase):
    """Sends what is written as frames of the results pipe, among the results."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor under which C code and commands write."""
        return self._fd

    def write(self, data: Any) -> int:
        """Send the bytes."""
        assert _runner is not None
        item = threads.item_here(_runner)
        _runner.channel.send(wire.PRINTED, item, bytes((self._fd,)) + bytes(data))
        return len(data)


_runner: Optional[Running] = None


def send_frames(runner: Running) -> None:
    """Send ``sys.stdout`` and ``sys.stderr`` through the results pipe from now on."""
    global _runner
    finish_task()
    _runner = runner
    install()


def open_stream(fd: int) -> TaskStream:
    """Return a line-buffered text stream over ``fd`` that does not close it."""
    raw: Any = PipeWriter(fd, "w", closefd=False) if _runner is None else FrameWriter(fd)
    return TaskStream(
        io.BufferedWriter(raw, 8192),
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
    )


#: The streams as they were made.
_ours: Any = (None, None)
get_inheritable = os.get_inheritable
#: Private copies of the pipes behind descriptors 1 and 2, for a task that closes those.
_kept: Dict[int, int] = {}


def install() -> None:
    """Replace the standard streams. The null device is standard input already."""
    for fd in (1, 2):
        if fd not in _kept:
            _kept[fd] = os.dup(fd)
    global _ours
    streams: Any = (open_stream(1), open_stream(2))
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = _ours = streams  # type: ignore[misc]


def remember_stderr() -> Any:
    """Return what takes a copy of the text that is written to ``sys.stderr`` from now on.

    The last pieces of it.
    """
    from collections import deque

    said: Any = deque(maxlen=400)
    if type(sys.stderr) is TaskStream:
        sys.stderr.copy_to(said)
    return said


def forget_stderr(said: Any) -> None:
    """End that copy."""
    for stream in (sys.stderr, _ours[1]):
        if type(stream) is TaskStream:
            stream.stop_copy(said)


def renew_stdin() -> None:
    """Open standard input again if it was closed: ``exit()`` and ``quit()`` do that."""
    stdin = sys.stdin
    if stdin is not None and stdin.closed:
        sys.stdin = open(os.devnull, encoding="utf-8")


def adopt(stdout: int, stderr: int) -> None:
    """Put other pipes behind descriptors 1 and 2.

    The streams over them, which modules may have kept, stay the same objects.
    """
    for fd, new in ((1, stdout), (2, stderr)):
        os.dup2(new, fd)
        os.close(_kept[fd])
        _kept[fd] = os.dup(fd)
        os.close(new)


def finish_task() -> bool:
    """Hand over what a task has left in the buffers, so that its lines precede its result.

    Never raises.

    Returns:
        False if the task has written nothing through the streams and left all as it was. What it
        has written below them is not known.
    """
    global _ours
    out, err = _ours
    try:
        # Nearly always nothing was printed, and all is as it was: then this is all there is to do.
        same = sys.stdout is out and sys.stderr is err
        if same and not out.dirty and not err.dirty and get_inheritable(1) and get_inheritable(2):
            return False
    except (OSError, AttributeError):
        pass  # the task has closed a descriptor, or taken a stream away
    for name, fd in (("stdout", 1), ("stderr", 2)):
        try:
            # The pipes of the host are inherited by commands; what a task has opened in their place
            # is not (PEP 446).
            intact = os.get_inheritable(fd)
        except OSError:
            intact = False
        if not intact and fd in _kept:
            _restore(fd)
        try:
            if _finish(getattr(sys, name, None)):
                continue
        except BaseException:  # noqa: BLE001
            # a foreign, closed or detached object in sys.stdout may raise anything, SystemExit too
            pass
        setattr(sys, name, open_stream(fd))
    ours: Any = (sys.stdout, sys.stderr)
    _ours = ours
    return True


def _finish(stream: Any) -> bool:
    """Flush what the task has left in a stream; False if the stream is of no use any more."""
    if stream is None:
        return False
    if type(stream) is TaskStream:
        if stream.closed:
            return False
        stream.flush_written()
        return True
    # The task's own replacement (redirect_stdout left open, a tee) stays in place.
    if getattr(stream, "closed", False):
        return False
    if hasattr(stream, "flush"):
        stream.flush()
    return True


def _restore(fd: int) -> None:
    """Put the host's pipe back in the place of what the task has closed or replaced."""
    try:
        os.dup2(_kept[fd], fd)
    except OSError:
        pass  # the task closed the copy as well (closerange): there is no way back


def flush_buffered() -> None:
    """Flush also what was written through ``.buffer``."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: BLE001
            # a foreign object in sys.stdout may raise anything, SystemExit too
            pass
