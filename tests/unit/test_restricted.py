"""The reader of what workers send to the I/O thread: exact builtin types and nothing else."""

from __future__ import annotations

import collections
import copyreg
import decimal
import enum
import pickle
import random
import struct
import tracemalloc
from typing import Any

import pytest

from tests.support.cases import cases
from wetlands_executor.serialize import restricted

SHARED = ("text", 5)
BUILTIN = [
    None, True, False, 0, 255, 65536, -1, 1 << 200, -(1 << 3000), 1.5, float("inf"), "",
    "text\nwith r, c and i", "caf\udce9", "x" * 70000,
    b"", b"\x93\n\x82", b"y" * 300, bytearray(b"z"), (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [],
    [1], list(range(500)), {}, {"a": 1},
    {1: [(2, {"b": {3.5}})]}, set(), {1, 2}, frozenset((1, 2)), [SHARED] * 300, {"r" * 20: "\n"},
]  # fmt: skip


class Text(str):
    """Text of a class of its own."""

    __slots__ = ()


class Number(enum.IntEnum):
    """Numbers of a class of its own."""

    ONE = 1


@cases("protocol", [4, 5])
@cases("value", BUILTIN)
def test_builtin_types_are_read(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert restricted.is_builtin(data) is (value != bytearray(b"z") or protocol == 5)
    if restricted.is_builtin(data):
        found = restricted.read(data)
        assert found == value
        assert type(found) is type(value)


@cases(
    "value",
    [
        Text("x"),
        Number.ONE,
        decimal.Decimal(1),
        5j,
        collections.OrderedDict(),
        len,
        Text,
        range(3),
        pickle.PickleBuffer,
    ],
)
@cases("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_else_is(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert not restricted.is_builtin(data)
    assert restricted.trivial_value(data) is None
    with pytest.raises(restricted.NotBuiltin):
        restricted.read(data)


class Ran(Exception):
    """Code has run that was named in a pickle."""


def run() -> None:
    """Be named in a pickle."""
    raise Ran


def _named(opcode: bytes) -> bytes:
    return opcode + f"{__name__}\nrun\n".encode()


FORGED = {
    "GLOBAL": b"\x80\x04" + _named(b"c") + b")R.",
    "INST": b"(" + _named(b"i") + b".",
    "STACK_GLOBAL": b"\x80\x04"
    + b"".join(b"\x8c" + bytes([len(name)]) + name for name in (__name__.encode(), b"run"))
    + b"\x93)R.",
    "PERSID": b"Pname\n.",
    "BINPERSID": b"K\x01Q.",
    "EXT1": b"\x82\x7a.",
    "EXT2": b"\x83\x7a\x00.",
    "EXT4": b"\x84\x7a\x00\x00\x00.",
    "NEXT_BUFFER": b"\x97.",
    "READONLY_BUFFER": b"C\x01x\x98.",
    "REDUCE": b"K\x01)R.",
    "BUILD": b"K\x01}b.",
    "NEWOBJ": b"K\x01)\x81.",
    "NEWOBJ_EX": b"K\x01)}\x92.",
    "OBJ": b"(K\x01o.",
    "LONG_BINPUT of a huge number": b"K\x01r\xff\xff\xff\x7f.",
    "PUT of a huge number": b"K\x01p9999999999\n.",
    "text instructions": b"I5\n.",
    "behind the end": b"K\x01.K\x01.",
    "no end": b"K\x01",
    "nothing": b"",
    "no instruction": b"\xff\xff",
    "bytearray of 1 EB": b"\x96" + struct.pack("<Q", 1 << 60) + b".",
    "bytes of 1 EB": b"\x8e" + struct.pack("<Q", 1 << 60) + b".",
    "text of 16 EB": b"\x8d" + struct.pack("<Q", (1 << 64) - 1) + b".",
    "number of 2 GB": b"\x8b" + struct.pack("<I", 0x7FFFFFFF) + b".",
}


@cases("data", FORGED.values())
def test_forged_pickles_run_nothing_and_allocate_nothing(data: bytes) -> None:
    copyreg.add_extension(__name__, "run", 0x7A)
    try:
        assert not restricted.is_builtin(data)
        tracemalloc.start()
        try:
            with pytest.raises(restricted.NotBuiltin):
                restricted.read(data)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
    finally:
        copyreg.remove_extension(__name__, "run", 0x7A)


@cases("data", FORGED.values())
def test_what_counts_as_trivial_runs_nothing(data: bytes) -> None:
    if restricted.names_nothing(data) or restricted.is_quick(data):  # as `trivial_value` asks
        try:
            pickle.loads(data)
        except Ran:
            pytest.fail("it ran")
        except Exception:  # noqa: BLE001, S110 - broken in some way; that is for its reader to say
            pass


@cases(
    "data",
    [
        b"K\x01.",
        b"\x85.",
        b"(t.",
        b"h\x05.",
        b"}]K\x01s.",
        b"}K\x01.",
        b"\x8c\x02\xff\xff.",
        b"1.",
        b"]K\x01K\x01s.",
        b"K\x01e.",
    ],
)
def test_broken_pickles_raise_nothing_else(data: bytes) -> None:
    try:
        restricted.read(data)
    except restricted.NotBuiltin:
        pass


def test_random_bytes_raise_nothing_else(stress_rng: random.Random) -> None:
    codes = [code for code in range(256) if restricted._SIZES[code]]
    whole = [pickle.dumps(value, 4) for value in BUILTIN if len(repr(value)) < 1000]
    read = 0
    for _ in range(20000):
        if stress_rng.random() < 0.5:
            data = bytearray(stress_rng.choice(whole))
            for _ in range(stress_rng.randrange(1, 4)):
                data[stress_rng.randrange(len(data))] = stress_rng.randrange(256)
        else:
            data = bytearray(stress_rng.choices(codes, k=stress_rng.randrange(1, 40))) + b"."
        try:
            restricted.read(bytes(data))
            read += 1
        except restricted.NotBuiltin:
            pass
    assert read > 100


def test_shapes() -> None:
    record = {
        "name": "x",
        "msg": "y",
        "levelno": 20,
        "levelname": "INFO",
        "created": 1.5,
        "extra": None,
    }
    assert restricted.read_record(pickle.dumps(record)) == record
    for wrong in (
        {},
        [1],
        {**record, "levelno": "x"},
        {**record, "more": [1]},
        {**record, 5: 1},
        {**record, "msg": None},
    ):
        with pytest.raises(restricted.NotBuiltin):
            restricted.read_record(pickle.dumps(wrong))
    assert restricted.read_progress(pickle.dumps((5, None, 1, 2.5))) == (5, None, 1, 2.5)
    for report in (
        (5, None, 1),
        [5, None, 1, 2],
        ("5", None, 1, 2),
        (5, b"", 1, 2),
        (5, "", True, 2),
        (5, "", 1, "2"),
        (5, "", (1,), 2),
        5,
    ):
        with pytest.raises(restricted.NotBuiltin):
            restricted.read_progress(pickle.dumps(report))
