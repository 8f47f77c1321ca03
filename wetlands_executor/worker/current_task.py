"""What a running function can read and report of its task, wherever it runs.

``current_task`` and the handle that it gives.

Works in a worker, which has a main loop, and anywhere else, where the handle is inert;
so the same function runs in a worker, under pytest and in-process.
"""

from __future__ import annotations

import operator
import os
import sys

from . import running, threads, wire

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from .running import MainLoop

INFO = 20
#: By process id: the first half of the ids of task instances; of a worker it is its host's.
_programs: Dict[int, str] = {}


def program() -> str:
    """Return 16 random hexadecimal digits, with which ids of this program's instances begin."""
    pid = os.getpid()
    found = _programs.get(pid)
    if found is None:
        digits = os.urandom(8).hex()
        # So that an id is a UUID of version 4.
        found = _programs.setdefault(pid, digits[:12] + "4" + digits[13:])
    return found


def use_program(digits: str) -> None:
    """Be a worker of a program."""
    _programs[os.getpid()] = digits


def instance_id(number: int) -> str:
    """Return the id that a run of a task definition has, from the number of its task."""
    return "%s8%015x" % (program(), number)


class RemoteTaskHandle:
    """The running function's view of its task.

    Inert outside a worker, and after the call has ended.

    A handle belongs to one call and may be given to any thread, also to those that C code has
    started.

    Attributes:
        id: the task's identifier on the host; empty outside a worker.
    """

    def __init__(self, item: int = 0, serial: int = 0) -> None:
        self._item = item
        #: Of the call (see ``threads``): a retry has the same item.
        self._serial = serial
        place = item >> wire.NUMBER_BITS  # among the calls of a map that came together
        self.id = ("%d.%d" % (item & wire.NUMBER, place) if place else str(item)) if item else ""

    def _live(self) -> Optional[MainLoop]:
        runner = running.main_loop
        return (
            runner
            if runner is not None
            and self._item
            and runner.item == self._item
            and runner.serial == self._serial
            else None
        )

    @property
    def name(self) -> str:
        """The task's name on the host; empty outside a worker."""
        runner = self._live()
        return runner.task_name() if runner is not None else ""

    @property
    def attempt(self) -> int:
        """Number of the try that runs, from 1; more than that after a retry."""
        runner = self._live()
        item, number = runner.tries if runner is not None else (0, 1)
        return number if item == self._item else 1

    @property
    def instance_id(self) -> str:
        """The id of the task instance, if this is a run of a definition; empty outside a task."""
        return instance_id(self._item & wire.NUMBER) if self.id else ""

    @property
    def inputs(self) -> Dict[str, Any]:
        """The arguments of the call by the names of the function's parameters.

        ``*args`` beyond them are named ``"0"``, ``"1"``, ...
        """
        runner = self._live()
        return runner.inputs() if runner is not None else {}

    @property
    def cancel_requested(self) -> bool:
        """True once the host has asked this task to stop; always False outside a worker."""
        runner = self._live()
        return runner is not None and runner.cancel_requested(self._item)

    def should_stop(self) -> bool:
        """Return ``cancel_requested``."""
        return self.cancel_requested

    def cancel(self) -> None:
        """Acknowledge the cancellation.

        When the function returns now (or raises), the task is cancelled, not completed.
        """
        runner = self._live()
        if runner is not None:
            runner.acknowledge(self._serial)

    def update(
        self, message: Optional[str] = None, *, current: Any = None, maximum: Any = None
    ) -> None:
        """Report progress.

        Cheap: a report that the host has not read yet is replaced; the last one always arrives.

        Args:
            message: text; None leaves the last one.
            current: how far, any real number; None leaves the last one.
            maximum: of ``current``; None leaves the last one.
        """
        runner = self._live()
        if runner is not None:
            runner.progress.update(
                self._item,
                self._live,
                message,
                _number(current, "current"),
                _number(maximum, "maximum"),
            )

    def set_progress(self, fraction: float) -> None:
        """Report progress as a fraction of 1."""
        self.update(current=fraction, maximum=1)

    def set_output(self, key: Any, value: Any = None) -> None:
        """Send a named output to the host now.

        Args:
            key: the name; or a dict of names and values, all of them sent.
            value: what is sent; it must be picklable.

        Raises:
            Exception: what pickling the value raises.
        """
        runner = self._live()
        if runner is not None:
            values = dict(key) if isinstance(key, dict) else {key: value}
            runner.progress.output(self._item, self._live, values)

    @property
    def executor(self) -> Any:
        """The executor whose pool runs this task: what it submits runs there.

        Raises:
            RuntimeError: outside a task, and after the end of the call.
        """
        runner = self._live()
        if runner is None:
            raise RuntimeError(
                "current_task().executor: no task runs here; pass the executor to the function "
                "instead"
            )
        return runner.executor()

    def log(self, message: str, level: int = INFO) -> None:
        """Log under the name ``wetlands_executor.task``; handled on the host like every log record.

        After the end of the call the record belongs to no task.
        """
        import logging

        write = logging.getLogger("wetlands_executor.task").log
        if running.main_loop is None or not self._serial:
            write(level, message)
        else:
            # of this call, whichever thread holds the handle
            threads.Inheriting(write, self._serial, thread=False)(level, message)

    def __repr__(self) -> str:
        return "<RemoteTaskHandle %s>" % (self.id or "(inert)")


def _number(value: Any, name: str) -> Any:
    """Return a real number as int or float, which any host can read."""
    if value is None or type(value) in (int, float):
        return value
    try:
        return int.__int__(operator.index(value))  # of an exact type, as below
    except TypeError:
        pass
    try:
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        return float.__float__(float(value))
    except (TypeError, ValueError):
        raise TypeError("%s must be a real number, not %r" % (name, value)) from None


def current_task() -> RemoteTaskHandle:
    """Return the handle of the running task; outside a worker an inert one.

    Many calls deep too, and in the threads that the task has started.

    In a thread that a call has left behind it is inert after the end of that call, whatever runs in
    the worker then.
    """
    here = running.find_here() if running.find_here is not None else None
    if here is not None:
        return here  # type: ignore[no-any-return]
    shipped = sys.modules.get("_wetlands_worker.current_task")
    if shipped is not None and shipped.__dict__ is not globals():
        return shipped.current_task()  # type: ignore[no-any-return]
    runner = running.main_loop
    if runner is None:
        return RemoteTaskHandle()
    serial = runner.serial
    item = threads.item_here(runner)
    # Race: in a thread that was left behind the next call may begin between these lines; it does
    # not get the handle of that one.
    return (
        RemoteTaskHandle(item, serial) if item and runner.serial == serial else RemoteTaskHandle()
    )


# The same class under both names in a worker that has the real package: an annotation may name
# either.
_shipped = sys.modules.get("_wetlands_worker.current_task")
if _shipped is not None and __name__ != "_wetlands_worker.current_task":
    RemoteTaskHandle = _shipped.RemoteTaskHandle  # type: ignore[misc]
