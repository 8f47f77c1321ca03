"""``breakpoint()`` in a worker: on a real terminal, without one, and debuggers that attach."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.interpreters import Interpreter
from tests.support.observe import until
from tests.support.rendezvous import DEADLINE
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor

pexpect: Any = pytest.importorskip("pexpect")
pytest.importorskip("pyte")
from tests.support.terminal import Dialogue  # noqa: E402 - needs both

PROMPT = r"\(Pdb\) "

PROGRAM = """
import os, sys
from wetlands_executor import CondaEnvExecutor

def work(number, stop=True):
    value = number * 2
    if stop:
        breakpoint()
    return value

if __name__ == "__main__":
    env = sys.argv[1] if len(sys.argv) > 1 else None
    with CondaEnvExecutor(env, max_workers=2, debug=True) as executor:
        task = executor.options(name="first").submit(work, 21)
        print("RESULT", task.wait_for().error or task.value)
        print("AGAIN", [each.wait_for().error or each.value for each in
                        [executor.submit(work, 1), executor.submit(work, 2)]])
        print("LAST", executor.submit(work, 3, stop=False).result())
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "debugged.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return path


@pytest.fixture
def terminal(program: Path) -> Any:
    """Start the program on a terminal of its own."""
    children: list[Any] = []

    def start(*args: str) -> Any:
        child = Dialogue([sys.executable, program, *args])
        children.append(child)
        return child

    yield start
    for child in children:
        child.close()


def ends(child: Any) -> None:
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def say(child: Any, *lines: str) -> None:
    for line in lines:
        child.expect(PROMPT)
        child.sendline(line)


def test_a_debugger_on_the_terminal(terminal: Callable[..., Any]) -> None:
    child = terminal()
    child.expect(r"--- breakpoint\(\) in task \d+ \(first\), pid \d+ ---")
    child.expect(r"debugged.py\(\d+\)work\(\)")
    say(child, "p value * 1000")
    child.expect("42000")
    say(child, "value = 'changed'", "c")
    child.expect("RESULT changed")
    # Two workers stop: one after the other has the terminal.
    say(child, "c", "q")
    child.expect(r"AGAIN \[.*\]")
    assert child.after.count("BdbQuit") == 1
    child.expect("LAST 6")
    ends(child)


def test_in_every_version(terminal: Callable[..., Any], anypython: Interpreter) -> None:
    child = terminal(str(anypython.path))
    say(child, "p value", "n", "c")
    child.expect("RESULT 42")
    say(child, "c", "c")
    child.expect(r"AGAIN \[2, 4\]")
    ends(child)


def test_the_worker_dies_while_it_is_debugged(terminal: Callable[..., Any]) -> None:
    child = terminal()
    child.expect(r"pid (\d+)")
    pid = int(child.match[1])
    child.expect(PROMPT)
    os.kill(pid, signal.SIGKILL)
    child.expect("RESULT .*WorkerCrashed")
    say(child, "c", "c")
    child.expect(r"AGAIN \[2, 4\]")
    ends(child)


def test_without_a_terminal_it_is_passed_over(program: Path) -> None:
    done = subprocess.run(
        [sys.executable, program],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["RESULT 42", "AGAIN [2, 4]", "LAST 6"]
    assert "passed over: this program has no terminal" in done.stderr


def test_without_debug_it_is_explained(single: CondaEnvExecutor) -> None:
    error = single.submit(workload.stop_for_a_debugger).exception(DEADLINE)
    assert isinstance(error, RuntimeError)
    assert "debug=True" in str(error)


def test_the_folder_of_the_socket_goes_with_the_executor(
    make: Callable[..., CondaEnvExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    executor = make(debug=True)
    (folder,) = tmp_path.glob("wetlands-debug-*")
    assert folder.stat().st_mode & 0o077 == 0, "no other user can enter"
    assert executor.submit(workload.add, 1).result(DEADLINE) == 1
    executor.shutdown()
    until(lambda: not folder.exists())
    unused = make(debug=True)
    unused.shutdown()
    until(lambda: not list(tmp_path.glob("wetlands-debug-*")))


def test_the_folder_of_a_killed_program_goes_with_the_next(
    make: Callable[..., CondaEnvExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        "import sys; from wetlands_executor import CondaEnvExecutor\n"
        "kept = CondaEnvExecutor(debug=True); print('ready', flush=True); sys.stdin.read()"
    )
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", body], env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for each in programs:
        assert each.stdout is not None
        assert each.stdout.readline() == b"ready\n"
    folders = set(tmp_path.glob("wetlands-debug-*"))
    programs[0].kill()
    programs[0].wait(DEADLINE)
    for each in folders:
        os.utime(each, (0, 0))
    fresh = tmp_path / "wetlands-debug-fresh"
    fresh.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    executor = make(debug=True)
    left = folders & set(tmp_path.glob("wetlands-debug-*"))
    assert (len(folders), len(left), fresh.exists()) == (2, 1, True), "the one that lives keeps it"
    executor.shutdown()
    programs[1].communicate(timeout=DEADLINE)
    assert list(tmp_path.glob("wetlands-debug-*")) == [fresh]
    for each in programs:
        each.stdin.close()
        each.stdout.close()


def test_a_debugger_can_attach(make: Callable[..., CondaEnvExecutor]) -> None:
    pytest.importorskip("debugpy")
    executor = make(2, debug="debugpy").launch()
    addresses = [info.debugger for info in executor.workers()]
    assert len({*addresses, None}) == 3
    for address in addresses:
        assert address is not None
        host, port = address.split(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port)), DEADLINE).close()
    assert executor.submit(workload.stop_for_a_debugger).result(DEADLINE) is None, "none attached"


def test_another_value_is_refused() -> None:
    with pytest.raises(ValueError, match="'debugpy', not 'pdb'"):
        CondaEnvExecutor(max_workers=1, debug="pdb")  # type: ignore[arg-type]
