"""What a task raises, and what cannot be pickled: type, arguments, notes, chains.

The place where it surfaces.
"""

from __future__ import annotations

import pickle
import sys
import threading
import traceback
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback  # type: ignore[attr-defined]

import pytest

from tests.contract import workload
from tests.support.rendezvous import DEADLINE
from wetlands_executor import ExecutionException

PICKLING_ERRORS = (TypeError, AttributeError, pickle.PicklingError)

python311 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="notes and groups came with Python 3.11"
)

EVERYWHERE = ("thread", "in-process", "process", "conda", "conda-other")
REMOTE = ("process", "conda", "conda-other")


def works(executor: Executor) -> bool:
    """Say whether the executor still does what it is for."""
    return executor.submit(workload.multiply, 6, 7).result(DEADLINE) == 42


# ------------------------------------------------------------------------------ exceptions of tasks


@pytest.mark.executor_kinds(*EVERYWHERE)
@pytest.mark.parametrize(
    ("cls", "args"),
    [
        (ValueError, (1, "two", None)),
        (workload.Plain, ("straße",)),
        (KeyError, ("missing",)),
        (OSError, (2, "No such file", "name")),
        (UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "invalid start byte")),
        (workload.Reduced, (7, "seven")),
        (StopIteration, (5,)),
        (AssertionError, ()),
        (MemoryError, ("all of it",)),
        (ImportError, ("no module",)),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_exception_keeps_its_type_and_arguments(
    executor: Executor, cls: type[Exception], args: tuple[object, ...]
) -> None:
    error = executor.submit(workload.throw_new, cls, *args).exception(DEADLINE)
    original = cls(*args)
    assert type(error) is type(original), "OSError makes a FileNotFoundError of itself"
    assert error.args == original.args
    assert str(error) == str(original)


@pytest.mark.executor_kinds(*EVERYWHERE)
@pytest.mark.parametrize("cls", [KeyboardInterrupt, SystemExit, GeneratorExit, workload.Root])
def test_base_exceptions_are_the_failure_of_their_task(
    executor: Executor, cls: type[BaseException]
) -> None:
    task = executor.submit(workload.throw_new, cls, "mine")
    with pytest.raises(cls) as caught:
        task.result(DEADLINE)
    assert caught.value.args == ("mine",)
    assert works(executor)


def test_sys_exit_in_a_task_ends_the_task(executor: Executor) -> None:
    error = executor.submit(workload.exit_with, 3).exception(DEADLINE)
    assert isinstance(error, SystemExit)
    assert error.code == 3
    assert works(executor)


@pytest.mark.executor_kinds(*REMOTE)
def test_the_cause_is_the_remote_traceback(executor: Executor) -> None:
    error = executor.submit(workload.throw, workload.Plain("here")).exception(DEADLINE)
    assert type(error.__cause__) is _RemoteTraceback
    text = str(error.__cause__)
    assert "raise exception" in text, "the line of the source that raised it"
    assert "in throw" in text
    assert "workload.py" in text
    assert "Plain: here" in text
    assert "raise exception" in "".join(traceback.format_exception(error))


@pytest.mark.executor_kinds("thread", "in-process")
def test_in_this_process_the_traceback_is_the_real_one(executor: Executor) -> None:
    error = executor.submit(workload.throw, workload.Plain("here")).exception(DEADLINE)
    assert "raise exception" in "".join(traceback.format_exception(error))


@pytest.mark.executor_kinds(*EVERYWHERE)
def test_a_chain_of_exceptions_can_be_read(executor: Executor) -> None:
    error = executor.submit(workload.throw_from, "not a number").exception(DEADLINE)
    assert type(error) is workload.Plain
    text = "".join(traceback.format_exception(error))
    assert "invalid literal for int()" in text
    assert "direct cause" in text


@python311
@pytest.mark.executor_kinds(*EVERYWHERE)
def test_notes_and_attributes_stay_with_the_exception(executor: Executor) -> None:
    error = executor.submit(workload.throw_noted, "noted", "first", "zweite").exception(DEADLINE)
    assert error.__notes__ == ["first", "zweite"]  # type: ignore[attr-defined]
    assert error.extra == {"answer": 42}  # type: ignore[attr-defined]


@python311
@pytest.mark.executor_kinds(*EVERYWHERE)
def test_exception_groups_arrive_whole(executor: Executor) -> None:
    error = executor.submit(workload.throw_group).exception(DEADLINE)
    assert type(error) is ExceptionGroup  # noqa: F821 - Python 3.11
    assert error.message == "outer"
    value, inner = error.exceptions
    assert (type(value), value.args) == (ValueError, (1,))
    assert [type(each) for each in inner.exceptions] == [KeyError, workload.Reduced]
    assert inner.exceptions[1].code == 7


def test_an_exception_as_a_result_is_a_result(executor: Executor) -> None:
    task = executor.submit(workload.identity, ValueError("a value"))
    assert task.exception(DEADLINE) is None
    assert repr(task.result()) == "ValueError('a value')"


def test_each_failure_is_an_object_of_its_own(executor: Executor) -> None:
    first, second = (
        executor.submit(workload.throw_new, workload.Plain, "same").exception(DEADLINE)
        for _ in range(2)
    )
    assert first is not second


# --------------------------------------------------- exceptions that cannot be rebuilt, or not sent


@pytest.mark.executor_kinds("thread", "in-process")
def test_without_a_border_any_exception_arrives(executor: Executor) -> None:
    assert isinstance(
        executor.submit(workload.throw_new, workload.Picky, 5, "five").exception(DEADLINE),
        workload.Picky,
    )


@pytest.mark.executor_kinds("process")
def test_the_standard_library_breaks_over_an_exception_that_cannot_be_rebuilt(
    executor: Executor, capfd: pytest.CaptureFixture[str]
) -> None:
    """Shown so that the next test says what it says: ours does better."""
    assert isinstance(
        executor.submit(workload.throw_new, workload.Picky, 5, "five").exception(DEADLINE),
        BrokenProcessPool,
    )


@pytest.mark.executor_kinds("conda", "conda-other")
def test_an_exception_with_a_signature_of_its_own_is_rebuilt_all_the_same(
    executor: Executor,
) -> None:
    error = executor.submit(workload.throw_new, workload.Picky, 5, "five").exception(DEADLINE)
    assert type(error) is workload.Picky
    assert (str(error), error.code) == ("5: five", 5)
    assert works(executor)


@pytest.mark.executor_kinds("conda", "conda-other")
def test_an_exception_that_cannot_be_rebuilt_arrives_as_a_description(executor: Executor) -> None:
    error = executor.submit(workload.throw_new, workload.Unpicklable, "with a lock").exception(
        DEADLINE
    )
    assert type(error) is ExecutionException
    assert error.type_name == "tests.contract.workload.Unpicklable"
    assert error.exception == "with a lock"
    assert any("raise cls(*args)" in line for line in error.traceback)
    assert "with a lock" in str(error)
    assert works(executor)


@pytest.mark.executor_kinds("process", "conda", "conda-other")
def test_an_exception_that_cannot_be_pickled_fails_its_task_only(executor: Executor) -> None:
    task = executor.submit(workload.throw_new, workload.Unpicklable, "with a lock")
    assert isinstance(task.exception(DEADLINE), Exception)
    assert works(executor)


# ----------------------------------------------------------------------------------------- pickling


@pytest.mark.executor_kinds(*REMOTE)
def test_an_argument_that_cannot_be_pickled_fails_its_task(executor: Executor) -> None:
    tasks = [
        executor.submit(workload.identity, threading.Lock()),
        executor.submit(workload.identity, value=threading.Lock()),
    ]
    for task in tasks:
        with pytest.raises(PICKLING_ERRORS, match="pickle"):
            task.result(DEADLINE)
    assert works(executor)


@pytest.mark.executor_kinds(*REMOTE)
def test_the_error_of_an_argument_keeps_its_type(executor: Executor) -> None:
    task = executor.submit(workload.identity, workload.PickleRaises())
    with pytest.raises(ZeroDivisionError, match="no pickle of me"):
        task.result(DEADLINE)
    assert works(executor)


@pytest.mark.executor_kinds(*REMOTE)
def test_map_with_an_argument_that_cannot_be_pickled_fails_at_its_place(executor: Executor) -> None:
    results = executor.map(workload.identity, [1, threading.Lock(), 3])
    assert next(results) == 1
    with pytest.raises(PICKLING_ERRORS):
        next(results)


@pytest.mark.executor_kinds(*REMOTE)
def test_a_result_that_cannot_be_pickled_fails_its_task(executor: Executor) -> None:
    task = executor.submit(workload.lock)
    with pytest.raises(PICKLING_ERRORS, match="pickle"):
        task.result(DEADLINE)
    assert works(executor)


@pytest.mark.executor_kinds(*REMOTE)
def test_the_error_of_a_result_keeps_its_type(executor: Executor) -> None:
    task = executor.submit(workload.new, workload.PickleRaises)
    with pytest.raises(ZeroDivisionError, match="no pickle of me"):
        task.result(DEADLINE)
    assert works(executor)


@pytest.mark.executor_kinds("conda", "conda-other")
def test_an_argument_that_cannot_be_unpickled_harms_no_other_task(executor: Executor) -> None:
    """The standard library's worker dies of it, and with it the pool."""
    task = executor.submit(workload.identity, workload.UnpickleRaises())
    with pytest.raises(ZeroDivisionError, match="no object of me"):
        task.result(DEADLINE)
    assert works(executor)


@pytest.mark.executor_kinds("conda", "conda-other")
def test_a_result_that_cannot_be_unpickled_harms_no_other_task(executor: Executor) -> None:
    task = executor.submit(workload.new, workload.UnpickleRaisesElsewhere)
    error = task.exception(DEADLINE)
    assert isinstance(error, Exception)
    assert "not at home" in "".join(traceback.format_exception(error))
    assert works(executor)


@pytest.mark.executor_kinds("thread", "in-process", "process", "conda")
def test_failures_among_many_tasks_stay_where_they_belong(executor: Executor) -> None:
    tasks = [executor.submit(divmod, 1, number % 3) for number in range(60)]
    for number, task in enumerate(tasks):
        if number % 3:
            assert task.result(DEADLINE) == divmod(1, number % 3)
        else:
            assert isinstance(task.exception(DEADLINE), ZeroDivisionError)
