"""From an outcome to what is written of it: a line of JSON, a line of the joblog, a failure."""

from __future__ import annotations

import json
import time
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, NamedTuple

from wetlands_executor import TaskTimeoutError, WorkerCrashed, WorkerUnresponsive
from wetlands_executor.cli import workers
from wetlands_executor.cli.mapping.items import Item
from wetlands_executor.cli.mapping.joblog import Entry

#: What GNU parallel writes for a job that has run too long.
TIMED_OUT: Final = (-1, 15)
#: Attribute of an exception, see ``in_worker.py``.
_TIMES: Final = "_wetlands_times"


class Failure(NamedTuple):
    """Why an item has failed.

    Attributes:
        summary: the last line of its exception.
        full: the traceback in the worker, or the whole message; ends with a line's end.
    """

    summary: str
    full: str


class Outcome(NamedTuple):
    """What is written of an item.

    Attributes:
        item: the item.
        result: its line of JSON.
        entry: its line of the joblog.
        failure: None if the function has returned.
    """

    item: Item
    result: bytes
    entry: bytes
    failure: Failure | None = None


def is_unfinished(error: BaseException, *, killed: bool) -> bool:
    """Return True for what a call ends with that was stopped: its item was not run to its end.

    Args:
        error: what it ended with.
        killed: the workers were killed, so that this is how calls end.
    """
    if isinstance(error, (CancelledError, KeyboardInterrupt)) or is_fatal(error):
        return True
    return killed and isinstance(error, BrokenProcessPool)


def is_fatal(error: BaseException) -> bool:
    """Return True for the end of all workers: none can be started, or they were killed."""
    lost = (WorkerCrashed, WorkerUnresponsive)
    return isinstance(error, BrokenProcessPool) and not isinstance(error, lost)


def returned(item: Item, command: str, value: tuple[float, float, str]) -> Outcome:
    """Return the outcome of a call that has returned.

    Args:
        item: its item.
        command: the target and the item.
        value: what ``in_worker.run`` returned.
    """
    start, runtime, text = value
    line = f'{{"seq": {item.seq}, "item": {_json(item.shown)}, "result": {text}}}\n'
    data = line.encode("utf-8", "backslashreplace")
    entry = Entry(item.seq, start, runtime, len(data), 0, 0, command)
    return Outcome(item, data, entry.line())


def failed(item: Item, command: str, error: BaseException, start: float) -> Outcome:
    """Return the outcome of a call that has failed.

    Args:
        item: its item.
        command: the target and the item.
        error: what it has raised, or how its worker ended.
        start: when it began if the exception does not say it, as ``time.time()``.
    """
    times = getattr(error, _TIMES, None) or (start, max(time.time() - start, 0.0))
    failure = Failure(workers.last_line(error), workers.full_text(error))
    return _of_failure(item, command, failure, times, _status(error))


def refused(item: Item, command: str) -> Outcome:
    """Return the outcome of an item that cannot be called."""
    text = f"item {item.seq} is {item.problem}"
    return _of_failure(item, command, Failure(text, f"{text}\n"), (time.time(), 0.0), (1, 0))


def _of_failure(
    item: Item, command: str, failure: Failure, times: tuple[float, float], status: tuple[int, int]
) -> Outcome:
    error = _json(failure.summary)
    line = f'{{"seq": {item.seq}, "item": {_json(item.shown)}, "error": {error}}}\n'
    data = line.encode("utf-8", "backslashreplace")
    entry = Entry(item.seq, *times, len(data), *status, command)
    return Outcome(item, data, entry.line(), failure)


def _status(error: BaseException) -> tuple[int, int]:
    """Return exit code and signal of a failure, as the joblog has them."""
    if isinstance(error, TaskTimeoutError):
        return TIMED_OUT
    if isinstance(error, WorkerCrashed) and error.exit_code is not None:
        return (0, -error.exit_code) if error.exit_code < 0 else (error.exit_code or 1, 0)
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code & 0xFF or 1, 0
    return 1, 0


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
