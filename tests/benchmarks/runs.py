"""Starts a driver process per system, lets them run in turn (A B C A B C ...), ends those that fail
or hang with everything that they started.

Everything runs on the calling thread. Every wait is for an answer, with a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from typing_extensions import Self

from .model import Case
from .systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
#: Name of the variable by which the processes of a driver are known, those included that have left
#: its process group.
MARK = "WETLANDS_BENCHMARK"
#: Seconds that opening a pool may take, and closing it.
OPENING, CLOSING = 60.0, 20.0
#: Seconds after the end of a driver after which a process that it has started counts as left
#: behind.
LEAVING = 3.0


class SystemFailed(Exception):  # noqa: N818 - a figure, not an error of the program
    """What the report says instead of a figure."""


class Driver:
    """One process with one system, open.

    A context: at its end nothing is left of the process and its descendants.

    Attributes:
        left_behind: descriptions of processes that were still there after it had closed its pool
            and ended by itself.
    """

    def __init__(self, case: Case, system: str) -> None:
        self._mark = uuid.uuid4().hex
        self.left_behind: list[str] = []
        self._received = b""
        self._seen: dict[int, psutil.Process] = {}
        self._output = tempfile.TemporaryFile()
        # What the packages write to disk or /dev/shm and leave there when they are killed. A short
        # name: ray makes sockets in it.
        self._folder = tempfile.TemporaryDirectory(prefix="wb-", ignore_cleanup_errors=True)
        self._answers, writing = os.pipe()
        folders = dict.fromkeys(
            ("TMPDIR", "JOBLIB_TEMP_FOLDER", "RAY_TMPDIR", "DASK_TEMPORARY_DIRECTORY"),
            self._folder.name,
        )
        environment = {
            **os.environ,
            **folders,
            MARK: self._mark,
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.driver", str(writing), case.name, system],
                stdin=subprocess.PIPE, stdout=self._output, stderr=self._output,
                pass_fds=(writing,), env=environment, start_new_session=True,
                cwd=ROOT,
            )  # fmt: skip
        finally:
            os.close(writing)

    def __enter__(self) -> Self:
        return self

    def opened(self) -> None:
        """Wait until the pool is open."""
        self._answer(OPENING)
        self._remember()

    def run(self, count: int, limit: float) -> dict[str, float]:
        """Measure once."""
        self._order(f"run {count}")
        figures = dict(self._answer(limit)["figures"])
        self._remember()
        return figures

    def close(self) -> None:
        """Let it close its pool and end, and note what it leaves behind."""
        self._order("end")
        self._answer(CLOSING)
        try:
            self._process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            raise SystemFailed(
                f"the process did not end within {CLOSING:g} s after the pool was closed"
            ) from None
        left = self._descendants()
        _gone, alive = psutil.wait_procs(left, LEAVING)
        self.left_behind = [_describe(process) for process in alive]

    def __exit__(self, *_: object) -> None:
        if self._output.closed:
            return
        for attempt in range(5):  # what is killed may have started something in the meantime
            found = self._descendants()
            if self._process.poll() is None:
                found.append(psutil.Process(self._process.pid))
            if not found:
                break
            for process in found:
                with contextlib.suppress(psutil.Error):
                    # A resource tracker ends when the others have, and removes their semaphores
                    # before that.
                    if attempt or not any("resource_tracker" in word for word in process.cmdline()):
                        process.send_signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            psutil.wait_procs(found, 5)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        os.close(self._answers)
        self._output.close()
        self._folder.cleanup()
        for path in _named_memory({self._process.pid, *self._seen}):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _remember(self) -> None:
        """Note the descendants, while they can be told by their parents."""
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                self._seen[process.pid] = process

    def _descendants(self) -> list[psutil.Process]:
        """Return every living process that this driver has started, itself or through others.

        Those that were given away (a daemon's parent has ended) still carry our mark, unless they
        have renamed themselves, which overwrites it: these are remembered from the times before.
        """
        self._remember()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != self._process.pid and process.environ().get(MARK) == self._mark:
                    self._seen[process.pid] = process
        found = []
        for process in self._seen.values():
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _order(self, word: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(word.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise SystemFailed(f"its process has ended: {self._last_words()}") from None

    def _answer(self, limit: float) -> dict[str, Any]:
        end = time.monotonic() + limit
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise SystemFailed(f"no answer within {limit:g} s")
            data = os.read(self._answers, 65536)
            if not data:
                raise SystemFailed(f"its process has ended: {self._last_words()}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SystemFailed(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._output.seek(0)
        lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def _named_memory(pids: set[int]) -> list[Path]:
    """Return what processes have put into /dev/shm under names with their pids (loky's semaphores,
    joblib's folders).
    """
    memory = Path("/dev/shm")
    if not memory.is_dir():
        return []
    return [
        path
        for path in memory.iterdir()
        if any(word.isdigit() and int(word) in pids for word in re.split("[-_]", path.name))
    ]


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return "a process"


def chosen(case: Case, wanted: Sequence[str] | None) -> list[str]:
    """Return the systems (those that are wanted; None is all) and the others of a case that can run
    here, in the order in which they take turns.
    """
    names = (
        tuple(name for name, system in SYSTEMS.items() if case.ability in system.abilities)
        if case.systems is None
        else case.systems
    )
    found = [
        name
        for name in names
        if name in SYSTEMS and SYSTEMS[name].installed() and (wanted is None or name in wanted)
    ]
    return found + list(case.others)


def run_case(
    case: Case,
    wanted: Sequence[str] | None,
    *,
    quick: bool,
    repeats: int | None,
    limit: float | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure one case; return what goes into the JSON, without the judgement.

    Args:
        case: what is measured.
        wanted: see ``chosen``.
        quick: tiny counts, one run.
        repeats: runs of each system instead of the case's own number.
        limit: seconds that one run may take, instead of the case's own.
        say: told of what goes on.
    """
    count = case.quick if quick else case.count
    rounds = (1 if quick else repeats or case.repeats) + 1  # the first does not count
    limit = limit or case.limit
    names = chosen(case, wanted)
    found: dict[str, dict[str, Any]] = {name: _entry(name) for name in names}
    load = [_load()]
    with contextlib.ExitStack() as stack:
        drivers: dict[str, Driver] = {}
        for number in range(rounds):
            for name in [name for name in names if found[name]["error"] is None]:
                try:
                    if case.fresh or (name in SYSTEMS and SYSTEMS[name].busy):
                        # Started, warmed up, measured and ended within its turn.
                        if number:
                            with Driver(case, name) as driver:
                                driver.opened()
                                driver.run(case.quick if case.fresh else count, limit)
                                figures = driver.run(count, limit)
                                driver.close()
                                found[name]["left_behind"] = driver.left_behind
                            _keep(found[name], figures)
                        continue
                    if name not in drivers:
                        drivers[name] = stack.enter_context(Driver(case, name))
                        drivers[name].opened()
                    figures = drivers[name].run(count, limit)
                    if number:
                        _keep(found[name], figures)
                except SystemFailed as failure:
                    found[name]["error"] = str(failure)
                    say(f"  {name}: {failure}")
                    if name in drivers:
                        drivers.pop(name).__exit__()
        for name, driver in drivers.items():
            try:
                driver.close()
            except SystemFailed as failure:
                found[name]["closing"] = str(failure)
            found[name]["left_behind"] = driver.left_behind
    return {
        "title": case.title, "note": case.note, "count": count, "workers": case.workers,
        "pinned": case.pinned, "figures": dict(case.figures),
        "systems": found, "load": [*load, _load()],
    }  # fmt: skip


def _load() -> float:
    """Return how many threads of the whole machine wanted to run in the last minute.

    What is measured is among them.
    """
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def _entry(name: str) -> dict[str, Any]:
    system = SYSTEMS.get(name)
    title, version = (system.title, system.version()) if system is not None else (name, "")
    return {
        "title": title,
        "version": version,
        "figures": {},
        "error": None,
        "closing": None,
        "left_behind": [],
    }


def _keep(entry: dict[str, Any], figures: dict[str, float]) -> None:
    for figure, value in figures.items():
        entry["figures"].setdefault(figure, []).append(value)
