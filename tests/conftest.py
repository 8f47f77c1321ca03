"""What every test of this project has around it.

Leak detection, stacks of whatever hangs, interpreters, seeds.

``tests`` is a package and the folder above it is on ``sys.path``, here and (because ``sys.path``
travels) in every worker: a function of ``tests.contract.workload`` has the same name in all
processes.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.support import dispositions, leaks  # noqa: E402
from tests.support import interpreters as _interpreters  # noqa: E402 - needs the path above
from tests.support.nodes import Nodes  # noqa: E402
from tests.support.summary import summary_lines  # noqa: E402

#: Processes that run the whole suite between them: one more than there are cores, because tests
#: wait for their workers most of the time; no more than three, because their deadlines count
#: seconds.
PROCESSES = min(3, (os.cpu_count() or 1) + 1)
#: The files that take longest, from long to short, as ``--durations=0`` has shown.
LONGEST = (
    "data/test_special.py",
    "contract/test_cpython_suite.py",
    "faults/test_stolen.py",
    "environments/test_faults.py",
    "tasks/test_stress.py",
    "modules/test_layouts.py",
    "integration/test_doctor.py",
    "test_soak.py",
    "contract/test_exit.py",
    "worker/test_identity.py",
    "contract/test_map_exceptions.py",
    "environments/test_conda.py",
    "contract/test_data.py",
    "portable/test_hosts.py",
    "faults/test_worlds.py",
    "contract/test_map.py",
    "integration/test_demo.py",
    "docs/test_snippets.py",
    "tasks/test_limits.py",
    "faults/test_wrappers.py",
    "faults/test_bare_hosts.py",
    "arena/test_worlds.py",
    "faults/test_share_preload.py",
    "tasks/test_nested.py",
    "faults/test_nested_faults.py",
    "faults/test_direct_receive.py",
    "faults/test_descriptors.py",
    "environments/test_creation.py",
    "tasks/test_cancel.py",
    "data/test_numpy.py",
    "arena/test_ways.py",
    "data/test_stdlib.py",
    "test_benchmarks.py",
    "worker/test_compiled.py",
    "integration/test_packaging.py",
    "tasks/test_main_module.py",
    "portable/test_pairs.py",
)
#: Seconds after a test's own time-out at which the whole session is given up: the time-out's signal
#: did not reach the main thread.
HARD_LIMIT_MARGIN = 30.0
#: Seconds for which that limit is shared by tests that run one after another.
LIMIT_SHARED = 1.0

_stderr_copy = pytest.StashKey[int]()
_temporary_folder = pytest.StashKey[tuple[str, "str | None"]]()
_failed = pytest.StashKey[bool]()
_hard_limit = pytest.StashKey["HardLimit"]()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Let several processes share the files of the whole suite.

    What is asked for by name runs here.

    Each of them is a session of its own: its own mark for leaked processes, its own temporary
    folder. A file's tests stay together, so that fixtures of a module are made once. ``-n 0`` runs
    the whole suite in one process, as ``--pdb``, ``-s`` and ``--last-failed`` do.
    """
    option = config.option
    if hasattr(config, "workerinput") or not config.pluginmanager.has_plugin("xdist"):
        return
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    watched = option.usepdb or option.capture == "no" or option.collectonly
    watched |= getattr(option, "lf", False)  # an option of a plugin that may be switched off
    if whole and not watched and option.numprocesses is None and option.dist == "no":
        option.numprocesses = PROCESSES
        option.dist = "loadfile"
        option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, and then with those that have slow tests.

    The last file should not keep one process alone.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    ranks = {ROOT / "tests" / file: rank for rank, file in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks) + (item.path not in slow)))


def pytest_collection_finish() -> None:
    """Keep what exists now out of the tests' garbage collections.

    Modules and thousands of collected tests live as long as the session; going through them takes a
    tenth of a second.
    """
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Register our marker, mark our processes, and give the session a temporary folder of its own.

    No other session writes to it.
    """
    config.addinivalue_line(
        "markers",
        "leaks_ok(reason): this test leaves processes, threads, "
        "descriptors or memory behind on purpose",
    )
    config.addinivalue_line(
        "markers", "executor_kinds(*names): the kinds of executor that a contract test is run with"
    )
    dispositions.restore()
    leaks.mark_session()
    config.stash[_stderr_copy] = fd = os.dup(2)
    config.stash[_hard_limit] = HardLimit(fd, shares=not hasattr(config, "workerinput"))
    # Other sessions on this machine leave and remove `wetlands*` files at any moment; pytest's own
    # folders stay where people look for them.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="wlt-")
    config.stash[_temporary_folder] = (folder, os.environ.get("TMPDIR"))
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    if config.pluginmanager.has_plugin("xdist") and not hasattr(config, "workerinput"):
        fd = config.stash[_stderr_copy]
        config.pluginmanager.register(
            Nodes(
                describe=lambda pid: _what_they_do([pid, *sorted(leaks.descendants(pid))]),
                say=lambda text: print(text, file=open(fd, "w", closefd=False), flush=True),
            )
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's temporary folder."""
    folder, previous = config.stash.get(_temporary_folder, ("", None))
    if folder:
        tempfile.tempdir = None
        os.environ.pop("TMPDIR", None)
        if previous is not None:
            os.environ["TMPDIR"] = previous
        shutil.rmtree(folder, ignore_errors=True)
    if (fd := config.stash.get(_stderr_copy, None)) is not None:
        config.stash[_hard_limit].end_test(last=True)
        os.close(fd)
        del config.stash[_stderr_copy]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the totals on to the process that has the terminal."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["summary_lines"] = session.config.stash.get(summary_lines, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the totals of a process that has come to its end."""
    lines = getattr(node, "workeroutput", {}).get("summary_lines", [])
    node.config.stash.setdefault(summary_lines, []).extend(lines)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the totals that test modules have left."""
    for line in config.stash.get(summary_lines, []):
        terminalreporter.write_line(line)


# -------------------------------------------------------------------------------------------- leaks


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves anything behind, after a bounded wait for what is on its way out.

    A test that has failed anyway is only cleaned up after: its frames, kept for the report, hold on
    to whatever they held.
    """
    if marker := request.node.get_closest_marker("leaks_ok"):
        if not (marker.args or marker.kwargs.get("reason")):
            pytest.fail("leaks_ok needs a reason", pytrace=False)
        yield
        return
    if "all_starts" in request.fixturenames:  # which looks after each file
        yield
        return
    before = leaks.Snapshot.take()
    yield
    failed = request.node.stash.get(_failed, False)
    found = leaks.since(before, grace=1.0, settle=0.0) if failed else leaks.since(before)
    if found:
        message = f"the test left behind:\n{found}"
        found.kill()
        if not failed:
            pytest.fail(message, pytrace=False)
        if found.threads:  # those of a pool are met, and counted, by the tests that follow
            names = ", ".join(sorted(thread.name for thread in found.threads))
            lines = request.config.stash.setdefault(summary_lines, [])
            lines.append(f"{request.node.nodeid} has failed, and its threads live on: {names}")


# ------------------------------------------------------------------------------- failures and hangs


class HardLimit:
    """The time after which this process prints the stacks of all threads and ends.

    To set it starts a thread of C code and waits for the end of the one before. That is a tenth of
    the time of the unit tests, so short tests that run one after another share a limit.

    Args:
        file: the descriptor that the stacks go to.
        shares: this process runs one test after another. One that waits for the next, as those of
            xdist do, has no limit meanwhile.
    """

    def __init__(self, file: int, shares: bool) -> None:
        self._file = file
        self._room = LIMIT_SHARED if shares else 0.0
        self._seconds = 0.0
        self._set_at = 0.0

    def set(self, seconds: float) -> None:
        """Let this be the limit of the test that begins, up to ``LIMIT_SHARED`` seconds less."""
        now = time.monotonic()
        if seconds != self._seconds or now - self._set_at > self._room:
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._file)
            self._seconds, self._set_at = seconds, now

    def end_test(self, *, last: bool) -> None:
        """Note that a test has ended."""
        if last or time.monotonic() - self._set_at > self._room:
            faulthandler.cancel_dump_traceback_later()
            self._seconds = 0.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End a session that a test's own time-out could not save, with the stacks of all threads."""
    marker = item.get_closest_marker("timeout")
    limit = marker.kwargs.get("timeout") or (marker.args[0] if marker.args else 0) if marker else 0
    limit = (
        float(limit or item.config.getini("timeout") or 0)
        if item.config.pluginmanager.has_plugin("timeout")
        else 0.0
    )
    watch = item.config.stash[_hard_limit]
    if limit and sys.gettrace() is None:
        watch.set(limit + HARD_LIMIT_MARGIN)
    try:
        return (yield)
    finally:
        watch.end_test(last=nextitem is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember a failure, and show what the processes of the failed test are doing."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[_failed] = True
        if text := _what_they_do(sorted(leaks.descendants())):
            report.sections.append(("processes of this test", text))
    return report


def _what_they_do(pids: Iterable[int]) -> str:
    parts = []
    spy = shutil.which("py-spy")
    for pid in pids:
        parts.append(leaks.describe_process(pid))
        for name in ("wchan", "stack"):  # the second one needs privileges
            try:
                parts.append(
                    f"  {name}: {Path(f'/proc/{pid}/{name}').read_text(errors='replace').strip()}"
                )
            except OSError:
                continue
        if spy:
            try:
                done = subprocess.run(
                    [spy, "dump", "--pid", str(pid)],
                    capture_output=True,
                    text=True,
                    timeout=10,
                    check=False,
                )
                parts.append(done.stdout or done.stderr)
            except (OSError, subprocess.SubprocessError):
                continue
    return "\n".join(parts)


# ----------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def interpreters() -> tuple[_interpreters.Interpreter, ...]:
    """Every working Python from 3.8 on, one of each minor version, oldest first."""
    return _interpreters.find()


@pytest.fixture(params=_interpreters.MINORS)
def anypython(request: pytest.FixtureRequest) -> _interpreters.Interpreter:
    """Run the test once under each Python version from 3.8 on.

    Those that this machine does not have are skipped.
    """
    for interpreter in _interpreters.find():
        if interpreter.minor == request.param:
            return interpreter
    pytest.skip(f"no working Python {request.param} on this machine")


@pytest.fixture
def stress_rng(request: pytest.FixtureRequest) -> random.Random:
    """A random generator whose seed is shown when the test fails.

    ``WETLANDS_SEED=n`` repeats the run.
    """
    seed = int(os.environ.get("WETLANDS_SEED") or random.SystemRandom().randrange(2**32))
    request.node.add_report_section("setup", "seed", f"WETLANDS_SEED={seed} repeats this run")
    return random.Random(seed)
