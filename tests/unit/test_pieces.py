"""Pickles in pieces: what the pickler writes, and what the unpickler reads out of a block."""

from __future__ import annotations

import gc
import io
import pickle
import sys
import threading
import weakref
from typing import Any

import pytest

from tests.support.cases import cases
from wetlands_executor.serialize import calls as host_calls
from wetlands_executor.serialize import definitions, gc_threshold, pickler
from wetlands_executor.serialize.unpickler import decode
from wetlands_executor.worker import calls, shm_streams, wire

KB = 1024
#: Around the size from which the pickler writes a value by itself.
BORDERS = [0, 1, 63 * KB, 64 * KB - 1, 64 * KB, 64 * KB + 1, 65 * KB, 300 * KB]


def of_size(kind: type, size: int) -> Any:
    """A value of so many bytes."""
    if kind is str:
        return "x" * size
    return kind(bytes(range(256)) * (size // 256 + 1))[:size]


def read(data: bytes) -> Any:
    """Unpickle as out of a block."""
    return shm_streams.load(memoryview(data), lambda file: pickle.Unpickler(file).load())


@cases("size", BORDERS)
@cases("kind", [bytes, bytearray, str])
@cases("nested", [False, True])
def test_values_around_the_border(kind: type, size: int, nested: bool) -> None:
    """They come out as they went in, and once is once."""
    value = of_size(kind, size)
    whole = [1, {"deep": (value, [value])}, "after"] if nested else value
    for data in (calls.dumps_result(whole, True), definitions.dumps(whole)[0]):
        found = read(data)
        assert found == pickle.loads(data) == whole
        if nested:
            first, (second,) = found[1]["deep"]
            assert type(first) is kind
            assert first is second


@pytest.mark.parametrize("text", ["ä", "\ud800", "\U0001f600", "\0"])
def test_texts_that_are_long_in_other_ways(text: str) -> None:
    """Also what cannot be encoded."""
    value = [text * 70_000, text]
    assert read(calls.dumps_result(value, True)) == value


def test_large_values_are_not_copied_before_the_block() -> None:
    """The piece is the object itself; small ones share a frame."""
    large = bytes(100 * KB)
    pieces = calls.dumps_pieces([large, b"small", bytearray(large)], True, [])
    assert any(piece is large for piece in pieces)
    assert all(type(piece) is bytes for piece in pieces), "a bytearray could change its size"
    assert pieces.size == len(b"".join(pieces))
    assert pickle.loads(pieces.whole()) == [large, b"small", bytearray(large)]
    assert not pieces
    assert pieces.pickler is None


def test_pieces_let_go_of_what_was_pickled() -> None:
    """The pickler keeps the values, and refers to the pieces."""

    class Value:
        pass

    gc.disable()
    try:
        for dump in (
            lambda value: calls.dumps_result(value, True),
            lambda value: host_calls.encode(print, ([value],), {}),
        ):
            value = Value()
            watch = weakref.ref(value)
            dump(value)
            del value
            assert watch() is None
    finally:
        gc.enable()


def test_a_buffer_that_stays_in_the_pickle_is_flat() -> None:
    """An array of 64 to 128 KB goes no way of its own."""
    np = pytest.importorskip("numpy")
    for array in (np.arange(9000.0), np.asfortranarray(np.arange(9000.0).reshape(90, 100))):
        array.flags.writeable = False
        pieces = calls.dumps_pieces([array], True, [])
        assert (read(pieces.whole())[0] == array).all()


def test_what_a_reader_gives() -> None:
    """Views without a copy; a short read at the end, which the unpickler reports."""
    view = memoryview(bytes(range(100)))
    reader = shm_streams.BlockReader(view)
    assert bytes(reader.read(10)) == bytes(range(10))
    target = bytearray(80)
    assert reader.readinto(memoryview(target)) == 80
    assert target == bytes(range(10, 90))
    assert reader.readinto(memoryview(target)) == 10
    assert not reader.read(5)
    for cut in (b"\x80\x05", pickle.dumps(bytes(100 * KB), 5)[:-5], b"\x80\x05B\xff\xff\xff\x7f"):
        with pytest.raises((EOFError, pickle.UnpicklingError)):
            read(cut)
    with pytest.raises(ValueError, match="older protocol"):
        read(b"I1\n.")


def test_a_failed_read_does_not_keep_the_block() -> None:
    """Its traceback may live long."""
    block = bytearray(pickle.dumps(list(range(9)), 5)[:-3])
    with pytest.raises((EOFError, pickle.UnpicklingError)) as caught:
        shm_streams.load(memoryview(block), lambda file: pickle.Unpickler(file).load())
    assert caught.value.__traceback__ is not None
    gc.collect()
    reader = shm_streams.BlockReader(memoryview(b"x"))
    reader.close()
    assert not reader.read(1)


def test_a_large_value_is_read_by_address() -> None:
    """Every size on the way there."""
    for size in (shm_streams.WITHOUT_GIL - 1, shm_streams.WITHOUT_GIL, shm_streams.HUGE + 3):
        value = bytes(range(256)) * (size // 256 + 1)
        assert read(pickle.dumps([value, bytearray(value)], 5)) == [value, value]
        text = value.decode("latin-1")
        assert read(pickle.dumps([text, 1], 5)) == [text, 1]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the collector does not run meanwhile")
def test_the_collector_rests_while_a_worker_reads_a_block() -> None:
    """And is as it was afterwards, also after a failure."""
    seen: list[int] = []
    before = gc.get_threshold()

    def look(file: Any) -> Any:
        seen.append(gc.get_threshold()[0])
        return pickle.Unpickler(file).load()

    view = memoryview(pickle.dumps(1, 5))
    assert shm_streams.load_here(view, look) == 1
    assert gc.get_threshold() == before
    with pytest.raises(EOFError):
        shm_streams.load_here(memoryview(b""), look)
    assert gc.get_threshold() == before
    assert seen == [0, 0]


def test_what_an_imported_module_says_of_the_collector_stands() -> None:
    """It may be imported while a block is read."""
    view = memoryview(pickle.dumps(1, 5))
    before = gc.get_threshold()
    try:
        shm_streams.load_here(view, lambda _file: gc.disable())
        assert not gc.isenabled()
        gc.enable()
        shm_streams.load_here(view, lambda _file: gc.set_threshold(1000, 5, 5))
        assert gc.get_threshold() == (1000, 5, 5)
        gc.set_threshold(0, 5, 5)
        shm_streams.load_here(view, lambda _file: None)
        assert gc.get_threshold() == (0, 5, 5)
    finally:
        gc.enable()
        gc.set_threshold(*before)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the collector does not run meanwhile")
def test_the_collector_runs_rarely_while_a_large_result_is_read() -> None:
    """As long as any thread reads one; what the program sets meanwhile stands."""
    before = gc.get_threshold()
    seen: list[int] = []

    class Look:
        def __reduce__(self) -> Any:
            return _note_threshold, (None,)

    _NOTED.clear()
    decode(pickle.dumps([Look(), "x" * 200_000], 5))
    decode(pickle.dumps([Look(), "x"], 5))
    assert [gc_threshold.RAISED, before[0]] == _NOTED
    try:
        inside, leave = threading.Event(), threading.Event()

        def read() -> None:
            with gc_threshold.raised:
                inside.set()
                leave.wait(30)

        other = threading.Thread(target=read)
        other.start()
        inside.wait(30)
        with gc_threshold.raised:
            seen.append(gc.get_threshold()[0])
        seen.append(gc.get_threshold()[0])
        leave.set()
        other.join()
        assert seen == [gc_threshold.RAISED, gc_threshold.RAISED]
        assert gc.get_threshold() == before
        for own in (0, 5 * gc_threshold.RAISED):
            gc.set_threshold(own, 5, 5)
            with gc_threshold.raised:
                assert gc.get_threshold() == (own, 5, 5)
            assert gc.get_threshold() == (own, 5, 5)
        gc.set_threshold(*before)
        with pytest.raises(KeyError), gc_threshold.raised:
            gc.set_threshold(1000, 5, 5)
            raise KeyError
        assert gc.get_threshold() == (1000, 5, 5)
    finally:
        gc.set_threshold(*before)


_NOTED: list[int] = []


def _note_threshold(_: None) -> None:
    _NOTED.append(gc.get_threshold()[0])


# --- which rules concern which type


class Plain:
    """Something of a project."""

    def __init__(self, content: Any = None) -> None:
        if content is not None:
            self.content = content


class Slotted:
    """Without a dictionary."""

    __slots__ = ("content",)


class Own:
    """It says itself what it holds."""

    def __getstate__(self) -> Any:
        return {"a": 1}


@cases(
    ("kind", "handling"),
    [
        (ValueError, pickler.UNCHANGED),
        (io.BytesIO, pickler.UNCHANGED),
        (Slotted, pickler.UNCHANGED),
        (Own, pickler.UNCHANGED),
        (Plain, pickler.UNLESS_EMPTY),
        (object, pickler.BY_RULES),
        (type, pickler.BY_RULES),
        (type(Plain.__init__), pickler.BY_RULES),
        (type(Plain().__init__), pickler.BY_RULES),
        (type(Plain.__init__.__code__), pickler.BY_RULES),
        (type(list[int]), pickler.BY_RULES),
    ],
)
def test_the_handling_of_a_type(kind: type, handling: int) -> None:
    """It is found out once for each type of a pickle."""
    assert pickler._handling_of(kind) == handling


def test_objects_of_one_class_are_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs time is asked for each class, not for each object."""
    asked: list[type] = []
    handling_of = pickler._handling_of
    monkeypatch.setattr(
        pickler, "_handling_of", lambda kind: asked.append(kind) or handling_of(kind)
    )
    reduced: list[Any] = []
    reduce = pickler.CallPickler._reduce
    monkeypatch.setattr(
        pickler.CallPickler,
        "_reduce",
        lambda self, obj, kind: reduced.append(obj) or reduce(self, obj, kind),
    )
    value = [Plain(number) for number in range(1000)]
    data, _name, _bytecode = definitions.dumps(value)
    assert asked.count(Plain) == 1
    assert len(set(asked)) == len(asked)
    assert not any(isinstance(one, Plain) for one in reduced)
    assert [one.content for one in calls.loads_rich(data)] == list(range(1000))


def test_reducers_that_the_program_adds_later_count() -> None:
    """``copyreg.pickle`` between two calls."""
    import copyreg

    value = Plain(1)
    assert calls.loads_rich(definitions.dumps([value])[0])[0].content == 1
    copyreg.pickle(Plain, lambda one: (Plain, (one.content + 1,)))
    try:
        assert calls.loads_rich(definitions.dumps([value])[0])[0].content == 2
    finally:
        del copyreg.dispatch_table[Plain]
    assert calls.loads_rich(definitions.dumps([value])[0])[0].content == 1


def test_long_scalars_go_the_short_way() -> None:
    """Plain, in a block, and told in messages."""
    for value in (bytes(200_000), "x" * 200_000, "ä" * 70_000):
        encoded = host_calls.encode(print, (1, value), {})
        assert encoded.flags & wire.NO_REFERENCES
        assert encoded.flags & wire.BLOCKS or sys.platform != "linux"
        assert str(encoded.summary).startswith("(1, ")
