"""Signals to workers and to the host."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.contract.workload import arrive
from tests.faults import work
from tests.support.observe import DEADLINE, gone, grace_owner, pids


def test_sigstop_of_an_idle_worker_others_go_on(executor):
    executor.launch()
    stopped, _other = sorted(pids(executor))
    os.kill(stopped, signal.SIGSTOP)
    tasks = [executor.submit(pow, 2, n) for n in range(4)]
    # One of them may have been given to the stopped worker; all others are done by its neighbour.
    done = [task for task in tasks if _finishes(task, 2.0)]
    assert len(done) >= 3
    os.kill(stopped, signal.SIGCONT)
    assert [task.result(DEADLINE) for task in tasks] == [1, 2, 4, 8]


def _finishes(task, timeout):
    try:
        task.result(timeout)
    except TimeoutError:
        return False
    return True


def test_sigstop_of_a_busy_worker(executor, rendezvous):
    executor.launch()
    task = executor.submit(arrive, rendezvous.address, "stopped")
    arrival = rendezvous.next()
    os.kill(arrival.pid, signal.SIGSTOP)
    assert [executor.submit(pow, 2, n).result(DEADLINE) for n in range(100)] == [
        2**n for n in range(100)
    ]
    executor.kill_workers()
    began = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - began < 2
    assert task.exception(0) is not None
    assert gone([arrival.pid])


@pytest.mark.parametrize("end", ["kill_workers", "terminate_workers", "shutdown"])
def test_end_with_stopped_idle_workers(make, monkeypatch, end):
    monkeypatch.setattr(grace_owner(), "STOP_GRACE", 0.7)
    executor = make(max_workers=2).launch()
    processes = pids(executor)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    getattr(executor, end)()
    executor.shutdown()
    assert time.monotonic() - began < 5
    assert gone(processes)


def test_ctrl_c_reaches_idle_workers(executor):
    """The terminal sends it to the whole group; an idle worker does not care."""
    executor.launch()
    processes = pids(executor)
    for _ in range(10):
        for pid in processes:
            os.killpg(pid, signal.SIGINT)
        assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
    assert pids(executor) == processes


def test_ctrl_c_reaches_a_busy_worker(executor, rendezvous):
    """KeyboardInterrupt in the running task, once; its neighbour and its successors see nothing."""
    executor.launch()
    processes = pids(executor)
    interrupted = executor.submit(arrive, rendezvous.address, "interrupted")
    neighbour = executor.submit(arrive, rendezvous.address, "neighbour")
    arrivals = rendezvous.expect("interrupted", "neighbour")
    queued = [executor.submit(pow, 2, n) for n in range(20)]
    os.killpg(arrivals["interrupted"].pid, signal.SIGINT)
    error = interrupted.exception(DEADLINE)
    assert type(error) is KeyboardInterrupt
    assert [task.result(DEADLINE) for task in queued] == [2**n for n in range(20)]
    arrivals["neighbour"].release()
    assert neighbour.result(DEADLINE) == "neighbour"
    assert pids(executor) == processes


def test_storm_of_ctrl_c(make, stress_rng):
    """Hundreds of them, into whatever the worker does.

    Each ends one call at most, and none the worker.
    """
    executor = make(max_workers=1)
    pid = executor.submit(work.pid).result(DEADLINE)
    outcomes = []
    for number in range(300):
        task = executor.submit(work.make, complex, number)
        for _ in range(stress_rng.randrange(3)):
            os.kill(pid, signal.SIGINT)
        outcomes.append((number, task))
    for number, task in outcomes:
        error = task.exception(DEADLINE)
        assert error is None or type(error) is KeyboardInterrupt
        assert error is not None or task.result() == complex(number)
    assert executor.submit(work.pid).result(DEADLINE) == pid


@pytest.mark.parametrize(
    "function", [work.replace_signal_handlers, work.python_sigint, work.block_all_signals]
)
@pytest.mark.parametrize("end", ["shutdown", "terminate_workers", "kill_workers"])
def test_task_that_replaces_signal_handlers(make, function, end):
    executor = make(max_workers=1)
    executor.submit(function).result(DEADLINE)
    pid = executor.submit(work.pid).result(DEADLINE)
    assert [executor.submit(pow, 2, n).result(DEADLINE) for n in range(10)] == [
        2**n for n in range(10)
    ]
    began = time.monotonic()
    getattr(executor, end)()
    executor.shutdown()
    assert time.monotonic() - began < 4
    assert gone([pid])


def test_interrupted_after_another_task_took_the_handler(single):
    """A task that puts Python's own handler in place.

    A later Ctrl-C must not cost a task that has not started.
    """
    for _ in range(25):
        single.submit(work.python_sigint).result(DEADLINE)
        pid = single.submit(work.pid).result(DEADLINE)
        os.kill(pid, signal.SIGINT)
        assert [single.submit(pow, 2, n).result(DEADLINE) for n in range(3)] == [1, 2, 4]


def test_ctrl_c_inside_with(host):
    """A task that cooperates: asked to stop, it ends, without having to be interrupted."""
    program = host("interrupted_with", "patient")
    worker = int(program.line())
    began = time.monotonic()
    program.process.send_signal(signal.SIGINT)
    code, out, err = program.finish()
    assert (code, out.split("\n")[:2]) == (0, ["interrupted True 100 0", "asked"]), err
    assert time.monotonic() - began < 4
    assert gone([worker])


@pytest.mark.slow
def test_ctrl_c_inside_with_and_a_deaf_task(host):
    """A task that does not cooperate is interrupted after five seconds."""
    program = host("interrupted_with", "deaf")
    worker = int(program.line())
    program.process.send_signal(signal.SIGINT)
    code, out, err = program.finish()
    assert (code, out.split("\n")[:2]) == (0, ["interrupted True 100 0", "interrupted"]), err
    assert gone([worker])


def test_ctrl_c_twice_inside_with(host):
    program = host("interrupted_with", "deaf")
    worker = int(program.line())
    began = time.monotonic()
    program.process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # a person's second press; there is nothing to wait for
    program.process.send_signal(signal.SIGINT)
    code, out, err = program.finish()
    assert code == 0, err
    assert out.startswith("interrupted True 100 0"), out
    assert "WorkerCrashed" in out
    assert time.monotonic() - began < 4.5
    assert gone([worker])


def test_ctrl_c_while_leaving_with(host):
    """The most likely moment: the block is done and `with` waits for what was submitted."""
    program = host("interrupted_with", "leaving")
    worker = int(program.line())
    time.sleep(0.3)  # until __exit__ waits; nothing outside tells
    program.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    program.process.send_signal(signal.SIGINT)
    code, out, err = program.finish()
    assert code == 0, err
    assert out.startswith("interrupted True 100 0"), out
    assert gone([worker])
