"""What a running function can know of its task, wherever it stands: ``current_task`` and the handle that it gives.

Works in a worker, where the runner sets the call, and anywhere else, where the handle is inert; so the same function runs under a worker,
under pytest and in-process.
"""

import sys

#: Set by the runner in a worker: the object that knows the running call. None elsewhere.
_runner = None


class RemoteTaskHandle:
    """The running function's view of its task.

    Attributes:
        id: the task's number in its pool, as text; empty outside a worker.
        name: the task's name, or empty.
    """

    def __init__(self, item=0):
        self._item = item
        self.id = str(item) if item else ""
        self.name = ""

    @property
    def cancel_requested(self):
        """True once the host has asked this task to stop; always False outside a worker."""
        runner = _runner
        return bool(self._item) and runner is not None and runner.cancel_requested(self._item)

    def should_stop(self):
        """Return ``cancel_requested``."""
        return self.cancel_requested


def current_task():
    """Return the handle of the running task; outside a worker an inert one."""
    shipped = sys.modules.get("_wetlands_worker.context")
    if shipped is not None and shipped.__dict__ is not globals():
        return shipped.current_task()
    return RemoteTaskHandle(_runner.item if _runner is not None else 0)
