"""Exceptions and results that resist.

Every one ends its own task, says what it was, and harms no other task.
"""

from __future__ import annotations

import builtins
import pickle
import sys
from concurrent.futures.process import _RemoteTraceback

import pytest

from tests.contract import workload
from tests.faults import work
from tests.support.observe import DEADLINE
from wetlands_executor import ExecutionException

#: Python 3.11 and newer.
GROUP = getattr(builtins, "ExceptionGroup", None)


@pytest.fixture
def fails(single):
    """Submit, return the exception, and check that the worker is the same and well."""
    pid = single.submit(work.pid).result(DEADLINE)

    def fails(*call, **kwargs):
        error = single.submit(*call, **kwargs).exception(DEADLINE)
        assert error is not None
        assert single.submit(work.pid).result(DEADLINE) == pid
        return error

    return fails


@pytest.mark.parametrize("cls", [work.BadStr, work.BadRepr])
def test_exception_that_cannot_be_shown(fails, cls):
    error = fails(work.throw, cls, "argument")
    assert type(error) is cls
    assert error.args == ("argument",)
    assert cls.__name__ in str(error.__cause__)


@pytest.mark.parametrize(
    "cls",
    [work.BadReduce, work.ExitingReduce, work.ExitsWhenUnpickled, work.InterruptsWhenUnpickled],
)
def test_exception_that_resists_pickling(fails, cls):
    """Rebuilt from its parts, or described; never replaced by what its reduction raised."""
    error = fails(work.throw, cls, "argument")
    if type(error) is not cls:
        assert type(error) is ExecutionException, repr(error)
        assert error.type_name.endswith(cls.__name__)
        assert any("work.py" in line for line in error.traceback)
    else:
        assert error.args == ("argument",)
    assert type(error.__cause__) is _RemoteTraceback
    assert cls.__name__ in str(error.__cause__)


def test_exception_that_holds_a_lock(fails):
    error = fails(work.throw, work.Unpicklable, "message")
    assert "message" in str(error)
    assert "Unpicklable" in type(error).__name__ + getattr(error, "type_name", "")
    assert "Unpicklable" in str(error.__cause__)


def test_exception_with_an_init_of_its_own(fails):
    error = fails(work.throw, work.TwoArguments, 404, "missing")
    assert type(error) is work.TwoArguments
    assert (error.code, error.detail, error.args) == (404, "missing", ("404: missing",))
    error = fails(work.throw, work.KeywordOnly, code=5)
    assert type(error) is work.KeywordOnly
    assert error.code == 5
    error = fails(work.throw, workload.Reduced, 1, "x")
    assert (type(error), error.code, error.detail) == (workload.Reduced, 1, "x")


def test_exception_that_hides_its_attributes(fails):
    error = fails(work.throw, work.BadAttributes, "argument")
    assert "BadAttributes" in repr(type(error)) + getattr(error, "type_name", "")
    assert "BadAttributes" in str(error.__cause__)


def test_exception_class_that_exists_only_in_the_worker(fails):
    for error in (fails(work.throw_local, "message"), fails(work.throw_of_made_module, "message")):
        assert "message" in str(error)
        assert type(error.__cause__) is _RemoteTraceback
        name = getattr(error, "type_name", type(error).__qualname__)
        assert "Local" in name or "OnlyHere" in name


@pytest.mark.skipif(GROUP is None, reason="ExceptionGroup")
def test_exception_group(fails):
    error = fails(work.throw_group)
    assert type(error) is GROUP
    assert [type(each) for each in error.exceptions] == [ValueError, GROUP]
    assert error.exceptions[1].exceptions[1].code == 7


@pytest.mark.skipif(GROUP is None, reason="ExceptionGroup")
def test_exception_group_with_a_member_that_cannot_be_rebuilt(fails):
    error = fails(work.throw_picky_group)
    if type(error) is not GROUP:
        assert type(error) is ExecutionException
        assert error.type_name == "ExceptionGroup"
    assert "TwoArguments" in str(error.__cause__)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes")
def test_exception_notes(fails):
    assert fails(work.throw_noted, "first", "second").__notes__ == ["first", "second"]


def test_huge_exception(fails):
    error = fails(work.throw_huge, 5_000_000)
    assert error.args == ("x" * 5_000_000,)


def test_circular_exception(fails):
    error = fails(work.throw_circular)
    assert error.itself is error
    assert "cause" in str(error.__cause__)


def test_recursion(fails):
    assert type(fails(work.recurse)) is RecursionError


def test_deep_results(single):
    """A result too deep to be pickled, or to be unpickled, is its own task's failure."""
    for depth in (100, 900, 100_000):
        task = single.submit(work.nest, depth)
        error = task.exception(DEADLINE)
        if error is not None:
            assert type(error) in (RecursionError, pickle.PicklingError), repr(error)
        else:
            value = task.result()
            while value:
                (value,) = value
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8


def test_deep_objects(single):
    error = single.submit(work.deep, 3000).exception(DEADLINE)
    assert (
        error is None
        or isinstance(error, (RecursionError, pickle.PicklingError))
        or "SIGSEGV" in str(error)
    )
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8


def test_result_that_only_its_own_process_can_unpickle(fails):
    assert str(fails(work.make, workload.UnpickleRaisesElsewhere)) == "not at home"


def test_callbacks_that_raise_the_worst(single, caplog):
    """Whatever a callback raises: those after it are called."""
    caplog.set_level("CRITICAL")
    called = []
    for kind in (ValueError, SystemExit, KeyboardInterrupt):
        task = single.submit(pow, 2, 3)

        def callback(done, kind=kind):
            called.append(kind)
            raise kind

        try:
            task.add_done_callback(callback)
        except (SystemExit, KeyboardInterrupt):
            # it had finished, and the callback ran in this very frame, as in the standard library
            pass
        assert task.result(DEADLINE) == 8
    last = single.submit(work.pid)
    last.add_done_callback(called.append)
    single.shutdown()
    assert called == [ValueError, SystemExit, KeyboardInterrupt, last]
