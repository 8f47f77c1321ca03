"""Tasks that fork, leave processes, threads and exit hooks behind, or become another program."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults import work
from tests.support.observe import DEADLINE, crash_of, gone, grace_owner, group_of, lines, pids


def test_fork_that_returns_into_the_runner(single):
    """The child comes back out of the task: it must neither answer nor serve."""
    pid = single.submit(work.pid).result(DEADLINE)
    for _ in range(5):
        assert single.submit(work.fork_and_return).result(DEADLINE) == ("parent", pid)
        assert [single.submit(work.pid).result(DEADLINE) for _ in range(5)] == [pid] * 5
    single.shutdown()
    assert group_of(pid) == set()


def test_fork_that_exits(single):
    assert single.submit(work.fork_and_exit, 7).result(DEADLINE) == 7
    pid = single.submit(work.pid).result(DEADLINE)
    single.submit(work.fork_and_sys_exit).result(DEADLINE)
    single.submit(work.fork_and_raise).result(DEADLINE)
    assert single.submit(work.pid).result(DEADLINE) == pid


def test_forked_child_that_lingers(single, rendezvous):
    """It holds all that it inherited.

    The task is done, the worker goes on, and shutdown does not wait for it.
    """
    child = single.submit(work.fork_and_linger, rendezvous.address).result(DEADLINE)
    assert rendezvous.next().pid == child
    pid = single.submit(work.pid).result(DEADLINE)
    began = time.monotonic()
    single.shutdown()
    assert time.monotonic() - began < grace_owner().STOP_GRACE - 1
    assert gone([child, pid])


def test_worker_dies_while_its_child_lingers(single, rendezvous):
    """The child holds the ends of the dead worker's pipes: the death is noticed all the same."""
    child = single.submit(work.fork_and_linger, rendezvous.address).result(DEADLINE)
    rendezvous.next()
    culprit = single.submit(os.kill, os.getpid(), 0)
    culprit.exception(DEADLINE)
    began = time.monotonic()
    assert crash_of(single.submit(os._exit, 4)).exit_code == 4
    assert time.monotonic() - began < 2
    assert gone([child])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_inside_a_task(single, method):
    assert single.submit(work.use_multiprocessing, method).result(DEADLINE) == ("from below", 0)
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8


def test_subprocess_left_behind(single):
    left = single.submit(work.leave_subprocess).result(DEADLINE)
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8
    began = time.monotonic()
    single.shutdown()
    assert time.monotonic() - began < grace_owner().STOP_GRACE - 1
    assert gone([left])


@pytest.mark.parametrize("retire", [True, False])
def test_what_never_ends_is_ended(make, monkeypatch, retire):
    """A non-daemon thread and a hanging exit hook.

    Shutdown, and replacement, take the stop grace at most.
    """
    monkeypatch.setattr(grace_owner(), "STOP_GRACE", 0.7)
    executor = make(max_workers=2, max_tasks_per_child=1 if retire else None)
    tasks = [executor.submit(work.leave_thread), executor.submit(work.hang_at_exit)]
    for task in tasks:
        task.result(DEADLINE)
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
    processes = pids(executor)
    began = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - began < 5
    assert gone(processes)


def test_real_stop_grace(make):
    """Once, with the real number: shutdown is bounded."""
    executor = make(max_workers=3)
    executor.launch()
    for function in (work.leave_thread, work.hang_at_exit):
        executor.submit(function).result(DEADLINE)
    began = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - began < grace_owner().STOP_GRACE + 2


def test_exit_hooks_run(single, tmp_path):
    single.submit(work.note_at_exit, str(tmp_path / "journal")).result(DEADLINE)
    single.shutdown()
    assert lines(tmp_path / "journal") == ["exit"]


def test_task_that_becomes_another_program(single):
    """It has thrown away everything of ours, but lives on: it is ended, and the task fails."""
    crash_of(single.submit(work.become_another_program))
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8


def test_retirement_of_a_worker_with_children(make, rendezvous):
    """A worker that is replaced after its share of tasks takes along what it has started."""
    executor = make(max_workers=1, max_tasks_per_child=2)
    left = executor.submit(work.leave_subprocess).result(DEADLINE)
    first = executor.submit(work.pid).result(DEADLINE)
    assert executor.submit(work.pid).result(DEADLINE) != first
    assert gone([left, first])


def test_child_that_stole_the_terminal_group(single):
    """A task moves its child into a group of its own; the worker's end is not delayed by it."""
    child = single.submit(_new_session).result(DEADLINE)
    single.shutdown()
    os.kill(child, signal.SIGKILL)  # by design a daemon is not followed
    assert gone([child])


def _new_session():
    import subprocess

    return subprocess.Popen(["sleep", "600"], start_new_session=True).pid
