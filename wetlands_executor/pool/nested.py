"""Tasks that running functions submit: the host's end. I/O thread only, unless a method says so.

A worker says in frames of kind ``NESTED`` what its function submits; the calls become ordinary
Tasks of the pool that is meant, with the bytes of the worker: nothing of them is unpickled here,
and what comes of them goes back as it is (``worker/nested.py`` is the other end).

*Parent* and *child*: the task of the function that submits, and what it has submitted. Children
end with their parent, unless they are detached.

Owns which children of which worker have not ended, by the number that the worker has given them.
When a function waits for children, the state is fed that its worker does not count as busy for
them (``scheduling/slots.py``); how deep a child is, is part of its priority, so that the deepest
comes first.
"""

from __future__ import annotations

import itertools
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from wetlands_executor.futures import requests
from wetlands_executor.futures.callbacks import add_hook
from wetlands_executor.futures.deferral import Deferral
from wetlands_executor.futures.events import Listener
from wetlands_executor.futures.future import Task, TaskEvent
from wetlands_executor.futures.options import CallOptions
from wetlands_executor.futures.reports import subscribe
from wetlands_executor.futures.settling import (
    cancel_deferred,
    hand_over,
    settle,
    settle_cancelled,
)
from wetlands_executor.pool.call import Call
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.decoding import Decoding
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.nested_outcomes import ChildReceiver, error_of, failure, outcome_of
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.serialize import restricted
from wetlands_executor.serialize.definitions import define
from wetlands_executor.serialize.encoded import EncodedCall
from wetlands_executor.serialize.restricted import BadFrame
from wetlands_executor.sharedmem.arena import BadBlock
from wetlands_executor.sharedmem.arguments import OutOfBandArguments
from wetlands_executor.worker import wire

#: What a level of depth adds to the priority of a call.
LEVEL = 1 << 40
#: How deep tasks may be inside tasks: each level may need workers of its own.
DEEPEST = 256


class Target(Protocol):
    """A pool in which children run; see ``pool.py``. Any thread."""

    @property
    def broken(self) -> BaseException | None:
        """Why nothing will ever run any more; None if that is not so."""
        ...

    @property
    def closing(self) -> Closing:
        """What has become of it."""
        ...

    @property
    def children_receiver(self) -> ChildReceiver:
        """Takes what becomes of children that run there."""
        ...

    @property
    def unstarted(self) -> weakref.WeakSet[Task[Any]]:
        """Tasks that were not started."""
        ...

    def make_call(self, encoded: Any, host_settings: Any, task: Any, receiver: Any) -> Call:
        """Return an item for a call."""
        ...

    def submit_item(self, item: st.Item) -> None:
        """Take an item."""
        ...


#: Pools of this process by the number that their workers know.
_pools: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


def enter(pool: Target) -> int:
    """Give a pool its number. Any thread."""
    number = next(_numbers)
    _pools[number] = pool
    return number


@dataclass(slots=True)
class Child:
    """A task that a worker's function has submitted.

    Attributes:
        task: the task.
        pool: where it runs.
        parent: the call of that function.
        detached: it goes on when that has ended.
        asks: the function says after a failure whether there is another try.
        guard: cancels it at the end of its pool, if it was not to start at once.
        held: it is not to start yet.
        handed: its pool has its call.
    """

    task: Task[Any]
    pool: Target
    parent: Call
    detached: bool
    asks: bool
    guard: Deferral | None
    held: bool
    handed: bool = False

    def begin(self) -> bool:
        """Be held no more; return False if it was not held."""
        held, self.held = self.held, False
        return held

    def claim(self) -> bool:
        """Take the right to hand it to its pool; False if that was shut down before."""
        if self.guard is None:
            return True
        self.pool.unstarted.discard(self.task)
        return self.guard.withdraw()

    def cancel(self) -> None:
        """Cancel it, wherever it is."""
        if self.handed:
            requests.ask_to_cancel(self.task)
        elif not cancel_deferred(self.task):
            settle_cancelled(self.task)  # its file is being read

    def hand(self, call: Call) -> None:
        """Give its call to its pool."""
        self.handed = True
        hand_over(self.task, call)
        parent = self.parent.task
        if parent is not None and parent.cancel_requested and not self.detached:
            settle_cancelled(self.task, "the task that has submitted it was asked to stop before")
        else:
            self.pool.submit_item(call)


class ParentOf:
    """The way from a child that runs to the function that has submitted it. Any thread.

    Args:
        nested: where it is known.
        process: the worker of that function.
        number: of the child there.
        asks: see ``Child``.
    """

    __slots__ = ("_nested", "_number", "_process", "asks")

    def __init__(self, nested: Nested, process: WorkerProcess, number: int, asks: bool) -> None:
        self._nested = nested
        self._process = process
        self._number = number
        self.asks = asks

    def take_output(self, call: Call, data: bytes | bytearray) -> None:
        """Pass named outputs on, pickled as they are."""
        head = bytes((wire.OUTPUTS,)) + int(call.task.attempt).to_bytes(4, "little")
        self._nested.tell(self._process, self._number, head, data)

    def ask(self, error: BaseException, answer: Callable[[bool], object]) -> None:
        """Let the function say whether there is another try after ``error``."""
        self._nested.ask_again(self._process, self._number, error, answer)


class Nested:
    """The tasks that functions in the workers of one pool have submitted.

    Args:
        loop: the pool's I/O thread.
        workers: its processes.
        feed: feeds its state.
        decoding: its decoder threads, on which files of targets are read.
        pool: number of the pool.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        workers: Workers,
        feed: Callable[[st.Event | None], None],
        decoding: Decoding,
        pool: int,
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._feed = feed
        self._decoding = decoding
        self._pool = pool
        # Number of a worker -> number of a child there -> the child.
        self._children: dict[int, dict[int, Child]] = {}
        # (worker, child) -> what takes the answer whether it has another try.
        self._asked: dict[tuple[int, int], Callable[[bool], object]] = {}

    # --- what a worker says

    def take(self, process: WorkerProcess, call: Call, data: bytes | bytearray) -> None:
        """Take what a running call says of its children.

        Raises:
            BadFrame: it is nothing that a worker says.
        """
        message = restricted.read(data)
        if not _is_sound(message):
            raise BadFrame("it says what no worker says of a task inside a task")
        what = message[0]
        if what == wire.SUBMIT:
            self._submit(process, call, *message[1:])
        elif what == wire.WAIT:
            self._wait(process, call, bool(message[1]))
        elif what == wire.LEAVE:
            self._leave(process, message[1])
        elif what == wire.HOLD:
            self._hold(process, call, *message[1:])
        elif what == wire.AGAIN:
            self._answer((process.worker, message[1]), bool(message[2]))
        elif what == wire.LEND:
            self._lend(process, call, *message[1:])
        else:
            self._ask(process, *message)

    def _lend(self, process: WorkerProcess, call: Call, question: int, sizes: list[int]) -> None:
        """Give a worker blocks of shared memory, for what it hands to another one."""
        found = pickle.dumps(process.result_memory.lend(sizes), 4)
        if question:
            self._send(process, question, (bytes((wire.GRANT,)), found))
        else:
            process.outbox.record(wire.LENT, call.number, found)
            process.outbox.flush()

    def _submit(
        self,
        process: WorkerProcess,
        call: Call,
        number: int,
        head: Any,
        payload: bytes,
        entries: bytes,
    ) -> None:
        # Guarantee: whatever becomes of the task, its blocks are the host's from here on, and are
        # freed with this object if no worker gets them.
        blocks = _taken_over(process, entries)
        child = self._children.get(process.worker, {}).get(number)
        if child is None:
            child = self._enter(process, call, number, head)
        elif not child.begin():
            raise BadFrame("it submits a task twice")
        if child is None:
            return
        _, target, function, _, _, _, by_value = head
        if target:
            # A file is read: not on this thread.
            job = partial(self._define, process, number, child, target, payload, blocks)
            self._decoding.run(job)
            return
        definition = None
        if function:
            definition = call.encoded.definition
            if definition is None or definition.number != function:
                raise BadFrame(f"it names the function {function}, which its parent is not")
        self._begin(process, number, child, _encoded(definition, payload, by_value or None, blocks))

    def _hold(self, process: WorkerProcess, call: Call, number: int, head: Any) -> None:
        """Take a task that is not to start yet: the end of its pool cancels it."""
        if number in self._children.get(process.worker, {}):
            raise BadFrame("it submits a task twice")
        self._enter(process, call, number, head, held=True)

    def _enter(
        self, process: WorkerProcess, call: Call, number: int, head: Any, *, held: bool = False
    ) -> Child | None:
        """Make the Task of a child; None if it is refused, which its parent is told."""
        if tuple(map(type, head)) != _HEAD or not _OPTIONS.issuperset(head[4]):
            raise BadFrame("it submits what is no task")
        wanted, _, _, name, given, detached, _ = head
        pool: Target | None = _pools.get(wanted)
        depth = call.depth + 1
        error = self._refusal(pool, depth)
        if pool is None or error is not None:
            self._refuse(process, number, error)
            return None
        asks = bool(given.pop("asks", False))
        try:
            priority = given.pop("priority", 0) + depth * LEVEL
            retry_on = _ask_parent if asks else None
            options = CallOptions(
                priority=priority, retry_on=retry_on, parent=_identifier(call), **given
            )
        except (TypeError, ValueError) as wrong:
            self._refuse(process, number, wrong)
            return None
        home: Any = pool
        guard = Deferral(home, 0) if held else None
        task: Task[Any] = Task(home, name, options, guard=guard)
        child = Child(task, pool, call, detached, asks, guard, held)
        self._children.setdefault(process.worker, {})[number] = child
        add_hook(task, partial(self._on_end, process, number))
        if guard is not None:
            # It is handed to its pool by `Child.hand`: the guard keeps the claim only.
            guard.hold(task, _hand_nothing, (), {}, start=False)
        return child

    def _refusal(self, pool: Target | None, depth: int) -> BaseException | None:
        """Return why a pool accepts no child; None if it does.

        A pool that is shut down goes on until what was submitted is done: so do the functions that
        run in it, and what they submit there.
        """
        if pool is None:
            return RuntimeError(
                "cannot schedule new futures after shutdown: the executor does not exist any more"
            )
        if depth > DEEPEST:
            return RecursionError(
                f"tasks inside tasks are more than {DEEPEST} deep: each level needs workers of its "
                "own; let a function call itself instead, or submit less deeply"
            )
        if pool.broken is not None or not pool.closing.refusing:
            return pool.broken
        own: Target | None = _pools.get(self._pool)
        return None if pool is own and not pool.closing.over else pool.closing.refusal()

    def _define(
        self,
        process: WorkerProcess,
        number: int,
        child: Child,
        target: str,
        payload: bytes,
        blocks: OutOfBandArguments | None,
    ) -> None:
        """Find the function of a target; then submit. Runs on a decoder thread."""
        try:
            definition = define(target)
        except Exception as error:  # noqa: BLE001 - it is the failure of this task
            settle(child.task, None, error)
            return
        encoded = _encoded(definition, payload, None, blocks)
        self._loop.post(partial(self._begin, process, number, child, encoded))

    def _begin(
        self, process: WorkerProcess, number: int, child: Child, encoded: EncodedCall
    ) -> None:
        """Hand the call of a child to its pool, unless it has ended meanwhile."""
        parent, pool, task = child.parent, child.pool, child.task
        if task.done() or not child.claim():
            return
        call = pool.make_call(encoded, parent.host_settings, task, pool.children_receiver)
        child.hand(call.nest(parent.depth + 1, ParentOf(self, process, number, child.asks)))

    def _refuse(self, process: WorkerProcess, number: int, error: BaseException | None) -> None:
        if self._workers.has(process) and error is not None:
            self._send(process, number, (bytes((wire.FAILED,)) + failure(error),))

    def _wait(self, process: WorkerProcess, call: Call, begins: bool) -> None:
        process.note_waiting(begins)
        event: st.Event = st.WaitEnded(process.worker)
        if begins:
            event = st.WaitBegan(process.worker, call)
        # Order: behind the children that it waits for, which were put before.
        self._loop.post(partial(self._feed, event))

    def _leave(self, process: WorkerProcess, ended: list[int]) -> None:
        """A call has ended: cancel what it has not waited for, and forget the rest."""
        children = self._children.pop(process.worker, {})
        for number in ended:
            child = children.get(number)
            if child is not None:
                child.cancel()
        self._answer_all(process)

    # --- questions

    def _ask(self, process: WorkerProcess, what: int, number: int, question: int) -> None:
        children = self._children.get(process.worker, {})
        child = children.get(number)
        if child is None:
            self._reply(process, question, None)
        elif what == wire.STATE_OF:
            self._reply(process, question, _state_of(child.task))
        elif what == wire.LISTEN:
            tell = partial(self._on_event, process, number)
            subscribe(child.task, Listener(tell, None, once=True, inline=True))
        elif what == wire.KILL_CHILD and child.handed:
            requests.kill(child.task, "its worker was killed by the task that has submitted it")
        else:
            child.cancel()
            if question:
                # Order: behind the cancellation, which was posted there.
                home: Any = child.task._pool
                home.post(
                    partial(
                        self._loop.post, partial(self._reply_cancelled, process, child, question)
                    )
                )

    def _reply_cancelled(self, process: WorkerProcess, child: Child, question: int) -> None:
        self._reply(process, question, child.task.cancelled())

    def _reply(self, process: WorkerProcess, question: int, found: Any) -> None:
        if question and self._workers.has(process):
            self._send(process, question, (bytes((wire.REPLY,)) + pickle.dumps(found, 4),))

    # --- what becomes of children

    def tell(self, process: WorkerProcess, number: int, head: bytes, data: Any) -> None:
        """Send something of a child that is not its outcome. Any thread."""
        self._loop.post(partial(self._tell, process, number, head, data))

    def _on_event(self, process: WorkerProcess, number: int, event: TaskEvent) -> None:
        """Any thread on which events are delivered."""
        # Outputs go another way: as their worker has pickled them.
        if not (event.type.is_terminal or event.outputs):
            said = (event.type.value, event.timestamp, event.message, event.current)
            data = pickle.dumps((*said, event.maximum, event.attempt), 4)
            self.tell(process, number, bytes((wire.EVENT,)), data)

    def _tell(self, process: WorkerProcess, number: int, head: bytes, data: Any) -> bool:
        known = number in self._children.get(process.worker, {}) and self._workers.has(process)
        if known:
            self._send(process, number, (head, data))
        return known

    def ask_again(
        self,
        process: WorkerProcess,
        number: int,
        error: BaseException,
        answer: Callable[[bool], object],
    ) -> None:
        """Ask the function that has submitted a child whether there is another try. Any thread."""
        self._loop.post(partial(self._ask_again, process, number, error, answer))

    def _ask_again(
        self,
        process: WorkerProcess,
        number: int,
        error: BaseException,
        answer: Callable[[bool], object],
    ) -> None:
        self._asked[process.worker, number] = answer
        kind, data = error_of(error)
        if not self._tell(process, number, bytes((wire.RETRY, kind)), data):
            self._answer((process.worker, number), False)

    def _answer(self, child: tuple[int, int], again: bool) -> None:
        answer = self._asked.pop(child, None)
        if answer is not None:
            answer(again)

    def _answer_all(self, process: WorkerProcess) -> None:
        """Answer no for a function that has ended."""
        for child in [each for each in self._asked if each[0] == process.worker]:
            self._answer(child, False)

    def _on_end(self, process: WorkerProcess, number: int, task: Task[Any]) -> None:
        """The thread that settles a child."""
        self._loop.post(partial(self._deliver, process, number, task))

    def _deliver(self, process: WorkerProcess, number: int, task: Task[Any]) -> None:
        """Send the outcome of a child to the worker whose function has submitted it."""
        children = self._children.get(process.worker, {})
        if children.pop(number, None) is None or not self._workers.has(process):
            return
        if not children:
            self._children.pop(process.worker, None)
        said = task.message, task.current, task.maximum, task.attempt
        if said != _NOTHING_SAID:
            data = pickle.dumps((None, 0.0, *said), 4)
            self._send(process, number, (bytes((wire.EVENT,)), data))
        self._send(process, number, outcome_of(task, process.result_memory.incarnation))

    def _send(self, process: WorkerProcess, number: int, parts: tuple[Any, ...]) -> None:
        process.outbox.record(wire.CHILD, number, *parts)
        process.outbox.flush()

    # --- the end of parents

    def cancel_children(self, process: WorkerProcess, parent: Call) -> None:
        """A call was asked to stop: so are its children."""
        for child in list(self._children.get(process.worker, {}).values()):
            if child.parent is parent and not child.detached:
                child.cancel()

    def forget(self, process: WorkerProcess) -> None:
        """A worker is gone, and with it what has waited for its children."""
        for child in self._children.pop(process.worker, {}).values():
            if child.held or not child.detached:
                child.cancel()
        self._answer_all(process)


#: Types of what it says of a call that it submits.
_HEAD = (int, str, int, str, dict, bool, str)
#: What may be asked of a child.
_OPTIONS = frozenset(("name", "timeout", "retries", "asks", "priority", "cancel_grace"))
#: Types of what a worker says, by the first part.
_SHAPES: dict[int, tuple[type, ...]] = {
    wire.SUBMIT: (int, int, tuple, bytes, bytes),
    wire.LEND: (int, int, list),
    wire.HOLD: (int, int, tuple),
    wire.AGAIN: (int, int, int),
    wire.WAIT: (int, int),
    wire.LEAVE: (int, list),
    **dict.fromkeys(
        (wire.CANCEL_CHILD, wire.KILL_CHILD, wire.STATE_OF, wire.LISTEN), (int, int, int)
    ),
}
#: What a task has reported that has reported nothing: message, current, maximum, attempt.
_NOTHING_SAID = (None, None, None, 1)
#: Numbers of children and questions are below.
_NUMBERS = 1 << 63


def _is_sound(message: Any) -> bool:
    """Return True if this is something that a worker says, as far as the types go."""
    if type(message) is not tuple or not message or type(message[0]) is not int:
        return False
    if tuple(map(type, message)) != _SHAPES.get(message[0]):
        return False
    if message[0] == wire.LEAVE:
        numbers = message[1]
    elif message[0] == wire.LEND:
        numbers = (message[1], *message[2])
    else:
        numbers = message[1:2] if message[0] in (wire.SUBMIT, wire.HOLD) else message[1:]
    return all(type(number) is int and 0 <= number < _NUMBERS for number in numbers)


def _identifier(parent: Call) -> str:
    """Return the id that the task of a call has, also if it has none of its own."""
    return str(parent.number) if parent.task is None else str(parent.task.id)


def _hand_nothing(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Hand nothing to a pool."""


def _ask_parent(_error: BaseException) -> bool:
    """Stand for a ``retry_on`` that the function which has submitted a task knows."""
    return False


def _taken_over(process: WorkerProcess, entries: bytes) -> OutOfBandArguments | None:
    """Return the blocks of a call that a worker submits; None if it has none."""
    try:
        return process.result_memory.take_over(entries) if entries else None
    except BadBlock as error:
        raise BadFrame(str(error)) from None


def _encoded(
    definition: Any, payload: bytes, by_value: str | None, blocks: OutOfBandArguments | None
) -> EncodedCall:
    """Return a call; ``payload`` is its pickle, empty if that is in the first of its blocks."""
    if blocks is None:
        flags = 0 if len(payload) <= wire.INLINE else wire.IN_BULK
    else:
        payload, flags = blocks.describe(payload, not payload)
    return EncodedCall(definition, flags, payload, by_value, by_value is not None, blocks)


def _state_of(task: Task[Any]) -> tuple[Any, ...]:
    said = task.message, task.current, task.maximum
    return task.status.value, *said, task.attempt, task.worker_pid
