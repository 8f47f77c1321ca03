"""The end of the interpreter.

Programs that never shut their executor down, or do it at the last moment.

Each test is a program of its own, judged by what it prints, what it leaves on stderr and its exit
code.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.contract.executor_kinds import ExecutorKind
from tests.support.rendezvous import DEADLINE, Rendezvous

ROOT = Path(__file__).resolve().parents[2]

_MAKE = {
    "thread": "from concurrent.futures import ThreadPoolExecutor\nmake = ThreadPoolExecutor\n",
    "process": (
        "import functools, multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "make = functools.partial(ProcessPoolExecutor, "
        "mp_context=multiprocessing.get_context('spawn'))\n"
    ),
    "conda": "import functools\nfrom wetlands_executor import CondaEnvExecutor\nmake = "
    "functools.partial(CondaEnvExecutor, None)\n",
    "in-process": "from wetlands_executor import InProcessExecutor as make\n",
}

#: What is said to a submit that comes too late; the standard library uses either form, depending on
#: who has noticed the end first.
REFUSED = r"cannot schedule new futures after (interpreter )?shutdown\n"

#: The tests' own time limit: an interpreter that has not ended after so many seconds hangs.
HOST_DEADLINE = 60


class Program:
    """A running program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        """Return the next line of its output; it is killed if none comes."""
        timer = threading.Timer(DEADLINE, self.process.kill)
        timer.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline().rstrip("\n")
        timer.cancel()
        timer.join()
        return line

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return the exit code, the rest of its output, and its stderr."""
        out, err = self.process.communicate(timeout=HOST_DEADLINE)
        return self.process.returncode, out, err


@pytest.fixture
def run(executor_kind: ExecutorKind, tmp_path: Path, request: pytest.FixtureRequest):
    """Start a program whose body stands under ``if __name__ == "__main__"``.

    ``make(workers)`` gives it an executor.
    """

    def run(body: str, *arguments: object, top: str = "", guard: bool = True) -> Program:
        indented = "".join(f"    {line}\n" for line in body.strip().splitlines()) if guard else body
        text = (
            f"import sys\nfrom tests.contract import workload\n{_MAKE[executor_kind.name]}{top}\n"
        )
        text += f'if __name__ == "__main__":\n{indented}' if guard else indented
        path = tmp_path / "program.py"
        path.write_text(text, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(path), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8",
        )  # fmt: skip

        def end() -> None:
            process.kill()
            process.communicate()

        request.addfinalizer(end)
        return Program(process)

    return run


def test_work_that_waits_is_done_at_exit(run, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    program = run(
        "executor = make(2)\nfor number in range(20):\n    "
        "executor.submit(workload.append, sys.argv[1], str(number))",
        journal,
    )
    assert program.end() == (0, "", "")
    assert sorted(map(int, journal.read_text().split())) == list(range(20))


def test_a_task_that_runs_at_exit_is_waited_for(
    run, rendezvous: Rendezvous, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    program = run(
        "executor = make(1)\nexecutor.submit(workload.arrive, sys.argv[1])\n"
        "executor.submit(workload.append, sys.argv[2], 'done')\nprint('main is over', flush=True)",
        rendezvous.address, journal,
    )  # fmt: skip
    assert program.line() == "main is over"
    arrival = rendezvous.next()
    assert not journal.exists()
    arrival.release()
    assert program.end() == (0, "", "")
    assert journal.read_text() == "done\n"


def test_what_a_task_prints_at_exit_arrives(run, rendezvous: Rendezvous) -> None:
    program = run(
        "executor = make(1)\nexecutor.submit(workload.arrive, "
        "sys.argv[1])\nexecutor.submit(print, 'from a task', flush=True)\n"
        "print('main is over', flush=True)", rendezvous.address,
    )  # fmt: skip
    assert program.line() == "main is over"
    rendezvous.next().release()
    assert program.end() == (0, "from a task\n", "")


def test_callbacks_run_at_exit(run, rendezvous: Rendezvous) -> None:
    program = run(
        "executor = make(1)\nfuture = executor.submit(workload.arrive, sys.argv[1], 'result')\n"
        "future.add_done_callback(lambda done: print('callback got', done.result(), "
        "flush=True))\nprint('main is over', flush=True)",
        rendezvous.address,
    )  # fmt: skip
    assert program.line() == "main is over"
    rendezvous.next().release()
    assert program.end() == (0, "callback got result\n", "")


def test_a_callback_that_submits_at_exit_is_served_or_refused(run, rendezvous: Rendezvous) -> None:
    program = run(
        """
executor = make(1)
def again(done):
    try:
        served = lambda done: print("served", flush=True)
        executor.submit(workload.identity, 1).add_done_callback(served)
    except RuntimeError as error:
        print("refused:", error, flush=True)
executor.submit(workload.arrive, sys.argv[1]).add_done_callback(again)
print("main is over", flush=True)
""",
        rendezvous.address,
    )
    assert program.line() == "main is over"
    rendezvous.next().release()
    code, out, err = program.end()
    assert (code, err) == (0, "")
    assert re.fullmatch(f"served\n|refused: {REFUSED}", out)


def test_a_callback_that_raises_at_exit_is_logged(run, rendezvous: Rendezvous) -> None:
    program = run(
        "executor = make(1)\nfuture = executor.submit(workload.arrive, sys.argv[1])\n"
        "future.add_done_callback(lambda done: 1 // 0)\nprint('main is over', flush=True)",
        rendezvous.address,
    )  # fmt: skip
    assert program.line() == "main is over"
    rendezvous.next().release()
    code, out, err = program.end()
    assert (code, out) == (0, "")
    assert "exception calling callback" in err
    assert "ZeroDivisionError" in err


def test_submit_from_an_atexit_function_is_refused(run) -> None:
    program = run(
        """
import atexit
executor = make(1)
executor.submit(int).result()
@atexit.register
def late():
    try:
        executor.submit(int)
    except RuntimeError as error:
        print(error, flush=True)
"""
    )
    code, out, err = program.end()
    assert (code, err) == (0, "")
    assert re.fullmatch(REFUSED, out)


def test_shutdown_from_an_atexit_function(run) -> None:
    program = run(
        "import atexit\nexecutor = "
        "make(1)\natexit.register(executor.shutdown)\nexecutor.submit(int).result()\nprint('end')"
    )
    assert program.end() == (0, "end\n", "")


@pytest.mark.executor_kinds("conda")
def test_a_module_that_is_kept_is_cleared_in_silence(run) -> None:
    """C code may keep a module: Python sets its names to None, and its objects go afterwards."""
    program = run(
        """
import ctypes
from wetlands_executor.pool import wakeup
executor = make(1)
executor.submit(int).result()
kept = wakeup.Wakeup()
ctypes.pythonapi.Py_IncRef(ctypes.py_object(wakeup))
executor.shutdown()
"""
    )
    assert program.end() == (0, "", "")


@pytest.mark.executor_kinds("thread", "in-process", "conda")
def test_exit_after_shutdown_without_waiting(run, rendezvous: Rendezvous) -> None:
    """Not for the standard library's pool of processes, which hangs here (its issue 83386)."""
    program = run(
        "executor = make(1)\nexecutor.submit(workload.arrive, "
        "sys.argv[1])\nexecutor.submit(print, 'from a task', flush=True)\n"
        "executor.shutdown(wait=False)\nprint('main is over', flush=True)",
        rendezvous.address,
    )  # fmt: skip
    assert program.line() == "main is over"
    rendezvous.next().release()
    assert program.end() == (0, "from a task\n", "")


def test_an_exception_in_the_main_program_is_its_exit(run, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    program = run(
        "executor = make(1)\nexecutor.submit(workload.append, sys.argv[1], "
        "'done')\nraise ValueError('mine')",
        journal,
    )
    code, out, err = program.end()
    assert (code, out) == (1, "")
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("ValueError: mine")
    assert journal.read_text() == "done\n"


def test_sys_exit_inside_with(run) -> None:
    program = run("with make(1) as executor:\n    executor.submit(int).result()\n    sys.exit(3)")
    assert program.end() == (3, "", "")


def test_an_unused_executor_at_exit(run) -> None:
    assert run("executor = make(1)").end() == (0, "", "")


def test_a_failed_task_that_was_not_looked_at_is_silent_at_exit(run) -> None:
    assert run("executor = make(1)\nexecutor.submit(divmod, 1, 0)").end() == (0, "", "")


def test_a_daemon_thread_that_waits_at_exit_does_not_hold_it(run, rendezvous: Rendezvous) -> None:
    program = run(
        "import threading\nexecutor = make(1)\nfuture = executor.submit(workload.arrive, "
        "sys.argv[1])\n"
        "threading.Thread(target=future.result, daemon=True).start()\nprint('main is over', "
        "flush=True)",
        rendezvous.address,
    )  # fmt: skip
    assert program.line() == "main is over"
    rendezvous.next().release()
    assert program.end() == (0, "", "")


def test_a_thread_that_still_submits_at_exit_is_refused_at_last(run) -> None:
    """A non-daemon thread outlives the main thread.

    It is served until the interpreter's end has begun, then refused.
    """
    program = run(
        """
import threading
executor = make(1)
def submit():
    try:
        while True:
            executor.submit(workload.identity, 1).result()
    except RuntimeError as error:
        print(error, flush=True)
threading.Thread(target=submit).start()
"""
    )
    code, out, err = program.end()
    assert (code, err) == (0, "")
    assert re.fullmatch(REFUSED, out)


@pytest.mark.executor_kinds("thread", "in-process", "conda")
def test_functions_of_the_main_program_need_no_guard(run) -> None:
    program = run(
        """
class Point:
    def __init__(self, x): self.x = x

def double(point): return Point(2 * point.x)

with make(2) as executor:
    print([point.x for point in executor.map(double, map(Point, range(3)))])
""",
        guard=False,
    )
    assert program.end() == (0, "[0, 2, 4]\n", "")


@pytest.mark.executor_kinds("process", "conda")
def test_functions_of_the_main_program_with_a_guard(run) -> None:
    program = run(
        "with make(2) as executor:\n    print([point.x for point in executor.map(double, "
        "map(Point, range(3)))])",
        top="class Point:\n    def __init__(self, x): self.x = x\n\ndef double(point): return "
        "Point(2 * point.x)\n",
    )
    assert program.end() == (0, "[0, 2, 4]\n", "")
