"""The creation of one environment: its progress, its commands, its log, and how it is stopped.

Owns the processes of package managers. ``Cancellation.request`` may be called by any thread;
everything else belongs to the thread that makes the environment. Knows no package manager
(``backends``) and no place (``store``).
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from wetlands_executor import children
from wetlands_executor.environment import _platform, frozen, processes
from wetlands_executor.environment.cancellation import Cancellation
from wetlands_executor.environment.locks import end_tree
from wetlands_executor.environment.notation import without_credentials
from wetlands_executor.errors import EnvironmentCreationError

#: Seconds that a package manager has to end when it is asked to.
END_GRACE: Final = 2.0
#: Lines of output that an error shows.
SHOWN_LINES: Final = 40
#: Variables that would make a package manager install elsewhere, or its interpreter import from
#: elsewhere.
NOT_PASSED: Final = frozenset(
    {
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_USER",
        "PIP_PYTHON",
        "PIP_REQUIRE_VIRTUALENV",
        "PIP_REPORT",
        "PIP_DRY_RUN",
        "PIP_QUIET",
        "PIP_LOG",
        "UV_PYTHON",
        "UV_PROJECT_ENVIRONMENT",
        "UV_SYSTEM_PYTHON",
        "UV_TARGET",
        "UV_PREFIX",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "CONDA_DEFAULT_ENV",
        "CONDA_SHLVL",
        "CONDA_ALWAYS_YES",
        "__PYVENV_LAUNCHER__",
    }
)

#: What keeps any command from the network, whatever its own option for that leaves out (pip fetches
#: URLs in spite of ``--no-index``): a proxy that is not there, and git for folders alone.
_NOWHERE: Final = "http://127.0.0.1:9"
OFFLINE: Final = {
    **{
        name: _NOWHERE
        for word in ("http_proxy", "https_proxy", "all_proxy")
        for name in (word, word.upper())
    },
    "no_proxy": "",
    "NO_PROXY": "",
    "GIT_ALLOW_PROTOCOL": "file",
    "UV_OFFLINE": "1",
    "CONDA_OFFLINE": "true",
}


class CreationPhase(Enum):
    """What is being done for an environment."""

    WAITING = "waiting"
    SOLVING = "solving"
    FETCHING = "fetching"
    INSTALLING = "installing"
    CHECKING = "checking"


@dataclass(frozen=True, slots=True)
class CreationProgress:
    """How far the creation of an environment is.

    Attributes:
        phase: what is being done.
        message: the same in a few words, for a person.
        current: how much of it is done: bytes when FETCHING, packages when INSTALLING; None if the
            package manager does not say.
        maximum: what ``current`` grows to; None if unknown.
        backend: who makes it; None while that is not decided.
    """

    phase: CreationPhase
    message: str
    current: float | None = None
    maximum: float | None = None
    backend: str | None = None
    _cancellation: Cancellation | None = field(default=None, repr=False, compare=False)

    def cancel(self) -> None:
        """Stop the creation, which then raises ``CancelledError``. Any thread, at any time."""
        if self._cancellation is not None:
            self._cancellation.request()


OnProgress = Callable[[CreationProgress], object]


class CreationRun:
    """The creation of one environment, as its backend sees it.

    Args:
        log: the file that gets all output; emptied.
        on_progress: is told how far it is, in this thread; what it raises ends the creation.
        cancellation: the request to stop.
        offline: no network may be used.

    Attributes:
        backend: the name of the backend, once it is decided.
        offline: see above.
        cancellation: see above.
    """

    def __init__(
        self,
        log: Path,
        on_progress: OnProgress | None,
        cancellation: Cancellation,
        *,
        offline: bool = False,
    ) -> None:
        self.backend: str | None = None
        self.offline = offline
        self.cancellation = cancellation
        self.log = log
        self._on_progress = on_progress
        self._last: CreationProgress | None = None
        self._tail: deque[str] = deque(maxlen=SHOWN_LINES)

    # --- progress

    @property
    def phase(self) -> CreationPhase | None:
        """What is being done now."""
        return None if self._last is None else self._last.phase

    def report(
        self,
        phase: CreationPhase,
        message: str,
        current: float | None = None,
        maximum: float | None = None,
    ) -> None:
        """Tell how far it is; the same thing is told once. Raises if it is to stop."""
        self.cancellation.check()
        progress = CreationProgress(phase, message, current, maximum, self.backend)
        if progress == self._last:
            return
        self._last = progress
        if self._on_progress is not None:
            self._on_progress(replace(progress, _cancellation=self.cancellation))
            self.cancellation.check()

    # --- failure

    def failure(
        self, reason: str, command: Sequence[str] = (), *, remedy: str = "", output: str = ""
    ) -> EnvironmentCreationError:
        """Return the error of this creation: what failed, what was said last, where the log is."""
        said = output or "\n".join(self._tail)
        parts = [reason]
        if command:
            parts.append(f"The command: {_shown(command)}")
        if said:
            parts.append(f"What it said:\n{said}")
        if remedy:
            parts.append(remedy)
        if self.log.exists():
            parts.append(f"The whole output: {self.log}")
        phase = self.phase
        return EnvironmentCreationError(
            "\n".join(parts),
            command=tuple(without_credentials(str(word)) for word in command),
            output=said,
            log=str(self.log),
            backend=self.backend,
            phase=None if phase is None else phase.value,
        )

    def note(self, text: str) -> None:
        """Write a line of our own to the log."""
        with self.log.open("ab") as log:
            log.write(f"# {text}\n".encode(errors="replace"))

    # --- commands

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        variables: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        on_line: Callable[[str], object] | None = None,
        what: str = "",
        remedy: Callable[[str], str] | str = "",
        separate: bool = False,
    ) -> str:
        """Run a command to its end; its output goes to the log.

        Args:
            command: the command and its arguments.
            variables: set for it, over those of this process; an empty value takes one away.
            cwd: its folder.
            on_line: is given each line as it comes (lines that rewrite themselves one by one); it
                returns True for one that only tells progress, which errors do not show.
            what: what the command is for, as its error says it.
            remedy: what to do if it fails; a function gets the output's last lines.
            separate: standard error goes to the log only, and is not returned.

        Returns:
            What it has written.

        Raises:
            CancelledError: it was stopped by ``cancellation``.
            EnvironmentCreationError: it cannot be started, or has failed.
        """
        words = [os.fspath(word) for word in command]
        self.cancellation.check()
        self._tail.clear()
        with self.log.open("ab", buffering=0) as log:
            log.write(f"$ {_shown(words)}\n".encode(errors="replace"))
            process = self._start(words, log, variables, cwd, separate)
            output, code = self._finish(process, log, on_line)
        if code:
            if separate:
                self._tail.extend(_last_lines(self.log))
            said = "\n".join(self._tail)
            how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
            raise self.failure(
                f"{what or os.path.basename(words[0])} failed ({how})",
                words,
                remedy=remedy(said) if callable(remedy) else remedy,
            )
        return output

    def _start(
        self,
        words: Sequence[str],
        log: Any,
        variables: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        separate: bool,
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log if separate else subprocess.STDOUT,
                env=variables_for({**(OFFLINE if self.offline else {}), **(variables or {})}),
                cwd=cwd,
                **processes.new_group(),
            )
        except OSError as error:
            raise self.failure(f"{words[0]!r} cannot be started: {error}", words) from error

    def _finish(
        self,
        process: subprocess.Popen[bytes],
        log: Any,
        on_line: Callable[[str], object] | None,
    ) -> tuple[str, int | None]:
        """Read to the end of a command; return what it has written and its exit code."""
        # A command that does not end when it is asked to is killed a little later.
        killer = threading.Timer(END_GRACE, end_tree, (process.pid, True))

        def stop() -> None:
            end_tree(process.pid)
            # The request may come twice, and a timer is started once.
            with suppress(RuntimeError):
                killer.start()

        try:
            with self.cancellation.stopping(stop):
                return self._read(process, log, on_line), children.collect(process)
        except BaseException:
            # Ctrl-C, a cancellation, a full disk, or what `on_line` raised.
            end_tree(process.pid, kill=True)
            processes.kill_group(process)
            children.collect(process)
            raise
        finally:
            killer.cancel()
            if process.stdout is not None:
                process.stdout.close()

    def _read(
        self,
        process: subprocess.Popen[bytes],
        log: Any,
        on_line: Callable[[str], object] | None,
    ) -> str:
        """Read until the end of the output; the end of the process follows it."""
        assert process.stdout is not None
        whole: list[str] = []
        rest = b""
        while True:
            data = process.stdout.read1(65536)  # type: ignore[attr-defined]
            if data:
                log.write(data)
            lines = (rest + data).replace(b"\r", b"\n").split(b"\n")
            rest = lines.pop() if data else b""
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip()
                if not line:
                    continue
                if on_line is None or on_line(line) is not True:
                    whole.append(line)
                    self._tail.append(line)
            self.cancellation.check()
            if not data:
                return "\n".join(whole)


def variables_for(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for a command of a package manager.

    Args:
        changes: set over those of this process; an empty value takes one away.
    """
    host = frozen.without_bundle(_platform.normalized(os.environ))
    found = {name: value for name, value in host.items() if name not in NOT_PASSED}
    # so that lines come when they are written
    found["PYTHONUNBUFFERED"] = "1"
    found.update(changes or {})
    return {name: value for name, value in found.items() if value != ""}


def _shown(command: Sequence[object]) -> str:
    """Return a command as a person would type it, without passwords in URLs."""
    return without_credentials(subprocess.list2cmdline([str(word) for word in command]))


def _last_lines(log: Path) -> list[str]:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-SHOWN_LINES:]
