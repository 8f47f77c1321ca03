"""Tasks as arguments of tasks.

They wait holding no worker, and failure and cancellation pass on, in one direction.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from tests.contract.workload import UnpickleRaises
from tests.support.recorder import Recorder
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, DependencyFailed, Task, TaskEventType, TaskStatus

CANCELED = TaskStatus.CANCELED


def test_positional_and_by_keyword(single: CondaEnvExecutor) -> None:
    one, two = single.submit(workload.add, 1), single.submit(workload.add, 2)
    assert single.submit(workload.add, one, two).result(DEADLINE) == 3
    assert single.submit(workload.add, one, right=two).result(DEADLINE) == 3
    assert single.submit(workload.add, left=one, right=one).result(DEADLINE) == 2


def test_a_dependant_waits_holding_no_worker(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    first = single.submit(workload.arrive, rendezvous.address, 1)
    arrival = rendezvous.next()
    dependant = single.submit(workload.add, first, 1)
    assert dependant.status is TaskStatus.PENDING
    arrival.release()
    assert dependant.result(DEADLINE) == 2


def test_others_run_while_a_dependant_waits(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    first = executor.submit(workload.arrive, rendezvous.address, 1)
    arrival = rendezvous.next()
    dependants = [executor.submit(workload.add, first, number) for number in range(10)]
    assert [executor.submit(workload.add, number).result(DEADLINE) for number in range(20)] == list(
        range(20)
    )
    assert not any(task.done() for task in dependants)
    arrival.release()
    assert [task.result(DEADLINE) for task in dependants] == list(range(1, 11))


def test_a_finished_dependency(single: CondaEnvExecutor) -> None:
    done = single.submit(workload.add, 20).wait_for(DEADLINE)
    assert single.submit(workload.add, done, done).result(DEADLINE) == 40


def test_a_long_chain_with_one_worker(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.add, 0)
    for _ in range(300):
        task = single.submit(workload.add, task, 1)
    assert task.result(DEADLINE) == 300


def test_a_diamond_with_one_worker(single: CondaEnvExecutor) -> None:
    top = single.submit(workload.add, 1)
    sides = [single.submit(workload.add, top, number) for number in range(20)]
    bottom = single.submit(max, *sides)
    assert bottom.result(DEADLINE) == 20


def test_submitted_in_any_order_it_never_deadlocks(single: CondaEnvExecutor) -> None:
    """The dependants come first: they are held back, and hold no other task back."""
    roots = [single.options(start=False).submit(workload.add, number) for number in range(30)]
    dependants = [
        single.submit(workload.add, root, other)
        for root, other in zip(roots, reversed(roots), strict=True)
    ]
    assert [task.result(DEADLINE) for task in dependants] == [29] * 30
    assert all(root.done() for root in roots), "an unstarted dependency is started"


def test_a_dependant_that_is_not_started_starts_nothing(single: CondaEnvExecutor) -> None:
    root = single.options(start=False).submit(workload.add, 1)
    dependant = single.options(start=False).submit(workload.add, root, 2)
    single.submit(workload.add, 1).result(DEADLINE)
    assert root.status is dependant.status is TaskStatus.PENDING
    assert dependant.start().result(DEADLINE) == 3
    assert root.done()


def test_starting_a_waiting_dependant_again_changes_nothing(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    root = single.submit(workload.arrive, rendezvous.address, 1)
    arrival = rendezvous.next()
    waiting = single.options(start=False).submit(workload.add, root, 1)
    behind = single.options(start=False).submit(workload.add, waiting, 1)
    assert waiting.start() is waiting
    assert waiting.start() is waiting
    assert behind.start() is behind, "which starts its dependency, once more"
    assert behind.start() is behind
    assert not waiting.done()
    arrival.release()
    assert waiting.result(DEADLINE) == 2
    assert behind.result(DEADLINE) == 3


def test_map_tasks(single: CondaEnvExecutor) -> None:
    roots = single.map_tasks(workload.add, range(5))
    tasks = single.map_tasks(workload.add, roots, reversed(roots))
    assert [task.result(DEADLINE) for task in tasks] == [4] * 5


def test_submit_script(single: CondaEnvExecutor, tmp_path: Path) -> None:
    """Arguments of a script are texts; a task among them is replaced by the text of its result."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pathlib\npathlib.Path(sys.argv[1]).write_text(','.join(sys.argv[2:]))\n"
    )
    result = single.submit(workload.add, 40, 2)
    task = single.submit_script(script, [str(tmp_path / "out"), result, "end"])  # type: ignore[list-item]
    assert task.result(DEADLINE) is None
    assert (tmp_path / "out").read_text() == "42,end"


def test_across_executors(make: Callable[..., CondaEnvExecutor]) -> None:
    one, two = make(), make()
    task = one.submit(workload.add, 1)
    for number in range(20):
        task = (two, one)[number % 2].submit(workload.add, task, 1)
    assert task.result(DEADLINE) == 21


def test_across_executors_the_other_one_may_be_shut_down(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    one, two = make(), make()
    first = one.submit(workload.arrive, rendezvous.address, 1)
    arrival = rendezvous.next()
    dependant = two.submit(workload.add, first, 1)
    two.shutdown(wait=False)
    assert not dependant.done()
    arrival.release()
    assert dependant.result(DEADLINE) == 2


def test_objects_pass_through_the_host(single: CondaEnvExecutor) -> None:
    made = single.submit(workload.hold, 100)
    assert single.submit(lambda holder: len(holder.data), made).result(DEADLINE) == 100


def test_with_options_of_its_own(single: CondaEnvExecutor, journal: Path) -> None:
    first = single.submit(workload.add, 3)
    task = single.options(name="named", retries=3, retry_on=OSError).submit(
        workload.fail_until, journal, first
    )
    assert task.result(DEADLINE) == 3
    assert (task.name, task.attempt) == ("named", 3)


def test_a_dependency_that_is_tried_again(single: CondaEnvExecutor, journal: Path) -> None:
    first = single.options(retries=3, retry_on=OSError).submit(workload.fail_until, journal, 3)
    assert single.submit(workload.add, first, 1).result(DEADLINE) == 4


# ---------------------------------------------------------------------------------- what went wrong


def test_a_failed_dependency_fails_the_dependant(single: CondaEnvExecutor, journal: Path) -> None:
    failed = single.options(name="the culprit").submit(workload.fail, "in the beginning")
    dependant = single.options(name="the victim").submit(workload.note, journal, failed)
    with pytest.raises(DependencyFailed, match="the culprit") as caught:
        dependant.result(DEADLINE)
    assert "in the beginning" in str(caught.value)
    assert caught.value.__cause__ is failed.exception()
    assert dependant.status is TaskStatus.FAILED
    assert journal.read_text() == "", "it never ran"
    assert dependant.started_at is dependant.worker_pid is None


def test_failure_passes_along_a_chain(single: CondaEnvExecutor) -> None:
    task: Task[object] = single.submit(workload.fail)
    for _ in range(5):
        task = single.submit(workload.add, task)
    error: BaseException | None = task.exception(DEADLINE)
    for _ in range(5):
        assert isinstance(error, DependencyFailed)
        error = error.__cause__
    assert isinstance(error, ValueError)


def test_a_cancelled_dependency_cancels_the_dependant(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    rendezvous.next()
    recorder = Recorder()
    root = single.submit(workload.add, 1)
    chain = [single.submit(workload.add, root)]
    chain += [single.submit(workload.add, 1, right=chain[0])]
    chain[1].listen(recorder)
    assert root.cancel()
    for task in chain:
        assert task.wait_for(DEADLINE).status is CANCELED
    with pytest.raises(CancelledError):
        chain[1].result(0)
    recorder.wait_for_end()
    assert recorder.types == [TaskEventType.CANCELATION]


def test_cancelling_the_dependant_leaves_the_dependency_alone(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    root = single.submit(workload.arrive, rendezvous.address, "root")
    arrival = rendezvous.next()
    dependant = single.submit(workload.note, journal, root)
    behind = single.submit(workload.add, dependant)
    assert dependant.cancel() is True
    assert dependant.status is CANCELED
    assert behind.wait_for(DEADLINE).status is CANCELED
    assert not root.cancel_requested
    arrival.release()
    assert root.result(DEADLINE) == "root"
    assert single.wait_all(DEADLINE)
    assert journal.read_text() == ""


def test_killing_the_dependant_leaves_the_dependency_alone(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    root = single.submit(workload.arrive, rendezvous.address, "root")
    arrival = rendezvous.next()
    dependant = single.submit(workload.add, root)
    dependant.kill()
    assert dependant.status is CANCELED
    arrival.release()
    assert root.result(DEADLINE) == "root"


def test_an_arguments_own_trouble_with_pickling_is_the_dependants_failure(
    single: CondaEnvExecutor,
) -> None:
    import threading

    root = single.submit(workload.add, 1)
    task = single.submit(workload.add, root, threading.Lock())
    assert isinstance(task.exception(DEADLINE), TypeError)
    assert single.wait_all(DEADLINE)


def test_a_dependency_whose_result_cannot_be_unpickled(single: CondaEnvExecutor) -> None:
    root = single.submit(UnpickleRaises)
    dependant = single.submit(workload.add, root)
    assert isinstance(dependant.exception(DEADLINE), DependencyFailed)


@pytest.mark.parametrize(
    "nest",
    [lambda t: [t], lambda t: (1, t), lambda t: {"key": t}, lambda t: {t}],
    ids=["list", "tuple", "dict", "set"],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_nested_task_is_a_type_error_on_the_task(
    single: CondaEnvExecutor, nest: Callable[[object], object], finished: bool
) -> None:
    root = single.submit(workload.add, 1)
    if finished:
        root.wait_for(DEADLINE)
    for args, kwargs in (
        ((nest(root),), {}),
        ((1,), {"right": nest(root)}),
        ((root, nest(root)), {}),
    ):
        error = single.submit(workload.add, *args, **kwargs).exception(DEADLINE)
        assert isinstance(error, TypeError)
        assert "result()" in str(error)


def test_a_nested_task_in_a_closure_is_a_type_error_too(single: CondaEnvExecutor) -> None:
    root = single.submit(workload.add, 1)
    assert isinstance(single.submit(lambda: root).exception(DEADLINE), TypeError)


def test_map_does_not_wait_for_tasks_of_a_foreign_kind(single: CondaEnvExecutor) -> None:
    """A Future of another library is an ordinary argument, which cannot be pickled."""
    from concurrent.futures import Future

    foreign: Future[int] = Future()
    foreign.set_result(1)
    assert isinstance(single.submit(workload.add, foreign).exception(DEADLINE), TypeError)


# ----------------------------------------------------------------------------------------- shutdown


def test_shutdown_right_after_submitting_a_chain_finishes_it(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    executor = make()
    task = executor.submit(workload.add, 0)
    for _ in range(50):
        task = executor.submit(workload.add, task, 1)
    executor.shutdown(wait=True)
    assert task.result(0) == 50


def test_shutdown_with_objects_in_the_chain_finishes_it(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    """These results are unpickled on another thread, and the dependants pickled on one.

    The pool waits for that.
    """
    for _ in range(5):
        with make(2) as executor:
            task = executor.submit(workload.hold, 1)
            for _ in range(10):
                task = executor.submit(lambda holder: workload.Holder(len(holder.data) + 1), task)
        assert len(task.result(0).data) == 11


def test_cancel_futures_cancels_the_dependants(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous, journal: Path
) -> None:
    executor = make()
    root = executor.submit(workload.arrive, rendezvous.address, "root")
    arrival = rendezvous.next()
    dependants = [executor.submit(workload.note, journal, root) for _ in range(5)]
    behind = executor.submit(workload.add, dependants[0])
    executor.shutdown(wait=False, cancel_futures=True)
    for task in (*dependants, behind):
        assert task.wait_for(DEADLINE).status is CANCELED
    arrival.release()
    assert root.result(DEADLINE) == "root"
    assert journal.read_text() == ""


def test_kill_workers_cancels_the_dependants(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make()
    root = executor.submit(workload.arrive, rendezvous.address, "root")
    rendezvous.next()
    dependant = executor.submit(workload.add, root)
    executor.kill_workers()
    assert root.wait_for(DEADLINE).status is TaskStatus.FAILED
    assert dependant.wait_for(DEADLINE).done()
    assert dependant.status in (CANCELED, TaskStatus.FAILED)


def test_an_unstarted_dependency_of_a_foreign_executor_that_is_gone(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    one, two = make(), make()
    root = one.options(start=False).submit(workload.add, 1)
    one.shutdown()
    assert root.status is CANCELED
    try:
        dependant = two.submit(workload.add, root)
    except RuntimeError:
        pytest.fail(
            "the dependant belongs to an executor that is open; it is cancelled as its "
            "dependency is"
        )
    assert dependant.wait_for(DEADLINE).status is CANCELED
    assert two.wait_all(DEADLINE)


def test_a_dropped_executor_finishes_its_chain(rendezvous: Rendezvous) -> None:
    executor = CondaEnvExecutor(max_workers=1)
    root = executor.submit(workload.arrive, rendezvous.address, 1)
    dependant = executor.submit(workload.add, root, 1)
    arrival = rendezvous.next()
    del executor, root
    gc.collect()
    arrival.release()
    assert dependant.result(DEADLINE) == 2


def test_nothing_is_kept_alive_afterwards(single: CondaEnvExecutor) -> None:
    root = single.submit(workload.hold, 10)
    dependant = single.submit(lambda holder: len(holder.data), root)
    assert dependant.result(DEADLINE) == 10
    gone = weakref.ref(root.result(0))
    del root
    single.submit(lambda: 1).result(DEADLINE)
    gc.collect()
    assert gone() is None, gc.get_referrers(gone())


def test_wait_all_counts_dependants(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    root = single.submit(workload.arrive, rendezvous.address, 1)
    arrival = rendezvous.next()
    dependant = single.submit(workload.add, root)
    assert single.wait_all(0.05) is False
    arrival.release()
    assert single.wait_all(DEADLINE) is True
    assert dependant.done()


def test_dependencies_under_stress(executor: CondaEnvExecutor, stress_rng: object) -> None:
    """A random graph: each task adds up some of those before it; some fail, some are cancelled."""
    import random

    rng: random.Random = stress_rng  # type: ignore[assignment]
    tasks: list[Task[int]] = []
    for number in range(400):
        parents = rng.sample(tasks, min(len(tasks), rng.randrange(4)))
        if rng.random() < 0.03:
            tasks.append(executor.submit(workload.fail))
        else:
            tasks.append(
                executor.options(start=rng.random() > 0.1).submit(max, number, number - 1, *parents)
            )
        if rng.random() < 0.03:
            rng.choice(tasks).cancel()
    for task in tasks:
        if not task.done():
            task.start()
    for task in tasks:
        task.wait_for(DEADLINE)
    assert executor.wait_all(DEADLINE)
    progress = executor.get_progress()
    assert progress["completed"] + progress["failed"] + progress["canceled"] == progress["total"]
