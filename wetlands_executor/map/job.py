"""A map job: many calls of one function that need no Task each.

The futures of a ``map`` are visible to no user. What is kept per call is its pickled arguments,
then its outcome (``results.py``); a ``MapJob`` owns both. It waits in the queue as one item, a
``MapEntry``; when a worker has room, the state takes a ``Chunk`` from it (``chunks.py``): as many
calls as are expected to take ``CHUNK_SECONDS`` together. The worker answers each call before it
begins the next, so a crash concerns the one call that ran; the rest of its chunk goes back to the
front of the queue.

A job is the *receiver* of its entry and its chunks (``pool/call.py``). A Task is made for a call
only when it has failed.

Threads: the caller pickles and takes results (unpickling is user code, it runs there); the I/O
thread splits, stores and wakes the caller.
"""

from __future__ import annotations

import itertools
import pickle
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from wetlands_executor import arguments, threads
from wetlands_executor.futures.future import Task, cancelled_error, next_number
from wetlands_executor.futures.settling import keep_input, settle
from wetlands_executor.map import packing
from wetlands_executor.map.chunks import CHUNK_BYTES, Chunk, Sizing
from wetlands_executor.map.results import Outcomes
from wetlands_executor.pool.call import FAILED, WHOLE, Call, Outcome
from wetlands_executor.scheduling.messages import DeathReport, Item
from wetlands_executor.serialize.calls import encode_defined, join
from wetlands_executor.serialize.definitions import Definition
from wetlands_executor.serialize.encoded import EncodedCall, PackedCall
from wetlands_executor.serialize.errors import decode_error
from wetlands_executor.serialize.pickler import PROTOCOL
from wetlands_executor.serialize.results import TOO_LARGE, read_outcome
from wetlands_executor.serialize.scalars import SCALARS, are_scalars
from wetlands_executor.serialize.settings import HostSettings, current_settings
from wetlands_executor.serialize.unpickler import names_nothing
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.map.protocols import MapPool

#: Not on the wire: a failure, as a settled Task.
SETTLED = 250
_READ = frozenset((wire.VALUE, wire.VALUE_IN_BLOCKS, TOO_LARGE))
_SIZED = frozenset((str, bytes))


class MapEntry(Item):
    """The calls of a job that no worker has, as one item of the queue."""

    __slots__ = ("batch", "created_at", "job", "number", "receiver")
    many = True
    #: The same as those of a ``Call`` that is a batch.
    task = None
    process = None

    def __init__(self, job: MapJob) -> None:
        super().__init__()
        self.job = job
        self.receiver = job
        self.number = next_number()
        self.created_at = time.time()
        self.batch = self

    @property
    def name(self) -> str:
        """What is called."""
        return self.job.definition.name

    def fail(self, error: BaseException | None) -> None:
        """Let all calls fail that wait."""
        self.job.on_outcome(self, Outcome(FAILED, error))

    @property
    def exhausted(self) -> bool:
        """True if every call is with a worker or has its outcome."""
        return not self.job.left

    @property
    def left(self) -> int:
        """Number of calls that wait."""
        return self.job.left

    @property
    def ahead(self) -> int:
        """How many chunks a worker may hold."""
        return self.job.sizing.ahead()

    def split(self) -> Item | None:
        """Return the next chunk."""
        return self.job.next_chunk()


class Failures:
    """How many calls of a map job have failed.

    An object of its own, which leads to no other: who has it keeps nothing else.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class MapJob:
    """The calls of one ``map``: their arguments, then their outcomes.

    Args:
        pool: where they run.
        definition: the function.
        host_settings: the host settings that it needs.

    Attributes:
        left: number of calls that no worker has and that have no outcome.
        entry: they, as one item of the queue.
        chunks: what workers have and have not answered in full.
        sizing: how large chunks are.
        closed: no thread will take results any more.
        failures: of its calls, each counted before its outcome is there.
    """

    def __init__(self, pool: MapPool, definition: Definition, host_settings: HostSettings) -> None:
        self.pool = pool
        self.definition = definition
        self.host_settings = host_settings
        self.left = 0
        # By place: the arguments. As they are if they are plain scalars, which can be pickled at
        # any time and by any thread; else pickled when the map was called. None once the outcome is
        # there.
        self._arguments: list[tuple[Any, ...] | EncodedCall | None] = []
        # The arguments of all calls are as they are, and none can be large.
        self._small = False
        # Place -> what the pickling of its arguments has raised.
        self._failures: dict[int, BaseException] = {}
        self._outcomes = Outcomes()
        # Places of the calls that no worker has: (first, behind the last). I/O thread only, once
        # the job was submitted.
        self._waiting: deque[tuple[int, int]] = deque()
        self.entry = MapEntry(self)
        self.chunks: dict[Call, None] = {}
        self.sizing = Sizing(pool.max_workers)
        # Its workers run another Python: code that comes back is source, or is refused; and
        # their environment and version, for messages.
        self._foreign = False
        self._sender: tuple[str, str] = ("", "")
        self.closed = False
        self.failures = Failures()

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
                    entry = encode_defined(self.definition, args, None, self.pool.settings.remote)
                except (Exception, SystemExit) as error:  # noqa: BLE001
                    # pickling is user code; by the contract its failure is the call's
                    self._failures[len(self._arguments)] = error
                    entry = PackedCall(None, 0, b"", None)  # never sent: only for the message
                    entry.summary = arguments.of_values(args)
            self._arguments.append(entry)

    def submit(self) -> None:
        """Hand everything to the pool."""
        count = len(self._arguments)
        self.pool.stats.expect(count)
        outcomes = self._outcomes.open(count)
        first = 0
        for place, error in self._failures.items():
            outcomes[place] = (SETTLED, self._failed(error, place))
            self._arguments[place] = None
            if first < place:
                self._waiting.append((first, place))
            first = place + 1
        if first < count:
            self._waiting.append((first, count))
        self.left = count - len(self._failures)
        self._failures.clear()
        if self.left:
            self.pool.submit_item(self.entry)

    def _task_for(self, place: int) -> Task[Any]:
        """Return the Task of a call that has failed, for the record of failures and for the caller.

        Order: before its arguments are dropped.
        """
        self.failures.count += 1
        task: Task[Any] = Task(self.pool, self.definition.name)
        task._counted = True
        entry = self._arguments[place]
        if isinstance(entry, tuple):
            keep_input(task, arguments.of_values(entry))
        elif entry is not None:
            keep_input(task, entry.payload if entry.summary is None else entry.summary)
        return task

    def _failed(self, error: BaseException | None, place: int) -> Task[Any]:
        task = self._task_for(place)
        settle(task, None, error)
        return task

    @property
    def size(self) -> int:
        """Number of all calls."""
        return len(self._arguments)

    # --- out to workers (I/O thread)

    def next_chunk(self) -> Call | None:
        """Take what one worker should do next."""
        if not self._waiting:
            return None
        first, end = self._waiting[0]
        count, large = min(end - first, self.sizing.calls(self.left)), 0
        if not self._small:
            count, large = packing.fitting(self._arguments[first : first + count], CHUNK_BYTES)
        try:
            chunk = self._chunk(first, count, large)
        except MemoryError as error:
            self._drop_waiting(1)
            self._fail(first, error)
            return None
        self._drop_waiting(count)
        self.chunks[chunk.call] = None
        return chunk.call

    def _chunk(self, first: int, count: int, large: int) -> Chunk:
        """Return the chunk of these calls, which have so many bytes of large arguments."""
        definition = self.definition
        entries = self._arguments[first : first + count]
        entry = entries[0]
        out_of_band = None
        packed = (
            packing.pack(entries)
            if large >= packing.CROSSOVER and (count > 1 or isinstance(entry, tuple))
            else None
        )
        if (
            packed is None
            and count == 1
            and isinstance(entry, tuple)
            and _bytes_in(entry) > wire.CROSSOVER
        ):
            entry = encode_defined(definition, entry)  # immutable, so it could wait until here
        if packed is not None:
            data, out_of_band = packed
            flags = wire.MANY | wire.BLOCKS
        elif isinstance(entry, tuple):
            data = pickle.dumps(entries, PROTOCOL)
            flags = wire.MANY | wire.NO_REFERENCES
        elif count == 1:
            assert entry is not None
            self.sizing.weigh(len(entry.payload))
            return Chunk(self, first, 1, entry)
        else:
            chosen: list[bytes] = [one.payload for one in entries]  # type: ignore[union-attr]
            data = b"".join((struct.pack(f"<{count + 1}I", count, *map(len, chosen)), *chosen))
            flags = wire.MANY
        self.sizing.weigh(len(data) + large)
        flags |= wire.IN_BULK if len(data) > wire.INLINE else 0
        return Chunk(
            self,
            first,
            count,
            join(entries, definition, flags, data, out_of_band),
        )

    def _drop_waiting(self, count: int) -> None:
        """Take the first ``count`` calls from those that wait."""
        first, end = self._waiting[0]
        if first + count == end:
            self._waiting.popleft()
        else:
            self._waiting[0] = (first + count, end)
        self.left -= count

    def _give_back(self, chunk: Chunk) -> bool:
        """Put the calls of a chunk that have no outcome in front of those that wait.

        Return True if there are any.
        """
        first, end = chunk.first + chunk.received, chunk.first + chunk.count
        if first == end:
            return False
        chunk.advance(end - first)
        self._waiting.appendleft((first, end))
        self.left += end - first
        return True

    # --- back: the receiver of the entry and of chunks

    def on_outcome(self, call: Any, outcome: Outcome) -> None:
        """Take the outcome of one call of a chunk, or of several.

        Or a failure of all that are left of it, or that wait.
        """
        kind, data, place = outcome
        stats = self.pool.stats
        if kind == FAILED:
            for failed in self._left_of(call) if place == WHOLE else (place,):
                self._fail(failed, data)
            return
        self._foreign, self._sender = call.foreign, call.sender
        if kind == wire.SEVERAL:
            count = len(data)
            self._arguments[place : place + count] = [None] * count
            self._outcomes.store_many(place, data)
            stats.count(count, 0)
        elif kind == wire.ERROR:
            self._fail_remotely(place, data)
        else:
            self._store(place, kind, data)
            stats.count(kind != wire.CANCELLED, kind == wire.CANCELLED)

    # the call that ran has had it
    def on_lost(self, call: Any, report: DeathReport) -> Item | None:  # noqa: ARG002
        """Let the calls of a chunk that had not begun wait again, before what is younger."""
        if self.closed:
            self.on_cancelled(call, None)
            return None
        return self.entry if self._give_back(call.batch) else None

    # a job reads the reason from its pool
    def on_cancelled(self, call: Any, reason: str | None) -> None:  # noqa: ARG002
        """Note that the calls that are left of a chunk, or that wait, will not run."""
        left = self._left_of(call)
        for place in left:
            self._store(place, wire.CANCELLED, None)
        self.pool.stats.count(0, len(left))
        if call is not self.entry and call.encoded.out_of_band is not None:
            call.encoded.out_of_band.discard()

    def _left_of(self, call: Any) -> list[int]:
        """Return the places of the calls that have no outcome: of a chunk, or of those that wait.

        They get theirs now.
        """
        if call is self.entry:
            found = [place for first, end in self._waiting for place in range(first, end)]
            self._waiting.clear()
            self.left = 0
            return found
        chunk: Chunk = call.batch
        left = chunk.left
        first = chunk.advance(left) if left else 0
        return list(range(first, first + left))

    def _store(self, place: int, kind: int, data: Any) -> None:
        self._arguments[place] = None
        self._outcomes.store(place, kind, data)

    def _fail(self, place: int, error: BaseException | None) -> None:
        """Let one call fail in this process."""
        self._store(place, SETTLED, self._failed(error, place))

    def _fail_remotely(self, place: int, data: Any) -> None:
        """Let one call fail as the worker said.

        The exception is rebuilt where user code may run.
        """
        task = self._task_for(place)
        self._store(place, SETTLED, task)
        # which raises nothing
        self.pool.run_user_code(
            lambda: settle(task, None, decode_error(data, foreign=self._foreign))
        )

    def _close(self) -> list[Item]:
        """Note that no thread will take results any more; return what is to be cancelled.

        I/O thread.
        """
        self.closed = True
        return [self.entry, *self.chunks]

    # --- the caller

    def results(
        self,
        places: Iterator[int],
        end: float | None,
        done: Callable[[], object] | None,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Yield the results in order.

        Args:
            places: those of the calls, from 0; one is taken when its result is asked for.
            end: when the time is over, on the monotonic clock; None is never.
            done: called when no call will run any more.
            return_exceptions: yield the exception of a failed call in its place, and go on.
        """
        entries = self._outcomes.entries
        taken: list[Any] = []
        try:
            for place in places:
                entry = entries[place]
                if entry is None:
                    self._wait(place, end)
                    entry = entries[place]
                    assert entry is not None
                entries[place] = None
                kind, data = entry
                # Most results name nothing, and are read here, in few steps.
                there = False
                if kind == wire.VALUE and names_nothing(data):
                    try:
                        taken.append(pickle.loads(data))
                        there = True
                    except Exception:  # noqa: BLE001, S110
                        pass  # `_read` explains it
                if not there:
                    taken.append(self._read(place, kind, data, return_exceptions))
                del entry, data
                yield taken.pop()  # while the caller has it, the job does not
        finally:
            if self.left or self.chunks:
                self.pool.cancel_found(self._close)
            if done is not None:
                done()

    def _read(self, place: int, kind: int, data: Any, return_exceptions: bool) -> Any:
        """Return what a call has returned; raise, or return, what it has raised."""
        if kind == wire.NONE:
            return None
        if kind not in _READ:
            return self._result_of(kind, data, return_exceptions)
        value, error = read_outcome(kind, data, self._foreign, self._sender, self._name_of, place)
        if error is None:
            return value
        try:
            # An interrupt may be this thread's own.
            return _raised(error, return_exceptions and not isinstance(error, KeyboardInterrupt))
        finally:
            data = error = None  # no cycle with its traceback, and nothing large in it

    def _name_of(self, place: int) -> str:
        return f"{self.definition.name}[{place}]"

    def _wait(self, place: int, end: float | None) -> None:
        if self.pool.forked:
            raise RuntimeError(
                "this map belongs to the process that forked this one; only that "
                "process can wait for it"
            )
        threads.check(self)
        self._outcomes.wait(place, end)

    def _result_of(self, kind: int, data: Any, return_exceptions: bool) -> Any:
        """Return, or raise, what has become of a call that has returned no value."""
        if kind == SETTLED:
            if not return_exceptions:
                return data.result()
            if data.cancelled():
                return cancelled_error(data)
            return data.result() if data.exception() is None else data.exception()
        reason = self.pool.end_reason
        return _raised(
            CancelledError() if reason is None else CancelledError(reason), return_exceptions
        )


def _raised(error: BaseException, return_it: bool) -> BaseException:
    """Raise an exception, or return it."""
    if return_it:
        return error
    try:
        raise error
    finally:
        error = None  # type: ignore[assignment] # no cycle with its traceback


def _bytes_in(args: tuple[Any, ...]) -> int:
    return sum(len(value) for value in args if type(value) in _SIZED)


def collect(
    pool: MapPool,
    definition: Definition,
    items: Iterable[tuple[Any, ...]],
    has_task: Callable[[tuple[Any, ...], dict[str, Any]], bool],
) -> tuple[MapJob | None, list[tuple[Any, ...]]]:
    """Return (the job of all calls of a map, []), or (None, the calls).

    None if one of the calls needs a Task of its own, because an argument of it is a Task.
    """
    calls = list(items)
    job = MapJob(pool, definition, current_settings())
    if not are_scalars(map(type, itertools.chain.from_iterable(calls))) and any(
        has_task(args, {}) for args in calls
    ):
        return None, calls
    job.fill(calls)
    return job, []
