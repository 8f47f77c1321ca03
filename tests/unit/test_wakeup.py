"""The eventfd by which a worker wakes the thread that waits for its answer."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from wetlands_executor.pool.wakeup import Wakeup

pytestmark = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="there is no eventfd")

#: The largest number that the counter takes; a further write blocks.
FULL = (1 << 64) - 2


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def count(wakeup: Wakeup) -> int:
    """Take the counter; 0 if no notification is there."""
    os.set_blocking(wakeup.fd, False)
    try:
        return int.from_bytes(os.read(wakeup.fd, 8), "little")
    except BlockingIOError:
        return 0
    finally:
        os.set_blocking(wakeup.fd, True)


def fill(wakeup: Wakeup) -> None:
    """A task fills the counter."""
    os.write(wakeup.fd, FULL.to_bytes(8, "little"))


def test_notifications_are_taken_at_once(wakeup: Wakeup) -> None:
    wakeup.release()
    wakeup.release()
    wakeup.empty()
    assert count(wakeup) == 0
    wakeup.empty()  # does not block
    wakeup.release()
    assert count(wakeup) == 1


def test_a_counter_that_a_task_has_filled_blocks_neither_side(wakeup: Wakeup) -> None:
    fill(wakeup)
    assert wakeup.is_full()
    wakeup.release()
    assert wakeup.is_full(), "that is a notification already"
    wakeup.unblock_worker()
    assert not wakeup.is_full()
    assert count(wakeup) == 1, "the thread that sleeps is notified"


def test_a_counter_with_room_is_left_alone(wakeup: Wakeup) -> None:
    wakeup.release()
    wakeup.unblock_worker()
    assert count(wakeup) == 1


def test_a_wait_waits_again_when_a_task_has_changed_the_flags(wakeup: Wakeup) -> None:
    os.set_blocking(wakeup.fd, False)
    wakeup.make_blocking()
    assert os.get_blocking(wakeup.fd)


def test_it_is_closed_once_and_harms_no_other_descriptor() -> None:
    wakeup = Wakeup()
    fd = wakeup.fd
    assert fd > 2
    assert not os.get_inheritable(fd)
    wakeup.close()
    closed: list[int] = []
    wakeup.close(closed.append)
    assert (wakeup.fd, closed) == (-1, [])
    assert not wakeup.is_full()
    wakeup.release()
    wakeup.empty()


def test_the_last_reference_closes_it() -> None:
    wakeup = Wakeup()
    fd = wakeup.fd
    del wakeup
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
