"""Arguments of several calls in one block: which calls fit together, and what the block has."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from wetlands_executor.map import packing
from wetlands_executor.map.packing import BLOCK_BYTES, LARGE, fitting, pack
from wetlands_executor.sharedmem import arena
from wetlands_executor.worker import wire

#: Bytes that may go through the pipe.
PIPED = 10_000


def encoded(payload: bytes, *needs: Any, blocks: Any = None) -> Any:
    """Return the encoded arguments of one call."""
    return SimpleNamespace(payload=payload, out_of_band=blocks, needs=needs)


def piece(owner: int, number: int) -> Any:
    return SimpleNamespace(owner=owner, number=number)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are blocks."""
    monkeypatch.setattr(packing, "possible", lambda: True)


@pytest.fixture
def no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none."""
    monkeypatch.setattr(packing, "possible", lambda: False)


# ------------------------------------------------------------------------------- what fits together


def test_small_calls_fit_as_long_as_the_pipe_takes_them() -> None:
    assert fitting([(b"x" * 1000, 1)] * 30, PIPED) == (10, 0)
    assert fitting([("x" * 1000,)] * 3, PIPED) == (3, 0)
    assert fitting([(1, 2.5, None)] * 50, PIPED) == (50, 0), "numbers take next to nothing"


@pytest.mark.usefixtures("blocks")
def test_large_values_go_into_a_block() -> None:
    entry = (b"x" * LARGE, "y" * LARGE, b"z" * (LARGE - 1))
    assert fitting([entry] * 3, PIPED) == (3, 6 * LARGE)


@pytest.mark.usefixtures("blocks")
def test_a_block_has_an_end() -> None:
    half = (b"x" * (BLOCK_BYTES // 2),)
    assert fitting([half] * 3, PIPED) == (2, BLOCK_BYTES)
    assert fitting([half, (b"x" * (BLOCK_BYTES // 2 + 1),)], PIPED) == (1, BLOCK_BYTES // 2)


@pytest.mark.usefixtures("blocks")
def test_a_single_call_fits_however_large_it_is() -> None:
    assert fitting([(b"x" * (3 * BLOCK_BYTES),)] * 2, PIPED) == (1, 3 * BLOCK_BYTES)


@pytest.mark.usefixtures("no_blocks")
def test_without_blocks_nothing_is_large() -> None:
    entry = (b"x" * (2 * LARGE),)
    assert fitting([entry] * 5, PIPED) == (2, 0)
    assert fitting([(b"x" * (5 * PIPED),)] * 2, PIPED) == (1, 0)


def test_calls_of_two_kinds_do_not_travel_together() -> None:
    raw, made = (1,), encoded(b"x")
    assert fitting([raw, raw, made, raw], PIPED) == (2, 0)
    assert fitting([made, raw], PIPED) == (1, 0)


@pytest.mark.usefixtures("blocks")
def test_encoded_calls_count_by_their_pickles() -> None:
    assert fitting([encoded(b"x" * 1000)] * 3, PIPED) == (3, 0)
    assert fitting([encoded(b"x" * LARGE)] * 3, PIPED) == (3, 3 * LARGE)


def test_a_call_that_has_more_than_bytes_goes_alone() -> None:
    with_blocks = encoded(b"x", blocks=object())
    assert fitting([with_blocks, encoded(b"x")], PIPED) == (1, 0)
    assert fitting([encoded(b"x"), with_blocks], PIPED) == (1, 0)


def test_calls_that_refer_to_two_states_of_an_object_do_not_travel_together() -> None:
    one, same, other = (
        encoded(b"x", piece(1, 7), piece(2, 8)),
        encoded(b"x", piece(1, 7)),
        encoded(b"x", piece(1, 9)),
    )
    assert fitting([one, same, one, other], PIPED) == (3, 0)


# ---------------------------------------------------------------------------------- what is packed


class Block:
    """Out-of-band arguments that keep what is put into them; None is no room."""

    room = True
    made: list[Block] = []

    def __init__(self) -> None:
        self.data = b""
        self.made.append(self)

    def put_all(self, pieces: list[bytes], size: int) -> bytes:
        self.data = b"".join(pieces)
        assert len(self.data) == size
        return b"HEAD" if self.room else b""


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Block]]:
    monkeypatch.setattr(packing, "OutOfBandArguments", Block)
    monkeypatch.setattr(Block, "made", [])
    monkeypatch.setattr(Block, "room", True)
    return Block  # type: ignore[return-value]


def table(payload: bytes) -> list[Any]:
    assert payload.startswith(b"HEAD")
    found: list[Any] = pickle.loads(payload[4:])
    return found


def test_large_values_lie_one_behind_the_other(block: type[Block]) -> None:
    first, text, last = b"a" * LARGE, "ü" * LARGE, b"c" * LARGE
    packed = pack([(1, first, text), (2, b"small"), (last,)])
    assert packed is not None
    payload, blocks = packed
    assert blocks is block.made[0]
    ends = [LARGE, 3 * LARGE, 4 * LARGE]
    assert table(payload) == [
        [1, (0, ends[0], wire.BYTES), (ends[0], ends[1], wire.TEXT)],
        (2, b"small"),
        [(ends[1], ends[2], wire.BYTES)],
    ]
    assert block.made[0].data == first + text.encode() + last


def test_text_that_is_no_utf_8_arrives_as_it_is(block: type[Block]) -> None:
    text = "\udc80" * LARGE
    packed = pack([(text,)])
    assert packed is not None
    assert block.made[0].data.decode("utf-8", "surrogatepass") == text


def test_pickles_lie_in_the_block_or_beside_it(block: type[Block]) -> None:
    packed = pack([encoded(b"p" * LARGE), encoded(b"short")])
    assert packed is not None
    assert table(packed[0]) == [[(0, LARGE, wire.PICKLE)], b"short"]


def test_a_subclass_of_bytes_is_no_large_value(block: type[Block]) -> None:
    class Mine(bytes):
        pass

    packed = pack([(bytearray(LARGE), b"x" * LARGE)])
    assert packed is not None
    assert table(packed[0])[0][0] == bytearray(LARGE)
    assert fitting([(Mine(LARGE),)], PIPED) == (1, 0)


def test_without_room_nothing_is_packed(block: type[Block]) -> None:
    block.room = False
    assert pack([(b"x" * LARGE,)]) is None


@pytest.mark.skipif(arena.LIMIT == 0, reason="blocks are switched off")
def test_a_real_block_is_taken_and_freed() -> None:
    if not packing.possible():
        pytest.skip("no blocks here")
    host = arena.current()
    assert host is not None
    before = host.in_use()
    packed = pack([(b"x" * LARGE,)] * 3)
    assert packed is not None
    payload, blocks = packed
    count, _ = wire.LIST.unpack_from(payload)
    assert count == 1
    slot, place, offset, _capacity, start, length = wire.BLOCK.unpack_from(payload, wire.LIST.size)
    assert (place, start, length) == (wire.ARGUMENTS, 0, 3 * LARGE)
    assert set(host.in_use()) - set(before) == {slot}
    assert offset >= 0
    blocks.discard()
    assert host.in_use() == before
