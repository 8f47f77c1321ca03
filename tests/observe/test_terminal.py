"""Bars on a terminal, as its screen shows them. The programs are in ``hosts.py``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.rendezvous import Rendezvous
from wetlands_executor.observe.display import choose_screen
from wetlands_executor.observe.plain import PlainScreen

pytest.importorskip("pty", reason="terminals of POSIX")
pytest.importorskip("pyte", reason="reads the screens of terminals (extra test)")
pytest.importorskip("rich", reason="draws bars (extra progress)")

from tests.support.terminal import DEADLINE, ROOT, Terminal, python

HOSTS = "tests.observe.hosts"


def command(name: str, rendezvous: Rendezvous | None = None) -> Sequence[object]:
    return python(HOSTS, name, *([] if rendezvous is None else [rendezvous.address]))


def bars(text: str) -> list[str]:
    """The lines of a screen that are drawn, as bars or below them."""
    return [line for line in text.splitlines() if re.search(r"elapsed|left|  \d+%|worker", line)]


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("no_color", ["", "1"])
def test_bars_tasks_prints_and_records(rendezvous: Rendezvous, columns: int, no_color: str) -> None:
    env = {"NO_COLOR": no_color} if no_color else {}
    with Terminal(*command("several", rendezvous), columns=columns, **env) as terminal:
        before = terminal.modes
        arrivals = rendezvous.expect(0, 1)
        shown = terminal.wait_for("slice 0", "slice 1", "RECORD logged by 1", "0/4")
        assert re.search(r"work\[0\]  0%  slice 0", shown), shown
        assert re.search(r"work\[1\]  12%  slice 1", shown), shown
        if columns == 80:
            assert re.search(r"work\[1\] .* \d:\d\d  worker [01]  \d+ MB", shown), shown
            assert shown.splitlines()[-3].startswith("cells  "), shown
        assert terminal.cursor.y == len(shown.splitlines())
        for arrival in arrivals.values():
            arrival.release()
        for number in (2, 3):
            arrival = rendezvous.next()
            arrival.release()
        shown = terminal.finish()
        assert terminal.code == 0, shown
        assert terminal.modes == before
    lines = shown.splitlines()
    for number in range(4):
        # Lines are whole and in order; one of another task may come before the second is complete.
        assert lines.index(f"and again by {number}") > lines.index(f"printed by {number}")
        assert f"RECORD logged by {number}" in lines
    assert lines[0] == "the host begins"
    assert "the host ends" in lines
    assert lines[-1] == "after: TextIOWrapper True"
    (last,) = bars(shown)
    assert "100%  4/4" in last
    assert "1 failed" in last
    assert all(len(line) < columns for line in lines)
    coloured = re.search(rb"\x1b\[[\d;]*3\dm", terminal.raw)
    assert (coloured is None) == bool(no_color)
    assert b"\x1b[?25l" not in terminal.raw, "the cursor is never hidden"
    assert b"\x1b[?1049h" not in terminal.raw


def test_resizing(rendezvous: Rendezvous) -> None:
    with Terminal(*command("several", rendezvous), columns=100) as terminal:
        arrivals = rendezvous.expect(0, 1)
        terminal.wait_for("slice 0 of 8", "RECORD logged by 1", "worker 1", "0:01 elapsed")
        for columns, rows in ((40, 24), (120, 24), (20, 24)):
            terminal.resize(columns, rows)
            terminal.raw = b""
            terminal.wait_until(lambda _: terminal.raw.count(b"\x1b[J") >= 2, "two drawings")
            shown = terminal.text
            assert "work[0]" in shown
            assert "printed by 1" in shown, "nothing of what was printed is wiped"
            assert all(len(line) < columns for line in bars(shown)), shown
        for arrival in arrivals.values():
            arrival.release()
        for _ in range(2):
            rendezvous.next().release()
        shown = terminal.finish()
        assert terminal.code == 0, shown


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux breaks rows anew when narrowed")
def test_made_narrower_in_tmux(rendezvous: Rendezvous, tmp_path: Path) -> None:
    """The rows that it breaks are wiped with the others."""
    tmux = ("tmux", "-S", tmp_path / "tmux", "-f", os.devnull)
    words = (*tmux, "new-session", shlex.join(map(str, command("several", rendezvous))))
    with Terminal(*words, columns=100) as terminal:
        arrivals = rendezvous.expect(0, 1)
        terminal.wait_for("slice 0 of 8", "RECORD logged by 1", "worker 1", "0:01 elapsed")
        # Once only: tmux waits a quarter of a second before it says that it was resized again.
        terminal.resize(45, 24)

        terminal.wait_until(
            lambda text: re.search(r"0:(0[4-9]|[1-5]\d) elapsed", text), "bars drawn long after"
        )
        # What tmux knows: not every sequence that it sends is understood by pyte. Its history too:
        # for each row that it breaks, it moves one from the top of the screen there.
        capture = [*tmux, "capture-pane", "-p", "-S", "-"]
        shown = subprocess.check_output(capture, text=True)
        drawn = bars(shown)
        assert (len(drawn), shown.count("cells")) == (3, 1), shown
        assert all(len(line) < 45 for line in drawn), shown
        assert "printed by 1" in shown, "nothing of what was printed is wiped"
        for arrival in arrivals.values():
            arrival.release()
        for _ in range(2):
            rendezvous.next().release()
        terminal.finish()
        assert terminal.code == 0


def test_suspended_and_continued(rendezvous: Rendezvous) -> None:
    """By the job control of a shell: what it writes meanwhile stays."""
    with Terminal("/bin/sh", "-i", PS1="shell> ", ENV="") as terminal:
        terminal.wait_for("shell>")
        before = terminal.modes
        terminal.type(" ".join(map(str, command("killed", rendezvous))) + "\n")
        arrival = rendezvous.next()
        terminal.wait_for("alone", "0/1", "worker 0")
        terminal.type("\x1a")
        shown = terminal.wait_until(lambda text: text.endswith("shell>"), "the shell's prompt")
        assert "topped" in shown
        assert not terminal.cursor.hidden
        assert terminal.modes == before
        # It has to have been stopped for a while: then the display knows that it was.
        terminal.type("sleep 2.2; echo awake\n")
        # What is typed before the prompt is there would be shown before it.
        terminal.wait_until(lambda text: text.endswith("\nawake\nshell>"), "the shell's prompt")
        terminal.raw = b""
        terminal.type("fg\n")
        terminal.wait_until(
            lambda text: "alone" in text.rpartition("awake")[2] and terminal.raw.count(b"alone") > 1
        )
        shown = terminal.text
        assert "topped" in shown
        assert "sleep 2.2; echo awake\nawake\nshell> fg\n" in shown
        arrival.release()
        terminal.wait_until(lambda text: text.endswith("shell>"), "the shell's prompt")
        assert "100%  1/1" in terminal.text
        # In the background nothing is drawn into what the user types.
        terminal.type(" ".join(map(str, command("killed", rendezvous))) + " &\n")
        arrival = rendezvous.next()
        terminal.type("echo beside\n")
        terminal.wait_for("\nbeside")
        assert "0/1" not in terminal.text.rpartition("100%")[2]
        arrival.release()
        terminal.type("wait; echo over\n")
        terminal.wait_for("\nover")
        terminal.type("exit\n")
        terminal.finish()


def test_an_exception_a_kill_a_fork_and_an_open_end(rendezvous: Rendezvous) -> None:
    with Terminal(*command("failing", rendezvous)) as terminal:
        before = terminal.modes
        rendezvous.next().release()
        lines = terminal.finish().splitlines()
        assert terminal.code == 1
        assert lines[-1] == "LookupError: in the block"
        assert "100%  1/1" in lines[0]
        assert terminal.modes == before
    with Terminal(*command("killed", rendezvous)) as terminal:
        arrival = rendezvous.next()
        terminal.wait_for("alone", "worker 0")
        subprocess.run(["kill", "-KILL", str(terminal.pid)], check=True)
        shown = terminal.finish()
        assert terminal.code == -signal.SIGKILL
        assert (terminal.cursor.x, terminal.cursor.hidden) == (0, False)
        assert terminal.cursor.y == len(shown.splitlines()), "the shell goes on below the bars"
        assert terminal.modes == before
        arrival.release()
    with Terminal(*command("forks", rendezvous)) as terminal:
        rendezvous.next().release()
        shown = terminal.finish()
        assert terminal.code == 0, shown
        assert b"the child prints" in terminal.raw, "as it is: the child has no display"
        assert "100%  1/1" in shown
    with Terminal(*command("left_open")) as terminal:
        shown = terminal.finish()
        assert terminal.code == 7
        assert shown == "result 3", "the bars are wiped, and the streams are the program's"


def test_several_executors_and_nested_loops(rendezvous: Rendezvous) -> None:
    with Terminal(*command("nested", rendezvous)) as terminal:
        both = [rendezvous.next(), rendezvous.next()]
        shown = terminal.wait_until(lambda text: text.count("alone") == 2, "both tasks")
        assert len(bars(shown)) == 4, "two bars, each with its task"
        for arrival in both:
            arrival.release()
        for number in range(2):
            arrival = rendezvous.next()
            shown = terminal.wait_for(f"{number}/2", "0/1", "inner", "outer", "alone")
            assert shown.index("outer") < shown.index("inner") < shown.rindex("alone")
            arrival.release()
        arrival = rendezvous.next()
        terminal.wait_for("tasks  ", "alone")
        arrival.release()
        shown = terminal.finish()
        assert terminal.code == 0, shown
    assert "inner" not in shown, "of nested bars only the outermost stays"
    assert [line.partition("  ")[0] for line in bars(shown)][2:] == ["outer", "tasks"]
    assert shown.count("100%") == 4
    assert "came" in shown


@pytest.mark.parametrize("how", ["pipe", "dumb", "no rich"])
def test_plain_lines(rendezvous: Rendezvous, how: str, tmp_path) -> None:
    """In a pipe, on a terminal that cannot move its cursor, and without rich: the same lines."""
    if how == "pipe":
        process = subprocess.Popen(
            [*map(str, command("several", rendezvous))], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    else:
        env = {"TERM": "dumb"}
        if how == "no rich":
            hook = "import sys\nsys.modules['rich'] = None\n"
            (tmp_path / "sitecustomize.py").write_text(hook)
            env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
        terminal = Terminal(*command("several", rendezvous), **env)
    for _ in range(4):
        rendezvous.next().release()
    if how == "pipe":
        shown, _ = process.communicate(timeout=DEADLINE)
        code, raw = process.returncode, shown.encode()
    else:
        with terminal:
            shown = terminal.finish()
        code, raw = terminal.code, terminal.raw
    assert code == 0, shown
    assert b"\x1b" not in raw
    found = re.findall(r"cells: .*", shown.replace("\r", ""))
    assert len(found) == 1, shown
    assert re.fullmatch(
        r"cells: 4/4 \(100%\), [\d.]+(/s| s each), 0:\d\d elapsed, 1 failed", found[0]
    )
    assert "RECORD logged by 3" in shown


def test_a_closed_stream_is_no_terminal(tmp_path) -> None:
    stream = open(tmp_path / "log", "w")
    assert isinstance(choose_screen(stream), PlainScreen)
    stream.close()
    assert isinstance(choose_screen(stream), PlainScreen)
    assert isinstance(choose_screen(object()), PlainScreen)
    assert sys.stderr is not None
