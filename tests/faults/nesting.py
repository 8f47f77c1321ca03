"""Functions that submit tasks and then meet with an accident. Python 3.8, standard library."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from concurrent.futures import CancelledError

from tests.tasks.nested import add, crash
from tests.tasks.workload import arrive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def crash_with_children(executor: Any, address: Any, count: int) -> None:
    """Die with children that run."""
    tasks = [executor.submit(arrive, address, f"child{n}") for n in range(count)]
    arrive(address, "parent")
    os._exit(len(tasks))


def crash_at_first(executor: Any, address: Any, folder: str) -> int:
    """Die in the first attempt, with a child that runs."""
    path = os.path.join(folder, "begun")
    if not os.path.exists(path):
        open(path, "x").close()
        executor.submit(arrive, address, "child")
        arrive(address, "parent")
        os._exit(1)
    return int(executor.submit(add, 1, 2).result())


def retried_child(executor: Any, folder: str) -> Any:
    return executor.options(retries=1).submit(crash_once, folder).result()


def crash_once(folder: str) -> str:
    path = os.path.join(folder, "crashed")
    if not os.path.exists(path):
        open(path, "x").close()
        crash()
    return "again"


def child_out_of_time(executor: Any, address: Any) -> str:
    error = executor.options(timeout=0.3).submit(arrive, address, "child").exception()
    return f"{isinstance(error, TimeoutError)} {isinstance(error, Exception)}"


def wait_for_child(executor: Any, address: Any) -> Any:
    return executor.submit(arrive, address, "child").result()


def pass_data_for_ever(executor: Any, address: Any, way: str) -> None:
    """Pass 32 MB to one child after another ("argument"), or get them ("result"), or both."""
    data = bytearray(1 << 25)
    begun = False
    while True:
        if way == "argument":
            found = executor.submit(len, data).result()
        elif way == "result":
            found = len(executor.submit(bytearray, 1 << 25).result())
        else:
            found = len(executor.submit(bytearray, data).result())
        assert found == 1 << 25
        if not begun:
            begun = True
            arrive(address, "begun")


def abandon_map(executor: Any, ordered: bool) -> int:
    """Leave a map in the middle; the iterator is closed by and by."""
    for found in executor.map(add, range(200), buffersize=20, ordered=ordered):
        if found >= 0:
            return len([found])
    return 0


def forge(message: Any) -> None:
    """Say something of a child that no worker says, then wait for the end."""
    runner = sys.modules["_wetlands_worker.running"].main_loop
    kind = sys.modules["_wetlands_worker.wire"].NESTED
    runner.channel.send(kind, runner.item, pickle.dumps(message, 4))
    threading.Event().wait()


def forge_unknown_pool(executor: Any) -> str:
    """Submit to a pool of which this worker was told nothing."""
    executor._pool = 1 << 40
    error = executor.submit(add, 1).exception()
    return f"{type(error).__name__}: {error}"


def in_fork(executor: Any) -> str:
    """Submit in a process that this one has forked."""
    task = executor.submit(add, 1)
    task.result()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            executor.submit(add, 1).result()
            text = "submitted"
        except RuntimeError as error:
            text = str(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as file:
        return file.read()


def leave_waiting_thread(executor: Any, address: Any) -> None:
    """Return while a thread waits for a child; the thread reports what it has met with."""
    task = executor.submit(arrive, address, "child")

    def work() -> None:
        met = []
        for act in (task.result, lambda: executor.submit(add, 1)):
            try:
                act()
                met.append("result")
            except (CancelledError, RuntimeError) as error:
                met.append(type(error).__name__)
        arrive(address, " ".join(met))

    threading.Thread(target=work, daemon=True).start()
    arrive(address, "parent")


def first_by_many_threads(executor: Any, count: int) -> int:
    """Submit the first tasks of this worker from many threads at the same time."""
    together = threading.Barrier(count)
    found: list[int] = []

    def work() -> None:
        together.wait()
        found.append(executor.submit(add, 1).result())

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


def in_a_block(executor: Any, count: int) -> list[Any]:
    """Leave a block of the executor with tasks that wait for others."""
    with executor.options() as own:
        first = [own.submit(add, n) for n in range(count)]
        second = [own.submit(add, task, task) for task in first]
        never = own.options(start=False).submit(add, 1)
    return [sum(task.result() for task in second if task.done()), never.done()]


def leftovers(executor: Any, count: int) -> list[int]:
    """Return what many calls leave in this process: tasks, descriptors, threads."""
    import gc

    def numbers() -> list[int]:
        gc.collect()
        tasks = sum(type(found).__name__ == "RemoteTask" for found in gc.get_objects())
        return [tasks, len(os.listdir("/proc/self/fd")), threading.active_count()]

    executor.submit(add, 1).result()
    before = numbers()
    for _ in range(count // 100):
        assert list(executor.map(add, range(100))) == list(range(100))
    return [after - now for after, now in zip(numbers(), before)]


def cancel_while_read(executor: Any, target: str, address: Any) -> list[bool]:
    """Cancel a detached child whose file the host cannot read yet."""
    task = executor.options(detach=True).submit(target)
    found = [task.cancel(), task.cancelled()]
    arrive(address, "cancelled")
    return found


def kill_child(executor: Any, address: Any) -> list[Any]:
    """Kill a child that runs, and one that has not been started."""
    runs = executor.submit(arrive, address, "child")
    held = executor.options(start=False).submit(add, 1)
    arrive(address, "parent")
    runs.kill()
    held.kill()
    return [type(each).__name__ for each in (_error_of(runs), _error_of(held))]


def _error_of(task: Any) -> Any:
    try:
        return task.result()
    except CancelledError as error:
        return error


def fail() -> None:
    raise OSError("again")


def cancel_between_tries(executor: Any) -> list[Any]:
    """Cancel a child while ``retry_on`` is finding out whether it is run again."""
    asked = threading.Event()
    cancelled = threading.Event()

    def again(_error: BaseException) -> bool:
        asked.set()
        return cancelled.wait(30)

    task = executor.options(retries=5, retry_on=again).submit(fail)
    assert asked.wait(30)
    found = task.cancel()
    cancelled.set()
    task.wait_for()
    return [found, task.cancelled(), task.attempt]


def die_asked(executor: Any, address: Any, folder: str) -> None:
    """Die while this process is asked whether there is another try."""

    def again(_error: BaseException) -> bool:
        arrive(address, "asked")
        os._exit(9)

    executor.options(retries=5, retry_on=again).submit(note_and_fail, folder).result()


def note_and_fail(folder: str) -> None:
    open(os.path.join(folder, str(len(os.listdir(folder)))), "x").close()
    raise OSError("again")
