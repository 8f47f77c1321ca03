"""Ingredients that move data.

Arrays and bytes, progress and outputs, log records and lines of output.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import os
import threading
import uuid
from typing import Any

from tests.soak import work
from tests.soak.ledger import Kitchen, Violation
from wetlands_executor import share

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
if HAS_NUMPY:
    import numpy as np  # here, so that what it costs is there before the first count


class Sink:
    """Bytes of the host's streams; any thread."""

    def __init__(self) -> None:
        # Guards `_lines` and `_rest`.
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._rest = b""

    def add(self, data: bytes) -> None:
        """Take bytes."""
        with self._lock:
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines += [line.decode("utf-8", "replace") for line in lines]

    def take(self, token: str) -> list[str]:
        """Return the lines with this token in them, and keep them no more."""
        with self._lock:
            found = [line for line in self._lines if token in line]
            self._lines = [line for line in self._lines if token not in line]
        return found


class Raw(io.RawIOBase):
    """The way of one stream into the sink.

    A text stream closes what it writes to when it is collected.
    """

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, data: Any) -> int:
        """Take bytes."""
        SINK.add(bytes(data))
        return len(data)


class Records(logging.Handler):
    """Log records of the soak's own loggers; any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, list[logging.LogRecord]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record (under the handler's lock)."""
        self._found.setdefault(record.name, []).append(record)

    def take(self, name: str) -> list[logging.LogRecord]:
        """Return the records of a logger, and keep them no more."""
        with self.lock:
            return self._found.pop(name, [])


SINK = Sink()
RECORDS = Records()
#: Encodings that the host's stdout may have.
ENCODINGS = ("utf-8", "ascii", "latin-1")


def stream(encoding: str) -> io.TextIOWrapper:
    """Return a text stream into the sink, as strict as a terminal's."""
    return io.TextIOWrapper(
        Raw(), encoding=encoding, errors="strict", newline="\n", write_through=True
    )  # type: ignore[type-var]


def blobs(kitchen: Kitchen) -> None:
    """Bytes of all sizes, both ways."""
    rng = kitchen.rng
    executor = kitchen.executor()
    for _ in range(rng.randrange(1, 6)):
        data = rng.randbytes(rng.choice([0, 10, 5_000, 70_000, 130_000, 1_000_000, 5_000_000]))
        kitchen.value(kitchen.submit(executor, work.digest, data), hashlib.sha256(data).hexdigest())
        kitchen.value(kitchen.submit(executor, work.echo, bytearray(data)), bytearray(data))
        kitchen.value(kitchen.submit(executor, work.echo, [data, data.hex()]), [data, data.hex()])


def arrays(kitchen: Kitchen) -> None:
    """Arrays, masked arrays, shared ones; an argument is the task's own, a result the host's."""
    rng = kitchen.rng
    executor = kitchen.executor("plain", "preloaded")
    size = rng.choice([3, 1000, 20_000, 500_000])
    array = np.arange(size, dtype=rng.choice([np.float64, np.float32]))
    total = float(array.sum())
    tasks = [kitchen.submit(executor, work.scale, array, factor) for factor in range(1, 5)]
    array[:] = 0
    for factor, task in enumerate(tasks, start=1):
        result = kitchen.end(task)
        if task.exception(0) is not None:
            raise Violation(f"{task}: {task.error}")
        result = task.value
        if (
            not np.array_equal(result, np.arange(size, dtype=array.dtype) * factor)
            or not result.flags.writeable
        ):
            raise Violation(
                f"{task}: an array of {size} came back wrong (sum {result.sum()}, "
                f"expected {total * factor})"
            )
        result[:] = -1
    tasks.clear()
    masked = np.ma.masked_greater(np.arange(size, dtype="f8"), size / 2)
    kitchen.value(
        kitchen.submit(executor, work.summarize, masked),
        ("MaskedArray", "float64", (size,), float(masked.sum())),
    )
    made = kitchen.submit(executor, work.make_array, (size, 2), "i8", 7)
    kitchen.same(
        (kitchen.end(made).status.value, made.value.shape, int(made.value.sum())),
        ("completed", (size, 2), 14 * size),
        made,
    )
    kept = share(np.full(size, 2.0))
    shared = [kitchen.submit(executor, work.summarize, kept) for _ in range(4)]
    for task in shared:
        kitchen.value(task, ("ndarray", "float64", (size,), 2.0 * size))


def progress(kitchen: Kitchen) -> None:
    """Progress and outputs of odd classes."""
    executor = kitchen.executor()
    bystanders = kitchen.bystanders(executor)
    steps = kitchen.rng.randrange(1, 200)
    task = kitchen.submit(executor, work.report, steps)
    kitchen.value(task, steps)
    kitchen.same(
        (task.message, task.maximum, task.progress),
        (f"step {steps}", steps, 1.0),
        "the last progress of a task",
    )
    kitchen.same(
        task.outputs,
        {
            "token": work.Token(("a", steps)),
            "name": os.fsdecode(b"\xff.tif"),
            "level": work.Level.HIGH,
        },
        "outputs",
    )
    bystanders()


def logs(kitchen: Kitchen) -> None:
    """Records with values of odd classes arrive, once each."""
    executor = kitchen.executor()
    bystanders = kitchen.bystanders(executor)
    name = f"soak.{uuid.uuid4().hex}"
    text = f"said {kitchen.rng.randrange(1000)}"
    kitchen.value(kitchen.submit(executor, work.log, name, text), text)
    found = [(record.levelname, record.getMessage()) for record in RECORDS.take(name)]
    # A formatted level is "3" or "Level.LOW", by the version of Python in the worker.
    if [level for level, _ in found] != ["WARNING", "ERROR"] or not (
        found[0][1].startswith(f"{text} ") and found[1][1] == f"{text} failed"
    ):
        raise Violation(f"two log records should have arrived from {text!r}: {found}")
    bystanders()


def output(kitchen: Kitchen) -> None:
    """Printed lines arrive whole, once, before the task's end, whatever the host's stream can
    encode.
    """
    executor = kitchen.executor()
    text = f"line-{uuid.uuid4().hex}"
    count = kitchen.rng.choice([1, 5, 400])
    kitchen.value(kitchen.submit(executor, work.say, text, count), count)
    found = SINK.take(text)
    numbers = [int(line.split()[1]) for line in found if line.split()[1] != "err"]
    if numbers != list(range(count)) or len(found) != count + 1:
        threading.Event().wait(2)  # a violation is to say whether the rest comes too late or never
        late = len(SINK.take(text))
        raise Violation(
            f"of {count} lines and one on stderr {len(found)} have come before the "
            f"end, {late} later: {found[:3]} ..."
        )


def census(kitchen: Kitchen) -> None:
    """A worker's threads, descriptors and mappings stay about the same."""
    executor = kitchen.executor("plain", "second", "preloaded")
    task = kitchen.end(kitchen.submit(executor, work.census))
    if task.exception(0) is not None:
        raise Violation(f"{task}: {task.error}")
    pid, first, now = task.value
    for what, slack in (("threads", 4), ("descriptors", 16), ("mappings", 200)):
        if now[what] > first[what] + slack:
            raise Violation(
                f"the worker {pid} had {first[what]} {what} at first and has {now[what]} now"
            )


INGREDIENTS = {function.__name__: function for function in (blobs, progress, logs, output, census)}
if HAS_NUMPY:
    INGREDIENTS["arrays"] = arrays
