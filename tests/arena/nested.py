"""Functions that hand large data to tasks inside them. Python 3.8, standard library."""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.arena.workload import Buffers
from tests.tasks.workload import arrive

#: Bytes that go into a block.
LARGE = 3_000_000


def make(size: int, kind: str = "bytearray") -> Any:
    """Return large data, the same for each size."""
    data = bytes(range(251)) * (size // 251 + 1)
    return bytearray(data[:size]) if kind == "bytearray" else data[:size]


def held(size: int = LARGE) -> Buffers:
    """Return large data that stay in their block."""
    return Buffers(make(size))


def is_held(value: Buffers, size: int = LARGE) -> bool:
    return bytes(value.parts[0]) == make(size)


def same(value: Any) -> Any:
    return value


def slots() -> list[int]:
    """Return the blocks of arguments that this process looks at."""
    region = sys.modules["_wetlands_worker.running"].main_loop.buffers.arguments()
    return sorted(root.number for root in region.live.values())


def there_and_back(executor: Any, size: int, kind: str) -> bool:
    """Send data to a task inside this one, and get it back."""
    data = make(size, kind)
    child = executor.submit(same, data)
    if kind == "bytearray":
        data[:] = bytes(len(data))  # it may be changed as soon as it was submitted
    found = child.result()
    if kind == "bytearray":
        found[:1] = found[:1]  # it is its own
    return type(found) is type(data) and found == make(size, kind)


def several(executor: Any, count: int) -> int:
    """Send several buffers in one call, and in one result."""
    data = [make(200_000 + index) for index in range(count)]
    found = executor.submit(same, data).result()
    assert found == data
    return len(found)


def hand_in(executor: Any, address: Any) -> Any:
    """Submit a call with a large argument, and wait for it."""
    return executor.submit(hold, held(), address).result()


def hold(value: Any, address: Any) -> list[int]:
    arrive(address, "child")
    assert is_held(value)
    return slots()


def take_back(executor: Any, address: Any) -> int:
    """Get a large result, and hold it."""
    found = executor.submit(held).result()
    arrive(address, "parent")
    return len(found.parts[0])


def blocks_on_the_way(executor: Any) -> list[list[int]]:
    """Return the blocks that a child has looked at, and those here once it has given them back."""
    found, value = executor.submit(seen_and_same, held()).result()
    assert is_held(value)
    return [found, slots()]


def seen_and_same(value: Any) -> Any:
    return slots(), value


def retried(executor: Any, folder: str) -> bool:
    return is_held(executor.options(retries=1).submit(change_and_crash, held(), folder).result())


def change_and_crash(value: Any, folder: str) -> Any:
    """Change the argument and die, the first time; then return it."""
    path = os.path.join(folder, "crashed")
    if not os.path.exists(path):
        open(path, "x").close()
        value.parts[0][:5] = bytes(5)
        os._exit(7)
    return value


def file_target(executor: Any, target: str) -> int:
    return executor.submit(target, make(LARGE)).result()


# --- accidents


def die_at(step: str) -> None:
    """Let this process end when it comes to a step of handing large data over."""
    import importlib

    lent = importlib.import_module("_wetlands_worker.shm_lent").Lent
    kept = getattr(lent, step)

    def die(self: Any, *args: Any) -> Any:
        if step == "reserve":
            kept(self, *args)  # the host has lent the blocks
        os._exit(3)

    setattr(lent, step, die)


def die_handing_in(executor: Any, step: str, address: Any) -> None:
    """Die at a step of submitting a call with a large argument."""
    die_at(step)
    executor.submit(hold, held(), address).result()


def die_after(executor: Any, address: Any, count: int) -> None:
    """Die when calls with large arguments were submitted."""
    children = [executor.submit(hold, held(), address) for _ in range(count)]
    assert children[0].status
    arrive(address, "parent")
    os._exit(3)


def die_before_reading(executor: Any, address: Any) -> None:
    """Die with a large result that has come and was not read."""
    child = executor.submit(held)
    child.wait_for()
    arrive(address, "parent")
    os._exit(3)


def child_dies(executor: Any, step: str) -> str:
    child = executor.submit(die_returning, held(), step)
    return type(child.exception()).__name__


def die_returning(value: Any, step: str) -> Any:
    """Die with a large argument: while it runs, or at a step of returning a large result."""
    if step == "run":
        os._exit(3)
    die_at(step)
    return held(len(value.parts[0]) + 1)


class Breaking:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def child_dies_reading(executor: Any) -> str:
    return type(executor.submit(same, [held(), Breaking()]).exception()).__name__


def parent_dies_reading(executor: Any) -> Any:
    return executor.submit(make_breaking).result()


def make_breaking() -> Any:
    return [held(), Breaking()]


def never_read(executor: Any) -> bool:
    """Get large results and read none of them."""
    children = [executor.submit(held, LARGE + n) for n in range(3)]
    return all(child.wait_for().done() for child in children)


def not_picklable(executor: Any) -> str:
    import threading

    return type(executor.submit(same, [held(), threading.Lock()]).exception()).__name__


def cancel_waiting(executor: Any, address: Any) -> list[bool]:
    """Cancel calls with large arguments that have not begun."""
    children = [executor.submit(hold, held(), address) for _ in range(20)]
    arrive(address, "parent")
    return [child.cancel() for child in reversed(children)]


def detached(executor: Any, address: Any) -> None:
    executor.options(detach=True).submit(hold, held(), address)


def to_other(other: Any, address: Any) -> str:
    """Submit to another pool; return what has become of that."""
    error = other.submit(hold, held(), address).exception()
    return type(error).__name__
