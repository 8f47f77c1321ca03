"""What the processes that tests start inherit of signals.

The system's defaults, however the test run itself was started.

A shell that starts a command in the background (``pytest &`` in a script) has it ignore SIGINT and
SIGQUIT, ``nohup`` has it ignore SIGHUP, and a parent may have blocked signals. All of this survives
``exec``: the hosts that a test starts would ignore their Ctrl-C too.
"""

from __future__ import annotations

import signal
import types

#: Python itself ignores these two, and ``subprocess`` gives them back to what it starts.
_IGNORED_BY_PYTHON = {"SIGPIPE", "SIGXFZ", "SIGXFSZ"}
#: A process in the background that caught these would try again for ever to read or write its
#: terminal.
_OF_A_TERMINAL = {"SIGTSTP", "SIGTTIN", "SIGTTOU"}


def restore() -> None:
    """Give the processes started from now on the default disposition of every signal, and none that
    is blocked.

    This process goes on ignoring what it was told to ignore, with a handler that does nothing: a
    handler is reset to the default by ``exec``, an ignored signal stays ignored. Call it on the
    main thread.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is not signal.SIG_IGN:
            continue
        name = signal.Signals(number).name if isinstance(number, signal.Signals) else ""
        if name == "SIGCHLD":
            # Ignored, the kernel reaps the children, and their exit codes are lost.
            signal.signal(number, signal.SIG_DFL)
        elif name not in _IGNORED_BY_PYTHON | _OF_A_TERMINAL:
            signal.signal(number, _ignore)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def _ignore(_number: int, _frame: types.FrameType | None) -> None:
    """Be no SIG_IGN."""
