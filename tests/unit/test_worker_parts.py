"""The parts of a worker's main loop, each by itself: what it was told, how it answers, its start.

No process: records and frames are lists.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from wetlands_executor.worker import calls, definitions, injection, objects, startup, wire
from wetlands_executor.worker.answers import Answers
from wetlands_executor.worker.channel import ChannelLost
from wetlands_executor.worker.definitions import Definitions


class Channel:
    """Records to be read, frames that were sent."""

    def __init__(self, *records: tuple[int, int, bytes]) -> None:
        self.records = deque(records)
        self.frames: list[tuple[Any, ...]] = []
        self.sent = 0
        self.verified = 0
        self.nonce = 0
        self.by_value = True

    def read_record(self) -> tuple[int, int, bytes]:
        return self.records.popleft()

    def send(self, *frame: Any) -> None:
        self.frames.append(frame)
        self.sent += 1

    def configure(self, nonce: int, by_value: bool) -> None:
        self.nonce, self.by_value = nonce, by_value

    def verify(self) -> None:
        self.verified += 1


def told(*records: tuple[int, int, bytes]) -> Definitions:
    channel: Any = Channel(*records)
    return Definitions(channel)


def definition(module: str, name: str) -> bytes:
    return pickle.dumps(("reference", module, name, None), 4)


# -------------------------------------------------------------------------------------- definitions


def test_records_are_read_until_the_function_is_there() -> None:
    part = told(
        (wire.NAME, 9, b"of a call that was taken back"),
        (wire.DEFINITION, 4, definition("builtins", "abs")),
        (wire.DEFINITION, 5, definition("builtins", "max")),
    )
    assert part.define(5) is max
    assert part.define(4) is abs  # it was read on the way
    assert part.functions == part.without_handle == {4: abs, 5: max}
    assert part.task_positions == {4: None, 5: None}


def test_a_function_is_forgotten() -> None:
    part = told(
        (wire.DEFINITION, 4, definition("builtins", "abs")),
        (wire.FORGET, 4, b""),
        (wire.PAYLOAD, 1, b"payload"),
    )
    part.define(4)
    assert part.read_until(wire.PAYLOAD, 1) == b"payload"
    assert part.functions == part.without_handle == part.task_positions == {}


def test_host_settings_are_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []
    monkeypatch.setattr(definitions, "_settings_in_use", b"")
    monkeypatch.setattr("wetlands_executor.worker.imports.use_project_paths", used.append)
    monkeypatch.setattr("wetlands_executor.worker.records.use_levels", used.append)
    data = pickle.dumps((["/project"], {"": 20}), 4)
    part = told((wire.SETTINGS, 7, data), (wire.SETTINGS, 8, data))
    part.read_until(wire.SETTINGS, 8)
    assert (part.settings_number, used) == (8, [["/project"], {"": 20}])


def test_what_is_raised_while_records_are_read_ends_the_worker() -> None:
    with pytest.raises(ChannelLost, match="IndexError"):
        told().read_until(wire.PAYLOAD, 1)


# ------------------------------------------------------------------------------------------ answers


class Page:
    def __init__(self) -> None:
        self.words = [0] * 1024
        self.answer = memoryview(bytearray(wire.ANSWER_MOST))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose write end has a number that only this package uses."""
    read, low = os.pipe()
    from wetlands_executor.worker.system import move_up

    write = move_up(low)
    yield read, write
    os.close(read)
    os.close(write)


def answers(wakeup: int) -> tuple[Answers, Channel, Page]:
    channel, page = Channel(), Page()
    any_channel: Any = channel
    any_page: Any = page
    return Answers(any_channel, any_page, wakeup), channel, page


def test_an_answer_that_a_thread_waits_for_goes_onto_the_page(pipe: tuple[int, int]) -> None:
    read, write = pipe
    part, channel, page = answers(write)
    if part.wakeup < 0:
        pytest.skip("this system has no number that high")
    page.words[wire.AWAITED] = 5
    part.send(wire.VALUE, b"abc", 5, 0, 0, False)
    assert channel.frames == []
    head = page.words[wire.ANSWER]
    assert (page.words[wire.ANSWERED], head & 0xFF, head >> 8 & 0xFFFFFF) == (5, wire.VALUE, 3)
    assert bytes(page.answer[:3]) == b"abc"
    assert len(os.read(read, 100)) == 8


@pytest.mark.parametrize(
    ("awaited", "outcome", "payload", "sent", "printed"),
    [
        (4, wire.VALUE, b"", 0, False),
        (5, wire.ERROR, b"", 0, False),
        (5, wire.VALUE, b"x" * (wire.ANSWER_MOST + 1), 0, False),
        (5, wire.VALUE, b"", 1, False),
        (5, wire.VALUE, b"", 0, True),
    ],
    ids=["of another call", "failed", "large", "has reported", "has printed"],
)
def test_any_other_answer_is_a_frame(
    pipe: tuple[int, int], awaited: int, outcome: int, payload: bytes, sent: int, printed: bool
) -> None:
    part, channel, page = answers(pipe[1])
    channel.sent = 1
    page.words[wire.AWAITED] = awaited
    part.send(outcome, payload, 5, 1_000_000, 1 - sent, printed)
    assert [frame[:3] for frame in channel.frames] == [(outcome, 5, payload)]
    assert page.words[wire.ANSWERED] == 0
    assert channel.verified == 1


@pytest.mark.parametrize(("printed", "verified"), [(False, 0), (True, 1)])
def test_the_pipe_is_looked_at_after_a_short_call_that_has_printed(
    pipe: tuple[int, int], printed: bool, verified: int
) -> None:
    part, channel, _ = answers(pipe[1])
    part.send(wire.VALUE, b"", 5, 1_000, 0, printed)
    assert channel.verified == verified


def test_a_counter_that_the_task_has_closed_is_left_alone(pipe: tuple[int, int]) -> None:
    part, channel, page = answers(pipe[1])
    if part.wakeup < 0:
        pytest.skip("this system has no number that high")
    os.close(pipe[1])
    page.words[wire.AWAITED] = 5
    part.send(wire.NONE, b"", 5, 0, 0, False)
    assert (part.wakeup, channel.frames[0][:3]) == (-1, (wire.NONE, 5, b""))
    os.dup2(pipe[0], pipe[1])  # for the fixture


def test_a_number_that_a_task_could_get_is_not_used() -> None:
    assert answers(3)[0].wakeup == -1


# -------------------------------------------------------------------------------------------- start


def test_a_worker_says_which_python_it_is() -> None:
    config = {"nonce": 7, "magic": startup.magic(), "version": "3"}
    channel: Any = Channel((wire.CONFIG, 0, pickle.dumps(config, 4)))
    assert startup.greet(channel) == config
    assert (channel.nonce, channel.by_value) == (7, True)
    [(kind, item, data)] = channel.frames
    assert (kind, item) == (wire.HELLO, 0)
    assert pickle.loads(data)["pid"] == os.getpid()


def config(**given: Any) -> dict[str, Any]:
    return {
        "print_frames": False,
        "preload": [],
        "initializer": None,
        "initializer_code": None,
        "pieces": [],
        "debugger": None,
        "debugpy": False,
        **given,
    }


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what prepares a worker over a channel of lists; this process is not changed."""
    monkeypatch.setattr("sys.breakpointhook", sys.breakpointhook)
    for name in ("_use_program", "set_up_process"):
        monkeypatch.setattr(startup, name, lambda *_: None)
    monkeypatch.setattr("wetlands_executor.worker.stdio.finish_task", lambda: False)

    def prepare(**given: Any) -> tuple[bool, list[int]]:
        channel = Channel()
        any_config: Any = config(**given)
        ready = startup.prepare(any_config, SimpleNamespace(channel=channel), False)
        return ready, [frame[0] for frame in channel.frames]

    return prepare


def test_a_worker_is_ready_after_its_initializer(prepared: Any) -> None:
    assert prepared() == (True, [wire.READY])
    assert prepared(initializer=pickle.dumps((abs, (-1,)))) == (True, [wire.READY])


def test_a_preload_that_fails_ends_the_start(
    prepared: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(preload=["no_such_module_at_all"]) == (False, [wire.START_FAILED])
    assert "preload of 'no_such_module_at_all' failed" in capsys.readouterr().err


def test_an_initializer_that_fails_ends_the_start(prepared: Any) -> None:
    assert prepared(initializer=pickle.dumps((int, ("x",)))) == (False, [wire.INITIALIZER_FAILED])


# ----------------------------------------------------------------------------------- what a call is


class Some:
    def method(self, first: int, *rest: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (abs, "abs"),
        (Some.method, "Some.method"),
        (lambda: 0, "<lambda>"),
        (os.path.join, f"{os.path.__name__}.join"),
    ],
)
def test_what_a_call_is_named(function: Any, name: str) -> None:
    assert injection.name_of(function) == name


def test_arguments_by_name() -> None:
    found = injection.named_arguments(Some().method, (1, 2, 3), {"task": 4})
    assert found == {"first": 1, "0": 2, "1": 3, "task": 4}


def test_a_forgotten_sentinel_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "own_reducers", {})
    number = 1 << 60
    found = objects.begin(number, objects.OBJECT)
    assert objects._SENTINELS[id(found)] == number
    objects.forget([number])
    assert id(found) not in objects._SENTINELS
    assert number not in objects.TABLE
