"""Words, meters and lines of the progress display: no process, no terminal."""

from __future__ import annotations

import io
import logging
import random
from concurrent.futures import Future

import pytest

from wetlands_executor import RunningTask
from wetlands_executor.observe import bars, units
from wetlands_executor.observe.bars import BarState, Counts, Meter, TaskCounts
from wetlands_executor.observe.streams import LineStream, cleaned
from wetlands_executor.observe.terminal import Turns


def test_words() -> None:
    seconds = (None, 0, 59.9, 61, 3600, 90000, float("inf"))
    assert [units.duration(each) for each in seconds] == [
        "-:--", "0:00", "0:59", "1:01", "1:00:00", "1d 01:00", "-:--"
    ]  # fmt: skip
    rates = (None, 0.0, 0.001, 0.1, 1, 99.94, 100, 4100, 2.5e6)
    assert [units.rate(each) for each in rates] == [
        "", "", "16:40 each", "10.0 s each", "1.0/s", "99.9/s", "100/s", "4.1k/s", "2.5M/s"
    ]  # fmt: skip
    assert [units.amount(each) for each in (None, 5, 312_000_000, 2_500_000_000)] == [
        "", "5 B", "312 MB", "2.5 GB"
    ]  # fmt: skip
    shares = ((1, None), (0, 0), (999, 1000), (5, 5), (7, 5))
    assert [units.percent(*each) for each in shares] == ["", "", "99%", "100%", "100%"]


def test_a_meter_forgets_what_is_long_ago() -> None:
    meter = Meter(0.0)
    assert meter.rate(0, 1.0) is None
    for second in range(100):
        meter.note(second if second < 50 else 50 + 10 * (second - 50), float(second))
    assert meter.rate(540, 99.0) == pytest.approx(10)
    assert meter.mean(540, 100.0) == pytest.approx(5.4)
    assert meter.rate(0, 99.0) is None


def test_lines_are_whole_and_move_no_cursor() -> None:
    assert cleaned("a\rb\r\n\x1b[2Jc\x1b[31mred\x07\n\x1b]0;title\x07d") == [
        "b", "c\x1b[31mred\x1b[0m", "d"
    ]  # fmt: skip
    stream, above = io.StringIO(), []
    lines = LineStream(stream, above.extend)
    assert lines.write("begun") == 5
    lines.write(" and ended\nnext")
    lines.writelines([" one\n", "10%\r20%\r"])
    lines.flush()
    assert above == ["begun and ended", "next one"]
    assert lines.isatty() is False
    lines.release()
    lines.write("!")
    assert stream.getvalue() == "20%\r!"


def test_a_turn_that_is_never_given_back_is_waited_for_once(monkeypatch) -> None:
    monkeypatch.setattr("wetlands_executor.observe.terminal.TURN", 0.01)
    turns = Turns()
    first = turns.take()
    assert turns.take() is None, "by the same thread: a signal handler within it"
    turns._owner = -1
    assert turns.take() is None
    second = turns.take()
    assert second not in (None, first)
    turns.give(second)
    turns.give(first)


def test_lines_of_rich_fit_into_any_width() -> None:
    pytest.importorskip("rich", reason="draws bars (extra progress)")
    from wetlands_executor.observe.terminal import Drawing

    class Screen(io.StringIO):
        encoding = "ascii"

    tasks = tuple(
        RunningTask(str(n), f"segment[{n}] 画像", n, 0, 3.0, "a long message " * n, n, 9, n / 9, n)
        for n in range(10)
    )
    state = BarState("label " * 9, Counts(5, 10, 1, 2, 3), 100, 12.3, 70, tasks)
    logging.getLogger("tests").debug("made")
    for stream in (io.StringIO(), Screen()):
        drawing = Drawing(stream)
        for width in range(10, 130, 7):
            for height in (1, 2, 3, 6, 30):
                lines = drawing.lines([state, state], width, height)
                assert len(lines) <= max(height, 1)
                assert all(line.cell_len <= width for line in lines)
                assert "5/10" in lines[0].plain
        assert "more running" in lines[-1].plain or len(lines) == 22


class Seen(Future[int]):
    """A future that counts how often it is looked at."""

    looks = 0

    def done(self) -> bool:
        type(self).looks += 1
        return super().done()


def test_many_tasks_are_counted_from_the_front_and_all_of_them_seldom(monkeypatch) -> None:
    monkeypatch.setattr(bars, "SELDOM", 1e9)  # on a slow machine it might be due
    Seen.looks = 0
    futures = [Seen() for _ in range(20_000)]
    counts = TaskCounts([], futures)
    for each in futures[:2500]:
        each.set_result(1)
    futures[2500].set_exception(ValueError())
    futures[2501].cancel()
    futures[-1].set_result(1)
    found = counts([])
    assert found == Counts(2502, 20_000, 1, 1), "the last one is far behind"
    assert Seen.looks < 5000
    counts([])
    assert Seen.looks < 9000
    assert counts([], over=True) == Counts(2503, 20_000, 1, 1)
    random.Random(1).shuffle(futures)
    for each in futures[:9000]:
        if not each.done():
            each.set_result(1)
    done = sum(each.done() for each in futures)
    counts([])
    Seen.looks = 0
    counts([])
    assert Seen.looks < 5000, "those that were passed are few, whatever the order of the ends"
    assert counts([], over=True) == Counts(done, 20_000, 1, 1)
