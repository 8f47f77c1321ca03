"""The programs in ``docs/examples`` run, each in a process of its own.

Those that need an absent package are skipped and say so.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs import pages, stage

EXAMPLES = pages.ROOT / "docs" / "examples"

#: Of each example, what it needs beyond the library.
NEEDS: dict[str, tuple[str, ...]] = {
    "anyio_bridge": ("anyio", "trio"),
    "asyncio_gather": (),
    "here_or_there": (),
    "notebook_progress": (),
    "qt_progress": ("PySide6.QtCore",),
    "slow": (),
    "task_platform": (),
    "trio_bridge": ("trio",),
}

#: Exit code of a test program that finds out itself that it cannot run here; the reason is the last
#: line that it prints.
CANNOT_RUN = 77


def need(example: str) -> None:
    """Skip if an example's packages cannot be used here."""
    if obstacle := pages.obstacle(NEEDS[example]):
        pytest.skip(f"docs/examples/{example}.py: {obstacle}")


def run(program: str, folder: Path, *arguments: str) -> str:
    """Run a program that may import the examples; return what it printed.

    An environment named ``cellpose`` is there for it.
    """
    work, variables = stage.set_up("", folder)
    variables["PYTHONPATH"] += f":{EXAMPLES}"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, cwd=work, env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode == CANNOT_RUN:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, f"{done.stderr}\nprinted:\n{done.stdout}"
    assert "Traceback" not in done.stderr
    return done.stdout


def result(program: str, folder: Path, *arguments: str) -> Any:
    """Return the value that a program prints last."""
    return ast.literal_eval(run(program, folder, *arguments).strip().splitlines()[-1])


def test_every_example_has_a_test() -> None:
    """A new file needs a line in ``NEEDS`` and a test below."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == NEEDS.keys()


@pytest.mark.parametrize("example", sorted(NEEDS.keys() - {"qt_progress", "slow"}))
def test_example_runs_as_a_program(example: str, tmp_path: Path) -> None:
    """As its first lines say: with a name, and with none."""
    need(example)
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], "
        "run_name='__main__')"
    )
    assert run(program, tmp_path, str(EXAMPLES / f"{example}.py"), "cellpose")


def test_asyncio_example(tmp_path: Path) -> None:
    """Calls side by side, events, a time limit that asks the task to stop."""
    program = "import asyncio, asyncio_gather; print(asyncio.run(asyncio_gather.main()))"
    assert result(program, tmp_path) == {"primes": [4, 25, 168, 2262], "endless": "canceled"}


def test_trio_example(tmp_path: Path) -> None:
    """The same in trio."""
    need("trio_bridge")
    found = result("import trio, trio_bridge; print(trio.run(trio_bridge.main))", tmp_path)
    assert found == {
        "results": {1: 1, 2: 2, 3: 3},
        "first": "started",
        "last": "completion",
        "endless": "canceled",
    }


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_example(backend: str, tmp_path: Path) -> None:
    """The same in anyio, on both backends."""
    need("anyio_bridge")
    program = (
        "import sys, anyio, anyio_bridge; print(anyio.run(anyio_bridge.main, backend=sys.argv[1]))"
    )
    assert result(program, tmp_path, backend) == {
        "results": {1: 1, 2: 2, 3: 3},
        "endless": "canceled",
    }


def test_notebook_example(tmp_path: Path) -> None:
    """The last text shows three full bars."""
    program = (
        "import asyncio, notebook_progress as n; t = []; r = asyncio.run(n.main(None, t.append)); "
        "print((r, t[-1].count('#' * 30), len(t)))"
    )
    results, full, drawings = result(program, tmp_path)
    assert (results, full) == ([5, 10, 15], 3)
    assert drawings >= 2


QT_CORE = """
import threading
from PySide6.QtCore import QCoreApplication, QTimer
import qt_progress
from wetlands_executor import CondaEnvExecutor

application = QCoreApplication([])
seen, threads = [], set()

def note(*what):
    seen.append(what)
    threads.add(threading.current_thread() is threading.main_thread())

signals = qt_progress.TaskSignals()
signals.started.connect(lambda task: note("started"))
signals.progressed.connect(lambda task, message, fraction: note("progressed", fraction))
signals.finished.connect(lambda task: (note("finished", task.status.value), application.quit()))
QTimer.singleShot(30_000, application.quit)
with CondaEnvExecutor("cellpose", max_workers=1) as executor:
    task = signals.watch(executor.submit(qt_progress.SLOW, 4, 0.01))
    application.exec()
    first = list(seen)
    seen.clear()
    endless = signals.watch(executor.submit(qt_progress.SLOW, 1_000_000, 0.01))
    signals.started.connect(lambda task: QTimer.singleShot(50, task.cancel))
    application.exec()
    late = list(seen)
    seen.clear()
    signals.watch(task)                     # long finished: the end is told again
    application.exec()
fractions = [what[1] for what in first if what[0] == "progressed"]
print((first[0], first[-1], fractions == sorted(fractions), late[0], late[-1], seen, threads))
"""


def test_qt_example_without_widgets(tmp_path: Path) -> None:
    """Its signals arrive in Qt's thread, in order, the end last, for a task that runs, one that is
    cancelled and one that is over.
    """
    need("qt_progress")
    first, last, ordered, late_first, late_last, again, threads = result(QT_CORE, tmp_path)
    assert (first, last, ordered) == (("started",), ("finished", "completed"), True)
    assert (late_first, late_last) == (("started",), ("finished", "canceled"))
    assert again == [("finished", "completed")]
    assert threads == {True}


QT_WINDOW = """
import sys
try:
    from PySide6.QtWidgets import QApplication
except ImportError as error:
    print(f"widgets cannot be used here: {error}")
    sys.exit(77)
from PySide6.QtCore import QTimer
import qt_progress
from wetlands_executor import CondaEnvExecutor

application = QApplication([])
with CondaEnvExecutor("cellpose", max_workers=1) as executor:
    QTimer.singleShot(30_000, application.quit)
    window = qt_progress.make_window(executor, steps=20, pause=0.01)
    window.signals.finished.connect(application.quit)
    window.show()
    window.button.click()
    text = window.button.text()
    application.exec()
    full = (text, window.bar.value(), window.label.text(), window.button.text())

    window = qt_progress.make_window(executor, steps=1_000_000, pause=0.01)
    window.signals.started.connect(lambda task: window.button.click())
    window.signals.finished.connect(application.quit)
    window.show()
    window.button.click()
    application.exec()
    cancelled = (window.label.text(), window.button.text(), window.button.isEnabled())

    window.show()                           # quit() has closed it
    window.button.click()
    task = window.task
    window.close()                          # what runs is asked to stop, and no signal comes
    left = (task.cancel_requested, window.label.text())
print((full, cancelled, left, task.status.value))
"""


def test_qt_example_with_widgets(tmp_path: Path) -> None:
    """The window, off screen.

    The bar fills, the button cancels, closing the window ends the work.
    """
    need("qt_progress")
    full, cancelled, left, status = result(QT_WINDOW, tmp_path)
    assert full == ("Cancel", 100, "completed", "Start")
    assert cancelled == ("canceled", "Start", True)
    assert left == (True, "canceled")
    assert status == "canceled"


@pytest.mark.parametrize("engine", ["local", "in-process", "dask"])
def test_the_same_program_here_and_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """With Dask: a cluster in the program's own process, whose address the variable has."""
    program = "import here_or_there; here_or_there.main()"
    if engine == "dask":
        if obstacle := pages.obstacle(("distributed",)):
            pytest.skip(obstacle)
        program = (
            "import os, distributed, here_or_there\n"
            "with distributed.LocalCluster(2, processes=False, dashboard_address=':0') as c:\n"
            "    os.environ['WETLANDS_EXECUTOR_ENGINE'] = 'dask:' + c.scheduler_address\n"
            "    here_or_there.main()\n"
            "    here_or_there.get_default_executor().shutdown()\n"
        )
    else:
        monkeypatch.setenv("WETLANDS_EXECUTOR_ENGINE", engine)
    names = {
        "local": "CondaEnvExecutor", "in-process": "InProcessExecutor", "dask": "DaskEnvExecutor"
    }  # fmt: skip
    assert run(program, tmp_path).splitlines()[-1] == f"{names[engine]} 168 669 837"


def test_task_platform(tmp_path: Path) -> None:
    printed = run(
        "import runpy, task_platform; runpy.run_path(task_platform.__file__, run_name='__main__')",
        tmp_path,
    )
    assert printed.splitlines() == [
        "completed {'steps': 5, 'seconds': 0.02} None",
        "canceled None None",
        "failed None exit code -9",
    ]
