"""What counts as inert, in both directions, and that no code of the user's runs to find out."""

from __future__ import annotations

import collections
import copyreg
import datetime as dt
import decimal
import fractions
import gc
import io
import ipaddress
import pathlib
import pickle
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cases import cases
from tests.unit.classes import (
    RAN,
    Child,
    Color,
    Data,
    DerivedSlots,
    Dict,
    Finding,
    Frozen,
    FrozenSlots,
    Got,
    Hashed,
    ListedPair,
    Loud,
    Made,
    NewPair,
    Number,
    Outer,
    OwnHash,
    OwnSlots,
    Pair,
    Plain,
    Reduced,
    Registered,
    Several,
    Slots,
    Text,
    Triple,
    Watched,
    WithState,
)
from wetlands_executor.serialize import inert, inert_classes
from wetlands_executor.worker import calls as worker_calls


@pytest.fixture(autouse=True)
def nothing_has_run() -> Iterator[None]:
    """No code of the classes below runs, whatever becomes of their instances."""
    RAN.clear()
    yield
    assert not RAN


BUILTIN = [
    {"a": [1, 2.5, None, True], "b": ("x", b"y", {1, 2}), "c": frozenset({3})},
    [[[]]],
    bytearray(b"abc"),
    1 << 200,
]
NAMED = [
    1j,
    dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=dt.timezone.utc),
    [dt.date(2024, 1, 1), dt.timedelta(3), dt.time(1)],
    decimal.Decimal("1.50"),
    collections.OrderedDict(a=1),
    collections.deque([1, 2], 5),
    range(3),
    slice(1, 2),
    int,
]


@cases("value", BUILTIN + NAMED)
def test_inert_values_are_pickled_and_read(value: Any) -> None:
    found = inert.pickled(value)
    assert found is not None
    data, named = found
    assert named == (value in NAMED)
    assert worker_calls.loads_rich(data) == value
    if value is not int:
        assert inert.read(pickle.dumps(value, 5)) == (value,)


@pytest.mark.parametrize("kind", [Plain, Child, Data])
def test_instances_of_classes_without_a_say_are_inert(kind: Any) -> None:
    found = inert.pickled([kind(), kind()])
    assert found is not None
    assert found[1]
    for read in (worker_calls.loads_rich(found[0]), inert.read(pickle.dumps([kind()], 5))[0]):
        assert type(read[0]) is kind
        assert vars(read[0]) == vars(kind())


VALUES = [
    Color.RED, Number.ONE, Text.A, Outer.Inner.B, Pair(1, 2), Triple(1, "b"), Frozen(1, "x"),
    FrozenSlots(1, "x"), pathlib.Path("/a/b"), pathlib.PureWindowsPath("c:/x"),
    uuid.UUID(int=5), fractions.Fraction(1, 3), ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_network("fe80::/64"),
]  # fmt: skip


@cases("value", VALUES)
def test_values_that_the_standard_library_reduces_are_inert(value: Any) -> None:
    for whole in (value, [value, {value: 1}, {value}], {"a": (value, value)}):
        found = inert.pickled(whole)
        assert found is not None
        assert found[1]
        for read in (worker_calls.loads_rich(found[0]), *inert.read(pickle.dumps(whole, 5))):
            assert read == whole
            assert type(read) is type(whole)


def test_instances_with_slots_are_inert() -> None:
    found = inert.pickled(Slots())
    assert found is not None
    for read in (worker_calls.loads_rich(found[0]), *inert.read(pickle.dumps(Slots(), 5))):
        assert type(read) is Slots
        assert read.value == 1


def test_a_member_that_is_not_here_is_left_to_the_thread_that_says_so() -> None:
    data = pickle.dumps(Color.RED, 5)
    missing = data.replace(b"K\x01\x85", b"K\x09\x85")
    assert missing != data
    with pytest.raises(ValueError, match="not a valid"):
        pickle.loads(missing)
    assert inert.read(missing) is None


def test_a_class_that_is_changed_is_looked_at_again() -> None:
    class Changed(Plain):
        pass

    Changed.__qualname__ = "Plain"
    assert inert._is_inert(Changed)
    Changed.__setstate__ = WithState.__setstate__  # type: ignore[attr-defined]
    assert not inert._is_inert(Changed)
    del Changed.__setstate__  # type: ignore[attr-defined]
    assert inert._is_inert(Changed)
    Changed.__hash__ = Hashed.__hash__  # type: ignore[method-assign]
    assert not inert._is_inert(Changed)
    copyreg.pickle(Changed, lambda _: (Plain, ()))  # type: ignore[arg-type, return-value]
    del Changed.__hash__, copyreg.dispatch_table[Changed]
    assert inert._is_inert(Changed)


def test_what_is_known_of_a_class_goes_with_it() -> None:
    class Short(Plain):
        pass

    assert inert._is_inert(Short)
    number = id(Short)
    assert number in inert_classes._known
    del Short
    gc.collect()
    assert number not in inert_classes._known


def _quiet() -> list[Any]:
    return [
        Reduced(), Got(), Watched(), WithState(), Made("quiet"), Hashed(), Dict(a=1),
        Loud.RED, Finding.RED, Several.A, NewPair(1, 2), ListedPair((1, 2)), OwnHash(), OwnSlots(1),
        DerivedSlots(1), threading.Lock(), iter([1]), sys, lambda: 1,
        Exception("x"),
    ]  # fmt: skip


@cases("value", _quiet())
def test_what_has_code_of_its_own_is_left_to_the_pickler_of_calls(value: Any) -> None:
    RAN.clear()  # making the values, and their names for this test, has run some
    assert inert.pickled([1, value]) is None
    assert not RAN


def test_an_empty_instance_may_be_a_sentinel() -> None:
    empty = Plain()
    vars(empty).clear()
    assert inert.pickled(empty) is None
    assert inert.pickled(object()) is None


def test_a_registered_reduction_is_used() -> None:
    copyreg.pickle(Registered, lambda _: (Registered, ()))  # type: ignore[arg-type, return-value]
    copyreg.pickle(dt.date, lambda _: (dt.date, (1, 1, 1)))  # type: ignore[arg-type, return-value]
    try:
        assert inert.pickled(Registered()) is None
        assert inert.pickled(dt.date(2024, 1, 1)) is None
    finally:
        del copyreg.dispatch_table[Registered], copyreg.dispatch_table[dt.date]


def test_long_pickles_are_refused_early() -> None:
    class Counting:
        """Raises if what stands behind 200 KB is reached."""

        def __reduce__(self) -> Any:
            raise AssertionError("reached")

    assert inert.pickled([["x" * 100] * 10 for _ in range(7000)] + [Counting()]) is None
    assert inert.pickled("x" * inert.SHORT) is None
    assert inert.pickled([1.5] * 20_000) is None


def test_a_deep_or_endless_value_is_no_error_here() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert inert.pickled(deep) is None
    loop: Any = []
    loop.append(loop)
    found = inert.pickled(loop)
    assert found is not None
    again = pickle.loads(found[0])
    assert again[0] is again


def _pickle_of(value: Any) -> bytes:
    data = pickle.dumps(value, 5)
    RAN.clear()
    return data


@cases(
    "data",
    [
        _pickle_of(WithState()), _pickle_of(Reduced()), _pickle_of(Hashed()),
        _pickle_of(Loud.RED), _pickle_of(Finding.RED), _pickle_of(Several.A),
        _pickle_of(NewPair(1, 2)), _pickle_of(ListedPair((1, 2))), _pickle_of({OwnHash()}),
        _pickle_of(OwnSlots(1)), _pickle_of(DerivedSlots(1)), _pickle_of(Exception("x")),
        _pickle_of(Color.RED).replace(b"K\x01\x85", b"K\x09\x85"),
        pickle.dumps(Made("quiet"), 5).replace(b")\x81", b"\x8c\x01x\x85\x81"),
        b"cbuiltins\neval\n(S'1'\ntR.", b"cno.such.module\nName\n.", b"cos\nsystem\n.",
        b"\x80\x05\x82\x01.", b"\x80\x05]", b"no pickle", b"",
        b"csys\nmodules\n.", b"cos\npath\n.",
    ],
)  # fmt: skip
def test_everything_else_is_left_to_threads_that_run_user_code(data: bytes) -> None:
    RAN.clear()
    assert inert.read(data) is None
    assert not RAN


def test_a_number_for_a_class_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    copyreg.add_extension("tests.unit.classes", "Plain", 0x7A)
    try:
        data = pickle.dumps(Plain(), 5)
        assert b"\x82\x7a" in data
        assert inert.read(data) is None
    finally:
        copyreg.remove_extension("tests.unit.classes", "Plain", 0x7A)


def test_what_a_signal_handler_raises_is_not_taken_for_a_bad_pickle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look(_kind: Any) -> bool:
        raise ValueError("raised by a handler")

    data = pickle.dumps(Plain(), 5)
    monkeypatch.setattr(inert, "_is_inert", look)
    with pytest.raises(ValueError, match="by a handler"):
        inert.read(data)
    with pytest.raises(ValueError, match="by a handler"):
        inert.pickled(Plain())


def test_arrays_of_numbers_are_inert() -> None:
    np = pytest.importorskip("numpy", reason="arrays")
    for value in (
        np.arange(5.0),
        np.float64(3),
        np.array(True),
        np.arange(4)[::2],
        np.zeros((2, 3)),
    ):
        found = inert.pickled({"a": value})
        assert found is not None
        assert found[1]
        for read in (pickle.loads(found[0]), inert.read(pickle.dumps({"a": value}, 5))[0]):
            assert np.array_equal(read["a"], value)
            assert read["a"].dtype == value.dtype
    for value in (np.array([None]), np.array("text"), np.ma.zeros(3), np.zeros(3, "i4,f8")):
        assert inert.pickled([value]) is None
    assert inert.are_arrays((np.zeros(10), 3, "x")) == 80
    assert inert.are_arrays((np.array([None]),)) == -1
    assert inert.are_arrays(([np.zeros(10)],)) == -1
    stream = io.BytesIO()
    pickle.Pickler(stream, 5).dump(np.arange(3))
    old = (
        stream.getvalue()
        .replace(b"numpy._core", b"numpy.core")
        .replace(b"\x8c\x13numpy.core", b"\x8c\x12numpy.core")
    )  # as numpy 1 writes it; of another length where the frame says so
    found_old = inert.read(old[:2] + old[11:])
    assert found_old is not None
    assert found_old[0].tolist() == [0, 1, 2]
