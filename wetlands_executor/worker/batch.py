"""Several calls of one frame, as ``map`` sends them.

One after another, each with an outcome of its own.

Guarantee: when the code of a call begins, the outcomes of the calls before it can no longer be
lost. Sending each by itself would cost more than a short call. So an outcome is first put onto the
shared page, which the host keeps when this process dies, and sent together with others: at the end
of the frame, after ``FLUSH_INTERVAL``, or when the shared page is full. *Order:* the pickle, its
length, then the count, by which the host goes; the frame, then the count is set to 0. So the host
may find outcomes twice, and knows them by their place; it never misses one.

A payload of outcomes: their number, their lengths (0: the call returned None), then the pickles.

Large bytes and strings among the arguments lie in one block of shared memory for all calls
(``Packed``). Each is copied out of it when its call begins, so that no more of them exist here than
one call has.
"""

from __future__ import annotations

from time import monotonic_ns

from . import alarms, threads, wire
from .calls import loads, loads_rich
from .channel import ChannelLost

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Protocol, Tuple

    from .channel import Channel
    from .running import Running
    from .shared_page import SharedPage

    class Serving(Running, Protocol):
        """The worker's main loop, which makes the calls one by one."""

        item: int
        serial: int

        @property
        def channel(self) -> Channel:
            """The way to the host."""
            ...

        @property
        def page(self) -> SharedPage:
            """What it shares with the host."""
            ...

        def cancel_requested(self, item: int) -> bool:
            """Return True if the host has asked to cancel this item."""
            ...

        def use_buffers(self) -> Any:
            """Return what serves the files of large arguments and results."""
            ...

        def run_one(
            self, function: Any, where: Any, args: Any, item: int, load: Any
        ) -> Tuple[int, bytes]:
            """Make one call; return kind and payload of its result frame."""
            ...

        def conclude(self, item: int) -> bool:
            """Clear up after a call; return True if it has acknowledged its cancellation."""
            ...

        def failure(self, error: BaseException, item: int) -> Tuple[int, bytes]:
            """Return kind and payload of the result frame of a call that has raised."""
            ...

        def fail_late(self, error: BaseException, item: int) -> Tuple[int, bytes]:
            """Return the same for one of which a signal handler has raised at its very end."""
            ...


#: Nanoseconds that an outcome may wait for others.
FLUSH_INTERVAL = 1000000


def make_calls(
    runner: Serving, item: int, function: Any, where: Any, data: Any, flags: int, failure: Any
) -> None:
    """Make the calls of a frame.

    Once the host no longer wants the rest it is left out, and one more frame says so.

    Args:
        runner: the worker's main loop.
        item: number of the frame.
        function: what is called.
        where: position of its parameter ``task``, None if it has none.
        data: the arguments of all calls.
        flags: of the frame.
        failure: what every call raises, because the function cannot be had; else None.
    """
    page, conclude, run_one = runner.page, runner.conclude, runner.run_one
    words = page.words
    set_call, armed = threads.CALL.set, alarms.armed
    load, arguments, unreadable = _arguments(runner, data, flags)
    if unreadable is not None:
        failure = unreadable
    outbox = Outbox(runner, item)
    place = 0
    start = monotonic_ns()
    for args in arguments:
        if words[wire.CANCEL_WORD] == item or (not page.shared and runner.cancel_requested(item)):
            outbox.send()
            runner.channel.send(wire.CANCELLED, item)
            return
        place += 1
        one = item | place << wire.NUMBER_BITS
        words[wire.STARTED_NS] = start
        words[wire.TAKEN] = one
        runner.serial = serial = runner.serial + 1
        set_call(serial)
        runner.item = one
        try:
            outcome, payload = (
                run_one(function, where, args, one, load)
                if failure is None
                else runner.failure(failure, one)
            )
            if armed:
                alarms.clear()
        except ChannelLost:
            raise
        except BaseException as error:  # noqa: BLE001 - Race: as in ``Runner.loop``
            outcome, payload = runner.fail_late(error, one)
        if conclude(one):
            outcome, payload = wire.CANCELLED, b""
        start = outbox.put(one, outcome, payload, start)
        payload = b""  # a large result must not live until the next call
    outbox.send()


def _arguments(runner: Serving, data: Any, flags: int) -> Any:
    """Return what makes the arguments of a call of its entry, the entries, and what has failed."""
    if not flags & wire.BLOCKS:
        return _load, loads(data) if flags & wire.NO_REFERENCES else _slices(data), None
    try:
        packed = Packed(runner, data)
    except ChannelLost:
        raise
    except Exception as error:  # noqa: BLE001
        # the block could be neither mapped nor read: no call can have its arguments
        return _load, _entries(data), error
    return packed.load, packed.entries, None


def _slices(data: Any) -> Any:
    count = int.from_bytes(data[:4], "little")
    start = 4 + 4 * count
    for length in memoryview(data)[4:start].cast("I"):
        yield data[start : start + length]
        start += length


def _load(data: Any) -> Any:
    """Return the arguments of a call that were pickled by themselves."""
    return loads_rich(data)[0]


def _entries(data: Any) -> Any:
    """Return what stands for the arguments of each call in a payload with a block."""
    return loads(memoryview(data)[wire.LIST.size + wire.BLOCK.size :])


class Packed:
    """The arguments of calls of which the large ones are in a block.

    Attributes:
        entries: one per call: the tuple of its arguments; its pickle; or a list, of which ``load``
            makes the arguments. In it a tuple stands for a large value: where it begins and ends in
            the block, and what it is (see ``wire``).
    """

    def __init__(self, runner: Serving, data: Any) -> None:
        self.entries = _entries(data)
        self._view = runner.use_buffers().receive_packed(data)
        self._size = len(self._view)

    def load(self, entry: Any) -> Any:
        """Return the arguments of a call.

        *Order:* the block is free before the last call that has something in it begins.
        """
        if type(entry) is bytes:
            return _load(entry)
        found: Any = []
        end = kind = 0
        for value in entry:
            if type(value) is tuple:
                start, end, kind = value
                piece = self._view[start:end]
                value = (
                    bytes(piece)
                    if kind == wire.BYTES
                    else str(piece, "utf-8", "surrogatepass")
                    if kind == wire.TEXT
                    else loads_rich(piece)
                )
                del piece
            found.append(value)
        if end == self._size:
            self._view = None
        return found[0][0] if kind == wire.PICKLE else tuple(found)


class Outbox:
    """Outcomes of one frame of many on their way to the host."""

    def __init__(self, runner: Serving, item: int) -> None:
        self._channel = runner.channel
        page = runner.page
        self._shared = page.shared
        self._words = page.words
        self._lengths = page.lengths
        self._outcomes = page.outcomes
        self._count = 0
        self._size = 0
        self._spent = 0
        self._first = 0
        self._sent = monotonic_ns()

    def put(self, one: int, outcome: int, payload: bytes, start: int) -> int:
        """Secure an outcome before the next call begins; return the time, in nanoseconds."""
        now = monotonic_ns()
        size = len(payload)
        count = self._count
        if outcome not in _TOGETHER or not self._shared or size > _LARGE:
            if count:
                self.send()
            self._channel.send(outcome, one, payload, min((now - start) // 1000, 0xFFFFFFFF))
            return now
        if count == wire.UNSENT_MOST or self._size + size > _LARGE:
            self.send()
            count = 0
        end = self._size + size
        if size:
            self._outcomes[self._size : end] = payload
        self._lengths[count] = size
        if not count:
            self._first = one
            self._words[wire.UNSENT_FIRST] = one
        self._words[wire.UNSENT_COUNT] = self._count = count + 1
        self._size = end
        self._spent += now - start
        if now - self._sent > FLUSH_INTERVAL:
            self.send()
        return now

    def send(self) -> None:
        """Send what is on the shared page, if anything is."""
        count = self._count
        if not count:
            return
        self._channel.verify()
        data = b"".join(
            (count.to_bytes(4, "little"), self._lengths[:count], self._outcomes[: self._size])
        )
        self._channel.send(
            wire.SEVERAL, self._first, data, min(self._spent // (1000 * count), 0xFFFFFFFF)
        )
        self._words[wire.UNSENT_COUNT] = 0
        self._count = self._size = self._spent = 0
        self._sent = monotonic_ns()


_TOGETHER = (wire.VALUE, wire.NONE)
_LARGE = wire.ANSWER_AT - wire.UNSENT
