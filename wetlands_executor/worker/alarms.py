"""Alarms that tasks have set.

They are stopped with their call, so that none fires in a later call or between two calls.

Owns the record of the alarms that calls have set. Alarms of an initializer, and threads that wait
(``threading.Timer``), are not affected.
"""

from __future__ import annotations

import _signal
import sys

from . import patches, running
from .system import ITIMER_REAL, TIMERS, set_timer
from .threads import serial_here

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Set

#: Alarms that calls have set and that may be running: numbers of interval timers; ``WATCHDOG``.
armed: Set[int] = set()
#: ``faulthandler.dump_traceback_later``, which may end the process.
WATCHDOG = -1
#: The number of the timer is the first argument.
_FIRST_ARGUMENT = -2


def _noting(kind: int) -> Callable[[Any], Any]:
    """Return a wrapper for functions that set an alarm of that kind, which records the alarm."""

    def make(function: Any) -> Any:
        def set_alarm(*args: Any, **kwargs: Any) -> Any:
            runner = running.main_loop
            serial = serial_here(runner) if runner is not None else 0
            if runner is not None and serial:
                if serial != runner.serial or not runner.item:
                    raise RuntimeError(
                        "%s() in a thread whose task has ended: it would interrupt "
                        "another task" % function.__name__
                    )
                armed.add(
                    kind
                    if kind != _FIRST_ARGUMENT
                    else args[0]
                    if args and type(args[0]) is int
                    else ITIMER_REAL
                )
            return function(*args, **kwargs)

        return set_alarm

    return make


def install() -> None:
    """Record alarms from now on. Once per process."""
    for name, kind in (("setitimer", _FIRST_ARGUMENT), ("alarm", ITIMER_REAL)):
        noting = patches.replace(_signal, name, _noting(kind))
        patches.replace_copy(sys.modules.get("signal"), name, noting)
    watchdog = sys.modules.get("faulthandler")
    patches.replace(watchdog, "dump_traceback_later", _noting(WATCHDOG))


def clear() -> None:
    """Stop the alarms that calls have set.

    An exception that a signal handler raises meanwhile is dropped: the call that it was meant for
    has ended.
    """
    while armed:
        try:
            for kind in tuple(armed):
                if kind == WATCHDOG:
                    sys.modules["faulthandler"].cancel_dump_traceback_later()
                elif kind in TIMERS:
                    set_timer(kind, 0)
                armed.discard(kind)
        except BaseException:  # noqa: BLE001 - see above
            pass
