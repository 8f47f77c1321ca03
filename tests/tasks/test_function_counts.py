"""How many Python functions one call enters on the host: what a time cannot say on a busy machine.

Counted by the interpreter's own profiling hook on the calling thread and on the threads of the
pool, those of the standard library included; comprehensions are not (from 3.12 on they are no
functions), nor is the code of this file. Each case is repeated, because which of the threads is
faster changes a few of the steps. Guarded is the median of ``result``, where one thread takes part,
and the least of the others.
"""

from __future__ import annotations

import _thread
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from types import CodeType, FrameType
from typing import Any

import pytest

from wetlands_executor import CondaEnvExecutor

ROUNDS = 30
#: Rounds at most, where the least counts. On a busy machine an executor in twenty has 30 rounds
#: in succession in which the I/O thread is woken for an answer that its submitter has taken: 90
#: functions with a callback.
MOST_ROUNDS = 300
COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>"}
#: Functions entered by one of each, the same on CPython 3.11 to 3.13 but for a few. A figure that
#: has become smaller is written here. (Before the parts of the pool were composed, at b0c8f6a: 18,
#: 101, 241, 224.)
LIMITS = {"result": 17, "callback": 80, "three and wait": 220, "lambda": 20}


class Entered:
    """Counts the Python functions that are entered while it is ``counting``."""

    def __init__(self) -> None:
        self.counting = False
        self.codes: list[CodeType] = []

    def profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and self.counting:
            self.codes.append(frame.f_code)

    def by(self, step: Callable[[], object]) -> Counter[str]:
        """Return the functions that one step enters, by file and name.

        Afterwards the threads of the pool have 10 ms for what they do when the caller has its
        answer. This is no synchronisation: steps that are late are not counted.
        """
        self.codes.clear()
        before = sys.getprofile()
        sys.setprofile(self.profile)
        self.counting = True
        step()
        sys.setprofile(before)
        time.sleep(0.01)
        self.counting = False
        names = ((code.co_filename, code.co_name) for code in list(self.codes))
        return Counter(
            f"{file.rpartition('/')[2]}:{name}"
            for file, name in names
            if file != __file__ and name not in COMPREHENSIONS
        )


@pytest.fixture
def entered() -> Iterator[Entered]:
    entered = Entered()
    threading.setprofile(entered.profile)  # for the threads that start from now on
    yield entered
    threading.setprofile(None)  # type: ignore[arg-type]


@pytest.fixture
def warm(entered: Entered) -> Iterator[CondaEnvExecutor]:
    """An executor with one worker that has run calls of each kind; its threads are counted."""
    with CondaEnvExecutor(max_workers=1) as executor:
        for _ in range(20):
            for step in STEPS.values():
                step(executor)
        yield executor


def result(executor: CondaEnvExecutor) -> None:
    assert executor.submit(abs, -1).result() == 1


def callback(executor: CondaEnvExecutor) -> None:
    called = _thread.allocate_lock()  # a function of C, unlike the methods of threading.Event
    called.acquire()
    executor.submit(abs, -1).add_done_callback(lambda _: called.release())
    assert called.acquire(timeout=30)


def three_and_wait(executor: CondaEnvExecutor) -> None:
    assert not wait([executor.submit(abs, -number) for number in range(3)], 30).not_done


def a_lambda(executor: CondaEnvExecutor) -> None:
    assert executor.submit(lambda: 1).result() == 1


STEPS: dict[str, Callable[[CondaEnvExecutor], Any]] = {
    "result": result,
    "callback": callback,
    "three and wait": three_and_wait,
    "lambda": a_lambda,
}


def least(found: list[Counter[str]]) -> int:
    return min(each.total() for each in found)


@pytest.mark.parametrize("name", STEPS)
def test_a_warm_call_enters_few_functions(
    name: str, warm: CondaEnvExecutor, entered: Entered, record_property: Callable[..., None]
) -> None:
    found: list[Counter[str]] = []
    while len(found) < ROUNDS or (
        name != "result" and len(found) < MOST_ROUNDS and least(found) > LIMITS[name]
    ):
        result(warm)
        result(warm)  # the submitter waits in result(): the next answer is expected there
        time.sleep(0.002)
        found.append(entered.by(lambda: STEPS[name](warm)))
    counts = [each.total() for each in found]
    # On a busy machine threads wait in places that they pass otherwise: the round that had the
    # least of that says what the code enters.
    typical = statistics.median_low(counts) if name == "result" else min(counts)
    record_property("functions", typical)
    one = found[counts.index(typical)]
    assert typical <= LIMITS[name], f"{sorted(Counter(counts).items())}\n{one.most_common()}"
    if name == "result":
        # No other thread takes part, but for the watchdog's, which looks twice a second.
        assert sum(count != typical for count in counts) <= 2, counts
