"""``map`` without a Task per call: many calls wait as one item, and travel in parts.

The futures of a ``map`` are seen by nobody. So its calls need no Future each; what is kept per call is its pickled arguments, then its
result. A ``Series`` owns both. It waits in the queue as one item, a ``Bulk``; when a worker has room, the state takes a ``Part`` from it: as
many calls as are expected to take ``PART_SECONDS`` together, one as long as nothing is known. The worker answers each call by a frame of its
own before it begins the next, so a crash concerns the one call that ran; the rest of its part goes back to the front of the queue.

Threads: the caller pickles and takes results (unpickling is user code, it happens there); the I/O thread splits, stores results and wakes the
caller. A result is stored before the caller is looked for; the caller says what it waits for and then looks again.
"""

from __future__ import annotations

import itertools
import pickle
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Protocol

from wetlands_executor import arguments, threads
from wetlands_executor.errors import WaitTimeout
from wetlands_executor.futures import home as task_home
from wetlands_executor.futures.future import Task
from wetlands_executor.map import packing
from wetlands_executor.pool.call import FAILED, TOO_LARGE, WHOLE, Call, Outcome
from wetlands_executor.scheduling.messages import ANY, DeathReport, Item
from wetlands_executor.serialize.calls import Definition, EncodedCall, PackedCall, encode_defined
from wetlands_executor.serialize.errors import decode_error, undecodable
from wetlands_executor.serialize.pickler import PROTOCOL
from wetlands_executor.serialize.scalars import SCALARS, are_scalars
from wetlands_executor.serialize.settings import HostSettings, current_settings
from wetlands_executor.serialize.unpickler import decode
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.pool.start import StartSettings
    from wetlands_executor.pool.stats import TaskStats

#: What one part is expected to take, in seconds: long against the 20 us that handing it over costs, short against what anybody notices.
PART_SECONDS = 0.001
#: Calls in one part, and bytes of their arguments that go through the pipe, at most.
PART_CALLS, PART_BYTES = 64, 65536
#: Bytes of arguments that are copied for one worker ahead of time, unless two parts have more; and parts, while no duration is known.
AHEAD_BYTES, AHEAD_FIRST = 4 << 20, 4
#: After each call those before it count for less by this factor in the mean duration. It is of some tens of calls: fewer, and one that the system
#: has interrupted would make parts small for no good reason; more, and they would be too large for too long where calls become long.
FADING = 0.97
#: Not on the wire: a failure, as a settled Task.
SETTLED = 250
_SIZED = frozenset((str, bytes))


class Home(task_home.Home, Protocol):
    """The pool of a map, as the map sees it; more than its tasks do."""

    @property
    def max_workers(self) -> int:
        """Number of workers at most."""
        ...

    @property
    def settings(self) -> StartSettings:
        """How workers are started."""
        ...

    @property
    def stats(self) -> TaskStats:
        """Counts."""
        ...

    @property
    def end_reason(self) -> str | None:
        """Why what has not started is cancelled, once the pool is ended that way."""
        ...

    def submit_item(self, item: Item) -> None:
        """Take the calls of a map."""
        ...

    def cancel_found(self, find: Callable[[], Iterable[Item]]) -> None:
        """Take what ``find`` returns on the I/O thread out of the queue, and ask what runs of it to stop."""
        ...


class Part:
    """Some calls of a series, as a worker gets them: the batch of one ``Call``.

    Attributes:
        series: where they come from.
        first, count: their places in it.
        received: calls of which the outcome is there; they come in order.
        call: the item.
    """

    __slots__ = ("call", "count", "created_at", "first", "received", "series")

    def __init__(self, series: Series, first: int, count: int, encoded: EncodedCall) -> None:
        self.series = series
        self.first = first
        self.count = count
        self.received = 0
        self.created_at = time.time()
        self.call = Call(Task._of(series.pool)._number, encoded, series.context, None, series, self)
        self.call.asks = True  # if its worker dies, the rest is submitted again: the pool must not close in between

    @property
    def name(self) -> str:
        """What is called."""
        return self.series.label.name

    def advance(self, count: int = 1) -> int:
        """Return the place of the next outcome, which has arrived, or of the first of several."""
        place = self.first + self.received
        self.received += count
        if self.received == self.count:
            self.series.parts.pop(self.call, None)
        return place

    def note_duration(self, duration: int, count: int = 1) -> None:
        """Learn from the mean duration of ``count`` calls, in microseconds."""
        self.series.note(duration, count)


class Bulk(Item):
    """The calls of a series that no worker has, as one item of the queue."""

    __slots__ = ("batch", "created_at", "number", "receiver", "series")
    many = True
    #: As of a ``Call`` that is a batch.
    task = None
    process = None

    def __init__(self, series: Series) -> None:
        super().__init__()
        self.series = series
        self.receiver = series
        self.number = Task._of(series.pool)._number
        self.created_at = time.time()
        self.batch = self

    @property
    def name(self) -> str:
        """What is called."""
        return self.series.label.name

    def fail(self, error: BaseException | None) -> None:
        """Let all calls fail that wait."""
        self.series.on_outcome(self, Outcome(FAILED, error))

    @property
    def exhausted(self) -> bool:
        """True if every call is with a worker or has its outcome."""
        return not self.series.left

    @property
    def left(self) -> int:
        """Number of calls that wait."""
        return self.series.left

    @property
    def ahead(self) -> int:
        """How many parts a worker may hold."""
        return self.series.ahead()

    def split(self) -> Item | None:
        """Return the next part."""
        return self.series.next_part()


class Series:
    """The calls of one ``map``: their arguments, then their results.

    Args:
        pool: where they run.
        definition: the function.
        context: the project folders that it needs.
    """

    def __init__(self, pool: Home, definition: Definition, context: HostSettings) -> None:
        self.pool = pool
        self.definition = definition
        self.label = definition
        self.context = context
        self.left = 0
        #: By place: the arguments. As they are if they are of immutable builtin types, which can be pickled at any time and by any thread; else
        #: pickled when the map was called. None once the outcome is there.
        self._arguments: list[tuple[Any, ...] | EncodedCall | None] = []
        # The arguments of all calls are as they are, and none can be large.
        self._small = False
        #: Place -> what the pickling of its arguments has raised.
        self.failures: dict[int, BaseException] = {}
        #: By place: (kind, data) of the outcome; None before it is there and after it was taken.
        self._outcomes: list[tuple[int, Any] | None] = []
        # Places of the calls that no worker has: (first, behind the last). I/O thread only, once the series was submitted.
        self._waiting: deque[tuple[int, int]] = deque()
        self.bulk = Bulk(self)
        # Mean duration of a call lately, in microseconds; None if none has ended.
        self._pace: float | None = None
        # Bytes of the last part.
        self._weight = 0
        # The caller sleeps until the outcome at `_wanted` is there.
        self._wanted = 0
        self._sleepers: deque[Any] = deque()
        #: What workers have and have not answered in full.
        self.parts: dict[Call, None] = {}
        #: Its workers run another Python: code that comes back is source, or nothing that is accepted.
        self.foreign = False
        self.sender: tuple[str, str] = ("", "")
        #: Nobody will take results any more.
        self.closed = False

    # --- in

    def fill(self, calls: list[tuple[Any, ...]]) -> None:
        """Take the arguments of all calls; what pickling raises becomes the outcome of its call."""
        types = set(map(type, itertools.chain.from_iterable(calls)))
        if types <= SCALARS:
            self._arguments = calls  # type: ignore[assignment]
            self._small = not types & _SIZED
            return
        for args in calls:
            entry: tuple[Any, ...] | EncodedCall | None = args
            if not are_scalars(map(type, args)):
                try:
                    entry = encode_defined(self.definition, args, None, self.pool.settings.peer)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - pickling is user code; by the contract its failure is the call's
                    self.failures[len(self._arguments)] = error
                    entry = PackedCall(None, 0, b"", None)  # never sent: only for the message
                    entry.summary = arguments.of_values(args)
            self._arguments.append(entry)

    def submit(self) -> None:
        """Hand everything to the pool."""
        count = len(self._arguments)
        self.pool.stats.expect(count)
        self._outcomes = [None] * count
        first = 0
        for place, error in self.failures.items():
            self._outcomes[place] = (SETTLED, self._failed(error, place))
            self._arguments[place] = None
            if first < place:
                self._waiting.append((first, place))
            first = place + 1
        if first < count:
            self._waiting.append((first, count))
        self.left = count - len(self.failures)
        self.failures.clear()
        if self.left:
            self.pool.submit_item(self.bulk)

    def _task_for(self, place: int) -> Task[Any]:
        """Return the Task of a call that has failed, for the pool's record of failures and for the caller. Order: before its arguments go."""
        task = Task._of(self.pool)
        task._label = self.label
        task._counted = True
        entry = self._arguments[place]
        if isinstance(entry, tuple):
            task._input = arguments.of_values(entry)
        elif entry is not None:
            task._input = entry.payload if entry.summary is None else entry.summary
        return task

    def _failed(self, error: BaseException | None, place: int) -> Task[Any]:
        task = self._task_for(place)
        task._settle(None, error)
        return task

    # --- out to workers (I/O thread)

    def next_part(self) -> Call | None:
        """Take what one worker should do next."""
        if not self._waiting:
            return None
        first, end = self._waiting[0]
        count, large = min(end - first, self._size()), 0
        if not self._small:
            count, large = packing.fitting(self._arguments[first : first + count], PART_BYTES)
        try:
            part = self._part(first, count, large)
        except MemoryError as error:
            self._drop_waiting(1)
            self.fail(first, error)
            return None
        self._drop_waiting(count)
        self.parts[part.call] = None
        return part.call

    def _part(self, first: int, count: int, large: int) -> Part:
        """Return the part of these calls, which have so many bytes of large arguments."""
        definition = self.definition
        entries = self._arguments[first : first + count]
        entry = entries[0]
        parcel = None
        packed = packing.pack(entries) if large >= packing.CROSSOVER and (count > 1 or isinstance(entry, tuple)) else None
        if packed is None and count == 1 and isinstance(entry, tuple) and _bytes_in(entry) > wire.CROSSOVER:
            entry = encode_defined(definition, entry)  # immutable, so it could wait until here
        if packed is not None:
            data, parcel = packed
            flags = wire.MANY | wire.BLOCKS
        elif isinstance(entry, tuple):
            data = pickle.dumps(entries, PROTOCOL)
            flags = wire.MANY | wire.PLAIN
        elif count == 1:
            assert entry is not None
            self._weight = len(entry.payload)
            return Part(self, first, 1, entry)
        else:
            chosen: list[bytes] = [one.payload for one in entries]  # type: ignore[union-attr]
            data = b"".join((struct.pack(f"<{count + 1}I", count, *map(len, chosen)), *chosen))
            flags = wire.MANY
        self._weight = len(data) + large
        flags |= wire.IN_BULK if len(data) > wire.INLINE else 0
        return Part(self, first, count, EncodedCall(definition, flags, data, definition.by_value, definition.bytecode, parcel))

    def _drop_waiting(self, count: int) -> None:
        """Take the first ``count`` calls from those that wait."""
        first, end = self._waiting[0]
        if first + count == end:
            self._waiting.popleft()
        else:
            self._waiting[0] = (first + count, end)
        self.left -= count

    def _size(self) -> int:
        if self._pace is None:
            return 1
        share = -(-self.left // (2 * self.pool.max_workers))  # so that all workers come to the end together
        return max(1, min(PART_CALLS, share, int(PART_SECONDS * 1e6 / max(self._pace, 1.0))))

    def ahead(self) -> int:
        """Return how many parts a worker may hold. Fewer than otherwise if they are large: what waits with a worker is a copy."""
        if self._pace is None:
            return AHEAD_FIRST
        if self._weight < PART_BYTES:
            return ANY
        return max(2, min(PART_CALLS, AHEAD_BYTES // self._weight))

    def _give_back(self, part: Part) -> bool:
        """Put the calls of a part of which nothing was heard in front of those that wait; return True if there are any."""
        first, end = part.first + part.received, part.first + part.count
        part.received = part.count
        self.parts.pop(part.call, None)
        if first == end:
            return False
        self._waiting.appendleft((first, end))
        self.left += end - first
        return True

    def _take_rest(self) -> list[int]:
        """Return the places of the calls that wait; they do not wait any more."""
        found = [place for first, end in self._waiting for place in range(first, end)]
        self._waiting.clear()
        self.left = 0
        return found

    # --- back (I/O thread; the output thread for what comes behind printed lines)

    def on_outcome(self, item: Any, outcome: Outcome) -> None:
        """Take the outcome of one call of a part, or of several; or a failure of all that are left of it, or that wait."""
        kind, data, place = outcome
        stats = self.pool.stats
        if kind == FAILED:
            for failed in self._left_of(item) if place == WHOLE else (place,):
                self.fail(failed, data)
            return
        self.foreign, self.sender = item.foreign, item.sender
        if kind == wire.SEVERAL:
            self._store_many(place, data)
            stats.count(len(data), 0)
        elif kind == wire.ERROR:
            self._fail_remotely(place, data)
        else:
            self.store(place, kind, data)
            stats.count(kind != wire.CANCELLED, kind == wire.CANCELLED)

    def on_lost(self, call: Call, report: DeathReport) -> Item | None:  # noqa: ARG002 - the call that ran has had it
        """Let the calls of a part that had not begun wait again, before what is younger."""
        if self.closed:
            self.on_cancelled(call, None)
            return None
        part: Any = call.batch
        return self.bulk if self._give_back(part) else None

    def on_cancelled(self, item: Any, reason: str | None) -> None:  # noqa: ARG002 - a map tells it from its pool
        """Take note that the calls that are left of a part, or that wait, will not run."""
        left = self._left_of(item)
        for place in left:
            self.store(place, wire.CANCELLED, None)
        self.pool.stats.count(0, len(left))
        if item is not self.bulk and item.encoded.parcel is not None:
            item.encoded.parcel.discard()

    def _left_of(self, item: Any) -> list[int]:
        """Return the places of the calls of which nothing was heard: of a part, or of those that wait. They have their outcome now."""
        if item is self.bulk:
            return self._take_rest()
        part: Part = item.batch
        left = part.count - part.received
        first = part.advance(left) if left else 0
        return list(range(first, first + left))

    def close(self) -> list[Item]:
        """Take note that no thread will take results any more; return what is to be cancelled. I/O thread."""
        self.closed = True
        return [self.bulk, *self.parts]

    def note(self, duration: int, count: int = 1) -> None:
        """Learn from the duration of a call, in microseconds; of ``count`` calls it is the mean."""
        pace = self._pace
        self._pace = float(duration) if pace is None else duration + (pace - duration) * FADING**count

    def store(self, place: int, kind: int, data: Any) -> None:
        """Keep an outcome, and wake the caller if it waits for this one."""
        self._arguments[place] = None
        self._outcomes[place] = (kind, data)
        self._look_for_caller()

    def _store_many(self, first: int, outcomes: list[tuple[int, Any]]) -> None:
        """Keep outcomes that came together."""
        count = len(outcomes)
        self._arguments[first : first + count] = [None] * count
        self._outcomes[first : first + count] = outcomes
        self._look_for_caller()

    def _look_for_caller(self) -> None:
        if self._sleepers and self._outcomes[self._wanted] is not None:
            self._wake()

    def _wake(self) -> None:
        sleepers = self._sleepers
        while sleepers:
            try:
                lock = sleepers.popleft()
            except IndexError:
                return
            lock.release()

    def fail(self, place: int, error: BaseException | None) -> None:
        """Let one call fail in this process."""
        self.store(place, SETTLED, self._failed(error, place))

    def _fail_remotely(self, place: int, data: Any) -> None:
        """Let one call fail as the worker said. The exception is rebuilt where user code may run."""
        task = self._task_for(place)
        self.store(place, SETTLED, task)
        self.pool.run_user_code(lambda: task._settle(None, decode_error(data, foreign=self.foreign)))  # which raises nothing

    # --- the caller

    def results(self, end: float | None, done: Callable[[], object] | None, return_exceptions: bool = False) -> Iterator[Any]:
        """Yield the results in order.

        Args:
            end: when the time is over, on the monotonic clock; None is never.
            done: called when no call will run any more.
            return_exceptions: yield the exception of a failed call in its place, and go on.
        """
        outcomes = self._outcomes
        try:
            for place in range(len(outcomes)):
                entry = outcomes[place]
                if entry is None:
                    self._sleep(place, end)
                    entry = outcomes[place]
                    assert entry is not None
                outcomes[place] = None
                taken = [_value(entry, self, place, return_exceptions)]
                del entry
                yield taken.pop()  # while the caller has it, nobody else does
        finally:
            if self.left or self.parts:
                self.pool.cancel_found(self.close)
            if done is not None:
                done()

    def _sleep(self, place: int, end: float | None) -> None:
        if self.pool.forked:
            raise RuntimeError("this map belongs to the process that forked this one; only that process can wait for it")
        threads.check(self)
        self._wanted = place
        while self._outcomes[place] is None:
            # Race: who stored the outcome before this one may have looked at `_wanted` before it changed, and wakes whoever sleeps by now. So it is
            # looked at once more after each wake-up.
            lock = threading.Lock()
            lock.acquire()
            self._sleepers.append(lock)
            if self._outcomes[place] is not None:
                return
            if end is None:
                lock.acquire()
            elif not lock.acquire(timeout=min(max(end - time.monotonic(), 0.0), threading.TIMEOUT_MAX)) and self._outcomes[place] is None:
                raise WaitTimeout


def _bytes_in(args: tuple[Any, ...]) -> int:
    return sum(len(value) for value in args if type(value) in _SIZED)


def _value(entry: tuple[int, Any], series: Series, place: int, return_exceptions: bool) -> Any:
    """Return what a call returned; raise, or return, what it raised."""
    kind, data = entry
    if kind == wire.NONE:
        return None
    if kind == wire.VALUE or kind == wire.VALUE_IN_BLOCKS:
        try:
            return decode(data, series.foreign)
        except BaseException as failure:
            error = undecodable(failure, f"{series.label.name}[{place}]", *series.sender)
            if error is failure and (not return_exceptions or isinstance(error, KeyboardInterrupt)):
                raise  # the interrupt may be this thread's own
            if not return_exceptions:
                raise error from failure
            if error is not failure:
                error.__cause__ = failure
            return error
    failed: BaseException
    if kind == SETTLED:
        if not return_exceptions:
            return data.result()
        if data.cancelled():
            return CancelledError(*data._cancel_words())
        return data.result() if data.exception() is None else data.exception()
    if kind == TOO_LARGE:
        failed = MemoryError(f"the result of {series.label.name}[{place}] has {int(data):,} bytes, which do not fit into this process")
    else:
        reason = series.pool.end_reason
        failed = CancelledError() if reason is None else CancelledError(reason)
    if return_exceptions:
        return failed
    raise failed


def collect(
    pool: Home, definition: Definition, items: Iterable[tuple[Any, ...]], has_task: Callable[[tuple[Any, ...], dict[str, Any]], bool]
) -> tuple[Series | None, list[tuple[Any, ...]]]:
    """Return the series of all calls of a map, or None and the calls if one of them needs a Task of its own, because an argument is one."""
    calls = list(items)
    series = Series(pool, definition, current_settings())
    if not are_scalars(map(type, itertools.chain.from_iterable(calls))) and any(has_task(args, {}) for args in calls):
        return None, calls
    series.fill(calls)
    return series, []
