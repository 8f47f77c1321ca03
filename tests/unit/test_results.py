"""From outcomes to values and exceptions, and from plain scalars to payloads. No process."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from wetlands_executor.serialize import calls, definitions, encoded
from wetlands_executor.serialize.calls import encode, encode_defined
from wetlands_executor.serialize.definitions import define
from wetlands_executor.serialize.encoded import DefinedCall, encode_at_once
from wetlands_executor.serialize.results import TOO_LARGE, read_outcome, value_at_once
from wetlands_executor.serialize.scalars import SCALARS, are_scalars
from wetlands_executor.worker import calls as worker_calls
from wetlands_executor.worker import wire


class Refuses:
    """Cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise SystemExit("not here")


def dumps(value: Any) -> bytes:
    return pickle.dumps(value, 5)


def read(kind: int, data: Any) -> tuple[Any, BaseException | None]:
    return read_outcome(kind, data, False, ("", ""), lambda: "f")


@pytest.mark.parametrize("value", [5, "text", [1, {"a": (2.5, None)}], b"x" * 100, "x" * 100_000])
def test_plain_values_are_read_at_once(value: Any) -> None:
    assert value_at_once(wire.VALUE, dumps(value)) == (value,)


def test_nothing_is_read_at_once() -> None:
    assert value_at_once(wire.NONE, b"") == (None,)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (wire.VALUE, dumps(Refuses())),
        (wire.VALUE, dumps("a longer text")[:-4]),
        (wire.VALUE, dumps("x" * 300_000)),
        (wire.VALUE, dumps(list(range(30_000)))),
        (wire.ERROR, dumps(5)),
        (wire.CANCELLED, b""),
        (TOO_LARGE, b"5"),
    ],
)
def test_what_is_not_read_at_once(kind: int, data: bytes) -> None:
    assert value_at_once(kind, data) is None


def test_outcomes_are_values_or_exceptions() -> None:
    assert read(wire.VALUE, dumps(math.pi)) == (math.pi, None)
    assert read(wire.NONE, b"") == (None, None)
    value, error = read(TOO_LARGE, b"1234567")
    assert value is None
    assert isinstance(error, MemoryError)
    assert "f has 1,234,567 bytes" in str(error)


def test_a_failure_of_the_function_is_rebuilt() -> None:
    try:
        raise KeyError("missing")
    except KeyError as raised:
        data = worker_calls.dumps_error(raised, False)
    value, error = read(wire.ERROR, data)
    assert value is None
    assert isinstance(error, KeyError)
    assert error.args == ("missing",)


def test_a_failure_of_unpickling_is_the_failure_of_the_call() -> None:
    """SystemExit too."""
    value, error = read_outcome(
        wire.VALUE, dumps(Refuses()), False, ("/prefix", "3.12"), "f({})".format, 5
    )
    assert value is None
    assert isinstance(error, SystemExit)
    assert "f(5)" in str(error.__cause__)


# ------------------------------------------------------------------------------------------ scalars


class Text(str):
    """No plain scalar."""

    __slots__ = ()


@pytest.mark.parametrize(
    "args", [(1, 2.5, "a", b"b", True, None, 1j), ("x" * 300_000,), ("x" * 5000, 1)]
)
def test_plain_scalars_are_written_by_one_rule(args: tuple[Any, ...]) -> None:
    assert are_scalars(map(type, args))
    definition = define(math.hypot)
    assert definition is not None
    found = [
        encode_at_once(math.hypot, args, None),
        encode_defined(definition, args),
        encode(math.hypot, args, {}),
    ]
    for each in found:
        assert each is not None
        assert each.definition is definition
        assert each.flags & wire.NO_REFERENCES
        if each.out_of_band is None:
            assert pickle.loads(each.payload) == (args, None)


@pytest.mark.parametrize("value", [Text("a"), [1], (1,), {}, len, Ellipsis, bytearray(b"a")])
def test_other_arguments_are_not_encoded_at_once(value: Any) -> None:
    assert type(value) not in SCALARS
    assert encode_at_once(math.hypot, (1, value), define(math.hypot)) is None


def test_large_scalars_are_pickled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled: list[Any] = []
    definition = define(math.hypot)  # what is defined for the first time is pickled too

    class Counting:
        """The module ``pickle`` that notes what is pickled."""

        def __getattr__(self, name: str) -> Any:
            return getattr(pickle, name)

        def dumps(self, value: Any, *args: Any) -> bytes:
            pickled.append(value)
            return pickle.dumps(value, *args)

    for module in (calls, encoded, definitions):
        monkeypatch.setattr(module, "pickle", Counting())
    found = encode(math.hypot, ("x" * 10_000,), {}, definition)
    assert not isinstance(found, DefinedCall)
    assert len(pickled) == 1
