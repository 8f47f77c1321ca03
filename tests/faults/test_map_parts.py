"""Calls of a ``map`` travel several at a time. What happens to one of them concerns no other."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from tests.faults import parts
from wetlands_executor import CondaEnvExecutor, WorkerCrashed
from wetlands_executor.map.results import Outcomes

#: Enough calls that parts have grown to their full size long before the middle.
MANY = 3000


def _results(iterator, count: int) -> list:
    """Take the next ``count`` results."""
    return [next(iterator) for _ in range(count)]


@pytest.fixture
def pool():
    with CondaEnvExecutor(max_workers=2) as executor:
        yield executor


def test_every_result_is_in_its_place(pool) -> None:
    assert list(pool.map(parts.square, range(MANY))) == [value * value for value in range(MANY)]


def test_a_caller_that_is_woken_for_another_result_sleeps_again(pool, monkeypatch) -> None:
    """It may go to sleep for the next one in the moment in which it is woken for the one before."""
    monkeypatch.setattr(Outcomes, "_look", lambda outcomes: outcomes._waiting.notify_all())
    pool.launch()
    seconds = [0.3] + [0.0] * 20
    assert (
        list(pool.map(parts.pause, seconds))
        == list(pool.map(parts.pause, seconds, timeout=30))
        == [None] * 21
    )


def test_results_of_all_kinds_come_back_in_order(pool) -> None:
    """None, small, larger than the shared page, and classes: each goes its own way to the host."""
    assert list(pool.map(parts.mixed, range(400))) == [parts.mixed(value) for value in range(400)]


def test_arguments_of_all_kinds(pool) -> None:
    values = [value if value % 3 else [value, {"key": (value,)}] for value in range(400)]
    values[77] = b"x" * 300000
    assert list(pool.map(parts.same, values)) == values


def test_a_crash_costs_one_call(pool, tmp_path: Path) -> None:
    """The calls before it keep their results, those behind it run, once."""
    marks = [str(tmp_path / str(value)) for value in range(500)]
    crashing = 300
    outcomes = pool.map(parts.mark_or_die, range(500), marks, [crashing] * 500)
    assert _results(outcomes, crashing) == list(range(crashing))
    with pytest.raises(WorkerCrashed):
        next(outcomes)
    pool.wait_all()
    assert [task.name for task in pool.get_failed()] == ["tests.faults.parts.mark_or_die"]
    counts = Counter(Path(mark).stat().st_size if Path(mark).exists() else 0 for mark in marks)
    assert counts[2] == 0, "a call has run twice"
    assert all(Path(mark).exists() for mark in marks[: crashing + 1])


def test_random_kills_cost_at_most_one_call_each(tmp_path: Path, stress_rng) -> None:
    """Workers are killed at any moment.

    Every call that is not named as lost has its result, and none ran twice.
    """
    with CondaEnvExecutor(max_workers=3) as executor:
        executor.launch()
        done = threading.Event()
        kills = []

        def kill() -> None:
            while not done.wait(0.02 + stress_rng.random() * 0.05):
                pids = [info.pid for info in executor.workers() if info.state == "busy"]
                if pids and len(kills) < 12:
                    kills.append(stress_rng.choice(pids))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(kills[-1], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        count = 4000
        marks = [str(tmp_path / str(value)) for value in range(count)]
        series = [
            executor.map(parts.mark_and_spin, range(first, first + 100), marks[first : first + 100])
            for first in range(0, count, 100)
        ]
        lost = 0
        for number, outcomes in enumerate(series):
            for place in range(100):
                try:
                    assert next(outcomes) == number * 100 + place
                except WorkerCrashed:
                    lost += 1
                    break
        done.set()
        killer.join()
        assert executor.wait_all(60)
        assert lost <= len(executor.get_failed()) <= len(kills)
        assert all(not Path(mark).exists() or Path(mark).stat().st_size <= 1 for mark in marks), (
            "a call has run twice"
        )


def test_an_error_concerns_one_call(pool) -> None:
    outcomes = pool.map(parts.fail_at, range(1000), [500] * 1000)
    assert _results(outcomes, 500) == list(range(500))
    with pytest.raises(ValueError, match="500"):
        next(outcomes)


def test_an_argument_that_cannot_be_pickled_concerns_one_call(pool) -> None:
    values = [*range(50), threading.Lock(), *range(50)]
    outcomes = pool.map(parts.same, values)
    assert _results(outcomes, 50) == list(range(50))
    with pytest.raises(TypeError):
        next(outcomes)


def test_closing_the_iterator_stops_the_rest_of_a_part(pool, tmp_path: Path) -> None:
    """One that runs learns of it and may go on; what has not begun never does."""
    list(pool.map(parts.square, range(MANY)))
    started = tmp_path / "started"
    outcomes = pool.map(parts.note_and_wait, [str(started)] * 500, [0.0] * 20 + [0.3] * 480)
    next(outcomes)
    outcomes.close()
    assert pool.wait_all(30)
    begun = started.stat().st_size
    assert begun <= 20 + 2  # those that end at once, and one of each worker
    assert pool.submit(parts.square, 3).result() == 9
    assert started.stat().st_size == begun, "a call has begun after the iterator was closed"


def test_a_function_may_acknowledge_the_cancellation(pool) -> None:
    outcomes = pool.map(parts.cancel_at, range(200), [100] * 200)
    assert _results(outcomes, 100) == list(range(100))
    with pytest.raises(CancelledError):
        next(outcomes)


class Lines(io.TextIOBase):
    """Keeps what is written. (``capfd`` empties its file while the output thread writes to it, and
    loses lines.)
    """

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


def test_what_is_printed_comes_before_the_result(pool, monkeypatch) -> None:
    lines = Lines()
    monkeypatch.setattr(sys, "stdout", lines)
    for value in pool.map(parts.print_and_return, range(300)):
        assert f"value {value}\n" in lines.text


def test_log_records_name_the_call(pool, caplog) -> None:
    with caplog.at_level(logging.INFO):
        list(pool.map(parts.log_value, range(50)))
    assert sorted(
        int(record.message.split()[-1])
        for record in caplog.records
        if record.message.startswith("value")
    ) == list(range(50))


def test_a_child_that_returns_from_a_call_is_not_believed(pool) -> None:
    assert list(pool.map(parts.fork_and_return, range(40))) == list(range(40))


def test_closed_descriptors_harm_no_neighbour(pool, capfd) -> None:
    assert list(pool.map(parts.close_stdout_at, range(100), [50] * 100)) == list(range(100))
    out = capfd.readouterr().out
    assert "value 51\n" in out
    assert "value 99\n" in out


def test_terminate_in_the_middle(pool) -> None:
    outcomes = pool.map(parts.pause, [0.01] * 500)
    next(outcomes)
    pool.kill_workers()
    with pytest.raises((CancelledError, Exception)) as caught:
        list(outcomes)
    assert isinstance(caught.value, (CancelledError, WorkerCrashed)) or "ended" in str(caught.value)


def test_shutdown_finishes_a_map() -> None:
    executor = CondaEnvExecutor(max_workers=2)
    outcomes = executor.map(parts.square, range(MANY))
    executor.shutdown()
    assert list(outcomes) == [value * value for value in range(MANY)]
