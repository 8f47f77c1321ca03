"""CPython's fault matrix: {raise, exit, crash} x {task pickle, task unpickle, running, result
pickle, result unpickle}.

In CPython's own executor some of these cells break the whole pool. Here every one of them concerns
its own task only. The cells in which the *host* exits or crashes (it pickles the task and unpickles
the result) are in ``test_host_dies_by_its_own_pickle``.
"""

from __future__ import annotations

import signal
from concurrent.futures.process import _RemoteTraceback

import pytest

from tests.faults import work
from tests.support.observe import DEADLINE, crash_of, gone, pids

STAGES = {
    "task_pickle": lambda kind: (work.ignore, work.FaultWhenPickled(kind)),
    "task_unpickle": lambda kind: (work.ignore, work.FaultWhenUnpickled(kind)),
    "running": lambda kind: (work.fault, kind),
    "result_pickle": lambda kind: (work.make, work.FaultWhenPickled, kind),
    "result_unpickle": lambda kind: (work.make, work.FaultWhenUnpickled, kind),
}
IN_HOST = ("task_pickle", "result_unpickle")
DEADLY = ("os_exit", "segfault")


CELLS = [
    (kind, stage)
    for kind in ("raise", "sys_exit", *DEADLY)
    for stage in STAGES
    if kind not in DEADLY or stage not in IN_HOST
]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("kind", "stage"), CELLS)
def test_only_its_own_task_fails(make, kind, stage, workers):
    executor = make(max_workers=workers).launch()
    processes = pids(executor)
    before = [executor.submit(work.make, complex, number) for number in range(20)]
    culprit = executor.submit(*STAGES[stage](kind))
    after = [executor.submit(work.make, complex, number) for number in range(20)]

    if kind in DEADLY:
        crash = crash_of(culprit)
        if kind == "os_exit":
            assert (crash.exit_code, crash.signal_name) == (5, None)
        else:
            assert (crash.exit_code, crash.signal_name) == (-signal.SIGSEGV, "SIGSEGV")
            assert "Segmentation fault" in crash.stderr
            assert "work.py" in crash.stderr, "faulthandler's stack names the place"
    else:
        error = culprit.exception(DEADLINE)
        if kind == "raise":
            assert (type(error), error.args) == (ZeroDivisionError, ("fault",))
        else:
            assert (type(error), error.args) == (SystemExit, (3,))
        if stage not in IN_HOST:
            assert type(error.__cause__) is _RemoteTraceback
            assert "work.py" in str(error.__cause__)

    assert [task.result(DEADLINE) for task in before + after] == [
        complex(number) for number in range(20)
    ] * 2
    executor.launch()
    assert len(pids(executor)) == workers
    left = pids(executor) & processes
    assert len(left) == (workers - 1 if kind in DEADLY else workers)
    assert gone(processes - left)


@pytest.mark.parametrize("stage", IN_HOST)
@pytest.mark.parametrize("kind", DEADLY)
def test_host_dies_by_its_own_pickle(host, kind, stage):
    program = host("pickle_and_die", stage, kind)
    workers = set(map(int, program.line().split()))
    code, _out, _err = program.finish()
    assert code == (5 if kind == "os_exit" else -signal.SIGSEGV)
    assert gone(workers, 2.0)
