"""The direct ways to a worker and back: real pipes, a real page, and the worker is the test.

No process and no second thread. What another thread or a signal handler would do in the middle is
done by a part that ``send`` or ``wait`` asks at that very place.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.wired import WiredCrew, WiredPipes, frames_in
from wetlands_executor import Task
from wetlands_executor.errors import WaitTimeout
from wetlands_executor.futures.settling import settle_quietly
from wetlands_executor.pool import direct
from wetlands_executor.pool.call import Call, CallPhase
from wetlands_executor.pool.direct import DirectSend
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.direct_receive import (
    AbandonedWaits,
    DirectReceive,
    direct_receive,
    raised_elsewhere,
)
from wetlands_executor.pool.polling import ABANDONED
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.scheduling import messages as st
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.encoded import EncodedCall
from wetlands_executor.serialize.settings import current_settings
from wetlands_executor.worker import wire

pytestmark = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="there is no direct receive")


class Watch:
    """The watchdog as ``wait`` asks it: before each sleep. The next of ``steps`` runs there."""

    def __init__(self) -> None:
        self.steps: deque[Callable[[], object]] = deque()

    @property
    def armed(self) -> bool:
        assert self.steps, "the thread would sleep for ever"
        self.steps.popleft()()
        return True

    def start(self) -> None:
        raise AssertionError("it is armed")


class Host:
    """One worker, the direct ways to it, and the pool that its tasks see."""

    listeners = ()
    started = True

    def __init__(self) -> None:
        self.crew = WiredCrew()
        self.process, self.pipes = self.crew.wired()
        self.watchdog = Watch()
        self.stats = TaskStats(None)  # type: ignore[arg-type]
        self.settled: list[Any] = []
        self.calls = DirectCalls(
            loop=self.crew.loop,
            workers=self.crew.workers,
            stats=self.stats,
            feed=self.feed,
            contain=self.contain,
        )
        self.calls.connect(self.take)
        self.woken, wake = os.pipe()
        os.set_blocking(self.woken, False)
        self.crew.loop.poller.urgent = wake
        self.calls.begin(self.crew.loop.poller)
        self.contained: list[Exception] = []

    # --- the pool, for its tasks

    def post(self, job: Callable[[], object]) -> None:
        self.crew.loop.post(job)

    def take_abandoned_waits(self) -> None:
        self.calls.take_abandoned()

    def ensure_tracked(self, call: Call) -> None:
        self.calls.ensure_tracked(call)

    def notify_settled(self, task: Any) -> None:
        self.settled.append(task)

    # --- the I/O thread

    def feed(self, event: Any) -> None:
        """As the shell does: what was sent directly comes first."""
        self.crew.feed(event, self.calls.registered(self.process))

    def contain(self, error: Exception, _doing: Any) -> None:
        self.contained.append(error)

    def take(self, process: WorkerProcess, frames: list[Any]) -> None:
        """As ``Inbound`` does it for a value."""
        for _kind, number, data, duration in frames:
            call = process.calls.pop(number)
            task, value = call.task, pickle.loads(data) if data else None
            if settle_quietly(task, value, 1.0, process.process.pid, duration / 1e6):
                task._wakeups.notify_all()

    # --- the two ways

    @property
    def out(self) -> DirectSend:
        return self.process.direct_send

    @property
    def back(self) -> DirectReceive:
        found = self.process.direct_send.receive
        assert found is not None
        return found

    def open(self, *, back: bool = True) -> None:
        if back:
            receive = direct_receive(self.pipes, self.calls.abandoned)
            assert receive is not None
            self.process.listen(receive, lambda: self.calls.on_notified(self.process))
        self.calls.open([self.process])

    def call(self, *args: Any) -> Call:
        """Return a call that the worker knows all of, with a task of this pool."""
        task: Task[Any] = Task(self)  # type: ignore[arg-type]
        call = Call(
            task._number, encode(abs, args or (-1,), {}), current_settings(), task, None, True
        )
        task._call = call
        if not call.encoded.flags & wire.IN_BULK:
            self.process.outbox.queue_records(call)
        return call

    def sent(self, *args: Any) -> Call:
        call = self.call(*args)
        assert self.out.send(call)
        return call

    def wait(self, call: Call, timeout: float | None = None) -> bool:
        return self.back.wait(self.process, call, call.task, timeout)

    # --- the worker

    def answer(self, call: Call, value: Any = None, notify: bool = True) -> None:
        """Put an answer onto the page as ``Answers.send`` does."""
        page, data = self.pipes.page, b"" if value is None else pickle.dumps(value, 5)
        assert page.words[wire.AWAITED] == call.number
        kind = wire.NONE if value is None else wire.VALUE
        page.answer[: len(data)] = data
        page.words[wire.ANSWER] = kind | len(data) << 8 | 7_000_000 << 32
        page.words[wire.ANSWERED] = call.number
        if notify:
            os.write(self.pipes.wakeup.fd, (1).to_bytes(8, "little"))

    def wakes(self) -> int:
        """Return how often the I/O thread was woken for an abandoned wait."""
        try:
            return os.read(self.woken, 4096).count(ABANDONED)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        for fd in (self.woken, self.crew.loop.poller.urgent):
            if fd >= 0:
                os.close(fd)
        self.crew.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    assert host.contained == []
    host.close()


def given_up(host: Host, call: Call) -> bool:
    """Return True if the call is in the chain, and take nothing from it."""
    found, chained = False, host.calls.abandoned.first
    while chained is not None:
        found = found or chained is call
        chained = chained.after
    return found


# -------------------------------------------------------------------------------------- direct send


def test_a_frame_is_written_and_recorded(host: Host) -> None:
    host.open(back=False)
    call = host.sent()
    assert frames_in(host.pipes.its_inbox) == [
        (wire.RUN, call.number, host.process.outbox.direct_mark)
    ]
    assert [entry[0] for entry in host.out.sent] == [call]
    assert (call.phase, call.process) == (CallPhase.DIRECT, host.process)
    assert host.process.calls == {}


def test_a_way_that_is_not_open_changes_nothing(host: Host) -> None:
    call = host.call()
    assert not host.out.send(call)
    assert (call.phase, call.process, frames_in(host.pipes.its_inbox)) == (
        CallPhase.QUEUED,
        None,
        [],
    )


def test_a_worker_that_does_not_know_the_function_gets_no_frame(host: Host) -> None:
    host.open(back=False)
    task: Task[Any] = Task()
    call = Call(1, encode(abs, (-1,), {}), current_settings(), task, None, True)
    assert not host.out.send(call)
    assert frames_in(host.pipes.its_inbox) == []


def test_a_second_frame_is_refused_until_the_first_is_registered(host: Host) -> None:
    host.open(back=False)
    first, second = host.sent(), host.call()
    assert not host.out.send(second)
    assert second.phase is CallPhase.QUEUED
    assert host.process.register() == [first]
    assert not host.out.send(second)  # the way is shut: only the I/O thread opens it
    del host.process.calls[first.number]
    host.calls.open([host.process])
    assert host.out.send(second)


@pytest.mark.parametrize("prearmed", [False, True])
def test_a_full_pipe_refuses_and_gives_the_key_back(host: Host, prearmed: bool) -> None:
    host.open()
    host.back.expected = prearmed
    call = host.call()
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(host.pipes.inbox, bytes(wire.FRAME))
    assert not host.out.send(call)
    assert (call.phase, list(host.out.sent)) == (CallPhase.QUEUED, [])
    assert (call.awaited, call.unannounced, host.back.words[wire.AWAITED]) == (False, False, 0)
    os.read(host.pipes.its_inbox, 1 << 20)
    assert host.out.send(call)


class Intruder:
    """Blocks of a call; ``send`` asks for them in the middle, where ``step`` runs."""

    kept = False

    def __init__(self, step: Callable[[], object]) -> None:
        self.step = step
        self.reclaimed = 0

    def offer(self, _incarnation: int) -> list[None]:
        self.step()
        return [None]

    def reclaim(self) -> None:
        self.reclaimed += 1


def with_step(call: Call, step: Callable[[], object]) -> Intruder:
    blocks: Any = Intruder(step)
    plain = call.encoded
    call.encoded = EncodedCall(plain.definition, plain.flags, plain.payload, None, False, blocks)
    return blocks  # type: ignore[no-any-return]


def test_a_thread_that_was_faster_wins(host: Host) -> None:
    """Race: it sends when this one has found the way open."""
    host.open(back=False)
    faster, slower = host.call(), host.call()
    blocks = with_step(slower, lambda: host.out.send(faster))
    assert not host.out.send(slower)
    assert (slower.phase, blocks.reclaimed) == (CallPhase.QUEUED, 1)
    assert [entry[0] for entry in host.out.sent] == [faster]
    assert [number for _, number, _ in frames_in(host.pipes.its_inbox)] == [faster.number]


def test_a_call_that_was_prearmed_gives_way_to_one_that_was_sent_meanwhile(host: Host) -> None:
    """Race: its answer would overwrite that of the other one."""
    host.open()
    host.back.expected = True
    faster, slower = host.call(), host.call()
    faster.plain = False

    class Words:
        """The control words; storing AWAITED lets another thread in."""

        def __init__(self, words: Any) -> None:
            self.words = words

        def __setitem__(self, index: int, value: int) -> None:
            self.words[index] = value
            assert host.out.send(faster)

    before = host.back.words
    any_words: Any = Words(before)
    host.back.words = any_words
    assert not host.out.send(slower)
    host.back.words = before
    assert (slower.phase, slower.awaited, slower.unannounced) == (CallPhase.QUEUED, False, False)
    assert [entry[0] for entry in host.out.sent] == [faster]


def test_the_way_is_closed_in_the_middle(host: Host) -> None:
    """Race: the I/O thread takes the key first; no frame is written to a pipe that it closes."""
    host.open(back=False)
    call = host.call()
    blocks = with_step(call, host.out.close)
    assert not host.out.send(call)
    assert (blocks.reclaimed, call.phase) == (1, CallPhase.QUEUED)
    assert frames_in(host.pipes.its_inbox) == []
    assert host.out.close()  # again: it is closed
    blocks.step = list  # nothing happens
    host.calls.open([host.process])
    assert host.out.send(call)


def test_a_way_with_a_thread_inside_cannot_be_closed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "INSIDE", 0.0)
    host.open(back=False)
    assert host.out.wait_for_sender()
    key = next(host.out._take_key)  # a thread is between its write and the end of its step
    assert key == host.pipes.inbox
    assert (host.out.close(), host.out.open) == (False, False)
    assert not host.out.wait_for_sender()
    next(host.out._give_key)
    assert host.out.close()
    assert host.out.wait_for_sender(), "no thread comes in any more"


def test_arguments_that_do_not_fit_into_the_frame_go_onto_the_page(host: Host) -> None:
    host.open(back=False)
    host.process.outbox.queue_records(host.call())
    text = "w" * 5000
    call = host.call(text)
    assert call.encoded.flags & wire.IN_BULK
    assert host.out.send(call)
    payload = call.encoded.payload
    assert bytes(host.pipes.page.arguments[: len(payload)]) == payload
    frame = os.read(host.pipes.its_inbox, 4096)
    assert frame == call.frame(host.process.outbox.direct_mark, on_page=True)


@pytest.mark.parametrize("why", ["too long", "no page", "unknown"])
def test_arguments_that_cannot_go_onto_the_page_go_another_way(host: Host, why: str) -> None:
    host.open(back=False)
    if why != "unknown":
        host.process.outbox.queue_records(host.call())
    call = host.call(b"x" * 5000)
    if why == "too long":
        call.encoded.payload = bytes(wire.ARGUMENTS_MOST + 1)
    elif why == "no page":
        host.pipes.page = None  # type: ignore[assignment]
    assert not host.out.send(call)
    assert (call.phase, frames_in(host.pipes.its_inbox)) == (CallPhase.QUEUED, [])


def test_a_call_is_prearmed_only_if_the_last_submitter_has_waited(host: Host) -> None:
    host.open()
    first = host.sent()
    assert not first.awaited
    host.process.register()
    host.process.calls.clear()
    host.calls.open([host.process])
    host.back.expected = True
    second = host.sent()
    assert (second.awaited, second.unannounced) == (True, True)
    assert host.back.words[wire.AWAITED] == second.number
    host.calls.ensure_tracked(second)
    assert (second.unannounced, host.back.expected) == (False, False)


# ------------------------------------------------------------------- claims taken by the I/O thread


def test_registering_takes_the_claim_and_listens(host: Host) -> None:
    host.open()
    host.back.expected = True
    call = host.sent()
    host.feed(st.Released())
    assert host.crew.feed.take() == [st.SentDirectly(host.process.worker, call), st.Released()]
    assert (call.phase, host.process.calls) == (CallPhase.GIVEN, {call.number: call})
    assert (host.out.open, len(host.out.sent)) == (False, 0)
    assert host.back.listens
    assert host.pipes.wakeup.fd in host.crew.loop.poller.readers
    host.answer(call, 5)
    host.crew.loop.poller.readers[host.pipes.wakeup.fd]()
    assert call.task.result(0) == 5
    host.calls.open([host.process])
    assert not host.back.listens
    assert host.pipes.wakeup.fd not in host.crew.loop.poller.readers


def test_a_call_that_nothing_awaits_needs_no_listening(host: Host) -> None:
    host.open()
    call = host.sent()
    assert host.process.register() == [call]
    assert not host.back.listens


def test_an_answer_of_an_unknown_call_stays_on_the_page(host: Host) -> None:
    host.open()
    host.back.expected = True
    call = host.sent()
    host.answer(call, 5)
    assert host.back.take_answer({}) is None
    assert host.back.missed({call.number: call}) == (0, True)
    kind, number, data, duration = host.back.take_answer({call.number: call}) or (0, 0, b"", 0)
    assert (kind, number, pickle.loads(data), duration) == (wire.VALUE, call.number, 5, 7_000_000)
    assert host.back.take_answer({call.number: call}) is None, "it is taken once"


def test_a_call_that_goes_the_usual_way_is_awaited_no_more(host: Host) -> None:
    """It was sent directly before, in another try."""
    host.open()
    host.back.expected = True
    call = host.sent()
    frames_in(host.pipes.its_inbox)
    assert host.process.register() == [call]
    del host.process.calls[call.number]
    call.queue_again()
    host.process.give([call])
    assert (call.awaited, host.back.words[wire.AWAITED]) == (False, 0)


# ----------------------------------------------------------------------------------- direct receive


def test_an_answer_that_lies_there_is_taken_without_a_sleep(host: Host) -> None:
    host.open()
    host.back.expected = True
    call = host.sent()
    host.answer(call, [1, "two"])
    assert host.wait(call)
    assert call.task.result(0) == [1, "two"]
    assert (call.task._duration, call.task._worker_pid) == (7.0, os.getpid())
    assert (len(host.out.sent), host.back.caller, host.process.finished) == (0, None, 1)
    assert (host.stats.total, host.stats.completed, host.stats.active) == (1, 1, 0)
    assert (host.wakes(), list(host.crew.loop.posted), host.settled) == (0, [], [])
    assert host.out.open, "the worker can be sent the next call"


def test_a_thread_sleeps_until_the_worker_notifies(host: Host) -> None:
    host.open()
    call = host.sent()
    host.watchdog.steps += [host.pipes.wakeup.release, lambda: host.answer(call)]
    assert host.wait(call), "the first notification is for another reason"
    assert call.task.result(0) is None
    assert call.task.done()


def test_a_listener_is_told_of_a_task_that_was_settled_by_its_submitter(host: Host) -> None:
    host.open()
    call = host.sent()
    call.task._hooks = None  # something wants to know of its end
    host.watchdog.steps.append(lambda: host.answer(call, 3))
    assert host.wait(call)
    del call.task._hooks
    host.crew.loop.turn()
    assert host.settled == [call.task]


@pytest.mark.parametrize("why", ["not plain", "worker unproven", "claim gone", "page gone"])
def test_there_is_no_direct_way_back(host: Host, why: str) -> None:
    host.open()
    call = host.sent()
    if why == "not plain":
        call.plain = False
    elif why == "worker unproven":
        host.process.proven = False
    elif why == "claim gone":
        host.process.register()
    else:
        host.pipes.page.release()
    assert not host.wait(call)
    assert (host.back.caller, call.task.done(), given_up(host, call)) == (None, False, False)


def test_one_thread_waits_at_a_time(host: Host) -> None:
    host.open()
    call = host.sent()
    found: list[bool] = []

    def second() -> None:
        found.append(host.wait(call))
        host.answer(call, 1)

    host.watchdog.steps.append(second)
    assert host.wait(call)
    assert found == [False]


def hand_over(host: Host, call: Call) -> None:
    """The I/O thread finishes the wait, and the submitter wakes up."""
    assert given_up(host, call)
    assert host.wakes() == 1
    host.calls.take_abandoned()
    assert not call.abandoned


def test_a_claim_that_the_i_o_thread_has_taken_is_its_own(host: Host) -> None:
    """Race: it registers the call when the submitter has gone to sleep."""
    host.open()
    call = host.sent()

    def answered_and_registered() -> None:
        host.answer(call, 8)
        host.feed(None)

    host.watchdog.steps += [answered_and_registered, lambda: hand_over(host, call)]
    assert host.wait(call)
    assert call.task.result(0) == 8
    assert host.process.finished == 0, "that is counted where it is settled"
    assert (host.stats.total, host.back.caller, host.process.calls) == (1, None, {})


@pytest.mark.parametrize("why", ["printed", "reading", "in the pipe", "a class"])
def test_what_this_thread_may_not_settle_it_hands_over(host: Host, why: str) -> None:
    host.open()
    call = host.sent()
    value: Any = 8
    if why == "printed":
        host.process.output.note()
    elif why == "reading":
        host.process.output.begin_reading()
    elif why == "in the pipe":
        os.write(host.pipes.its_stdout, b"a line\n")
    else:
        value = ValueError("x")
    host.watchdog.steps += [lambda: host.answer(call, value), lambda: hand_over(host, call)]
    assert host.wait(call)
    assert repr(call.task.result(0)) == repr(value)
    assert host.crew.feed.take() == [st.SentDirectly(host.process.worker, call), None]


def test_a_task_that_has_made_the_wakeup_non_blocking(host: Host) -> None:
    host.open()
    call = host.sent()
    fd = host.pipes.wakeup.fd
    host.watchdog.steps += [
        lambda: os.set_blocking(fd, False),
        lambda: (os.get_blocking(fd) or pytest.fail("it blocks again"), host.answer(call, 2)),
    ]
    assert host.wait(call)
    assert call.task.result(0) == 2


# -------------------------------------------------------------------------------- abandoned waits


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_wait_is_finished_by_the_i_o_thread(host: Host) -> None:
    host.open()
    call = host.sent()
    host.watchdog.steps.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.wait(call)
    assert (host.back.caller, given_up(host, call), host.wakes()) == (None, True, 1)
    assert host.out.sent[0][0] is call, "the claim is not taken"
    host.calls.take_abandoned()
    assert (call.phase, call.task.done()) == (CallPhase.GIVEN, False)
    assert host.back.listens
    host.answer(call, 4)
    host.calls.on_notified(host.process)
    assert call.task.result(0) == 4


def test_a_wait_that_is_over_in_time_is_one_that_is_given_up(host: Host) -> None:
    host.open()
    call = host.sent()
    host.watchdog.steps.append(list)
    with pytest.raises(WaitTimeout):
        host.wait(call, 0.0)
    assert (given_up(host, call), host.wakes()) == (True, 1)
    host.calls.take_abandoned()
    assert host.process.calls == {call.number: call}


def test_an_answer_in_time_counts(host: Host) -> None:
    host.open()
    call = host.sent()
    host.watchdog.steps.append(lambda: host.answer(call, 4))
    assert host.wait(call, 60.0)
    assert call.task.result(0) == 4


@pytest.mark.parametrize("stored", [False, True])
def test_an_interrupt_after_the_claim_was_taken_loses_nothing(host: Host, stored: bool) -> None:
    """What was read is kept with the call; the I/O thread does what is missing, once."""
    host.open()
    call = host.sent()
    host.watchdog.steps.append(lambda: host.answer(call, 6))
    count = host.stats.returned_one

    def interrupted(task: Any) -> None:
        if not stored:
            del task._final, task._result
        else:
            count(task)
        raise KeyboardInterrupt

    host.stats.returned_one = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        host.wait(call)
    host.stats.returned_one = count  # type: ignore[method-assign]
    assert (len(host.out.sent), given_up(host, call)) == (0, True)
    host.calls.take_abandoned()
    assert call.task.result(0) == 6
    assert (host.stats.total, host.stats.completed) == (1, 1)


def test_when_the_pool_has_ended_what_is_left_is_posted(host: Host) -> None:
    host.open()
    call = host.sent()
    host.calls.abandoned.serve(-1)
    host.watchdog.steps.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.wait(call)
    assert (given_up(host, call), host.wakes()) == (True, 0)
    host.crew.loop.turn()
    assert host.process.calls == {call.number: call}


def test_a_chain_has_each_call_once(host: Host) -> None:
    chain = AbandonedWaits()
    first, second = host.call(), host.call()
    for call in (first, second, first):
        chain.add(call)
    assert chain.take() == [second, first]
    assert (chain.take(), chain.first, first.after, second.abandoned) == ([], None, None, False)
    chain.add(first)
    assert chain.take() == [first]


def test_a_failure_with_one_wait_does_not_keep_the_others(host: Host) -> None:
    host.open()
    call, lost = host.sent(), host.call()
    lost.process = object()
    host.calls.abandoned.add(call)
    host.calls.abandoned.add(lost)
    host.calls.take_abandoned()
    assert host.process.calls == {call.number: call}
    (error,) = host.contained
    assert isinstance(error, AttributeError)
    host.contained.clear()


# ------------------------------------------------------------------------------------ notifications


def pending(pipes: WiredPipes) -> bool:
    """Return True if the counter of a wakeup is not empty; it is empty then."""
    fd = pipes.wakeup.fd
    os.set_blocking(fd, False)
    try:
        return bool(os.read(fd, 8))
    except BlockingIOError:
        return False
    finally:
        os.set_blocking(fd, True)


def test_a_notification_is_left_to_the_thread_that_waits(host: Host) -> None:
    host.open()
    call = host.sent()
    host.pipes.wakeup.release()
    host.back.caller = call
    host.back.on_notified()
    assert pending(host.pipes)
    host.pipes.wakeup.release()
    host.back.take_notifications()
    assert pending(host.pipes), "it may sleep, and is notified again"
    host.back.caller = None
    host.pipes.wakeup.release()
    host.back.on_notified()
    assert not pending(host.pipes)


def test_only_a_thread_that_waits_is_woken(host: Host) -> None:
    host.open()
    host.back.wake()
    assert not pending(host.pipes)
    host.back.caller = host.sent()
    host.back.wake()
    assert pending(host.pipes)
    host.back.caller = None


def test_a_notification_that_was_not_read_goes_before_the_next_call(host: Host) -> None:
    host.open()
    host.back.expected = True
    call = host.sent()
    host.answer(call, 1)
    assert host.wait(call)
    assert host.back.notify_abandoned
    other = host.call()
    host.process.give([other])
    assert not host.back.notify_abandoned
    assert not pending(host.pipes)


def test_a_process_that_is_gone_wakes_its_waiter_and_lets_go(host: Host) -> None:
    host.open()
    back, poller = host.back, host.crew.loop.poller
    back.caller = host.sent()
    back.listen(poller, list)
    host.out.detach(poller)
    assert pending(host.pipes)
    assert (host.out.receive, poller.readers) == (None, {})


@pytest.mark.parametrize("lacks", ["wakeup", "page", "thread"])
def test_a_worker_without_one_of_them_has_no_direct_way_back(host: Host, lacks: str) -> None:
    abandoned = AbandonedWaits()
    abandoned.serve(-1 if lacks == "thread" else host.pipes.inbox)
    if lacks != "thread":
        before = getattr(host.pipes, lacks)
        setattr(host.pipes, lacks, None)
    assert direct_receive(host.pipes, abandoned) is None
    if lacks != "thread":
        setattr(host.pipes, lacks, before)


def test_an_error_of_a_signal_handler_is_told_from_one_of_the_call() -> None:
    def handler() -> None:
        raise BlockingIOError

    with pytest.raises(OSError) as of_the_call:  # noqa: PT011 - its number does not matter
        os.read(-1, 1)
    assert not raised_elsewhere(of_the_call.value)
    with pytest.raises(BlockingIOError) as of_the_handler:
        handler()
    assert raised_elsewhere(of_the_handler.value)
