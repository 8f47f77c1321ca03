"""What workers print becomes whole lines."""

from __future__ import annotations

import io
import random
import sys

import pytest

from wetlands_executor.pool.lines import LONGEST_LINE, LineSplitter, OutputStream


def feed_all(chunks: list[bytes]) -> list[str]:
    splitter = LineSplitter()
    found = [splitter.feed(chunk) for chunk in chunks]
    return [*found, splitter.finish()]


def test_only_whole_lines_come_out() -> None:
    """The rest waits for its end."""
    assert feed_all([b"one\ntw", b"o\nthree"]) == ["one\n", "two\n", "three\n"]


def test_a_carriage_return_ends_a_line() -> None:
    """As progress bars write it."""
    assert feed_all([b" 10%\r 20%\r 3", b"0%\r"]) == [" 10%\r 20%\r", " 30%\r", ""]


def test_the_end_of_a_task_ends_its_line() -> None:
    """And only then: an empty rest is no line."""
    splitter = LineSplitter()
    assert splitter.finish() == ""
    splitter.feed(b"no newline")
    assert splitter.pending
    assert splitter.finish() == "no newline\n"
    assert not splitter.pending


def test_characters_cut_between_two_reads() -> None:
    """A piece may end within a character of several bytes."""
    text = "häßlich 日本語 🎉\n"
    data = text.encode()
    for cut in range(len(data)):
        assert "".join(feed_all([data[:cut], data[cut:]])) == text


def test_bytes_that_are_no_text() -> None:
    """They are shown as replacement characters, and nothing after them is lost."""
    assert "".join(feed_all([b"\xff\xfe ok\n"])) == "\ufffd\ufffd ok\n"


def test_a_line_that_never_ends_is_passed_on() -> None:
    """Memory is bounded."""
    splitter = LineSplitter()
    assert splitter.feed(b"x" * LONGEST_LINE) == ""
    assert len(splitter.feed(b"y")) == LONGEST_LINE + 1
    assert not splitter.pending


def test_any_pieces_make_the_same_text(stress_rng: random.Random) -> None:
    """The borders of reads mean nothing."""
    text = "".join(stress_rng.choice(("a", "é", "🎉", "\n", "\r", "\r\n", " ")) for _ in range(2000))
    data = text.encode()
    chunks = []
    while data:
        size = stress_rng.randrange(1, 40)
        chunks.append(data[:size])
        data = data[size:]
    found = feed_all(chunks)
    assert "".join(found).rstrip("\n") == text.rstrip("\n")
    assert all(piece.endswith(("\n", "\r")) for piece in found if piece)


def test_the_host_stream_is_looked_up_when_a_line_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirection counts from the moment it is made."""
    stream = OutputStream("stdout")
    stream.enqueued = 3
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", first)
    stream.write("one\n")
    monkeypatch.setattr(sys, "stdout", second)
    stream.write("two\n")
    assert (first.getvalue(), second.getvalue()) == ("one\n", "two\n")
    assert stream.under_way == 1


@pytest.mark.parametrize("broken", [None, "closed"])
def test_a_host_without_a_stream_is_no_error(monkeypatch: pytest.MonkeyPatch, broken: str | None) -> None:
    """Under pythonw there is none; a closed one takes nothing. The count goes on, or a shutdown would wait for it."""
    target = None
    if broken:
        target = io.StringIO()
        target.close()
    stream = OutputStream("stderr")
    stream.enqueued = 1
    monkeypatch.setattr(sys, "stderr", target)
    stream.write("nobody hears this\n")
    assert stream.under_way == 0
