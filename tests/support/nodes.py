"""Keeps the session that shares its files among several processes from waiting for ever.

xdist learns that one of its processes has ended from the end of a pipe. A process that a test has
forked holds that pipe as well: if the test's own process is killed meanwhile, the pipe never ends,
and the session waits, without a word, for what no process will send. A process that is stopped
(SIGSTOP) does not report either, and no time-out within it can fire.

``Nodes`` lives in the process that has the terminal. It waits for the end of each process itself,
and then kills what still holds the pipe. A process that has not reported for ``SILENCE`` seconds is
shown (its state, its stacks if py-spy is there) and killed. xdist then reports that it crashed, and
which test it was running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: Seconds without a report after which a process is given up: more than any test may take, its
#: hard limit included.
SILENCE = 1_200.0
#: Seconds that the end of its pipe may come later than the end of a process.
GRACE = 10.0

_PROC = Path("/proc")


class Nodes:
    """A plugin of the process that has the terminal; one thread for each process that runs tests.

    ``describe(pid)`` returns what a process is doing; ``say(text)`` prints, whatever is captured.
    """

    def __init__(
        self,
        describe: Callable[[int], str],
        say: Callable[[str], None],
        silence: float = SILENCE,
    ) -> None:
        self._describe = describe
        self._print = say
        self._silence = silence
        self._news = threading.Condition()
        self._reported: dict[Any, float] = {}  # by node; no key once it is down
        self._running: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Watch a process that is ready to run tests."""
        popen: subprocess.Popen[bytes] | None = getattr(node.gateway._io, "popen", None)
        if popen is None:
            return
        with self._news:
            self._reported[node] = time.monotonic()
        for watch in (self._watch_end, self._watch_silence):
            name = f"{watch.__name__} of {node.gateway.id}"
            threading.Thread(target=watch, args=(node, popen), name=name, daemon=True).start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Stop watching a process that xdist knows to have ended."""
        with self._news:
            self._reported.pop(node, None)
            self._news.notify_all()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note which tests are running."""
        with self._news:
            self._running.add(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note that a test is over."""
        with self._news:
            self._running.discard(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a process is alive."""
        node = getattr(report, "node", None)
        with self._news:
            if node in self._reported:
                self._reported[node] = time.monotonic()

    def _watch_end(self, node: Any, popen: subprocess.Popen[bytes]) -> None:
        code = popen.wait()
        with self._news:
            down = self._news.wait_for(lambda: node not in self._reported, GRACE)
        if not down:
            self._say(f"{node.gateway.id} has ended (exit code {code}), and its pipe has not")
            self._end_pipe(popen)

    def _watch_silence(self, node: Any, popen: subprocess.Popen[bytes]) -> None:
        with self._news:
            while (since := self._reported.get(node)) is not None:
                left = since + self._silence - time.monotonic()
                if left <= 0:
                    break
                self._news.wait(left)
            else:
                return
        self._say(f"{node.gateway.id} has not reported for {self._silence:g} seconds")
        self._say(self._describe(popen.pid))
        popen.kill()  # SIGKILL ends a stopped process too

    def _end_pipe(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdout is not None
        for pid in _holders(popen.stdout.fileno()):
            self._say(self._describe(pid))
            os.kill(pid, signal.SIGKILL)

    def _say(self, text: str) -> None:
        with self._news:
            running = ", ".join(sorted(self._running))
        self._print(f"\n{text}\nrunning: {running}\n")


def _holders(fd: int) -> Iterator[int]:
    """Yield the process ids of others that have the pipe of that descriptor open (Linux only)."""
    pipe = f"pipe:[{os.fstat(fd).st_ino}]"
    for folder in _PROC.glob("[0-9]*/fd"):
        pid = int(folder.parent.name)
        if pid == os.getpid():
            continue
        try:
            held = any(os.readlink(link) == pipe for link in folder.iterdir())
        except OSError:  # it has ended, or is another user's
            continue
        if held:
            yield pid
