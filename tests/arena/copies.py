"""What ``worker/shm_copy.py`` promises, as programs that every Python 3.8+ runs.

``python copies.py FOLDER_OF_WORKER``.

Each function of ``CHECKS`` gets the module, raises if something is wrong, and leaves the module as
it was.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import importlib
import os
import signal
import sys
import threading

#: Seconds that a thread waits for another before the check has failed.
DEADLINE = 20
SIZES = (0, 1, 4095, 4096, 4097, 8192, 12_289, 100_001)


@contextlib.contextmanager
def replaced(copying, **values):
    """Give names of the module other values for a while."""
    before = {name: getattr(copying, name) for name in values}
    vars(copying).update(values)
    try:
        yield
    finally:
        vars(copying).update(before)


@contextlib.contextmanager
def threads(copying, count, **values):
    """Let even small copies use that many threads."""
    with replaced(copying, **{"cores": lambda: count, "MOST": count, "CROSSOVER": 1, **values}):
        yield


class Memory:
    """A source and a target that begin at odd places, and what is around the target."""

    def __init__(self, count, start=3):
        self.count = count
        self._source = ctypes.create_string_buffer(
            bytes(bytearray(number * 7 % 251 for number in range(256))) * (count // 256 + 1),
            count + 300,
        )
        self._target = ctypes.create_string_buffer(b"\xff" * (count + 2 * start), count + 2 * start)
        self._start = start
        self.source = ctypes.addressof(self._source)
        self.target = ctypes.addressof(self._target) + start

    def copied(self):
        data = bytes(self._target.raw)
        edge = b"\xff" * self._start
        return data == edge + self._source.raw[: self.count] + edge


def exactly_these_bytes(copying):
    for count in SIZES:
        for number in (1, 2, 3, 4, 7):
            memory = Memory(count)
            with threads(copying, number):
                copying.copy(memory.target, memory.source, count)
            assert memory.copied(), (count, number)
    memory = Memory(copying.CROSSOVER + 12_345)
    copying.copy(memory.target, memory.source, memory.count)
    assert memory.copied()


def several_at_the_same_time(copying):
    """Each of three waits for the others in the middle of its slice.

    And none is left when the copy is over.
    """
    barrier = threading.Barrier(3)
    before = _alive()

    def move(*part):
        barrier.wait(DEADLINE)
        ctypes.memmove(*part)

    memory = Memory(100_000)
    with threads(copying, 3, memmove=move):
        copying.copy(memory.target, memory.source, memory.count)
    assert memory.copied()
    assert _alive() <= before


def _alive():
    """Return how many threads of Python there are, those that ``threading`` does not know too."""
    return _thread._count()


def no_more_than_allowed(copying):
    started = []

    def start(*_):
        started.append(1)
        raise RuntimeError("can't start new thread")

    for processors, most, crossover, expected in (
        (1, 4, 1, 0),
        (2, 4, 1, 1),
        (9, 4, 1, 1),
        (9, 1, 1, 0),
        (9, 4, 10**6, 0),
    ):
        memory = Memory(100_000)
        with replaced(
            copying,
            cores=lambda n=processors: n,
            MOST=most,
            CROSSOVER=crossover,
            start_new_thread=start,
        ):
            copying.copy(memory.target, memory.source, memory.count)
        assert memory.copied()
        assert len(started) == expected, (processors, most, crossover)
        started.clear()
    counted = []
    with threads(
        copying, 2, MOST=4, cores=lambda: 64, start_new_thread=lambda *_: counted.append(1)
    ):
        memory = Memory(100_000)
        copying.copy(memory.target, memory.source, memory.count)
    assert memory.copied()
    assert len(counted) == 3


def one_processor(copying):
    """A thread that is bound to one processor copies alone, whatever the machine has."""
    if not hasattr(os, "sched_setaffinity"):
        return
    before = os.sched_getaffinity(0)
    assert copying.cores() == len(before)
    try:
        os.sched_setaffinity(0, [min(before)])
        assert copying.cores() == 1
        memory = Memory(copying.CROSSOVER)
        with replaced(copying, start_new_thread=None):
            copying.copy(memory.target, memory.source, memory.count)
    finally:
        os.sched_setaffinity(0, before)
    assert memory.copied()


def without_threads(copying):
    """The second helper cannot be started."""
    original = copying.start_new_thread
    for error in (RuntimeError, MemoryError):
        left = [1]

        def start(*args, left=left, error=error):
            if not left:
                raise error("no more")
            left.pop()
            original(*args)

        memory = Memory(100_000)
        with threads(copying, 4, start_new_thread=start):
            copying.copy(memory.target, memory.source, memory.count)
        assert memory.copied()


def a_helper_that_fails(copying):
    """What it had taken is copied all the same."""
    caller = threading.get_ident()
    failed = threading.Event()

    def move(*part):
        if threading.get_ident() != caller:
            failed.set()
            raise MemoryError
        assert failed.wait(DEADLINE)
        ctypes.memmove(*part)

    memory = Memory(100_000)
    with threads(copying, 2, memmove=move):
        copying.copy(memory.target, memory.source, memory.count)
    assert memory.copied()


class Interrupted(BaseException):
    """What a signal handler raises."""


def interrupted_between_any_two_steps(copying):
    """No thread is at work when the exception comes out, nor begins later."""
    step = 0
    while _interrupted_at(copying, step):
        step += 1
    assert step > 50


def _interrupted_at(copying, step):
    """Raise in the caller before that step of its; return whether there was one.

    The helper takes long: it ends when it is waited for.
    """
    caller = threading.get_ident()
    begun, over = threading.Event(), threading.Event()
    active = []
    file = copying.copy.__code__.co_filename
    count = [0]
    helper = []

    def move(*part):
        if threading.get_ident() == caller:
            assert begun.wait(DEADLINE)
            ctypes.memmove(*part)
        else:
            active.append(1)
            begun.set()
            pause.wait(0.002)  # it is never set
            ctypes.memmove(*part)
            active.pop()

    def help_and_tell(*args):
        try:
            copying._help(*args)
        finally:
            over.set()

    def start(_, args):
        original(help_and_tell, args)
        helper.append(1)

    def trace(frame, event, _):
        if frame.f_code.co_filename != file:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count[0] += 1
            if count[0] == step + 1:
                raise Interrupted
        return trace

    pause = threading.Event()
    original = copying.start_new_thread
    memory = Memory(8192)
    raised = False
    with threads(copying, 2, memmove=move, start_new_thread=start):
        sys._getframe().f_trace_opcodes = True  # 3.12 traces no frame by opcodes otherwise
        sys.settrace(trace)
        try:
            copying.copy(memory.target, memory.source, memory.count)
        except Interrupted:
            raised = True
        finally:
            sys.settrace(None)
            at_work = len(active)
        assert not at_work, f"step {step}: a helper was at work"
        if helper:
            assert over.wait(DEADLINE)
    if not raised:
        assert memory.copied()
    return raised


def a_helper_that_comes_too_late(copying):
    """It finds nothing to do, when the caller has given up and its memory may have a new owner."""
    original = copying.start_new_thread
    come, over = threading.Event(), threading.Event()
    moved = []

    def help_late(*args):
        assert come.wait(DEADLINE)
        try:
            copying._help(*args)
        finally:
            over.set()

    def move(*part):
        moved.append(part)
        raise Interrupted

    memory = Memory(100_000)
    with threads(
        copying, 2, memmove=move, start_new_thread=lambda _, args: original(help_late, args)
    ):
        try:
            copying.copy(memory.target, memory.source, memory.count)
        except Interrupted:
            come.set()
        assert over.wait(DEADLINE)
    assert len(moved) == 1


def interrupted_while_it_waits(copying):
    """Ctrl-C, again and again, while a helper is at work: the caller comes back afterwards."""
    caller = threading.get_ident()
    active = []
    waiting = threading.Event()

    def move(*part):
        if threading.get_ident() == caller:
            assert waiting.wait(DEADLINE)
            return
        active.append(1)
        waiting.set()
        for _ in range(3):
            signal.pthread_kill(caller, signal.SIGINT)
            pause.wait(0.01)
        ctypes.memmove(*part)
        active.pop()

    def handler(*_):
        raise Interrupted

    pause = threading.Event()
    before = signal.signal(signal.SIGINT, handler)
    memory = Memory(100_000)
    try:
        with threads(copying, 2, memmove=move):
            try:
                copying.copy(memory.target, memory.source, memory.count)
            except Interrupted:
                assert not active
            else:
                raise AssertionError("the interrupt was lost")
    finally:
        signal.signal(signal.SIGINT, before)


CHECKS = [
    exactly_these_bytes, several_at_the_same_time, no_more_than_allowed, one_processor,
    without_threads, a_helper_that_fails,
    interrupted_between_any_two_steps, a_helper_that_comes_too_late, interrupted_while_it_waits,
]  # fmt: skip


def main(folder):
    sys.path.insert(0, os.path.dirname(folder))
    copying = importlib.import_module(os.path.basename(folder) + ".shm_copy")

    for check in CHECKS:
        check(copying)
    print("well")


if __name__ == "__main__":
    main(*sys.argv[1:])
