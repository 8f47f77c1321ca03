"""The watchdog of a pool: looks while there is something to lose, and rescues what has not begun.

The loop is turned by the test, and the pipes are real: what is missing, the test has read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.wired import WiredCrew
from wetlands_executor.errors import WorkerCrashed
from wetlands_executor.pool.call import CallPhase
from wetlands_executor.pool.watchdog import CONFIRMATIONS, INTERVAL, READS, Watchdog
from wetlands_executor.scheduling import messages as st
from wetlands_executor.worker import wire

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="not told how much a pipe holds"
)


class Watched:
    """The part, and one worker with real pipes."""

    def __init__(self) -> None:
        self.crew = WiredCrew()
        self.process, self.pipes = self.crew.wired()
        self.crew.loop.poller.write = os.write
        self.retired: list[Any] = []
        self.looked: list[str] = []
        self.warnings: list[Callable[[], object]] = []
        self.on_read: Callable[[], object] = list
        any_output: Any = SimpleNamespace(put_foreign=self.warnings.append)
        self.part = Watchdog(
            loop=self.crew.loop,
            workers=self.crew.workers,
            feed=self.crew.feed,
            read=self.read,
            take_answer=lambda _process: self.looked.append("answer"),
            retire=self.retired.append,
            output=any_output,
            label="here",
        )
        self.process.watch_losses(self.part)

    def read(self, _process: Any) -> None:
        self.looked.append("read")
        self.on_read()

    def steal(self) -> None:
        """A task reads what was written to its worker."""
        os.read(self.pipes.its_inbox, 4096)

    def note_bulk(self) -> None:
        """The worker reads its records, and notes that."""
        size = len(os.read(self.pipes.its_bulk, 1 << 16))
        self.pipes.page.words[wire.BULK_READ] += size

    def look(self) -> None:
        assert self.crew.loop.fire() == [INTERVAL]

    def taken(self, number: int) -> None:
        self.pipes.page.words[wire.TAKEN] = number


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.crew.close()


def test_an_idle_pool_has_no_timer(watched: Watched) -> None:
    assert watched.crew.loop.timers == []
    call = watched.crew.call(watched.process)
    watched.note_bulk()
    watched.part.start()
    assert (watched.part.armed, len(watched.crew.loop.timers)) == (True, 1)
    watched.look()
    assert watched.part.armed, "the worker holds a call"
    del watched.process.calls[call.number]
    watched.look()
    assert (watched.part.armed, watched.crew.loop.timers) == (False, [])


def test_a_thread_that_waits_keeps_it_armed(watched: Watched) -> None:
    waiter: Any = SimpleNamespace(caller=object(), missed=lambda _calls: (0, False))
    watched.process.direct_send.receive = waiter
    watched.part.start()
    watched.look()
    assert watched.part.armed
    waiter.caller = None
    watched.look()
    assert not watched.part.armed


def test_what_arrives_between_two_looks_is_not_missing(watched: Watched) -> None:
    """Race: the worker has read a frame and not yet noted it on the page."""
    call = watched.crew.call(watched.process)
    watched.note_bulk()
    watched.steal()
    for _ in range(CONFIRMATIONS):
        watched.look()
    watched.taken(call.number)
    for _ in range(2 * CONFIRMATIONS):
        watched.look()
    assert (watched.retired, watched.warnings, watched.crew.feed.take()) == ([], [], [])


def test_calls_whose_frames_were_read_go_back_to_the_queue(watched: Watched) -> None:
    running, lost = (watched.crew.call(watched.process) for _ in range(2))
    watched.note_bulk()
    watched.steal()
    watched.taken(running.number)
    for _ in range(CONFIRMATIONS):
        watched.look()
        assert watched.retired == []
    watched.look()
    assert watched.retired == [watched.process]
    assert watched.crew.feed.take() == [st.Reclaimed(watched.process.worker, [lost])]
    assert watched.process.calls == {running.number: running}
    assert (lost.phase, lost.process) == (CallPhase.QUEUED, None)
    assert watched.looked == ["read", "answer"], "results first: they say what has run"
    assert not watched.process.stopping, "what runs is left alone"


def test_a_worker_that_runs_nothing_ends_at_once(watched: Watched) -> None:
    lost = watched.crew.call(watched.process)
    watched.note_bulk()
    watched.steal()
    for _ in range(CONFIRMATIONS + 1):
        watched.look()
    assert watched.process.stopping
    assert watched.process.calls == {lost.number: lost}, "it comes back with its exit"
    assert watched.crew.feed.take() == []


def test_the_program_is_warned_once(watched: Watched) -> None:
    running, _lost = (watched.crew.call(watched.process) for _ in range(2))
    watched.note_bulk()
    watched.steal()
    watched.taken(running.number)
    for _ in range(CONFIRMATIONS + 1):
        watched.look()
    watched.crew.call(watched.process)  # of a function that the worker knows
    watched.steal()
    for _ in range(CONFIRMATIONS + 1):
        watched.look()
    assert len(watched.retired) == 2
    assert len(watched.warnings) == 1


def test_a_call_that_was_to_be_cancelled_is_cancelled_when_it_waits_again(
    watched: Watched,
) -> None:
    running, lost = (watched.crew.call(watched.process) for _ in range(2))
    lost.task = SimpleNamespace(cancel_requested=True)
    lost.place = st.WAITING
    watched.note_bulk()
    watched.steal()
    watched.taken(running.number)
    for _ in range(CONFIRMATIONS + 1):
        watched.look()
    assert watched.crew.feed.take() == [
        st.Reclaimed(watched.process.worker, [lost]),
        st.CancelRequested(lost),
    ]


def test_results_are_read_as_long_as_they_come(watched: Watched) -> None:
    running, done = (watched.crew.call(watched.process) for _ in range(2))
    watched.note_bulk()
    watched.steal()
    watched.taken(running.number)

    def arrive() -> None:
        watched.process.results.arrived += 32
        watched.process.calls.pop(done.number, None)

    for _ in range(CONFIRMATIONS):
        watched.look()
    watched.on_read = arrive
    watched.look()
    assert watched.looked == ["read"] * READS + ["answer"]
    assert watched.crew.feed.take() == [], "it had run: its result was on the way"


def test_a_record_that_was_read_ends_the_bulk_pipe(watched: Watched) -> None:
    """The worker that waits for it ends, instead of waiting for ever."""
    running = watched.crew.call(watched.process)
    os.read(watched.pipes.its_bulk, 1 << 16)  # not noted: a task has read it
    watched.taken(running.number)
    watched.steal()
    for _ in range(CONFIRMATIONS + 1):
        watched.look()
    assert watched.pipes.bulk == -1
    assert watched.process.calls == {running.number: running}


def test_answers_that_are_lost_end_the_worker_at_once(watched: Watched) -> None:
    call = watched.crew.call(watched.process)
    watched.note_bulk()
    watched.taken(call.number)
    watched.pipes.page.words[wire.SENT] = 100  # they are neither in the pipe nor were they read
    watched.look()
    assert isinstance(watched.process.reason, WorkerCrashed)
    assert watched.pipes.killed == 1
    assert watched.crew.feed.take() == [], "it cannot be told which calls have run"


def test_a_process_that_has_ended_meanwhile_is_left_to_its_exit(watched: Watched) -> None:
    call = watched.crew.call(watched.process)
    watched.note_bulk()
    watched.steal()
    for _ in range(CONFIRMATIONS):
        watched.look()
    watched.on_read = watched.process.note_exit
    watched.look()
    assert watched.process.exited
    assert (watched.process.calls, watched.crew.feed.take()) == ({call.number: call}, [])


def test_a_new_worker_of_the_slot_has_a_record_of_its_own(watched: Watched) -> None:
    watched.crew.call(watched.process)
    watched.note_bulk()
    watched.steal()
    for _ in range(CONFIRMATIONS):
        watched.look()
    process, pipes = watched.crew.wired()
    watched.crew.workers.remove(watched.process)
    process.watch_losses(watched.part)
    call = watched.crew.call(process)
    pipes.page.words[wire.BULK_READ] = len(os.read(pipes.its_bulk, 1 << 16))
    os.read(pipes.its_inbox, 4096)
    for _ in range(CONFIRMATIONS):
        watched.look()
    assert process.calls == {call.number: call}
    assert watched.retired == []
