"""Tasks that change, fill, write to, or close the descriptors that their worker has inherited."""

from __future__ import annotations

import array
import os

import pytest

from tests.faults import harms, work
from tests.support.observe import DEADLINE
from wetlands_executor import WorkerCrashed, descriptors, share

HARMLESS = [
    harms.set_nonblocking,
    harms.fill_counters,
    harms.fill_and_set_nonblocking,
    harms.drain_counters,
    harms.change_flags,
    harms.fork_a_daemon,
    harms.write_zeros,
]
DEADLY = [harms.close_all, harms.cover_all]


def well(executor):
    """See that calls, large values, output and maps work."""
    block = array.array("d", range(100_000))
    assert [executor.submit(pow, 2, n).result(DEADLINE) for n in range(10)] == [
        2**n for n in range(10)
    ]
    assert executor.submit(sum, block).result(DEADLINE) == sum(range(100_000))
    assert executor.submit(work.blob, 3_000_000).result(DEADLINE) == work.blob(3_000_000)
    assert executor.submit(work.ignore, "x" * 300_000).exception(DEADLINE) is None
    assert list(executor.map(abs, range(300), timeout=DEADLINE)) == list(range(300))


@pytest.mark.parametrize("harm", HARMLESS + DEADLY, ids=lambda harm: harm.__name__)
def test_calls_one_after_another(single, harm):
    """The submitters wait for the answers themselves."""
    well(single)
    error = single.submit(harm).exception(DEADLINE)
    assert isinstance(error, WorkerCrashed) if harm in DEADLY else error is None
    well(single)
    assert single.submit(harm).exception(DEADLINE) is None or harm in DEADLY
    single.shutdown()


@pytest.mark.parametrize("harm", HARMLESS + DEADLY, ids=lambda harm: harm.__name__)
def test_calls_that_wait_behind_it(single, harm):
    """The worker holds them already, and the I/O thread takes the answers."""
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8
    before = [single.submit(pow, 2, n) for n in range(5)]
    culprit = single.submit(harm)
    after = [single.submit(pow, 2, n) for n in range(100)]
    large = single.submit(sum, array.array("d", range(100_000)))
    assert (
        isinstance(culprit.exception(DEADLINE), WorkerCrashed)
        if harm in DEADLY
        else culprit.exception(DEADLINE) is None
    )
    assert [task.result(DEADLINE) for task in before] == [2**n for n in range(5)]
    assert [task.result(DEADLINE) for task in after] == [2**n for n in range(100)]
    assert large.result(DEADLINE) == sum(range(100_000))
    well(single)


@pytest.mark.parametrize(
    "harm", [harms.set_nonblocking, harms.change_flags], ids=lambda harm: harm.__name__
)
def test_output_after_it(single, harm, capsys):
    """A pipe that is full and does not block: the lines wait."""
    single.submit(harm).result(DEADLINE)
    capsys.readouterr()
    # The smallest pipe is filled four hundred times, and a busy machine lets the other process run
    # after each.
    assert single.submit(work.flood, 30_000).result(3 * DEADLINE) == 30_000
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "29999"


def test_output_of_a_pipe_in_packet_mode(single, capsys):
    """A read takes what one write has written: the outcome waits for all of them."""
    for _ in range(20):
        assert single.submit(harms.print_packets, 12).result(DEADLINE) == 12
        assert capsys.readouterr().out.splitlines() == [str(number) for number in range(12)]


def test_no_write_reaches_what_workers_share(executor, rendezvous):
    """Neither the tables, nor an array that another worker looks at, nor a shared one."""
    value = array.array("d", range(200_000))
    shared = share(value, writable=True)
    expected = float(sum(value[:: len(value) // 7]))
    busy = executor.submit(harms.hold_and_sum, value, rendezvous.address)
    arrival = rendezvous.next()
    assert executor.submit(harms.write_zeros).result(DEADLINE) == []
    for _ in range(3):
        assert executor.submit(sum, value).result(DEADLINE) == sum(value)
    assert shared.tolist() == value.tolist()
    arrival.release()
    assert busy.result(DEADLINE) == expected


def test_the_shared_page_has_no_descriptor_in_the_worker(single):
    names = single.submit(harms.descriptors).result(DEADLINE).values()
    assert not [name for name in names if "page" in name]


def test_each_worker_has_an_open_of_the_file_for_itself():
    """What a task does to its offset and its flags concerns no other worker.

    And no write is taken at any offset.
    """
    file = descriptors.memory_file()
    mine, other = descriptors.for_worker(file), descriptors.for_worker(file)
    try:
        os.lseek(mine, 0, os.SEEK_SET)
        os.set_blocking(mine, False)
        assert os.lseek(other, 0, os.SEEK_CUR) == descriptors.FILE
        assert os.get_blocking(other)
        for fd in (mine, other):
            with pytest.raises(PermissionError):
                os.write(fd, b"x")
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"x", 0)
    finally:
        for fd in (mine, other, file):
            descriptors.close_quietly(fd)
