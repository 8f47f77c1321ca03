"""CPython's own tests of ``concurrent.futures``, taken at run time from an interpreter that ships
them, over ``CondaEnvExecutor``.

``cpython_runner.py`` puts our class in, in processes of their own; this file starts them, restarts
what a hang or a crash cut short, and judges. What we do not pass on purpose is in ``EXCLUDED``,
each with its reason; an excluded test that passes is an error too, and so is an entry that no
longer names a test.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import interpreters
from tests.support.summary import summary_lines

# The first test of each interpreter waits for all of them.
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

RUNNER = Path(__file__).with_name("cpython_runner.py")

#: Oldest Python that hosts our executor.
OLDEST = (3, 10)
#: Runner processes at a time: the tests mostly sleep.
AT_A_TIME = 3
#: Seconds for one runner process; each test in it has a limit of its own.
RUNNER_LIMIT = 280
#: What the runner, and every program that a test starts, has to be able to import.
NEEDED = ("wetlands_executor", "cloudpickle", "psutil", "typing_extensions")

#: What the CPython tests do that ours cannot do or does otherwise on purpose: the private attribute
#: that a test reaches for, or the difference, with the test of ours that covers it.
EXCLUDED = {
    # Private attributes of ProcessPoolExecutor.
    "CondaProcessPoolExecutorTest.test_killed_child": "kills a process of executor._processes, "
    "and expects the whole pool to be broken; "
    "test_pool.py: test_a_worker_that_dies_is_a_broken_process_pool, "
    "test_a_worker_that_dies_costs_only_the_task_that_it_ran",
    "CondaProcessPoolExecutorTest.test_saturation": "counts executor._processes; test_pool.py: "
    "test_no_more_workers_than_asked_for",
    "CondaProcessPoolExecutorTest.test_idle_process_reuse_one": "counts executor._processes; "
    "test_pool.py: test_an_idle_worker_is_used_before_another_is_started",
    "CondaProcessPoolExecutorTest.test_idle_process_reuse_multiple": "counts executor._processes; "
    "test_pool.py: test_an_idle_worker_is_used_before_another_is_started",
    "CondaProcessPoolExecutorTest.test_max_tasks_per_child": "counts executor._processes; "
    "test_pool.py: test_a_worker_is_replaced_after_its_tasks",
    "CondaProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": "reads "
    "executor._mp_context; ours has no use for a context",
    "CondaProcessPoolShutdownTest.test_processes_terminate": "counts and joins "
    "executor._processes; "
    "test_shutdown.py: test_no_worker_is_left_after_shutdown",
    "CondaProcessPoolShutdownTest.test_context_manager_shutdown": "joins executor._processes; "
    "test_shutdown.py: test_with_gives_the_executor_and_shuts_it_down, and the leak check around "
    "it",
    "CondaProcessPoolShutdownTest.test_del_shutdown": "joins executor._executor_manager_thread, "
    "_processes and _call_queue; "
    "test_shutdown.py: test_a_dropped_executor_finishes_its_work_and_ends",
    "CondaProcessPoolShutdownTest.test_shutdown_no_wait": "joins "
    "executor._executor_manager_thread, _processes and _call_queue; "
    "test_shutdown.py: test_shutdown_without_waiting_returns_and_the_work_is_done, and the leak "
    "check around it",
    "CondaExecutorDeadlockTest.test_shutdown_deadlock_pickle": "joins "
    "executor._executor_manager_thread; "
    "test_errors.py: test_an_argument_that_cannot_be_pickled_fails_its_task",
    "CondaProcessPoolExecutorTest.test_python_finalization_error": "mocks "
    "threading._start_joinable_thread, so that the thread that feeds "
    "multiprocessing.Queue cannot start, and expects the pool to break; ours has no such thread; "
    "test_exit.py",
    # What only inheritance can hand over.
    "CondaFailingInitializerTest.test_initializer": "sends a multiprocessing.Queue in initargs, "
    "which only forks and children of "
    "multiprocessing inherit, and waits for executor._broken; test_pool.py: "
    "test_a_failing_initializer_breaks_the_executor_for_all",
    "FailingInitializerResourcesTest.test_spawn": "runs the test above and looks at "
    "multiprocessing's resource tracker, which ours "
    "does not use",
    # Ours does better, on purpose.
    "CondaExecutorDeadlockTest.test_error_at_task_unpickle": "expects a worker to die of an "
    "argument that it cannot unpickle; "
    "ours fails the task "
    "with the error; test_errors.py: test_an_argument_that_cannot_be_unpickled_harms_no_other_task",
    "CondaExecutorDeadlockTest.test_exit_at_task_unpickle": "the same with SystemExit",
    "CondaExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": "expects the "
    "pool to break over a result that cannot be "
    "unpickled here; ours fails the task; test_errors.py: "
    "test_a_result_that_cannot_be_unpickled_harms_no_other_task",
    "CondaExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": "the same with "
    "SystemExit",
    "CondaProcessPoolShutdownTest.test_cancel_futures": "expects some tasks to count as running "
    "before any worker has started; ours "
    "cancels "
    "all that no worker has taken; test_shutdown.py: "
    "test_cancel_futures_cancels_everything_that_no_worker_has_taken",
    # The class is named Task.
    "FutureTests.test_repr": "expects the class name Future in repr()",
    "FutureTests.test_multiple_set_result": "expects the class name Future in a message",
    "FutureTests.test_multiple_set_exception": "expects the class name Future in a message",
}
#: The same, of tests that came with 3.14.
EXCLUDED_FROM_3_14 = {
    "CondaProcessPoolExecutorTest.test_broken_process_pool_traceback": "kills a process of "
    "executor._processes; "
    "test_pool.py: test_a_worker_that_dies_is_a_broken_process_pool",
    "CondaProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool": "joins a process of "
    "executor._processes; "
    "test_stress.py: test_ends_at_any_moment",
    "CondaProcessPoolExecutorTest.test_force_shutdown_workers_invalid_op": "calls "
    "executor._force_shutdown",
    "CondaProcessPoolExecutorTest.test_terminate_workers": "expects a call of "
    "executor._force_shutdown",
    "CondaProcessPoolExecutorTest.test_kill_workers": "the same",
    "CondaProcessPoolExecutorTest.test_failed_worker_replacement_breaks_pool": "joins "
    "executor._executor_manager_thread",
    "CondaProcessPoolExecutorTest.test_shutdown_no_wait_max_tasks_gh119592": "joins "
    "executor._executor_manager_thread",
    "CondaProcessPoolExecutorTest.test_force_shutdown_during_max_tasks_worker_exit": "joins "
    "executor._executor_manager_thread",
    "CondaProcessPoolExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967": "joins "
    "executor._executor_manager_thread",
    "CondaProcessPoolShutdownTest.test_shutdown_gh_132969_case_1": "joins "
    "executor._executor_manager_thread",
    "CondaProcessPoolShutdownTest.test_shutdown_gh_132969_case_2": "joins "
    "executor._executor_manager_thread",
}
#: The same, of tests that came with 3.15.
EXCLUDED_FROM_3_15 = {
    "CondaProcessPoolExecutorTest.test_traceback_when_child_process_terminates_abruptly": "expects "
    "the exit code in the text of a cause; ours has it in the message and in exit_code, "
    "tests/faults/test_matrix.py: test_only_its_own_task_fails",
}
EXCLUDED.update(EXCLUDED_FROM_3_14, **EXCLUDED_FROM_3_15)
#: Excluded tests that pass when a worker happens to be faster than the test, or on some versions.
MAY_PASS = {
    "CondaProcessPoolShutdownTest.test_cancel_futures",
    "FailingInitializerResourcesTest.test_spawn",
}
#: Tests that are not run at all, because they only waste time.
NOT_RUN = {
    "FutureTests.test_exception_with_success": "writes _state and notifies _condition behind the "
    "back of set_exception; ours sleeps on a lock "
    "of its own, and sees the change when the time-out of 30 s is over",
    "CondaProcessPoolExecutorTest.test_force_shutdown_workers": "reaches for executor._processes "
    "while a task waits for an event "
    "that is then "
    "never set; test_stress.py: test_ends_at_any_moment",
}


@dataclass
class Results:
    """What one interpreter's tests have come to.

    Attributes:
        interpreter: whose tests they are.
        tests: what there is to run.
        outcomes: outcome and detail of each test.
        seconds: that it took.
    """

    interpreter: interpreters.Interpreter
    tests: list[str] = field(default_factory=list)
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0


def _ships_the_tests(interpreter: interpreters.Interpreter) -> bool:
    program = "import test.test_concurrent_futures, test.support"
    done = subprocess.run(
        [interpreter.path, "-I", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0


def _make_site(folder: Path) -> Path:
    """Make a folder that holds what we need of this environment and nothing else."""
    folder.mkdir()
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"{name} is not installed here"
        if spec.submodule_search_locations:
            shutil.copytree(
                next(iter(spec.submodule_search_locations)),
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        else:
            assert spec.origin is not None
            shutil.copy(spec.origin, folder)
    return folder


def _run(interpreter: interpreters.Interpreter, *arguments: object) -> tuple[int | None, str]:
    """Run the runner; return its exit code (None if it was ended after its time) and its output.

    To a file, not through a pipe: multiprocessing's fork server, the default from 3.14 on, outlives
    the runner and would keep the pipe open.
    """
    command = [interpreter.path, "-W", "ignore", RUNNER, *arguments]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = None
        try:
            code = process.wait(RUNNER_LIMIT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def _run_share(results: Results, site: Path, report: Path, tests: list[str]) -> None:
    """Run tests in one process.

    When it dies, blame the test that was running and go on with the others in a new one.
    """
    waiting = list(tests)
    while waiting:
        report.unlink(missing_ok=True)
        code, output = _run(results.interpreter, site, report, "run", *waiting)
        if code is None:
            output = f"time out of the runner: {output}"
        seen = {}
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
        for entry in map(json.loads, lines):
            seen[entry["id"]] = (entry["outcome"], entry["detail"])
        for name, (outcome, detail) in seen.items():
            results.outcomes[name] = (
                ("failed", f"hung, or ended the process:\n{output[-6000:]}")
                if outcome == "started"
                else (outcome, detail)
            )
        rest = [name for name in waiting if name not in seen]
        if len(rest) == len(waiting):
            for name in rest:
                results.outcomes[name] = (
                    "failed",
                    f"the runner did not get to it:\n{output[-6000:]}",
                )
            return
        waiting = rest


@functools.cache
def _shipping() -> list[interpreters.Interpreter]:
    return [
        each
        for each in interpreters.find()
        if each.version[:2] >= OLDEST and _ships_the_tests(each)
    ]


def _newest() -> interpreters.Interpreter:
    """Return the newest interpreter that ships the tests.

    From CPython 3.14 on it is this session's own.

    So a session on each of the new versions runs the tests of that version.
    """
    own = [each for each in _shipping() if (3, 14) <= each.version[:2] == sys.version_info[:2]]
    return (own or _shipping())[-1]


@pytest.fixture(scope="module", params=["newest", "oldest"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run the tests of the newest, and of the oldest, interpreter that ships them.

    Two layouts, and years of contract between them.
    """
    shipping = _shipping()
    if not shipping:
        pytest.skip(
            "no interpreter here ships test.test_concurrent_futures (distributions leave it out)"
        )
    if request.param == "oldest" and len(shipping) < 2:
        pytest.skip("only one interpreter here ships test.test_concurrent_futures")
    interpreter = _newest() if request.param == "newest" else shipping[0]
    folder = tmp_path_factory.mktemp("cpython")
    site = _make_site(folder / "site")
    probe = subprocess.run(
        [interpreter.path, "-I", "-c",
         f"import sys; sys.path.insert(0, {str(site)!r}); import {', '.join(NEEDED)}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if probe.returncode:
        assert "psutil" in probe.stderr, probe.stderr
        pytest.skip(f"psutil of this environment does not fit Python {interpreter.minor}")
    began = time.monotonic()
    results = Results(interpreter)
    listing = folder / "list.json"
    code, output = _run(interpreter, site, listing, "list")
    assert code == 0, output
    tests = json.loads(listing.read_text(encoding="utf-8"))
    if interpreter.version[:2] >= (3, 14):
        assert {test["id"] for test in tests} >= set(NOT_RUN)
    results.tests = [test["id"] for test in tests if test["id"] not in NOT_RUN]
    shares = [results.tests[number::AT_A_TIME] for number in range(AT_A_TIME)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(
            pool.map(
                lambda number: _run_share(
                    results, site, folder / f"report{number}", shares[number]
                ),
                range(AT_A_TIME),
            )
        )
    results.seconds = time.monotonic() - began
    _announce(request.config, results)
    return results


def _announce(config: pytest.Config, results: Results) -> None:
    """Print the totals at the end of the session."""
    counts = Counter(
        "excluded" if name in EXCLUDED else outcome
        for name, (outcome, _) in results.outcomes.items()
    )
    words = ", ".join(
        f"{count} {outcome}" for outcome, count in sorted(counts.items(), reverse=True)
    )
    version = ".".join(map(str, results.interpreter.version))
    line = (
        f"CPython {version}'s concurrent.futures tests over CondaEnvExecutor: {words} of "
        f"{len(results.outcomes)}, {results.seconds:.0f} s"
    )
    config.stash.setdefault(summary_lines, []).append(line)


def test_everything_passes_that_is_not_excluded(results: Results) -> None:
    problems = [
        f"--- Python {results.interpreter.minor}, {name}: {outcome}\n{detail}"
        for name, (outcome, detail) in results.outcomes.items()
        if name not in EXCLUDED and outcome not in ("passed", "skipped")
    ]
    assert not problems, "\n".join(problems)


def test_what_is_excluded_does_not_pass(results: Results) -> None:
    passing = [
        name
        for name in EXCLUDED
        if results.outcomes.get(name, ("", ""))[0] == "passed" and name not in MAY_PASS
    ]
    assert passing == [], "take these out of the table"


def test_what_is_excluded_exists(results: Results) -> None:
    if results.interpreter is _newest() and results.interpreter.version[:2] >= (3, 13):
        later: set[str] = set()
        for version, names in (((3, 14), EXCLUDED_FROM_3_14), ((3, 15), EXCLUDED_FROM_3_15)):
            later |= set() if results.interpreter.version[:2] >= version else set(names)
        assert set(EXCLUDED) - later <= set(results.tests), "take these out of the table"


def test_nothing_has_been_left_out(results: Results) -> None:
    """The suite itself: tests of every part were found, run, and have an outcome."""
    assert set(results.tests) == set(results.outcomes)
    assert {name.partition(".")[0] for name in results.tests} >= {
        "CondaAsCompletedTest", "CondaExecutorDeadlockTest", "CondaInitializerTest",
        "CondaFailingInitializerTest",
        "CondaProcessPoolExecutorTest", "CondaProcessPoolShutdownTest", "CondaWaitTest",
        "FutureTests",
    }  # fmt: skip
    assert len(results.tests) > 70
