"""What workers print, as whole lines on the host's ``sys.stdout`` and ``sys.stderr``.

Bytes come in on the I/O thread; text goes out on the output thread, because a stream of the host
may block or be the user's own object. ``enqueued`` is written by the I/O thread and ``written`` by
the output thread: they are equal when nothing is under way.

A stream of the host may refuse text: it cannot encode a character, it is a descriptor in
non-blocking mode, it is the user's own object and raises. What one line meets must not cost the
lines beside it: a refused text is written again line by line, with escapes for what cannot be
encoded. A failure that remains is logged once per kind; the lines that it concerns are dropped.
"""

from __future__ import annotations

import codecs
import logging
import re
import sys
import threading
from typing import TYPE_CHECKING, Any

from wetlands_executor.system import POLLOUT, get_blocking, poll

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task

#: Characters after which a line that never ends is passed on anyway.
LONGEST_LINE = 65536
#: Characters that are written at once to a non-blocking descriptor: as bytes they fit into the
#: buffer of a text stream (8,192 bytes), which keeps what the descriptor does not take.
PIECE = 2048

LOGGER = logging.getLogger("concurrent.futures")


class _Printing(threading.local):
    """What the calling thread prints right now.

    Attributes:
        task: whose; None for what belongs to no task, and on other threads.
    """

    task: Task[Any] | None = None

    def begin(self, task: Task[Any] | None) -> None:
        """Print what belongs to ``task`` from now on."""
        self.task = task

    def end(self) -> None:
        """Print nothing any more."""
        self.task = None


_printing = _Printing()


def printing_task() -> Task[Any] | None:
    """Return the task whose lines are being written.

    For an object that replaces ``sys.stdout`` or ``sys.stderr``, within its ``write``. None if the
    lines are not a worker's, or if it is not known which of its tasks printed them (several very
    short ones in a row, output of threads and processes that a task has left behind).
    """
    return _printing.task


class LineSplitter:
    r"""Cuts a byte stream into texts of whole lines.

    A line ends with ``\n``, or with ``\r`` as progress bars write it.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> str:
        """Return the whole lines that ``data`` completes, joined; keep the rest."""
        text = self._rest + self._decoder.decode(data)
        end = max(text.rfind("\n"), text.rfind("\r")) + 1
        if not end and len(text) > LONGEST_LINE:
            end = len(text)
        self._rest = text[end:]
        return text[:end]

    def finish(self) -> str:
        """Return what waits for its line's end, ended now.

        For the end of a task or of the stream.
        """
        rest, self._rest = self._rest, ""
        return rest + "\n" if rest else ""

    @property
    def pending(self) -> bool:
        """True if a line has begun and not ended."""
        return bool(self._rest)


#: A line of what faulthandler prints when it is asked for the stacks, from Python 3.8 to 3.15.
_OF_STACKS = re.compile(
    r"(Current thread|Thread|Stack).*\(most recent call first\):|  File \".*|  Binary file \".*|  "
    r"\.\.\.|  <.*>|Current thread's C stack trace.*"
)


def without_stacks(text: str) -> str:
    """Return whole lines without those of stacks; empty lines, which part threads, go with them."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() and _OF_STACKS.match(line) is None)


class OutputStream:
    """One of a worker's two streams on its way to the host's.

    Attributes:
        name: ``"stdout"`` or ``"stderr"``: which of the host's streams, looked up when a line is
            written (so a redirection counts).
        paused: reading was stopped, because the host's stream takes less than the worker prints.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.splitter = LineSplitter()
        self.enqueued = 0
        self.written = 0
        self.paused = False

    @property
    def under_way(self) -> int:
        """Number of pieces that the output thread has not written yet."""
        return self.enqueued - self.written

    def enqueue(self) -> None:
        """Count a piece that is put before the output thread."""
        self.enqueued += 1

    def count_written(self) -> None:
        """Count a piece that was dealt with. Output thread."""
        self.written += 1

    def pause(self) -> None:
        """Note that reading was stopped."""
        self.paused = True

    def resume(self) -> None:
        """Note that it goes on."""
        self.paused = False

    def write(self, text: str, task: Task[Any] | None = None) -> None:
        """Write to the host's stream; runs on the output thread."""
        _printing.begin(task)
        try:
            stream = getattr(sys, self.name, None)
            if stream is not None:  # None under pythonw
                _write(stream, text)
                _flush(stream)
        except BaseException as error:  # noqa: BLE001
            # the user's stream may raise anything, SystemExit too
            _tell_once(self.name, error)
        finally:
            _printing.end()
            self.written += 1


def _write(stream: Any, text: str) -> None:
    """Write a text of several lines to a stream of the host.

    Raises what the stream raises for good.
    """
    if not text.isascii():
        text = _encodable(text, getattr(stream, "encoding", None), getattr(stream, "errors", None))
    if len(text) > PIECE and _is_nonblocking(stream):
        for start in range(0, len(text), PIECE):
            _write_all(stream, text[start : start + PIECE])
            _flush(stream)
        return
    try:
        _write_all(stream, text)
    except OSError:
        raise  # the descriptor below takes nothing: the next line would meet that too
    except Exception as error:
        if getattr(stream, "closed", False):
            raise
        failure: Exception | None = None if isinstance(error, UnicodeError) else error
        for line in text.splitlines(keepends=True):
            failure = _write_escaped(stream, line) or failure
        if failure is not None:
            raise failure from None


def _write_escaped(stream: Any, line: str) -> Exception | None:
    """Write one line of a refused text, in ASCII if it is refused as it is.

    Return what was raised.
    """
    try:
        _write_all(stream, line)
    except UnicodeError:
        try:
            _write_all(stream, line.encode("ascii", "backslashreplace").decode())
        except Exception as error:  # noqa: BLE001
            # the user's stream; the lines after this one are tried all the same
            return error
    except Exception as error:  # noqa: BLE001 - as above
        return error
    return None


def _write_all(stream: Any, text: str) -> None:
    """Write a text to a stream, which may take only a part of it at a time."""
    while text:
        try:
            done = stream.write(text)
        except BlockingIOError:
            _flush(stream)  # a line-buffered stream: it has the text, and could not hand it on
            return
        if type(done) is not int or not 0 < done < len(text):
            return  # as the io module says it; an object of the user's may return anything
        text = text[done:]


def _flush(stream: Any) -> None:
    """Flush a stream, if it can be flushed. Waits for a descriptor in non-blocking mode."""
    flush = getattr(stream, "flush", None)
    while flush is not None:
        try:
            flush()
        except BlockingIOError:
            ready = poll()  # no select(): its numbers end at 1,024
            ready.register(stream.fileno(), POLLOUT)
            ready.poll()
        else:
            return


def _is_nonblocking(stream: Any) -> bool:
    """Return True if the descriptor below a stream is non-blocking.

    Another program may have done that to a terminal.
    """
    try:
        return not get_blocking(stream.fileno())
    except Exception:  # noqa: BLE001 - there is none, or the user's object says nonsense
        return False


def _encodable(text: str, encoding: Any, errors: Any) -> str:
    """Return the text with escapes for the characters that this encoding cannot represent."""
    try:
        text.encode(encoding, errors if isinstance(errors, str) else "strict")
    except UnicodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding, "backslashreplace")
    except (LookupError, TypeError):
        pass  # an object without an encoding (StringIO), or with one that Python does not know
    return text


#: Failures that were logged: name of the stream, and the types of the stream and of its exception.
_told: set[tuple[str, type, type]] = set()


def _tell_once(name: str, error: BaseException) -> None:
    """Log that lines of workers are lost.

    Once per kind: it may happen to each of a million lines.
    """
    stream = getattr(sys, name, None)
    kind = (name, type(stream), type(error))
    if kind in _told:
        return
    _told.add(kind)
    try:
        LOGGER.warning(
            "wetlands_executor: sys.%s (%s) has refused lines that workers printed, which are "
            "lost: %s: %s. This is said once",
            name, type(stream).__name__, type(error).__name__, error,
        )  # fmt: skip
    except Exception:  # noqa: BLE001, S110
        # The handler may write to the very stream that fails; there is no other way to report it.
        pass
