"""What a failure says: which task, with which arguments; what to do."""

from __future__ import annotations

import logging
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import (
    CondaEnvExecutor,
    DependencyFailed,
    ExecutionException,
    Task,
    TaskTimeoutError,
    WorkerCrashed,
    WorkerUnresponsive,
)
from wetlands_executor.futures.settling import settle


class Loud:
    """Its representation is the user's code, which no thread of the pool may run."""

    def __repr__(self) -> str:
        raise SystemExit


def crash(*_args: object, **_kwargs: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def complain(*_args: object, **_kwargs: object) -> None:
    raise ValueError("not a picture")


def hang(*_args: object) -> None:
    time.sleep(60)


def measure(name: str) -> str:
    if name.endswith("7.tif"):
        os._exit(3)
    if name.endswith("8.tif"):
        raise ValueError("not a picture")
    return name


class Refusing:
    """Cannot be rebuilt in this process."""

    def __reduce__(self) -> Any:
        return refuse_in, (os.getpid(),)


def refuse_in(pid: int) -> Any:
    if os.getpid() == pid:
        return None
    raise LookupError("it is not here")


def return_refusing(_name: str) -> Any:
    return Refusing()


def set_refusing(_name: str, task: Any) -> None:
    task.set_output("odd", Refusing())


CALLS: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((), {}, "()"),
    (("scan_0003.tif", 4), {}, "('scan_0003.tif', 4)"),
    (("scan_0003.tif",), {"channel": 2}, "('scan_0003.tif', channel=2)"),
    ((pathlib.PurePosixPath("/data/scan 3.tif"),), {}, "(PurePosixPath('/data/scan 3.tif'))"),
    (([1, 2], {"a": (1.5,)}, None, True, b"x"), {}, "([1, 2], {'a': (1.5,)}, None, True, b'x')"),
    ((Loud(),), {}, "(<tests.tasks.test_messages.Loud object>)"),
    ((list(range(9)),), {}, "([0, 1, 2, 3, 4, 5, ...])"),
    ((10**5000,), {}, "(<int of 16,610 bits>)"),
    (("/folder" * 100 + "/scan_3.tif",), {}, "/scan_3.tif')"),
    (("x" * 1_000_000, "scan_3.tif"), {}, "'scan_3.tif')"),
    ((b"x" * 10_000, "scan_3.tif"), {}, "'scan_3.tif')"),
]


@pytest.mark.parametrize("fn", [crash, complain])
def test_a_failure_names_its_input(
    make: Callable[..., CondaEnvExecutor], fn: Callable[..., object]
) -> None:
    executor = make(2)
    tasks = [executor.submit(fn, *args, **kwargs) for args, kwargs, _ in CALLS]
    for task, (_, _, text) in zip(tasks, CALLS, strict=True):
        error = task.exception(DEADLINE)
        assert error is not None
        assert task.arguments.endswith(text)
        assert len(task.arguments) <= 400
        said = str(error) if fn is crash else str(error.__cause__)
        assert f"The call was {task.name}{task.arguments}".lower() in said.lower()
        if fn is complain:
            assert (type(error), str(error)) == (ValueError, "not a picture"), (
                "the function's own exception is as it was"
            )
            assert task.traceback is not None
            assert task.traceback[0].startswith("Traceback")


def test_arrays_are_told_by_shape_and_type(single: CondaEnvExecutor) -> None:
    numpy = pytest.importorskip("numpy")
    for size in (3, 400):
        task = single.submit(crash, numpy.zeros((size, size), "f4"), numpy.int64(-5))
        assert f"(<numpy.ndarray ({size}, {size}) float32>, int64(-5))" in str(
            task.exception(DEADLINE)
        )


def test_time_limits_name_the_input(make: Callable[..., CondaEnvExecutor]) -> None:
    task = make(1).options(timeout=0.2).submit(hang, "scan_3.tif")
    error = task.exception(DEADLINE)
    assert type(error) is TaskTimeoutError
    assert "hang('scan_3.tif')" in str(error).splitlines()[0], "before the stacks"
    task = make(1, worker_timeout=0.2).submit(hang, "scan_4.tif")
    error = task.exception(DEADLINE)
    assert type(error) is WorkerUnresponsive
    assert "hang('scan_4.tif')" in str(error).splitlines()[0]


def test_of_many_files_the_bad_ones_are_told(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(2)
    names = [f"scan_{number}.tif" for number in range(40)]
    tasks = executor.map_tasks(measure, names)
    executor.wait_all(DEADLINE)
    bad = [name for name in names if name.endswith(("7.tif", "8.tif"))]
    assert sorted(task.arguments for task in executor.get_failed()) == sorted(
        f"({name!r})" for name in bad
    )
    assert [task.name for task in tasks] == [
        f"tests.tasks.test_messages.measure[{place}]" for place in range(40)
    ]
    assert all(task.arguments == "" for task in tasks if task.exception() is None), (
        "nothing is kept of a task that has returned"
    )


def test_items_of_map_are_told(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(2)
    for bad, kind in ((7, WorkerCrashed), (8, ValueError)):
        names = [*(f"scan_{number}0.tif" for number in range(5)), f"scan_{bad}.tif"]
        with pytest.raises(kind) as caught:
            list(executor.map(measure, names))
        text = str(caught.value) if kind is WorkerCrashed else str(caught.value.__cause__)
        assert f"measure('scan_{bad}.tif')" in text
        executor.wait_all(DEADLINE)
        assert f"('scan_{bad}.tif')" in [task.arguments for task in executor.get_failed()]


def test_dependants_name_the_input_of_what_has_failed(single: CondaEnvExecutor) -> None:
    first = single.submit(complain, "scan_3.tif")
    second = single.submit(workload.add, first)
    third = single.submit(workload.add, second)
    for task in (second, third):
        error = task.exception(DEADLINE)
        assert type(error) is DependencyFailed
        assert "complain('scan_3.tif')" in str(error)
        assert "ValueError: not a picture" in str(error)
    assert second.arguments == "(<task tests.tasks.test_messages.complain>)"


def test_what_cannot_be_pickled_is_told_by_its_task(single: CondaEnvExecutor) -> None:
    task = single.submit(complain, "scan_3.tif", threading.Lock())
    assert isinstance(task.exception(DEADLINE), TypeError)
    assert task.arguments == "('scan_3.tif', <_thread.lock object>)"


def test_arguments_of_tasks_that_have_not_finished(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    running = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    queued = single.submit(workload.add, 1)
    held = single.options(start=False).submit(complain, "x", channel=1)
    assert running.arguments.endswith(", 'in')")
    assert queued.arguments == "(1)"
    assert held.arguments == "('x', channel=1)"
    arrival.release()
    assert queued.result(DEADLINE) is not None
    assert queued.arguments == ""
    held.cancel()
    assert Task().arguments == ""


def test_a_result_that_cannot_be_rebuilt_says_so(single: CondaEnvExecutor) -> None:
    task = single.submit(return_refusing, "scan_3.tif")
    error = task.exception(DEADLINE)
    assert type(error) is LookupError
    assert (
        "The result of tests.tasks.test_messages.return_refusing('scan_3.tif') cannot be rebuilt "
        "in this process" in str(error.__cause__)
    )
    assert "Return builtin types" in str(error.__cause__)


def test_an_output_that_cannot_be_rebuilt_says_so(
    single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    task = single.submit(set_refusing, "scan_3.tif")
    assert task.result(DEADLINE) is None
    (record,) = [record for record in caplog.records if "output" in record.getMessage()]
    assert "set_refusing('scan_3.tif') cannot be rebuilt in this process" in record.getMessage()


def test_an_exception_that_cannot_be_rebuilt_says_so(
    single: CondaEnvExecutor, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "there.py"
    path.write_text(
        "class Misfit(Exception):\n    pass\n\n\ndef fail(name):\n    raise Misfit(name)\n"
    )
    task = single.submit(f"{path}:fail", "scan_3.tif")
    error = task.exception(DEADLINE)
    assert isinstance(error, ExecutionException)
    assert "raise one whose class both sides can import" in str(error)
    assert "fail('scan_3.tif')" in str(error)


def test_stacks_are_logged_and_not_printed(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import logging, sys, time
            from wetlands_executor import CondaEnvExecutor

            def hang(name):
                print("my own words", file=sys.stderr, flush=True)
                time.sleep(60)

            if __name__ == "__main__":
                if sys.argv[1] == "logged":
                    logging.basicConfig(stream=sys.stdout)
                with CondaEnvExecutor() as executor:
                    error = executor.options(timeout=0.3).submit(hang, "scan_3.tif").exception()
                    assert "in hang" in error.stacks, error
                    assert "in hang" in str(error), error
            """
        )
    )
    for how in ("logged", "silent"):
        done = subprocess.run(
            [sys.executable, str(program), how],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == "my own words\n"
        assert ("in hang" in done.stdout) is (how == "logged")


def test_stacks_go_to_the_library_s_logger(
    single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        single.options(timeout=0.2).submit(hang, "scan_3.tif").exception(DEADLINE)
        single.shutdown()
    (record,) = [
        record for record in caplog.records if "most recent call first" in record.getMessage()
    ]
    assert record.name == "concurrent.futures.wetlands_executor"
    assert "in hang" in record.getMessage()


def test_what_does_not_fit_into_this_process_is_named(single: CondaEnvExecutor) -> None:
    """A failure that no function has raised: the pool itself gives it to the task."""
    task = single.options(start=False).submit(complain, "scan_3.tif")
    settle(task, None, MemoryError("the result has 10 bytes, which do not fit into this process"))
    assert "complain('scan_3.tif')" in str(task.exception(DEADLINE))


def test_the_arguments_of_a_script_are_its_own(
    single: CondaEnvExecutor, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "script.py"
    path.write_text("import sys\nsys.exit(3)\n")
    task = single.submit_script(path, ["scan_3.tif"])
    assert task.exception(DEADLINE) is not None
    assert task.arguments == "('scan_3.tif')"


def raise_memory_error(_name: str) -> None:
    raise MemoryError("mine")


def test_a_memory_error_of_the_function_is_as_it_was(single: CondaEnvExecutor) -> None:
    error = single.submit(raise_memory_error, "scan_3.tif").exception(DEADLINE)
    assert (type(error), str(error)) == (MemoryError, "mine")
    assert "raise_memory_error('scan_3.tif')" in str(error.__cause__)  # type: ignore[union-attr]
