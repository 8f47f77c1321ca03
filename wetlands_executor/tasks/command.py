"""Definitions that are commands: filling them in, running them, stopping their process trees.

A thread of this process owns the command; the task's thread reads its output (``CommandRun``). The
thread that stops it sends SIGTERM to the tree, and a timer SIGKILL to what is left of it. A
``Guard`` does so if this process is killed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from wetlands_executor import ScriptExit, current_task
from wetlands_executor.tasks.executors import environment_of
from wetlands_executor.tasks.guard import Guard
from wetlands_executor.tasks.protocol import parse

#: Seconds between SIGTERM and SIGKILL.
KILL_AFTER = 5.0
#: Lines of the output that an error quotes.
LINES = 20
#: ``{name}`` is replaced by an input; braces around anything else stay as they are.
FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def fields_of(command: tuple[str, ...]) -> list[str]:
    """Return the names of the inputs that a command asks for, in order, each once."""
    return list(dict.fromkeys(name for word in command for name in FIELD.findall(word)))


def filled(command: tuple[str, ...], inputs: Mapping[str, Any]) -> list[str]:
    """Return the arguments of a process. Each word stays one word: no shell takes part."""
    return [FIELD.sub(lambda found: str(inputs[found[1]]), word) for word in command]


class Tree:
    """The processes of one command, and their end.

    Args:
        process: the command.
        grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, process: subprocess.Popen[str], grace: float) -> None:
        import psutil  # 10 ms, which only commands need

        self._psutil = psutil
        self._process = process
        try:
            self._root: Any = psutil.Process(process.pid)
        except psutil.Error:
            self._root = None  # it has ended
        self._grace = grace
        self._timer: threading.Timer | None = None
        #: Processes that were there when it was stopped; a parent may end before its children.
        self._known: dict[Any, None] = {}

    def _look(self) -> list[Any]:
        try:
            if self._root is not None:
                found = [*self._root.children(recursive=True), self._root]
                self._known.update(dict.fromkeys(found))
        except self._psutil.Error:
            pass  # it has ended; what was known counts
        self._known.update(dict.fromkeys(self._session()))
        return list(self._known)

    def _session(self) -> list[Any]:
        """Return the processes of its session: also those whose parents have ended."""
        found: list[Any] = []
        # Before it is reaped, its process id, which names the session, can belong to no other.
        if sys.platform != "win32" and self._process.returncode is None:
            for pid in self._psutil.pids():
                try:
                    if os.getsid(pid) == self._process.pid:
                        found.append(self._psutil.Process(pid))
                except (OSError, self._psutil.Error):
                    continue  # it has ended meanwhile, or belongs to another user
        return found

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after the grace. Any thread; once."""
        self._signal("terminate")
        self._timer = timer = threading.Timer(self._grace, self.kill)
        timer.daemon = True
        timer.start()

    def kill(self) -> None:
        """Send SIGKILL to all."""
        self._signal("kill")

    def end(self) -> None:
        """End what is left of a tree that was stopped; the command has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self.kill()

    def _signal(self, how: str) -> None:
        for process in self._look():
            try:
                getattr(process, how)()
            except self._psutil.Error:
                continue  # it has ended, or belongs to another user


def _signal_name(code: int) -> str:
    """Return what to add to an exit code: the name of the signal that it stands for."""
    try:
        return f" ({signal.Signals(-code).name})" if code < 0 else ""
    except ValueError:
        return ""  # one without a name


class Owner:
    """The thread that starts a command, and ends what is left of it.

    A time limit interrupts the task's thread at any place, and again: inside ``Popen`` it would
    leave a process that is known to no object, and in a clean-up what was not cleaned up yet.
    Nothing interrupts this thread. The task's thread follows the command within ``followed``: no
    interrupt can come between the end of a ``with`` and the release of its lock, a call of C.

    Args:
        start: starts the command.
        grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, start: Callable[[], subprocess.Popen[str]], grace: float) -> None:
        self._start = start
        self._grace = grace
        self.followed = threading.Lock()
        self.started: Future[tuple[subprocess.Popen[str], Tree]] = Future()
        self.thread = threading.Thread(target=self._run, name="wetlands-command")

    def _run(self) -> None:
        guard: Guard | None = None
        try:
            guard = Guard()
            process = self._start()
            guard.watch(process.pid)
            tree = Tree(process, self._grace)
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            self.started.set_exception(error)
        else:
            self.started.set_result((process, tree))
            with self.followed:
                self._end(process, tree)
        finally:
            if guard is not None:
                guard.end()

    @staticmethod
    def _end(process: subprocess.Popen[str], tree: Tree) -> None:
        if process.poll() is None:
            tree.kill()
            process.wait()
        tree.end()
        assert process.stdout is not None
        process.stdout.close()


class CommandRun:
    """Runs one command as the function of a task.

    Args:
        id: of the definition.
        command: the words.
        env, executor: where: see ``TaskDefinition``.
        grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - as the definition's attribute
        command: tuple[str, ...],
        env: Any,
        executor: Any,
        grace: float | None,
    ) -> None:
        self._id = id
        self._command = command
        self._env = env
        self._executor = executor
        self._grace = KILL_AFTER if grace is None else grace
        self._logger = logging.getLogger(f"wetlands_executor.tasks.{id}")

    def __call__(self, /, **inputs: Any) -> None:
        """Run it to its end.

        Raises:
            ScriptExit: its exit code is not 0.
            FileNotFoundError: the environment has no such command.
        """
        task: Any = current_task()
        argv = filled(self._command, inputs)
        variables = {
            "WETLANDS_TASK_ID": task.instance_id,
            "WETLANDS_TASK_INPUTS": json.dumps(inputs, default=repr),
            # The descriptor of this process, if a platform gave it one, is not the command's.
            "WETLANDS_TASK_STATE_FD": "",
        }
        environment = environment_of(self._env, self._executor)

        def start() -> subprocess.Popen[str]:
            process: subprocess.Popen[str] = environment.popen(
                argv,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=sys.platform != "win32",
            )
            return process

        owner = Owner(start, self._grace)
        with owner.followed:
            owner.thread.start()
            process, tree = owner.started.result()
            task.on_cancel(tree.stop)
            tail: deque[str] = deque(maxlen=LINES)
            canceled = self._read(process.stdout, task, tail)
            code = process.wait()
        owner.thread.join()
        if task.cancel_requested or canceled:
            task.cancel()
        elif code:
            said = "\n".join(tail)
            raise ScriptExit(
                f"the command {argv} ended with exit code {code}{_signal_name(code)}"
                + (f"; the last lines of its output:\n{said}" if said else ""),
                code,
                said,
            )

    def _read(self, lines: Any, task: Any, tail: deque[str]) -> bool:
        """Take the output, line by line; return True if the command says that it has stopped."""
        canceled = False
        for line in lines:
            text = line.rstrip("\r\n")
            try:
                report = parse(text)
            except ValueError as error:
                self._logger.warning("a report of the command %r is wrong: %s", self._id, error)
                report = None
            if report is None:
                tail.append(text)
                self._logger.info("%s", text)
                continue
            if report.progress is not None or report.message is not None:
                maximum = None if report.progress is None else 1
                task.update(report.message, current=report.progress, maximum=maximum)
            if report.output is not None:
                task.set_output("output", report.output)
            canceled |= report.status == "canceled"
        return canceled
