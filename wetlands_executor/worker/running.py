"""The main loop of this process as the modules below it see it: two Protocols.

Owns the one reference to it. ``runner.py`` makes the loop and enters it here, once per process (the
warm-up of a fork server enters a few that are none); what a task asks, prints, logs or sets is
looked up from here. So none of these modules imports ``runner``. Any thread may read ``main_loop``.
"""

from __future__ import annotations

#: Why a process that a task has forked has no way to the host's pools.
IN_FORK = (
    "a process that a task has forked can neither submit tasks nor wait for them: let the task do "
    "that itself"
)

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Protocol, Tuple

    from .progress import Progress

    class Sending(Protocol):
        """What sends frames."""

        def send(self, kind: int, item: int, payload: Any = b"", duration: int = 0) -> None:
            """Send a frame; see ``Channel.send``."""
            ...

    class Running(Protocol):
        """Which call runs, and where frames about it go.

        The log buffer of a fork server is one too.
        """

        @property
        def item(self) -> int:
            """The running call; 0 between calls."""
            ...

        @property
        def serial(self) -> int:
            """Of the running call, or of the last one; see ``threads``."""
            ...

        @property
        def thread(self) -> int:
            """The main thread."""
            ...

        @property
        def channel(self) -> Sending:
            """Where frames go."""
            ...

    class MainLoop(Running, Protocol):
        """A worker."""

        @property
        def progress(self) -> Progress:
            """Reports of the running call."""
            ...

        @property
        def tries(self) -> Tuple[int, int]:
            """A call, and the number of its try; the others that run are first tries."""
            ...

        def task_name(self) -> str:
            """Return the name of the running call."""
            ...

        def inputs(self, defaults: bool = False) -> Dict[str, Any]:
            """Return the arguments of the running call by name; with those that have defaults."""
            ...

        def cancel_requested(self, item: int) -> bool:
            """Return True if the host has asked to cancel this item."""
            ...

        def acknowledge(self, serial: int) -> None:
            """Note that the function of a call has called ``task.cancel()``."""
            ...

        def drop_stale(self, kept: Any = None) -> None:
            """Let functions by value be read again when they are called, but for ``kept``."""
            ...

        def read_piece(self, number: int) -> None:
            """Read records up to a piece that a stream refers to."""
            ...

        def use_buffers(self) -> Any:
            """Return what serves the files of large arguments and results."""
            ...

        def use_nested(self) -> Any:
            """Return what serves the tasks that functions submit."""
            ...

        def running_function(self) -> Any:
            """Return the function of the running call, and its number if the host knows that."""
            ...

        def executor(self) -> Any:
            """Return the executor whose pool runs the call."""
            ...

        @property
        def config(self) -> Any:
            """What the host has configured."""
            ...


#: That of this process; None outside a worker.
main_loop: Optional[MainLoop] = None
#: Returns the handle of the call that the calling code works for in this process, None if it works
#: for none; None: no executor of this process runs calls in its threads.
find_here: Optional[Callable[[], Any]] = None


def enter(loop: Optional[MainLoop]) -> None:
    """Make ``loop`` the main loop of this process; None: it has none."""
    global main_loop  # a fact about this process
    main_loop = loop


def serve_here(find: Callable[[], Any]) -> None:
    """Have ``current_task`` ask ``find`` first, for calls that run in threads of this process."""
    global find_here  # as above
    find_here = find
