"""Run CPython's own tests of ``concurrent.futures``, run with ``CondaEnvExecutor``.

A program, not a test module.

Executed by ``test_cpython_suite.py`` under an interpreter that ships the package ``test``; nothing
of CPython's tests is copied here. They are loaded as they are; every class that was replaced
the spawn variant of the standard library's pool is derived once more with our executor in its
place, and the classes that concern ``Future`` alone are run with ``Task``.

    python cpython_runner.py SITE REPORT list
    python cpython_runner.py SITE REPORT run TEST_ID...

SITE is a folder from which ``wetlands_executor`` and its dependencies are imported. REPORT is a
file to which one JSON object per line is appended, before and after each test, so that it tells
which test was running when this process died.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import multiprocessing
import sys
import time
import types
import unittest
from pathlib import Path
from typing import Any

#: Seconds that one test may take; then the stacks are printed and this process ends.
LIMIT = 60.0

PACKAGE = "test.test_concurrent_futures"
PARTS = (
    "test_as_completed",
    "test_deadlock",
    "test_future",
    "test_init",
    "test_process_pool",
    "test_shutdown",
    "test_thread_pool",
    "test_wait",
)

#: What the class names of the executor_kind to be replaced begin with, and what ours begin with.
THEIRS, OURS = "ProcessPoolSpawn", "Conda"


def load(site: str) -> dict[str, type[unittest.TestCase]]:
    """Import CPython's test modules and return our classes, by name."""
    sys.path.insert(0, site)
    import wetlands_executor

    class CondaEnvExecutor(wetlands_executor.CondaEnvExecutor):  # type: ignore[misc]
        """The tests give ``max_workers`` as first argument, ours expects the environment there."""

        def __init__(self, max_workers: int | None = None, *args: Any, **kwargs: Any) -> None:
            super().__init__(None, max_workers, *args, **kwargs)

    _do_not_count_threads()
    root = importlib.import_module(PACKAGE)
    modules = (
        [importlib.import_module(f"{PACKAGE}.{part}") for part in PARTS]
        if hasattr(root, "__path__")
        else [root]
    )
    found: dict[str, type[unittest.TestCase]] = {}
    for module in modules:
        _replace_the_pool(module, CondaEnvExecutor)
        _replace_the_scripts(module, site)
        for name, cls in list(vars(module).items()):
            if (
                isinstance(cls, type)
                and issubclass(cls, unittest.TestCase)
                and cls.__module__ == module.__name__
            ):
                if name.startswith(THEIRS):
                    ours = OURS + name[len(THEIRS) :]
                    found[ours] = type(
                        ours,
                        (cls,),
                        {"executor_type": CondaEnvExecutor, "__module__": module.__name__},
                    )
                    # tests that run another test class find ours
                    setattr(module, name, found[ours])
                elif name in ("FutureTests", "FailingInitializerResourcesTest"):
                    found[name] = cls
    _replace_the_future(modules, wetlands_executor.Task)
    return found


def _do_not_count_threads() -> None:
    """Each test ends by waiting, up to 10 s, until the threads that it has started are gone.

    It warns, but never fails.

    Those of an excluded test stay for as long as its traceback is kept. Our own tests check for
    threads that are left.
    """
    helper = importlib.import_module("test.support.threading_helper")
    helper.threading_cleanup = lambda *before: None  # type: ignore[attr-defined]


class _Futures(types.ModuleType):
    """``concurrent.futures`` but for one name."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_theirs"], name)


def _replace_the_pool(module: types.ModuleType, executor: type) -> None:
    """Give a test module a ``futures`` in which ``ProcessPoolExecutor`` makes ours.

    Some tests name it instead of ``executor_type``.
    """
    if (theirs := getattr(module, "futures", None)) is None:
        return
    ours = _Futures("futures")
    ours.ProcessPoolExecutor = lambda *args, **kwargs: executor(*args, **kwargs)  # type: ignore[attr-defined]
    ours._theirs = theirs  # type: ignore[attr-defined]
    module.futures = ours  # type: ignore[attr-defined]


def _replace_the_scripts(module: types.ModuleType, site: str) -> None:
    """Let the programs that some tests start find our executor where they import the standard
    library's.
    """
    if (theirs := getattr(module, "assert_python_ok", None)) is None:
        return
    prelude = (
        "import multiprocessing, sys\n"
        f"sys.path.insert(0, {site!r})\n"
        "import concurrent.futures, wetlands_executor\n"
        "class CondaEnvExecutor(wetlands_executor.CondaEnvExecutor):\n"
        "    def __init__(self, max_workers=None, *args, **kwargs): super().__init__(None, "
        "max_workers, *args, **kwargs)\n"
        "concurrent.futures.CondaEnvExecutor = CondaEnvExecutor\n"
    )

    def assert_python_ok(option: str, code: str, *rest: str, **variables: str) -> Any:
        assert option == "-c"
        return theirs(option, prelude + code, *rest, **variables)

    module.assert_python_ok = assert_python_ok  # type: ignore[attr-defined]


def _replace_the_future(modules: list[types.ModuleType], task: type) -> None:
    """Run the tests of ``Future`` with ``Task``.

    The constants are futures in each state, made by a function of the suite.
    """
    for module in modules:
        tests = getattr(module, "FutureTests", None)
        if tests is None or tests.__module__ != module.__name__:
            continue
        module.Future = task  # type: ignore[attr-defined]
        create = module.create_future
        create.__globals__["Future"] = task
        for name, future in list(vars(module).items()):
            if name.endswith("_FUTURE"):
                setattr(
                    module,
                    name,
                    create(state=future._state, exception=future._exception, result=future._result),
                )


class Recorder(unittest.TestResult):
    """Writes what becomes of each test to the report, at once."""

    def __init__(self, report: Path) -> None:
        super().__init__()
        self._report = report
        self._outcome: tuple[str, str] = ("passed", "")
        self._began = 0.0

    def _write(self, test: unittest.TestCase | str, outcome: str, detail: str = "") -> None:
        name = test if isinstance(test, str) else identify(test)
        with self._report.open("a", encoding="utf-8") as file:
            file.write(
                json.dumps(
                    {
                        "id": name,
                        "outcome": outcome,
                        "detail": detail[-6000:],
                        "seconds": time.monotonic() - self._began,
                    }
                )
                + "\n"
            )

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome = ("passed", "")
        self._began = time.monotonic()
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        self._write(test, "started")

    def stopTest(self, test: unittest.TestCase) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._write(test, *self._outcome)
        super().stopTest(test)

    def _failed(self, test: Any, error: Any) -> None:
        if isinstance(test, unittest.TestCase):
            self._outcome = ("failed", self._exc_info_to_string(error, test))
        else:  # a fixture of the module or the class
            import traceback

            self._write(str(test), "failed", "".join(traceback.format_exception(*error)))

    addError = addFailure = _failed  # noqa: N815 - unittest's names

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, error: Any) -> None:
        if error is not None:
            self._failed(test, error)

    def addSkip(self, test: Any, reason: str) -> None:
        self._outcome = ("skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, error: Any) -> None:
        self._outcome = ("skipped", "expected failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._outcome = ("failed", "unexpected success")


def identify(test: unittest.TestCase) -> str:
    """Return ``Class.method``: the same in every layout of CPython's tests."""
    return ".".join(test.id().split(".")[-2:])


def main(site: str, report: str, command: str, *wanted: str) -> None:
    """List the tests, or run those that are named."""
    classes = load(site)
    tests = [
        cls(name)
        for cls in classes.values()
        for name in unittest.TestLoader().getTestCaseNames(cls)
        if "forkserver" not in name
    ]
    if command == "list":
        with open(report, "w", encoding="utf-8") as file:
            json.dump(
                [
                    {"id": identify(test), "part": type(test).__module__.rpartition(".")[2]}
                    for test in tests
                ],
                file,
            )
        return
    suite = unittest.TestSuite(test for test in tests if identify(test) in wanted)
    suite.run(Recorder(Path(report)))


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main(*sys.argv[1:])
