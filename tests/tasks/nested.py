"""Functions that submit tasks, for tests of tasks inside tasks. Python 3.8, standard library."""

from __future__ import annotations

import os
import threading
from concurrent.futures import FIRST_COMPLETED, as_completed, wait

from tests.tasks.workload import arrive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add(left: int, right: int = 0) -> int:
    return left + right


def pid() -> int:
    return os.getpid()


def add_inside(executor: Any, left: int, right: int) -> int:
    return int(executor.submit(add, left, right).result())


def pids(executor: Any) -> list[int]:
    return [os.getpid(), executor.submit(pid).result()]


def deep(executor: Any, depth: int) -> int:
    """Return ``depth``, by as many tasks inside tasks."""
    return 0 if depth == 0 else 1 + int(executor.submit(deep, executor, depth - 1).result())


def tree(executor: Any, depth: int) -> int:
    """Return the number of leaves of a binary tree of tasks."""
    if depth == 0:
        return 1
    halves = [executor.submit(tree, executor, depth - 1) for _ in range(2)]
    return sum(half.result() for half in halves)


def through_current_task(left: int, right: int) -> int:
    from wetlands_executor import current_task

    return int(current_task().executor.submit(add, left, right).result())


def default_executor(left: int, executor: Any = None) -> int:
    return int(executor.submit(add, left, 1).result())


def many(executor: Any, count: int) -> int:
    return sum(task.result() for task in [executor.submit(add, 1) for _ in range(count)])


def many_by_map(executor: Any, count: int, **how: Any) -> list[int]:
    return list(executor.map(add, range(count), **how))


def by_the_standard_library(executor: Any) -> list[int]:
    first, rest = wait([executor.submit(add, n) for n in range(4)], return_when=FIRST_COMPLETED)
    assert first
    done = wait(rest).done | first
    found = as_completed([executor.submit(add, n) for n in range(4, 8)])
    return sorted([task.result() for task in done] + [task.result() for task in found])


def by_callback(executor: Any) -> int:
    ended = threading.Event()
    task = executor.submit(add, 3, 4)
    task.add_done_callback(lambda _task: ended.set())
    assert ended.wait(30)
    return int(task.result())


async def by_await(executor: Any) -> list[int]:
    import asyncio  # here, because each of a hundred workers imports this module

    return list(await asyncio.gather(*(executor.submit(add, n, n) for n in range(3))))


def by_threads(executor: Any) -> list[int]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as threads:
        return list(threads.map(lambda n: executor.submit(add, n, 1).result(), range(6)))


def raise_inside(executor: Any) -> str:
    task = executor.submit(int, "no number")
    assert isinstance(task.exception(), ValueError)
    return f"{type(task.exception()).__name__}; {task.exception()}"


def let_it_raise(executor: Any) -> Any:
    return executor.submit(int, "no number").result()


def with_unpicklable(executor: Any) -> str:
    error = executor.submit(add, threading.Lock()).exception()
    return type(error).__name__


def crash() -> None:
    os._exit(7)


def crash_inside(executor: Any) -> list[str]:
    error = executor.submit(crash).exception()
    return [kind.__name__ for kind in type(error).__mro__]


def chain(executor: Any) -> int:
    one = executor.submit(add, 1, 1)
    two = executor.submit(add, one, right=one)
    return int(executor.submit(add, two, two).result())


def start_later(executor: Any) -> list[Any]:
    task = executor.options(start=False).submit(add, 1, 2)
    before = task.status.value
    other = executor.options(start=False).submit(add, 1, 2)
    cancelled = other.cancel()
    return [before, task.start().result(), cancelled, other.cancelled()]


def hold_inside(executor: Any, address: Any, label: Any) -> Any:
    return executor.submit(arrive, address, label).result()


def leave_behind(executor: Any, address: Any, detach: bool) -> None:
    task = executor.options(detach=detach).submit(arrive, address, "child")
    assert task.status.value in ("pending", "running")


def hold_and_wait_too(executor: Any, address: Any) -> None:
    executor.submit(arrive, address, "child")
    arrive(address, "parent")


def cancel_inside(executor: Any, address: Any) -> list[Any]:
    runs = executor.submit(arrive, address, "runs")
    arrive(address, "parent")
    waits = [executor.options(priority=-1).submit(arrive, address, n) for n in range(200)]
    found = [waits[-1].cancel(), waits[-1].cancelled(), waits[-1].status.value]
    found += [runs.cancel()]
    arrive(address, "asked")
    for task in waits:
        task.cancel()
    return found + [runs.result()]


def ask(executor: Any, address: Any) -> list[Any]:
    task = executor.submit(report, address)
    events: list[Any] = []
    ended = threading.Event()

    def note(event: Any) -> None:
        events.append(event)
        if event.type.value == "completion":
            ended.set()

    task.listen(note)
    arrive(address, "parent")
    found = [task.status.value, task.running(), task.progress, task.message]
    arrive(address, "asked")
    found += [task.result(), task.status.value]
    assert ended.wait(30)
    again: list[Any] = []
    task.listen(again.append)
    assert len(again) == 1
    kinds = [event.type.value for event in events]
    return [*found, kinds[0], kinds[-1]]


def report(address: Any) -> str:
    from wetlands_executor import current_task

    current_task().update("half", current=1, maximum=2)
    arrive(address, "reported")
    return "done"


def squares_in(other: Any, values: list[int]) -> list[int]:
    """Map in another pool."""
    return list(other.map(lambda value: value * value, values))


def python_of(executor: Any) -> list[str]:
    return [version(), executor.submit(version).result()]


def version() -> str:
    import sys

    return ".".join(map(str, sys.version_info[:2]))


def total(array: Any) -> int:
    array[0] = array[0]  # it is writable
    return sum(array)


def large_inside(executor: Any, size: int) -> list[int]:
    data = executor.submit(zeros, size).result()
    data[0] = 5
    return [len(data), executor.submit(total, data).result()]


def zeros(size: int) -> bytearray:
    return bytearray(size)


def wait_after_shutdown(executor: Any, address: Any) -> int:
    arrive(address, "parent")
    return int(executor.submit(add, 20, 22).result())


def options_inside(executor: Any) -> list[str]:
    found = []
    for options in ({"colour": 1}, {"timeout": -1}, {"retries": "1"}, {"retry_on": "OSError"}):
        try:
            executor.options(**options)
        except (TypeError, ValueError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def keep(executor: Any, kept: list[Any] = []) -> str:  # noqa: B006 - what is left behind is the point
    """Use an executor, or a task, of a call that has ended."""
    if not kept:
        kept.append(executor.submit(add, 1))
        kept.append(executor)
        return "kept"
    found = []
    for act in (kept[0].result, kept[0].cancel):
        try:
            found.append(str(act()))
        except Exception as error:
            found.append(type(error).__name__)
    found.append(str(kept[1].submit(add, 1, 1).result()))
    return " ".join(found)


# --- retries, outputs, events


class OddError(OSError):
    """Known where the function is."""


def is_odd_one(error: BaseException) -> bool:
    return isinstance(error, OddError)


def raise_itself(error: BaseException) -> bool:
    raise LookupError(str(error))


def attempt() -> int:
    from wetlands_executor import current_task

    return int(current_task().attempt)


def note(folder: str) -> int:
    """Note the number of this try; return how many there were."""
    os.makedirs(folder, exist_ok=True)
    open(os.path.join(folder, str(attempt())), "x").close()
    return len(os.listdir(folder))


def noted(folder: str) -> list[int]:
    return sorted(map(int, os.listdir(folder)))


def tries(folder: str, count: int, dies: bool) -> list[int]:
    if note(folder) < count:
        if dies:
            os._exit(5)
        raise OSError("again")
    return noted(folder)


def fail_oddly(folder: str) -> None:
    note(folder)
    raise OddError("an odd one")


def retried(executor: Any, folder: str) -> list[Any]:
    folder = os.path.join(folder, "tries")
    task = executor.submit(fail_oddly, folder)
    return [type(task.exception()).__name__, noted(folder), task.attempt]


def die_noted(folder: str) -> None:
    note(folder)
    os._exit(5)


def crash_always(executor: Any, folder: str) -> list[Any]:
    folder = os.path.join(folder, "tries")
    error = executor.submit(die_noted, folder).exception()
    return [type(error).__name__, len(noted(folder))]


def leave_asked(executor: Any, address: Any, folder: str) -> None:
    """Return while this function is asked whether there is another try."""
    asked = threading.Event()

    def ask(_error: BaseException) -> bool:
        asked.set()
        return bool(arrive(address, "asked"))

    executor.options(detach=True, retries=1, retry_on=ask).submit(fail_oddly, folder + "/tries")
    assert asked.wait(30)


class Place:
    """Of a class."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


def set_outputs() -> None:
    from wetlands_executor import current_task

    task = current_task()
    task.set_output("number", 1)
    task.set_output({"of a class": Place(1, 2), "number": 2})


def read_outputs(executor: Any) -> dict[str, Any]:
    task = executor.submit(set_outputs)
    task.result()
    found = task.outputs
    place = found["of a class"]
    return dict(found, **{"of a class": f"Place({place.x}, {place.y})"})


def set_output_of_try(folder: str) -> None:
    from wetlands_executor import current_task

    count = note(folder)
    current_task().set_output(["", "first", "second"][count], count)
    if count == 1:
        raise OSError


def outputs_of_tries(executor: Any, folder: str) -> dict[str, int]:
    view = executor.options(retries=1, retry_on=OSError)
    task = view.submit(set_output_of_try, folder + "/tries")
    task.result()
    return dict(task.outputs)


def report_and_set(address: Any) -> str:
    from wetlands_executor import current_task

    arrive(address, "child")
    current_task().update("half")
    current_task().set_output("n", 1)
    return "done"


def listen_often(executor: Any, address: Any) -> list[list[str]]:
    task = executor.submit(report_and_set, address)
    found: list[list[str]] = [[] for _ in range(6)]
    ended = threading.Semaphore(0)

    def listener(place: int) -> Any:
        def note(event: Any) -> None:
            said = event.type.value
            if said == "update":
                said += f" {event.outputs['n'] if event.outputs else event.message}"
            found[place].append(said)
            if event.type.value == "completion":
                ended.release()

        return note

    for place in range(4):
        task.listen(listener(place))
    removed = listener(5)
    task.listen(removed)
    task.remove_listener(removed)
    arrive(address, "parent")
    arrive(address, "listening")
    task.wait_for()
    late = listener(4)
    found[4].append("started")  # a task that has ended has its end only
    task.listen(late)
    for _ in range(5):
        assert ended.acquire(timeout=30)
    return found


async def stream_events(executor: Any) -> list[str]:
    task = executor.submit(report_thrice)
    kinds = [event.type.value async for event in task.events()]
    kinds += [event.type.value async for event in task.events()]
    return kinds


def report_thrice() -> None:
    from wetlands_executor import current_task

    for number in range(3):
        current_task().update(str(number))


# --- failures that are let through


def hang() -> None:
    threading.Event().wait(60)


def let_it_crash(executor: Any) -> None:
    executor.submit(crash).result()


def let_it_time_out(executor: Any) -> None:
    executor.options(timeout=0.2, cancel_grace=0.1).submit(hang).result()


def let_dependency_fail(executor: Any) -> None:
    executor.submit(add, executor.submit(int, "no number")).result()


def call_inside(executor: Any, function: Any) -> Any:
    return executor.submit(function, executor).result()


def catch_by_name(executor: Any) -> list[str]:
    from wetlands_executor import TaskTimeoutError, WorkerCrashed

    found = []
    try:
        let_it_crash(executor)
    except WorkerCrashed as error:
        found.append(f"WorkerCrashed {error.exit_code}")
    try:
        let_it_time_out(executor)
    except TaskTimeoutError as error:
        found.append(type(error).__name__)
    return found


# --- tasks that are not started


def never_start(executor: Any, address: Any) -> list[str]:
    """Leave tasks that were not started; a thread reports what has become of them."""
    held = executor.options(start=False).submit(add, 1)
    waits = executor.submit(add, executor.submit(arrive, address, "child"))

    def work() -> None:
        met = []
        for act in (held.result, waits.result, held.start):
            try:
                met.append(str(act()))
            except BaseException as error:
                met.append(type(error).__name__)
        arrive(address, " ".join(met))

    threading.Thread(target=work, daemon=True).start()
    arrive(address, "parent")
    return [held.status.value, waits.status.value]


def wait_for_unstarted(executor: Any, address: Any) -> Any:
    task = executor.options(start=False).submit(add, 1)
    arrive(address, "parent")
    return task.result()


def depend_on_unstarted(executor: Any) -> int:
    held = executor.options(start=False).submit(add, 1, 2)
    return int(executor.submit(add, held, held).result())


def start_cancelled(executor: Any) -> list[Any]:
    task = executor.options(start=False).submit(add, 1, 2)
    return [task.cancel(), task.status.value, task.start().status.value]
