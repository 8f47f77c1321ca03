"""The items that no worker holds yet: one queue per priority, first come, first served.

Pure data of ``PoolState``. An item that stands for many waits as one, and gives parts of itself
until none is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from wetlands_executor.scheduling.messages import ANY, WAITING, Item


class WaitingItems:
    """The queues.

    Attributes:
        queues: one per priority that was ever used, highest first. Invariant: a queue may hold
            items that were cancelled (their place is not WAITING); ``count`` counts the others.
        count: how many items wait.
        nested: True once a task inside a task has waited.
    """

    __slots__ = ("_sources", "count", "nested", "queues")

    def __init__(self) -> None:
        self.queues: dict[int, deque[Item]] = {0: deque()}
        self.count = 0
        self.nested = False
        # Waiting items that stand for many.
        self._sources: dict[Item, None] = {}

    @property
    def wanted(self) -> int:
        """How many workers could be used."""
        return self.count + sum(item.left - 1 for item in self._sources)

    @property
    def ahead(self) -> int:
        """How many items a worker may hold if it gets what comes next."""
        for queue in self.queues.values():
            for item in queue:
                if item.place is WAITING:
                    return item.ahead
        return ANY

    def next_nested(self) -> tuple[int, int]:
        """Return the depth of the item that comes next, and how many tasks inside tasks wait."""
        depth = count = 0
        for queue in self.queues.values():
            for item in queue:
                if item.place is WAITING:
                    if not item.depth:
                        return depth, count
                    depth = depth or item.depth
                    count += 1
        return depth, count

    def priorities(self) -> set[int]:
        """Return those of the items."""
        return {
            priority
            for priority, queue in self.queues.items()
            if any(item.place is WAITING for item in queue)
        }

    def append(self, items: Sequence[Item]) -> None:
        """Let new items wait."""
        plain = self.queues[0]
        for item in items:
            item.place = WAITING
            if item.many:
                self._sources[item] = None
            if item.priority:
                self._queue_of(item).append(item)
                self.nested = self.nested or item.depth > 0
            else:
                plain.append(item)
        self.count += len(items)

    def append_left(self, items: Sequence[Item]) -> None:
        """Let items wait before all of their priority, in their order."""
        for item in reversed(items):
            item.wait()
            if item.many:
                self._sources[item] = None
            self._queue_of(item).appendleft(item)
        self.count += len(items)

    def _queue_of(self, item: Item) -> deque[Item]:
        queue = self.queues.get(item.priority)
        if queue is None:
            self.queues[item.priority] = queue = deque()
            self.queues = dict(sorted(self.queues.items(), reverse=True))
        return queue

    def remove(self, item: Item) -> None:
        """Let an item wait no longer."""
        item.leave()
        self.count -= 1
        self._sources.pop(item, None)
        if not self.count:
            self._clear()

    def take(self, count: int, ahead: int = 0) -> list[Item]:
        """Take up to ``count`` items, oldest first; what stands for many gives parts of itself.

        An item of which workers may hold fewer than ``ahead`` is left where it is: ``count`` was
        made for others.
        """
        found: list[Item] = []
        taken = 0
        for queue in self.queues.values():
            while queue and len(found) < count:
                item = queue[0]
                if item.place is not WAITING:
                    queue.popleft()
                    continue
                if not item.many:  # most items; workers may hold any number of them
                    found.append(queue.popleft())
                    taken += 1
                    item.place = None
                    continue
                if ahead and item.ahead < ahead:
                    count = 0
                    break
                part = item.split()
                if part is not None:
                    found.append(part)
                if item.exhausted:
                    queue.popleft()
                    taken += 1
                    item.place = None
                    self._sources.pop(item, None)
        self.count -= taken
        return found

    def take_all(self) -> list[Item]:
        """Take every item as it is."""
        items = [item for queue in self.queues.values() for item in queue if item.place is WAITING]
        for item in items:
            item.leave()
        self._clear()
        self.count = 0
        return items

    def _clear(self) -> None:
        for queue in self.queues.values():
            queue.clear()
        self._sources.clear()

    def check_invariants(self) -> None:
        """Raise AssertionError if the fields contradict each other."""
        items = [item for queue in self.queues.values() for item in queue if item.place is WAITING]
        assert self.count == len(items)
        assert set(self._sources) == {item for item in items if item.many}
