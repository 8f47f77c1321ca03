"""What has become of a pool's tasks, in numbers, and the last failures.

Bounded, and keeps no result alive. Entered by any thread.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures._base import FINISHED
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from weakref import ref

from wetlands_executor import seconds as seconds_of
from wetlands_executor.errors import TasksFailed
from wetlands_executor.futures.overview import Ended
from wetlands_executor.futures.settling import settle
from wetlands_executor.futures.waiting import Wakeups

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task
    from wetlands_executor.pool.delivery import SerialThread

#: Failures and finished tasks that are remembered.
REMEMBERED = 1000
#: Failures that are kept beyond those: decoder threads may settle tasks in another order than they
#: were made, so that which of them are the last is decided when they are asked for.
OUT_OF_ORDER = 64

#: What an ``Ended`` has of each task, from the task's dictionary, in one step in C; and what it has
#: of one that has returned.
_ALWAYS = itemgetter("_number", "_label", "_place", "_created_at", "_finished_at")
_RETURNED = itemgetter("_number", "_label", "_place", "_created_at", "_finished_at", "_duration")

ErrorCallback = Callable[["Task[Any]", BaseException], object]


def _number_of(task: Task[Any]) -> int:
    return task._number


class AtomicCounter:
    """A number that any thread may raise in a single step in C, without a lock: ``up()``."""

    __slots__ = ("_count", "up")

    def __init__(self) -> None:
        self._count = itertools.count()
        self.up: Callable[[], int] = self._count.__next__

    def add(self, number: int) -> None:
        """Raise it by any number."""
        # one step: a slice that begins at its end only counts
        next(itertools.islice(self._count, number, number), None)

    @property
    def value(self) -> int:
        """The number."""
        # "count(7)": to look at it in any other way would be to count
        return int(repr(self._count)[6:-1])


class TaskStats:
    """Counts of tasks by what became of them."""

    def __init__(self, callbacks: SerialThread) -> None:
        self._callbacks = callbacks
        self._total, self._completed, self._failed, self._cancelled = (
            AtomicCounter(),
            AtomicCounter(),
            AtomicCounter(),
            AtomicCounter(),
        )
        self._retried = AtomicCounter()
        # Tasks counted as submitted and completed in one bytecode, so that an interrupt cannot
        # separate the two.
        self._at_once, self._refused = AtomicCounter(), AtomicCounter()
        self._failures: deque[Task[Any]] | None = deque(maxlen=REMEMBERED + OUT_OF_ORDER)
        self._find_failures = ref(self._failures)
        # Each has the fields of an ``Ended``, which is made of them when it is asked for: to make
        # one takes five times as long: (ref, ``_ALWAYS``, options, ran, reported, state). Of a
        # plain call that has returned, and reported nothing: (ref, ``_RETURNED``).
        self._recent: deque[tuple[Any, ...]] = deque(maxlen=REMEMBERED)
        #: Locks of threads that wait until no task is active. Order: a thread that counts an end
        #: counts first and then looks here; a waiting thread adds itself and then reads the counts.
        self._wakeups = Wakeups()
        self._error_callback: ErrorCallback | None = None

    def give_failures(self) -> object:
        """Return the record of failed tasks, which is kept from now on only by the caller.

        That is the executor. The pool lives until it has been shut down, and the tracebacks of the
        tasks keep frames of the program, in which the executor may be a variable: if the pool had
        the record, such an executor could never be dropped, and its workers would stay.
        """
        record, self._failures = self._failures, None
        return record

    @property
    def _failed_tasks(self) -> deque[Task[Any]]:
        record = self._find_failures()
        return deque() if record is None else record

    def report_errors(self, callback: ErrorCallback | None) -> None:
        """Call this for every task that fails, on the callback thread; None ends that.

        Raises:
            TypeError: it is neither callable nor None.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"the callback must be callable or None, not {callback!r}")
        self._error_callback = callback

    @property
    def total(self) -> int:
        """Number of tasks that were submitted."""
        return self._total.value + self._at_once.value + self._refused.value

    @property
    def completed(self) -> int:
        """Number of tasks that have returned normally."""
        return self._completed.value + self._at_once.value

    @property
    def failed(self) -> int:
        """Number of tasks that have failed."""
        return self._failed.value + self._refused.value

    @property
    def cancelled(self) -> int:
        """Number of tasks that were cancelled."""
        return self._cancelled.value

    @property
    def retried(self) -> int:
        """Number of times that a task was begun anew."""
        return self._retried.value

    @property
    def active(self) -> int:
        """Number of tasks that were submitted and have not finished."""
        # Order: first, so that it is never more than the total
        done = self._completed.value + self._failed.value + self._cancelled.value
        return self._total.value - done

    def submitted(self, task: Task[Any]) -> None:
        """Count a task that was submitted, once.

        Not by its submitter: a signal may interrupt that thread before the call is on its way.
        """
        fields = task.__dict__
        if "_counted" not in fields:
            fields["_counted"] = True
            self._total.up()

    def submitted_together(self, tasks: Sequence[Task[Any]]) -> None:
        """Count those of these tasks that were not counted and have not finished. I/O thread."""
        count = 0
        # Not through ``__dict__``: as long as that was not asked for, CPython makes no dictionary,
        # and the garbage collector has one object less to look at for each task that waits.
        for task in tasks:
            if not task._counted and task._final is None:
                task._counted = True
                count += 1
        self._total.add(count)

    def expect(self, count: int) -> None:
        """Count calls that were submitted together."""
        self._total.add(count)

    def finished(self, task: Task[Any]) -> None:
        """Count a task that has reached its final state, unless it was never started."""
        fields = task.__dict__
        if "_counted" not in fields:
            return
        error = fields.get("_exception")
        if error is not None:
            self._failed_tasks.append(task)
        self._note(task, fields)
        (
            self._failed
            if error is not None
            else self._cancelled
            if fields["_final"] != FINISHED
            else self._completed
        ).up()
        if self._wakeups:
            self._wake()
        if error is not None:
            self._tell_failure(task, error)

    def _note(self, task: Task[Any], fields: dict[str, Any]) -> None:
        """Remember a finished task."""
        reports = fields.get("_reports")
        state = "canceled" if fields["_final"] != FINISHED else "completed"
        self._recent.append(
            (
                ref(task),
                _ALWAYS(fields),
                fields.get("_options"),
                fields.get("_duration", 0.0) if "_worker_pid" in fields else None,
                None if reports is None else reports.snapshot,
                "failed" if "_exception" in fields else state,
            )
        )

    def _tell_failure(self, task: Task[Any], error: BaseException) -> None:
        callback = self._error_callback
        if callback is not None:
            self._callbacks.put(partial(callback, task, error))

    def begun_again(self) -> None:
        """Count a further try of a task."""
        self._retried.up()

    def returned(self, tasks: Sequence[Task[Any]]) -> None:
        """Count tasks of plain calls that have returned normally."""
        fields = list(map(vars, tasks))
        if any(map(dict.__contains__, fields, repeat("_reports"))):
            for task in tasks:
                self._note(task, task.__dict__)
        else:
            # In C: here every one of many short tasks comes through.
            self._recent.extend(zip(map(ref, tasks), map(_RETURNED, fields), strict=True))
        self._completed.add(len(tasks))
        if self._wakeups:
            self._wake()

    def returned_one(self, task: Task[Any]) -> None:
        """Count a task of a plain call that was not counted before, and has returned normally.

        Once, however often it is called.
        """
        fields = task.__dict__
        if "_reports" in fields:
            self._note(task, fields)
        else:
            self._recent.append((ref(task), _RETURNED(fields)))
        if "_counted" not in fields:
            # Order: no call stands between this and the next line, which is one step
            fields["_counted"] = True
            self._at_once.up()

    def refused(self, task: Task[Any], error: BaseException) -> None:
        """Count a task that has failed before it was submitted, and settle it."""
        fields = task.__dict__
        counted = "_counted" in fields
        settle(task, None, error)
        if not counted:
            self._failed_tasks.append(task)
            self._note(task, fields)
            fields["_counted"] = True  # as above
            self._refused.up()
            self._tell_failure(task, error)

    def count(self, completed: int, cancelled: int) -> None:
        """Count calls that have returned normally, or were cancelled."""
        self._completed.add(completed)
        self._cancelled.add(cancelled)
        if self._wakeups:
            self._wake()

    def _wake(self) -> None:
        """Wake the threads that wait until no task is active, if that is so."""
        if self.active <= 0:
            self._wakeups.notify_all()

    def wait_all(
        self,
        timeout: float | None,
        *,
        raise_on_error: bool,
        wait: Callable[[float | None], bool],
    ) -> bool:
        """Do what ``wait_all`` of an executor does.

        Args:
            timeout: seconds, as the program has given them.
            raise_on_error: raise if a task has failed since the last ``clear_failures``.
            wait: waits until no task is active, for so many seconds.

        Raises:
            TasksFailed: some have failed; it lists their names.
            TypeError, ValueError: ``timeout`` is no number of seconds.
        """
        if isinstance(timeout, bool):
            raise TypeError(
                f"wait_all({timeout}): timeout is a number of seconds; write "
                f"wait_all(raise_on_error={timeout})"
            )
        done = wait(seconds_of.wait("timeout", timeout))
        failed = self.failures() if raise_on_error else []
        if failed:
            raise TasksFailed.of(failed)
        return done

    def wait(self, timeout: float | None) -> bool:
        """Wait until no task is active; False if ``timeout`` seconds were over before."""
        return self._wakeups.wait(lambda: self.active <= 0, timeout)

    def failures(self) -> list[Task[Any]]:
        """Return the last failed tasks in the order in which they were made.

        Of those that failed first, the ones made first are left out; a task that was made long
        before, and failed last, is not.
        """
        found = list(self._failed_tasks.copy())
        surplus = max(len(found) - REMEMBERED, 0)
        oldest = sorted(found[: 2 * surplus], key=_number_of)[surplus:]
        return sorted(oldest + found[2 * surplus :], key=_number_of)

    def ended(self) -> list[Ended]:
        """Return the last finished tasks, oldest first."""
        found: dict[int, Ended] = {}  # an interrupted step may have noted one twice
        for task, (number, label, place, created, finished, *ran), *rest in self._recent.copy():
            options, took, reported, state = rest or (None, *ran, None, "completed")
            found[number] = Ended(
                task, number, label, options, place, created, finished, took, reported, state
            )
        return list(found.values())

    def clear_failures(self) -> None:
        """Forget the failed tasks."""
        self._failed_tasks.clear()

    def find(self, identifier: str) -> Task[Any] | None:
        """Return one of the last finished tasks, if it is still referred to."""
        recent: list[ref[Task[Any]]] = [each[0] for each in self._recent.copy()]
        recent += map(ref, self._failed_tasks.copy())
        for reference in recent:
            task = reference()
            if task is not None and task.id == identifier:
                return task
        return None
