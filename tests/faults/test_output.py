"""What workers print: whole lines, in order, before the result.

And no print, however wild, may cost a neighbour.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import threading

import pytest

from tests.contract.workload import arrive
from tests.faults import work
from tests.support.observe import DEADLINE, crash_of, until
from wetlands_executor.pool import output


class Recorder(io.StringIO):
    """A stream that keeps every piece that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return super().write(text)


class Gate(io.StringIO):
    """A stream that blocks until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.opened = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.opened.wait(60)
        return super().write(text)


class Raising:
    """A stream that raises whenever it is written to."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise self.kind("no")

    def flush(self) -> None:
        pass


def numbered(text: str) -> list[int]:
    """Return the numbers at the starts of the lines of ``flood``."""
    return [int(line.split()[0]) for line in text.splitlines()]


def test_lines_come_before_the_result(single, capsys):
    for number in range(100):
        single.submit(work.say_both, f"line {number}").result(DEADLINE)
        assert capsys.readouterr() == (f"line {number}\n", f"line {number}\n")


def test_redirection_at_the_time_of_the_line(single):
    for number in range(5):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(
            io.StringIO()
        ) as err:
            single.submit(work.say_both, f"line {number}").result(DEADLINE)
        assert (out.getvalue(), err.getvalue()) == (f"line {number}\n", f"line {number}\n")


def test_lines_come_before_an_error_and_before_a_crash(single, capsys):
    for kind in ("raise", "os_exit", "segfault"):
        task = single.submit(_say_and_fault, kind)
        assert task.exception(DEADLINE) is not None
        assert f"about to {kind}\n" in capsys.readouterr().out


def _say_and_fault(kind):
    print(f"about to {kind}", flush=True)
    work.fault(kind)


def test_whole_lines_only(executor, rendezvous):
    """Two workers write half a line each, then the other halves."""
    out = Recorder()
    with contextlib.redirect_stdout(out):
        tasks = [
            executor.submit(work.pieces_then_arrive, rendezvous.address, f"<{n}", f"{n}>", n)
            for n in range(2)
        ]
        for arrival in rendezvous.expect(0, 1).values():
            arrival.release()
        for task in tasks:
            task.result(DEADLINE)
    assert sorted(out.getvalue().splitlines()) == ["<00>", "<11>"]
    assert all(piece.endswith("\n") for piece in out.pieces)


def test_carriage_return_ends_a_line(single):
    out = Recorder()
    with contextlib.redirect_stdout(out):
        single.submit(work.say, "10%", "20%", end="\r").result(DEADLINE)
        single.submit(work.say, "no end", end="").result(DEADLINE)
    assert out.getvalue() == "10%\r20%\rno end\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_megabyte_without_a_newline(single, capsys, stream):
    single.submit(work.say, "x" * 1_000_000, end="", stream=stream).result(DEADLINE)
    assert getattr(capsys.readouterr(), stream[3:]).replace("\n", "") == "x" * 1_000_000
    single.submit(work.say, "next", stream=stream).result(DEADLINE)
    assert getattr(capsys.readouterr(), stream[3:]) == "next\n"


@pytest.mark.parametrize("fd", [1, 2])
def test_raw_bytes(single, capsys, fd):
    data = "Grüße, 世界 🐍\n".encode() * 2000 + b"\xff\xfe broken \xc3\n" + b"half \xe4\xb8"
    single.submit(work.write_bytes, fd, data).result(DEADLINE)
    text = capsys.readouterr()[fd - 1]
    assert text.startswith("Grüße, 世界 🐍\n" * 2000)
    assert "broken" in text
    assert re.search(r"half .?\n$", text)


def test_characters_that_no_encoding_has(single, capsys):
    single.submit(work.say, "lone \udc80 surrogate").result(DEADLINE)
    assert re.fullmatch(r"lone .+ surrogate\n", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize(
    "harm",
    [work.close_stream, work.detach_stream, work.forget_stream],
    ids=lambda function: function.__name__,
)
def test_next_task_prints_after_a_harmed_stream(single, capsys, harm, name):
    pid = single.submit(work.pid).result(DEADLINE)
    single.submit(harm, name).result(DEADLINE)
    for text in ("first", "second"):
        single.submit(work.say, text, stream=name).result(DEADLINE)
        assert getattr(capsys.readouterr(), name[3:]) == f"{text}\n"
    assert single.submit(work.pid).result(DEADLINE) == pid


@pytest.mark.parametrize("fd", [1, 2])
def test_next_task_prints_after_a_closed_descriptor(single, capsys, tmp_path, fd):
    """A task closes descriptor 1 or 2.

    The next one's print arrives, and does not land in the next file that is opened.
    """
    pid = single.submit(work.pid).result(DEADLINE)
    single.submit(work.close_fd, fd).result(DEADLINE)
    assert single.submit(work.open_and_write, str(tmp_path / "file"), "mine").result(DEADLINE) > 2
    single.submit(work.open_forever, str(tmp_path / "file")).result(DEADLINE)
    for text in ("first", "second"):
        single.submit(work.say, text, stream=("stdout", "stderr")[fd - 1]).result(DEADLINE)
        assert capsys.readouterr()[fd - 1] == f"{text}\n"
    assert (tmp_path / "file").read_text() == "mine"
    assert single.submit(work.pid).result(DEADLINE) == pid


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_task_replaces_the_stream_by_a_broken_one(single, kind):
    """The task that did it is fine, and tasks that do not print are too."""
    pid = single.submit(work.pid).result(DEADLINE)
    single.submit(work.replace_stream, "stdout", kind).result(DEADLINE)
    for _ in range(3):
        assert single.submit(work.pid).result(DEADLINE) == pid


def test_output_of_children_and_threads(single, capsys):
    single.submit(work.subprocess_says, "from a child").result(DEADLINE)
    assert "from a child\n" in capsys.readouterr().out
    single.submit(work.threads_say, 8, 50).result(DEADLINE)
    found = sorted(capsys.readouterr().out.splitlines())
    assert found == sorted(
        f"thread {number} line {line}" for number in range(8) for line in range(50)
    )


def test_output_of_both_workers_interleaves_by_lines(executor, capsys):
    tasks = [executor.submit(work.flood, 2000, 100 + n) for n in range(4)]
    assert [task.result(DEADLINE) for task in tasks] == [2000] * 4
    found = capsys.readouterr().out.splitlines()
    assert len(found) == 8000
    assert all(re.fullmatch(r"\d+ x{100,103}", line) for line in found)


def test_stream_that_blocks(single):
    """The host's stdout takes nothing for a while.

    The worker waits, others do not, and nothing is lost or out of order.
    """
    out = Gate()
    with contextlib.redirect_stdout(out):
        task = single.submit(work.flood, 60_000, 100)
        assert out.entered.wait(DEADLINE)
        assert not task.done()
        out.opened.set()
        assert task.result(DEADLINE) == 60_000
        text = out.getvalue()  # before the result means: now
    assert numbered(text) == list(range(60_000))


def test_last_lines_come_before_the_result_while_reading_is_paused(single, rendezvous, monkeypatch):
    """What is left of them fits into the pipe, so that the task can end."""
    monkeypatch.setattr(output, "OUTPUT_HIGH", 0)
    monkeypatch.setattr(output, "OUTPUT_LOW", 0)
    out = Gate()
    with contextlib.redirect_stdout(out):
        task = single.submit(work.say_arrive_and_flood, rendezvous.address, 500)
        assert out.entered.wait(DEADLINE)
        rendezvous.next().release()
        assert until(lambda: single.workers()[0].state == "idle"), "its outcome has been read"
        assert not task.done()
        out.opened.set()
        assert task.result(DEADLINE) == 500
        text = out.getvalue()
    assert numbered(text) == [-1, *range(500)]


def test_reading_goes_on_if_all_was_written_in_the_moment_of_the_pause(single, monkeypatch):
    """No other read would come back for what is printed after that."""

    class Slow(int):
        """Compares as the limit does, when what is under way has been written."""

        def __lt__(self, count: int) -> bool:
            (process,) = single._pool.processes.values()
            return count > 0 and until(lambda: not process.output.stdout.under_way)

    monkeypatch.setattr(output, "OUTPUT_HIGH", Slow(0))
    out = Recorder()
    with contextlib.redirect_stdout(out):
        assert single.submit(work.flood, 20_000, 100).result(DEADLINE) == 20_000
        text = out.getvalue()
    assert numbered(text) == list(range(20_000))


def test_stream_that_blocks_delays_no_other_task(executor, rendezvous):
    out = Gate()
    with contextlib.redirect_stdout(out):
        printing = executor.submit(work.flood, 60_000, 100)
        assert out.entered.wait(DEADLINE)
        assert executor.submit(pow, 2, 5).result(DEADLINE) == 32
        out.opened.set()
        assert printing.result(DEADLINE) == 60_000


def test_end_of_a_worker_whose_output_waits(single):
    """It dies while the host's stream blocks.

    Its last lines are shown, and its crash is explained.
    """
    err = Gate()
    with contextlib.redirect_stderr(err):
        task = single.submit(work.flood_and_segfault, 30_000)
        assert err.entered.wait(DEADLINE)
        threading.Timer(1.0, err.opened.set).start()
        crash = crash_of(task)
    assert "Segmentation fault" in crash.stderr
    assert numbered(err.getvalue().partition("Fatal Python")[0]) == list(range(30_000))
    assert "Segmentation fault" in err.getvalue()


@pytest.mark.parametrize("kind", [OSError, ValueError, RuntimeError, KeyboardInterrupt, SystemExit])
def test_stream_that_raises(single, capsys, caplog, kind):
    out = Raising(kind)
    caplog.set_level("CRITICAL")
    with contextlib.redirect_stdout(out):
        assert single.submit(work.flood, 3000).result(DEADLINE) == 3000
    assert out.tried
    single.submit(work.say, "well again").result(DEADLINE)
    assert "well again\n" in capsys.readouterr().out


def test_stream_that_is_none_or_closed(single, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    single.submit(work.say, "to a broken stream").result(DEADLINE)
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    single.submit(work.say, "to a broken stream").result(DEADLINE)
    monkeypatch.undo()


def test_stream_that_uses_the_executor(single):
    """A GUI's console may do anything when it is written to."""
    results = []

    class Console(io.StringIO):
        def write(self, text):
            results.append(single.submit(pow, 2, len(results)).result(DEADLINE))
            return super().write(text)

    with contextlib.redirect_stdout(Console()) as out:
        assert single.submit(work.say, "a", "b").result(DEADLINE) == 2
    assert out.getvalue() == "a\nb\n"
    assert results == [2**n for n in range(len(results))]


def test_flood_does_not_fill_the_memory(host):
    code, out, err = host("flooded").finish(60)
    assert code == 0, err
    stopped, complete, lines, megabytes = out.split()
    assert (stopped, complete, lines) == ("True", "True", "500000")
    assert int(megabytes) < 30, "fifty megabytes were printed"


def test_print_of_a_running_task_is_seen_at_once(single, rendezvous):
    seen = threading.Event()

    class Watched(Recorder):
        def flush(self):
            if "early" in self.getvalue():
                seen.set()

    with contextlib.redirect_stdout(Watched()) as out:
        task = single.submit(_say_and_arrive, rendezvous.address)
        assert seen.wait(DEADLINE)
        assert not task.done()
        rendezvous.next().release()
        task.result(DEADLINE)
    assert out.getvalue() == "early\n"


def _say_and_arrive(address):
    print("early")
    arrive(address)


def test_standard_input_is_at_its_end(single):
    with pytest.raises(EOFError):
        single.submit(input).result(DEADLINE)
    assert single.submit(os.read, 0, 10).result(DEADLINE) == b""


def test_the_last_line_comes_before_the_result_however_early_that_is(executor, monkeypatch):
    """A worker may answer before the thread that has written the call has recorded it.

    Seen in 2 of 1,000 calls before.
    """
    workers_part = "first\nno end"
    found = set()
    for _ in range(1500):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        executor.submit(work.say, workers_part, end="").result(DEADLINE)
        found.add(stream.getvalue())
    assert found == {workers_part + "\n"}
