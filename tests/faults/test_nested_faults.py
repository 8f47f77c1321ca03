"""Tasks inside tasks, and accidents: of the parent, of the child, of the pool, of the program."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from tests.faults import nesting
from tests.support import interpreters
from tests.support.observe import ORPHAN_LIMIT, crash_of, gone, shared_areas
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import nested
from wetlands_executor import CondaEnvExecutor, Task, TaskTimeoutError, WorkerCrashed
from wetlands_executor.pool import nested as pool_nested
from wetlands_executor.worker import wire

#: What a worker says of a call that it submits.
HEAD = (1, "", 0, "name", {}, False, "")
#: Seconds for several processes to start on a busy machine.
LONG = 100.0
Make = Callable[..., CondaEnvExecutor]


def _is_well(executor: CondaEnvExecutor) -> None:
    assert executor.submit(nested.add_inside, executor, 1, 2).result(DEADLINE) == 3
    assert executor.wait_all(DEADLINE)


# ------------------------------------------------------------------------------------- the parent


def test_a_parent_that_crashes_takes_its_children_along(make: Make, rendezvous: Rendezvous) -> None:
    executor = make(3, cancel_grace=0.1)
    task = executor.submit(nesting.crash_with_children, executor, rendezvous.address, 2)
    arrivals = rendezvous.expect("child0", "child1", "parent")
    arrivals["parent"].release()
    crash_of(task)
    arrivals["child0"].wait_until_gone()
    arrivals["child1"].wait_until_gone()
    _is_well(executor)


def test_a_parent_that_is_tried_again(make: Make, rendezvous: Rendezvous, tmp_path: Path) -> None:
    """The child of the first attempt is cancelled, the second has its own."""
    executor = make(2, cancel_grace=0.1)
    task = executor.options(retries=1).submit(
        nesting.crash_at_first, executor, rendezvous.address, str(tmp_path)
    )
    arrivals = rendezvous.expect("child", "parent")
    arrivals["parent"].release()
    arrivals["child"].wait_until_gone()
    assert task.result(DEADLINE) == 3
    _is_well(executor)


def test_a_parent_out_of_time(make: Make, rendezvous: Rendezvous) -> None:
    executor = make(1, cancel_grace=0.1)
    task = executor.options(timeout=0.3).submit(
        nesting.wait_for_child, executor, rendezvous.address
    )
    with pytest.raises(TaskTimeoutError):
        task.result(DEADLINE)
    _is_well(executor)


# -------------------------------------------------------------------------------------- the child


def test_a_child_is_tried_again(make: Make, tmp_path: Path) -> None:
    executor = make(1)
    assert executor.submit(nesting.retried_child, executor, str(tmp_path)).result(DEADLINE) == (
        "again"
    )


def test_a_child_out_of_time(make: Make, rendezvous: Rendezvous) -> None:
    executor = make(1, cancel_grace=0.1)
    task = executor.submit(nesting.child_out_of_time, executor, rendezvous.address)
    assert task.result(DEADLINE) == "True True"
    _is_well(executor)


def test_a_child_is_killed(make: Make, rendezvous: Rendezvous) -> None:
    executor = make(2)
    task = executor.submit(nesting.kill_child, executor, rendezvous.address)
    arrivals = rendezvous.expect("child", "parent")
    arrivals["parent"].release()
    arrivals["child"].wait_until_gone()
    assert task.result(DEADLINE) == ["CancelledError", "CancelledError"]
    _is_well(executor)


def test_a_child_is_cancelled_between_its_tries(make: Make) -> None:
    executor = make(2)
    found, cancelled, attempt = executor.submit(nesting.cancel_between_tries, executor).result(
        DEADLINE
    )
    assert (found, cancelled, attempt) == (False, True, 1)
    _is_well(executor)


def test_a_parent_that_dies_while_it_is_asked(
    make: Make, rendezvous: Rendezvous, tmp_path: Path
) -> None:
    """There is no other try."""
    executor = make(2)
    task = executor.submit(nesting.die_asked, executor, rendezvous.address, str(tmp_path))
    rendezvous.next().release()
    crash_of(task)
    _is_well(executor)
    assert len(list(tmp_path.iterdir())) == 1


def test_tasks_that_are_too_deep(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_nested, "DEEPEST", 3)
    executor = make(1)
    assert executor.submit(nested.deep, executor, 3).result(LONG) == 3
    with pytest.raises(RecursionError, match="more than 3 deep"):
        executor.submit(nested.deep, executor, 4).result(LONG)
    _is_well(executor)


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "any order"])
def test_a_map_that_is_left_in_the_middle(make: Make, ordered: bool) -> None:
    executor = make(2)
    assert executor.submit(nesting.abandon_map, executor, ordered).result(DEADLINE) == 1
    _is_well(executor)


def test_a_child_that_is_cancelled_while_its_file_is_read(
    make: Make, rendezvous: Rendezvous, tmp_path: Path
) -> None:
    """It does not run, although it is detached: the end of its parent would not have cancelled it.

    The file is large, so that reading it takes longer than the request.
    """
    ran = tmp_path / "ran"
    path = tmp_path / "large.py"
    path.write_text(f"def run():\n    open({str(ran)!r}, 'x').close()\n" + "x = 1\n" * 300_000)
    executor = make(1)
    task = executor.submit(nesting.cancel_while_read, executor, f"{path}:run", rendezvous.address)
    rendezvous.next().release()
    assert task.result(DEADLINE) == [True, True]
    _is_well(executor)
    assert not ran.exists()


# -------------------------------------------------------------------------- threads and processes


def test_a_thread_that_waits_when_its_call_ends(make: Make, rendezvous: Rendezvous) -> None:
    """It is told, and can submit nothing more."""
    executor = make(1, cancel_grace=0.1)
    task = executor.submit(nesting.leave_waiting_thread, executor, rendezvous.address)
    arrivals = rendezvous.expect("child", "parent")
    arrivals["parent"].release()
    task.result(DEADLINE)
    arrivals["child"].wait_until_gone()
    thread = rendezvous.next()
    assert thread.label == "CancelledError RuntimeError"
    thread.release()


def test_many_threads_submit_the_first_task(make: Make) -> None:
    for _ in range(4):
        executor = make(1)
        task = executor.submit(nesting.first_by_many_threads, executor, 16)
        assert task.result(DEADLINE) == 16
        executor.shutdown()


def test_a_process_that_a_task_has_forked(make: Make) -> None:
    executor = make(1)
    text = executor.submit(nesting.in_fork, executor).result(DEADLINE)
    assert text.startswith("a process that a task has forked can neither submit tasks nor wait")
    _is_well(executor)


def test_leaving_a_block_waits_for_what_waits_for_others(make: Make) -> None:
    executor = make(2)
    found = executor.submit(nesting.in_a_block, executor, 100).result(LONG)
    assert found == [2 * sum(range(100)), False]


# ------------------------------------------------------------------------------ what comes of it


def test_many_calls_leave_nothing_behind(make: Make) -> None:
    """Neither in the worker nor here: tasks, descriptors, threads."""
    executor = make(1)
    assert executor.submit(nesting.leftovers, executor, 2000).result(LONG) == [0, 0, 0]
    gc.collect()
    kept = sum(isinstance(found, Task) for found in gc.get_objects())
    assert kept < 1000


@pytest.mark.parametrize(
    "message",
    [
        None,
        (),
        (wire.SUBMIT,),
        ([],),
        (True, 1),
        (99, 1),
        (wire.SUBMIT, 1, (), b"", b""),
        (wire.SUBMIT, -1, HEAD, b"", b""),
        (wire.SUBMIT, 1 << 70, HEAD, b"", b""),
        (wire.SUBMIT, [], HEAD, b"", b""),
        (wire.SUBMIT, 1, (1, "", 0, "name", {"retry_on": (1,)}, False, ""), b"", b""),
        (wire.SUBMIT, 1, HEAD, None, b""),
        (wire.SUBMIT, 1, HEAD, b"", None),
        (wire.SUBMIT, 1, HEAD, b"", b"no entry"),
        (wire.SUBMIT, 1, HEAD, b"", wire.BLOCK.pack(9999, 0, 0, 0, 0, 5)),
        (wire.SUBMIT, 1, HEAD, b"", wire.BLOCK.pack(0, 0, 0, 0, 0, 1 << 60)),
        (wire.LEND, 1, 5),
        (wire.LEND, -1, [5]),
        (wire.LEND, 1, [-5]),
        (wire.LEND, 1, ["x"]),
        (wire.WAIT, "x"),
        (wire.LEAVE, [[]]),
        (wire.LEAVE, 5),
        (wire.STATE_OF, 1, 1 << 70),
        (wire.CANCEL_CHILD, [], 1),
    ],
    ids=str,
)
def test_what_no_worker_says(make: Make, message: object, caplog: pytest.LogCaptureFixture) -> None:
    """It costs the worker that has said it, and is no bug of ours."""
    executor = make(1)
    task = executor.submit(nesting.forge, message)
    with pytest.raises(WorkerCrashed, match="no worker sends"):
        task.result(DEADLINE)
    assert "bug" not in caplog.text
    _is_well(executor)


def test_a_pool_that_does_not_exist(make: Make) -> None:
    executor = make(1)
    text = executor.submit(nesting.forge_unknown_pool, executor).result(DEADLINE)
    assert text.startswith("RuntimeError: cannot schedule new futures after shutdown")


# ----------------------------------------------------------------------- the pool and the program


@pytest.mark.parametrize("end", ["kill_workers", "terminate_workers"])
def test_workers_are_ended_while_a_parent_waits(
    make: Make, rendezvous: Rendezvous, end: str
) -> None:
    executor = make(1)
    task = executor.submit(nesting.wait_for_child, executor, rendezvous.address)
    arrival = rendezvous.next()
    getattr(executor, end)()
    arrival.wait_until_gone()
    with pytest.raises((WorkerCrashed, CancelledError)):
        task.result(DEADLINE)


def test_another_pool_is_ended_while_a_parent_waits(make: Make, rendezvous: Rendezvous) -> None:
    executor, other = make(1), make(1)
    task = executor.submit(nesting.wait_for_child, other, rendezvous.address)
    arrival = rendezvous.next()
    other.kill_workers()
    arrival.wait_until_gone()
    with pytest.raises((BrokenProcessPool, CancelledError)):
        task.result(DEADLINE)
    _is_well(executor)


def test_the_program_is_killed_while_a_parent_waits(host) -> None:  # type: ignore[no-untyped-def]
    program = host("nested")
    processes = set(map(int, program.line().split()))
    assert len(processes) == 2
    program.process.kill()
    assert gone(processes, ORPHAN_LIMIT)


@pytest.mark.parametrize("way", ["argument", "result", "both"])
def test_the_program_is_killed_while_large_data_is_under_way(  # type: ignore[no-untyped-def]
    host, way: str
) -> None:
    """No process is left, and no file of its shared memory (those by name: the check of leaks)."""
    program = host("nested_data", way)
    processes = set(map(int, program.line().split()))
    assert len(processes) == 2
    areas = {area for pid in processes for area in shared_areas(pid)}
    assert areas, "no shared memory carries the data"
    program.process.kill()
    assert gone(processes, ORPHAN_LIMIT)
    left = {
        area
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        for area in shared_areas(int(entry.name))
    }
    assert not areas & left


def test_forked_workers(make: Make, rendezvous: Rendezvous) -> None:
    """Workers that one process forks stand in for each other as well."""
    executor = make(1, preload=("json",), share_preload=True, cancel_grace=0.1)
    assert executor.submit(nested.deep, executor, 8).result(LONG) == 8
    task = executor.submit(nesting.crash_with_children, executor, rendezvous.address, 1)
    parent = rendezvous.next()
    assert parent.label == "parent"  # the only worker is busy
    parent.release()
    crash_of(task)
    _is_well(executor)


# --------------------------------------------------------------------------------- other versions


@pytest.mark.parametrize("minor", ["3.8", "3.13"])
def test_two_environments_call_each_other(make: Make, minor: str) -> None:
    """Whichever of them is the parent."""
    paths = [found.path for found in interpreters.find() if found.minor == minor]
    if not paths:
        pytest.skip(f"no working Python {minor} on this machine")
    here, there = make(1), make(1, env=str(paths[0]))
    found = here.submit(nested.python_of, there).result(LONG)
    assert found[1] == minor
    assert there.submit(nested.python_of, here).result(LONG) == found[::-1]
    assert there.submit(nested.squares_in, here, [2, 3]).result(LONG) == [4, 9]
    assert there.submit(nested.deep, there, 3).result(LONG) == 3
    names = there.submit(nested.crash_inside, here).result(LONG)
    assert "WorkerCrashed" in names


def test_two_environments_of_which_neither_is_the_programs(make: Make) -> None:
    """The oldest version calls the newest, and the other way round; failures as well."""
    found = {each.minor: each.path for each in interpreters.find()}
    if not {"3.8", "3.13"} <= set(found):
        pytest.skip("no working Python 3.8 and 3.13 on this machine")
    old, new = make(1, env=str(found["3.8"])), make(1, env=str(found["3.13"]))
    for one, other in ((old, new), (new, old)):
        assert one.submit(nested.squares_in, other, [2, 3]).result(LONG) == [4, 9]
        names = one.submit(nested.crash_inside, other).result(LONG)
        assert "WorkerCrashed" in names
        with pytest.raises(WorkerCrashed):
            one.submit(nested.let_it_crash, other).result(LONG)
        with pytest.raises(ValueError, match="no number"):
            one.submit(nested.let_it_raise, other).result(LONG)
        assert one.submit(nested.read_outputs, other).result(LONG)["number"] == 2
        assert one.submit(nested.stream_events, other).result(LONG)[-1] == "completion"
