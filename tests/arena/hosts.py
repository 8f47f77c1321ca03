"""Programs that tests run as hosts of their own: ``python -m tests.arena.hosts NAME ARGS``."""

from __future__ import annotations

import array
import gc
import pickle
import sys
import threading
import time

import pytest

from tests.arena import workload
from tests.arena.workload import Buffers
from tests.support.programs import run, say
from wetlands_executor import CondaEnvExecutor, share
from wetlands_executor.sharedmem import arena


def everything(expect):
    """Send and return large things of all kinds.

    ``expect`` says whether blocks carry them ("blocks") or the pipe ("pipe").
    """
    import numpy as np

    with CondaEnvExecutor(max_workers=2) as executor:
        memory = arena.current()
        value = np.arange(1e6)
        peak = []
        for function, expected in (
            (workload.add_one, value + 1),
            (workload.twice, 2 * value),
            (workload.tail, value[250_000:]),
        ):
            result = executor.submit(function, value).result()
            peak.append(len(memory.in_use()) if memory is not None else 0)
            assert (result == expected).all()
            result[:] = 0
        del result
        assert executor.submit(
            workload.flags, np.asfortranarray(value.reshape(1000, 1000))
        ).result() == (False, True, True, "<f8", (1000, 1000))
        readonly = value.copy()
        readonly.flags.writeable = False
        assert not executor.submit(workload.flags, readonly).result()[2]
        for kind in ("bytes", "bytearray", "str", "array"):
            made = workload.make_bytes(kind, 500_000)
            back = executor.submit(workload.same, made).result()
            assert type(back) is type(made)
            assert back == made
        parts = (
            executor.submit(
                workload.overwrite_parts,
                Buffers(bytearray(500_000), array.array("d", range(50_000))),
            )
            .result()
            .parts
        )
        assert not any(map(any, map(bytes, parts)))
        results = list(
            executor.map(workload.twice, [np.full(100_000, float(n)) for n in range(30)])
        )
        assert all((result == 2 * n).all() for n, result in enumerate(results))
        del results, parts
        blocks = memory.blocks() if memory is not None and memory.carries else None
        carried = bool(blocks is not None and blocks.table)
        assert carried == (expect == "blocks"), (carried, expect)
        assert max(peak) == (1 if carried else 0), peak
        if memory is not None:
            deadline = time.monotonic() + 5
            while memory.in_use() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not memory.in_use()
    say("well")


def sharing(expect):
    """Share in both modes."""
    import numpy as np

    with CondaEnvExecutor(max_workers=2) as executor:
        value = np.arange(1e5)
        shared = share(value)
        assert [executor.submit(workload.total, shared).result() for _ in range(4)] == [
            value.sum()
        ] * 4
        assert executor.submit(workload.flags, shared).result()[2] is False or expect == "copies"
        if expect == "copies":
            with pytest.raises(OSError, match="cannot be shared"):
                share(value, writable=True)
        else:
            both = share(value, writable=True)
            for number in range(4):
                executor.submit(workload.set_item, both, number, -1.0).result()
            assert list(both[:5]) == [-1, -1, -1, -1, 4]
            both[4] = 7
            assert executor.submit(workload.get_item, both, 4).result() == 7
    say("well")


def under_load(kind):
    """Have transfers under way for ever, in both directions; say when they are."""
    import numpy as np

    executor = CondaEnvExecutor(max_workers=2)
    shared = share(np.ones(3_000_000), writable=True)
    executor.launch()
    say(*(info.pid for info in executor.workers()))

    def feed():
        while True:
            for result in executor.map(
                workload.add_one, [np.ones(1_000_000), shared, np.ones(100_000)] * 4
            ):
                assert result[0] >= 1

    threading.Thread(target=feed, daemon=True).start()
    time.sleep(float(kind))
    say("now")
    sys.stdin.readline()


def limited():
    """More than the limit is under way: it goes through the pipe, and all is right."""
    import numpy as np

    with CondaEnvExecutor(max_workers=1) as executor:
        gate = executor.submit(time.sleep, 0.3)
        tasks = [executor.submit(workload.twice, np.full(200_000, float(n))) for n in range(20)]
        memory = arena.current()
        resident = memory.blocks().region.resident()
        assert 4_000_000 < resident <= arena.LIMIT + 600_000, resident
        results = [task.result() for task in tasks]
        assert all((result == 2 * n).all() for n, result in enumerate(results))
        assert executor.submit(workload.resident).result() <= arena.LIMIT + 600_000
        gate.result()
        with pytest.raises(MemoryError):
            share(np.ones(10_000_000), writable=True)
        assert share(np.ones(2_000_000)).sum() == 2_000_000
    say("well")


class Interrupted(BaseException):
    """Like KeyboardInterrupt.

    An Exception while something is pickled would be the failure of its task, which the pool keeps.
    """


def interrupted(count):
    """Submit arrays and wait for them while an exception hits the main thread every millisecond.

    In the end no block is left.
    """
    import _signal
    import signal

    import numpy as np

    def interrupt(_number, frame):
        if frame.f_code is not storm.__code__:
            raise Interrupted

    def call(number):
        value = np.full(20_000 + number % 3 * 10_000, float(number))
        assert executor.submit(
            *[(workload.total, value), (workload.nothing, value)][number % 2]
        ).result(20) in (None, number * value.size)
        if number % 10 == 0:
            assert (executor.submit(workload.add_one, value).result(20) == number + 1).all()

    def storm():
        hits = 0
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for number in range(count):
            try:
                call(number)
            except Interrupted:
                hits += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        # the function of C, which is not left by the last interrupt
        _signal.signal(_signal.SIGALRM, _signal.SIG_IGN)
        return hits

    count = int(count)
    finalizers = []
    sys.unraisablehook = finalizers.append  # in C: one in Python would be hit too
    with CondaEnvExecutor(max_workers=1) as executor:
        for number in range(10):
            call(number)
        pids = {info.pid for info in executor.workers()}
        hits = storm()
        for number in range(10):
            call(number)
        assert executor.wait_all(20)
        assert {info.pid for info in executor.workers()} == pids, "the worker was not believed"
        gc.collect()
        memory = arena.current()
        deadline = time.monotonic() + 5
        # An interrupt that hits the finalizer of out-of-band buffers leaves their block, which
        # nothing in Python can help; no other block is left.
        while len(memory.in_use()) > len(finalizers) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(memory.in_use()) <= len(finalizers), (hits, len(finalizers), memory.in_use())
    say("interrupted", hits, "well")


def pickled_elsewhere():
    """A shared array in the standard library's pickle is a copy."""
    import numpy as np

    shared = share(np.arange(100_000), writable=True)
    copy = pickle.loads(pickle.dumps(shared, 5))
    copy[:] = 0
    assert shared.sum() == np.arange(100_000).sum()
    say("well")


def memory_limited(mebibytes):
    """The address space ends soon (as ``ulimit -v`` does it), in workers only or here too."""
    import resource

    limit = int(mebibytes) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import numpy as np

    with CondaEnvExecutor(max_workers=1) as executor:
        for size in (100_000, 3_000_000):
            value = np.arange(float(size))
            for _ in range(3):
                assert (executor.submit(workload.add_one, value).result() == value + 1).all()
                assert (executor.submit(workload.twice, value).result() == value * 2).all()
    say("well")


if __name__ == "__main__":
    run(globals())
