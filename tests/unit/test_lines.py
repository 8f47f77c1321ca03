"""What workers print becomes whole lines."""

from __future__ import annotations

import contextlib
import io
import os
import random
import sys
import threading
from collections.abc import Callable

import pytest

from tests.support.cases import cases
from wetlands_executor.pool import lines
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
    text = "".join(
        stress_rng.choice(("a", "é", "🎉", "\n", "\r", "\r\n", " ")) for _ in range(2000)
    )
    data = text.encode()
    chunks = []
    while data:
        size = stress_rng.randrange(1, 40)
        chunks.append(data[:size])
        data = data[size:]
    found = feed_all(chunks)
    assert "".join(found).rstrip("\n") == text.rstrip("\n")
    assert all(piece.endswith(("\n", "\r")) for piece in found if piece)


def test_the_host_stream_is_looked_up_when_a_line_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
def test_a_host_without_a_stream_is_no_error(
    monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    """Under pythonw there is none; a closed one takes nothing.

    The count goes on, or a shutdown would wait for it.
    """
    target = None
    if broken:
        target = io.StringIO()
        target.close()
    stream = OutputStream("stderr")
    stream.enqueued = 1
    monkeypatch.setattr(sys, "stderr", target)
    stream.write("not heard\n")
    assert stream.under_way == 0


CHUNK = "before\ncaf\u00e9 \u2603\nafter\n"


def written(stream: object, text: str = CHUNK, name: str = "stdout") -> None:
    """Write a text as a pool does, to an object that stands in ``sys.stdout``."""
    output = OutputStream(name)
    output.enqueued = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, name, stream)
        output.write(text)
    assert output.under_way == 0


@cases("name", ["stdout", "stderr"])
@cases("line_buffering", [False, True])
@cases(
    ("encoding", "errors", "expected"),
    [
        ("ascii", "strict", "caf\\xe9 \\u2603"),
        ("latin-1", "strict", "caf\u00e9 \\u2603"),
        ("cp1252", "strict", "caf\u00e9 \\u2603"),
        ("latin-1", "replace", "caf\u00e9 ?"),
        ("utf-8", "strict", "caf\u00e9 \u2603"),
        ("utf-16", "strict", "caf\u00e9 \u2603"),
        ("shift_jis", "strict", "caf\\xe9 \\u2603"),
    ],
)
def test_what_the_stream_cannot_encode_is_escaped(
    name: str, line_buffering: bool, encoding: str, errors: str, expected: str
) -> None:
    """All lines arrive, in order; what the stream can encode stays as it is."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, errors, newline="\n", line_buffering=line_buffering)
    written(stream, name=name)
    assert raw.getvalue().decode(encoding) == f"before\n{expected}\nafter\n"


class Console:
    """A stream of a user's: no encoding, no flush, no buffer; it refuses what ``refuses`` says."""

    def __init__(self, refuses: Callable[[str], BaseException | None]) -> None:
        self.refuses = refuses
        self.text = ""

    def write(self, text: str) -> None:
        """Take all or nothing."""
        error = self.refuses(text)
        if error is not None:
            raise error
        self.text += text


def _refuse_foreign(text: str) -> BaseException | None:
    try:
        text.encode("ascii")
    except UnicodeEncodeError as error:
        return error
    return None


def test_an_object_that_says_no_encoding() -> None:
    """It is asked line by line when it has refused a text."""
    console = Console(_refuse_foreign)
    written(console)
    assert console.text == "before\ncaf\\xe9 \\u2603\nafter\n"


@pytest.mark.parametrize("encoding", [None, 5, "no such encoding"])
def test_an_object_whose_encoding_means_nothing(encoding: object) -> None:
    """It takes any text."""
    stream = io.StringIO()
    console = Console(lambda _text: None)
    console.encoding = encoding  # type: ignore[attr-defined]
    written(stream)
    written(console)
    assert stream.getvalue() == console.text == CHUNK


def test_one_line_that_is_refused_costs_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is said, once for many."""
    monkeypatch.setattr(lines, "_told", set())
    console = Console(lambda text: ValueError("embedded null character") if "\0" in text else None)
    for _ in range(3):
        written(console, "one\ntwo \0\nthree\n")
    assert console.text == "one\nthree\n" * 3
    (record,) = caplog.records
    assert "sys.stdout (Console) has refused lines" in record.getMessage()
    assert "embedded null character" in record.getMessage()


@pytest.mark.parametrize(
    "kind", [OSError, BrokenPipeError, RuntimeError, SystemExit, KeyboardInterrupt]
)
def test_a_stream_that_always_raises(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once per kind, and nothing escapes."""
    monkeypatch.setattr(lines, "_told", set())
    for _ in range(5):
        written(Console(lambda _text: kind("no")), "one\ntwo\n")
    assert len(caplog.records) == 1


def test_a_handler_that_raises_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure of the stream cannot be told; nothing escapes all the same."""
    monkeypatch.setattr(lines, "_told", set())

    def refuse(*_args: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(lines.LOGGER, "handle", refuse)
    written(Console(lambda _text: RuntimeError("no")))


def test_a_stream_that_takes_a_part_at_a_time() -> None:
    """As the ``io`` module says it: ``write`` returns how many characters it has taken."""

    class Short(io.StringIO):
        def write(self, text: str) -> int:
            return super().write(text[:7])

    stream = Short()
    written(stream)
    assert stream.getvalue() == CHUNK


@cases("answer", [None, True, 0, -1, 10**6, "text"])
def test_a_stream_whose_answer_means_nothing(answer: object) -> None:
    """The text is written once."""

    class Odd(io.StringIO):
        def write(self, text: str) -> object:  # type: ignore[override]
            super().write(text)
            return answer

    stream = Odd()
    written(stream)
    assert stream.getvalue() == CHUNK


@pytest.mark.parametrize("line_buffering", [False, True])
def test_a_descriptor_in_non_blocking_mode(line_buffering: bool) -> None:
    """Another program may have done that to a terminal.

    The writer waits until it takes more; not a byte is lost.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    text = "".join(f"{number} \u2603 {'x' * 90}\n" for number in range(5000))
    found = []

    def drain() -> None:
        with open(read, "rb") as file:
            found.append(file.read())

    reader = threading.Thread(target=drain)
    with open(write, "w", encoding="utf-8", buffering=1 if line_buffering else -1) as stream:
        threading.Timer(0.1, reader.start).start()  # by then the pipe is full
        for start in range(0, len(text), 60_000):
            written(stream, text[start : start + 60_000])
    reader.join()
    assert found == [text.encode()]


def test_nul_and_carriage_returns_are_kept() -> None:
    """They are characters like any other."""
    stream = io.StringIO(newline="")
    written(stream, "a\0b\r\nc\r")
    assert stream.getvalue() == "a\0b\r\nc\r"


def test_no_stream_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may even delete the name."""
    output = OutputStream("stdout")
    output.enqueued = 1
    with contextlib.ExitStack() as restored:
        restored.callback(setattr, sys, "stdout", sys.stdout)
        del sys.stdout
        output.write("not heard\n")
    assert output.under_way == 0
