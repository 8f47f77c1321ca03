"""The parts of an executor, each by itself: options, submission, the end. No process, no thread."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace
from typing import Any

import pytest

from wetlands_executor import CondaEnvExecutor
from wetlands_executor.ending import Ending
from wetlands_executor.futures.future import Task
from wetlands_executor.futures.options import CallOptions
from wetlands_executor.pool.closing import Closing
from wetlands_executor.settings import ExecutorSettings
from wetlands_executor.submission import MapOptions, Submission

# ------------------------------------------------------------------------------------------ options


def settings(**given: Any) -> ExecutorSettings:
    defaults: dict[str, Any] = {
        "max_workers": None,
        "mp_context": None,
        "initializer": None,
        "initargs": (),
        "max_tasks_per_child": None,
        "worker_env": None,
        "cwd": None,
        "preload": (),
        "share_preload": False,
        "worker_timeout": None,
        "task_timeout": None,
        "start_timeout": 60.0,
        "cancel_grace": None,
        "activate": True,
    }
    return ExecutorSettings(**{**defaults, **given})


def test_limits_become_exact_floats() -> None:
    found = settings(worker_timeout=3, task_timeout=float("inf"), start_timeout=True + 1)
    assert (found.worker_timeout, type(found.worker_timeout)) == (3.0, float)
    assert (found.task_timeout, found.start_timeout, found.cancel_grace) == (None, 2.0, None)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"max_workers": 0}, ValueError, "greater than 0"),
        ({"max_workers": True}, TypeError, "must be an integer"),
        ({"initializer": 3}, TypeError, "must be a callable"),
        ({"max_tasks_per_child": 0}, ValueError, ">= 1"),
        ({"max_tasks_per_child": "3"}, TypeError, "must be an integer"),
        ({"preload": "numpy"}, TypeError, r"preload=\['numpy'\]"),
        ({"share_preload": True}, ValueError, "needs preload"),
        ({"cancel_grace": -1}, ValueError, "cancel_grace"),
        ({"task_timeout": "3"}, TypeError, "task_timeout"),
        ({"activate": "unset A"}, TypeError, r"activate=\['unset A'\]"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        settings(**given)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"A": None}, TypeError, r"'A' must be a str, not NoneType.*activate=\['unset A'\]"),
        ({"A": 1}, TypeError, "'A' must be a str, not int"),
        (["A=1"], TypeError, "mapping"),
        ({"A=": "1"}, ValueError, "'A='"),
        (lambda index: {"A": index}, TypeError, r"worker_env\(0\)"),
    ],
)
def test_variables_that_no_worker_can_have_are_refused_at_once(
    given: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        CondaEnvExecutor(max_workers=1, worker_env=given)


def test_settings_cannot_be_changed() -> None:
    found: Any = settings()
    with pytest.raises(AttributeError):
        found.max_workers = 3


def test_workers_are_counted_by_processors_unless_said() -> None:
    assert settings(max_workers=3).count_workers() == 3
    assert settings().count_workers() >= 1


def test_a_fork_context_warns() -> None:
    with pytest.warns(UserWarning, match="mp_context has no meaning"):
        settings(mp_context=SimpleNamespace(get_start_method=lambda: "fork"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings(mp_context=SimpleNamespace(get_start_method=lambda: "spawn"))


@pytest.mark.parametrize("given", [{"chunksize": 0}, {"buffersize": 0}])
def test_a_map_needs_room(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        MapOptions(**given)


def test_exceptions_in_place_make_each_item_a_call() -> None:
    assert MapOptions(chunksize=5).size == 5
    how = MapOptions(chunksize=5, return_exceptions=True)
    assert (how.size, how.eager) == (1, True)
    assert not MapOptions(ordered=False).eager


# --------------------------------------------------------------------------------------- submission


class Pool:
    """Records what is handed to it."""

    forked = False
    broken: BaseException | None = None
    started = False
    refusing = False
    ended = False
    sees_calls_alone = True
    listeners = ()

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Task[Any]]] = []
        self.unstarted: weakref.WeakSet[Any] = weakref.WeakSet()
        self.closing = Closing()
        self.settings = SimpleNamespace(remote=SimpleNamespace(record=None))
        self.stats = SimpleNamespace(refused=self.refuse, submitted=lambda _task: None)
        self.refused: list[tuple[Task[Any], BaseException]] = []

    def submit(self, encoded: Any, task: Task[Any]) -> None:
        self.calls.append((encoded, task))

    def refuse(self, task: Task[Any], error: BaseException) -> None:
        self.refused.append((task, error))


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
def submission(pool: Pool) -> Submission:
    given: Any = pool
    return Submission(given)


def test_a_call_is_pickled_and_handed_over(pool: Pool, submission: Submission) -> None:
    task = submission.submit(divmod, (7, 2), {})
    assert [each for _, each in pool.calls] == [task]
    assert (task.name, task.arguments) == ("divmod", "")


def test_what_cannot_be_pickled_fails_its_task(pool: Pool, submission: Submission) -> None:
    task = submission.submit(print, (threading.Lock(),), {})
    assert pool.calls == []
    [(refused, error)] = pool.refused
    assert refused is task
    assert "pickle" in str(error)


def test_what_is_no_function_is_the_callers_error(submission: Submission) -> None:
    with pytest.raises(TypeError, match="neither callable nor a target"):
        submission.submit(3, (), {})


def test_a_call_waits_for_start(pool: Pool, submission: Submission) -> None:
    task = submission.submit(abs, (-1,), {}, None, CallOptions(start=False))
    assert (pool.calls, task in pool.unstarted) == ([], True)
    task.start()
    assert [each for _, each in pool.calls] == [task]


def test_a_closed_pool_refuses(pool: Pool, submission: Submission) -> None:
    pool.closing.refuse()
    steps: list[Callable[[], object]] = [
        lambda: submission.submit(abs, (-1,), {}),
        lambda: submission.map(abs, ([1],), MapOptions()),
        lambda: submission.map_tasks(abs, ([1],)),
    ]
    for step in steps:
        with pytest.raises(RuntimeError, match="cannot schedule"):
            step()


def test_a_broken_pool_says_why(pool: Pool, submission: Submission) -> None:
    pool.closing.break_with(ValueError("the initializer"))
    with pytest.raises(BrokenProcessPool, match="the initializer") as caught:
        submission.refuse()
    assert caught.value.__cause__ is pool.closing.broken


def test_tasks_of_a_map_have_their_places(pool: Pool, submission: Submission) -> None:
    tasks = submission.map_tasks(abs, ([-1, -2],))
    assert [task.name for task in tasks] == ["abs[0]", "abs[1]"]
    assert [task for _, task in pool.calls] == tasks


def test_chunks_travel_as_one_task(pool: Pool, submission: Submission) -> None:
    kept: list[Task[Any]] = []

    def keep(task: Task[Any]) -> Task[Any]:
        kept.append(task)
        return task

    submission.map(abs, ([-1, -2, -3],), MapOptions(chunksize=2), keep=keep)
    assert [task for _, task in pool.calls] == kept
    assert len(kept) == 2


def test_a_script_is_found_before_it_is_sent(pool: Pool, submission: Submission) -> None:
    task = submission.submit_script(__file__, [], "__main__")
    assert task.name == __file__
    with pytest.raises(FileNotFoundError):
        submission.submit_script("no_such_file.py", [], "__main__")
    with pytest.raises(TypeError, match="is a string"):
        submission.submit_script(__file__, "text", "__main__")


# ------------------------------------------------------------------------------------------ the end


class Lifecycle:
    """Records how a pool is ended; ``events`` has what is raised by ``join``, in turn."""

    def __init__(self, *raised: BaseException) -> None:
        self.said: list[Any] = []
        self.raised = list(raised)
        self.when: list[Callable[[], object]] = []

    def shutdown(self, *, cancel_pending: bool = False) -> None:
        self.said.append(("shutdown", cancel_pending))

    def wind_down(self, reason: str) -> None:
        self.said.append(("wind down", reason.rpartition(" ")[2]))

    def wind_down_later(self, seconds: float, _reason: str) -> None:
        self.said.append(("later", seconds))

    def terminate(self, *, kill: bool, why: str) -> None:
        self.said.append(("terminate", kill, why.rpartition(" ")[2]))

    def join(self) -> bool:
        self.said.append("join")
        if self.raised:
            raise self.raised.pop()
        return True

    def when_finished(self, job: Callable[[], object]) -> None:
        self.when.append(job)


class Owner:
    """Whose end it is."""


def ending(lifecycle: Any, owner: object, reason: str | None = None) -> Ending:
    closing: Any = SimpleNamespace(reason=reason)
    return Ending(lifecycle, closing, owner)


def test_an_executor_that_is_dropped_finishes_its_work() -> None:
    lifecycle, owner = Lifecycle(), Owner()
    part = ending(lifecycle, owner)
    del owner
    gc.collect()
    assert lifecycle.said == [("shutdown", False)]
    assert part is not None


def test_an_executor_that_was_shut_down_is_not_ended_again() -> None:
    lifecycle, owner = Lifecycle(), Owner()
    ending(lifecycle, owner).shutdown(False, True, 3)
    del owner
    gc.collect()
    assert lifecycle.said == [("shutdown", True), ("later", 3.0)]


def test_a_second_interrupt_kills() -> None:
    lifecycle, owner = Lifecycle(KeyboardInterrupt()), Owner()
    with pytest.raises(KeyboardInterrupt):
        ending(lifecycle, owner).interrupt(KeyboardInterrupt)
    assert lifecycle.said == [
        ("wind down", "KeyboardInterrupt"),
        "join",
        ("terminate", True, "KeyboardInterrupt"),
        "join",
    ]


def test_a_with_block_ends_by_the_shutdown_of_its_executor() -> None:
    """A subclass may have overridden it; an interrupt of it ends what runs and goes on."""
    lifecycle, owner, given = Lifecycle(), Owner(), []
    part = ending(lifecycle, owner)
    part.leave(None, lambda **options: given.append(options))
    part.leave(ValueError, lambda **options: given.append(options))
    assert given == [{"wait": True}, {"wait": True}]
    assert lifecycle.said == []

    def interrupted(**_options: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part.leave(None, interrupted)
    assert lifecycle.said == [("wind down", "KeyboardInterrupt"), "join"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_with_block_that_was_interrupted_ends_what_runs(kind: type[BaseException]) -> None:
    lifecycle, owner = Lifecycle(), Owner()
    ending(lifecycle, owner).leave(kind, pytest.fail)
    assert lifecycle.said == [("wind down", kind.__name__), "join"]


def test_an_event_loop_waits_for_the_end() -> None:
    lifecycle, owner = Lifecycle(), Owner()
    part = ending(lifecycle, owner)

    async def leave() -> None:
        leaving = asyncio.ensure_future(part.leave_async(None))
        while not lifecycle.when:
            await asyncio.sleep(0)
        lifecycle.when[0]()
        await leaving

    asyncio.run(leave())
    assert lifecycle.said == [("shutdown", False)]


@pytest.mark.parametrize("reason", [None, "it was ended"])
def test_a_cancellation_of_the_block_ends_it_soon_and_a_second_one_now(reason: str | None) -> None:
    lifecycle, owner = Lifecycle(), Owner()
    part = ending(lifecycle, owner, reason)

    async def leave() -> None:
        leaving = asyncio.ensure_future(part.leave_async(None))
        while not lifecycle.when:
            await asyncio.sleep(0)
        leaving.cancel()
        while len(lifecycle.said) < 2:
            await asyncio.sleep(0)
        lifecycle.when[0]()
        with pytest.raises(asyncio.CancelledError):
            await leaving

    asyncio.run(leave())
    first = (
        ("wind down", "CancelledError") if reason is None else ("terminate", True, "cancellation")
    )
    assert lifecycle.said == [("shutdown", False), first]
