"""Workers and hosts that run out of descriptors, or lose ours."""

from __future__ import annotations

import errno
import os

import pytest

from tests.contract.workload import arrive
from tests.faults import work
from tests.support.observe import DEADLINE
from wetlands_executor import WorkerCrashed


def test_worker_without_descriptors(single):
    """A task uses all that there are; later tasks need none of ours anew."""
    pid = single.submit(work.pid).result(DEADLINE)
    number, opened = single.submit(work.exhaust_descriptors, 60).result(DEADLINE)
    assert number == errno.EMFILE
    assert opened > 20
    assert [single.submit(pow, 2, n).result(DEADLINE) for n in range(10)] == [
        2**n for n in range(10)
    ]
    assert single.submit(work.say_both, "well").result(DEADLINE) == "well"
    with pytest.raises(OSError, match="Too many open files"):
        single.submit(os.open, os.devnull, os.O_RDONLY).result(DEADLINE)
    assert len(single.submit(work.blob, 10_000_000).result(DEADLINE)) == 10_000_000
    assert single.submit(work.pid).result(DEADLINE) == pid


def test_task_that_closes_everything(single):
    """Our pipes are gone: that task fails, with a hint (or they are where the task does not look).

    The next one is well.
    """
    error = single.submit(work.close_range, 3, 256).exception(DEADLINE)
    assert error is None or (isinstance(error, WorkerCrashed) and "close" in str(error))
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8


def test_task_that_closes_everything_and_opens_files(single, tmp_path):
    """The numbers of our pipes may belong to the user's files now.

    Not a byte of ours may get there.
    """
    path = tmp_path / "file"
    error = single.submit(work.close_range_and_open, 3, 1024, str(path)).exception(DEADLINE)
    assert error is None or isinstance(error, WorkerCrashed)
    for _ in range(3):
        single.submit(work.pid).exception(DEADLINE)
    assert path.read_bytes() == b""
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8


@pytest.mark.parametrize("fd", range(3, 12))
def test_task_that_closes_one_descriptor(single, fd):
    """Whichever it is, and whether or not it is ours.

    The task ends, and the ones after it are well.
    """
    task = single.submit(work.close_range, fd, fd + 1)
    error = task.exception(DEADLINE)
    assert error is None or isinstance(error, WorkerCrashed)
    assert [single.submit(pow, 2, n).result(DEADLINE) for n in range(10)] == [
        2**n for n in range(10)
    ]
    single.submit(work.ignore, b"x" * 1_000_000).result(DEADLINE)
    assert len(single.submit(work.blob, 1_000_000).result(DEADLINE)) == 1_000_000


def test_task_that_closes_while_others_wait(single, rendezvous):
    culprit = single.submit(_arrive_and_close, rendezvous.address)
    arrival = rendezvous.next()
    queued = [single.submit(pow, 2, n) for n in range(100)]
    arrival.release()
    error = culprit.exception(DEADLINE)
    assert error is None or isinstance(error, WorkerCrashed)
    assert [task.result(DEADLINE) for task in queued] == [2**n for n in range(100)]


def _arrive_and_close(address):
    arrive(address)
    os.closerange(3, 256)


def test_host_without_descriptors(host, tmp_path):
    """However many are left: submit raises, and the call never runs; or the task ends.

    Then everything is well again, and nothing is left.
    """
    code, out, err = host("no_descriptors", tmp_path).finish(60)
    assert (code, err) == (0, "")
    kinds = set()
    for number, line in enumerate(out.splitlines()):
        free, kind, *rest = line.split()
        assert int(free) == number, out
        assert rest == (["1", "2"] if kind == "NoneType" else ["2"]), line
        kinds.add(kind)
    assert (
        {"WorkerStartError", "NoneType"}
        <= kinds
        <= {"raised", "OSError", "WorkerStartError", "NoneType"}
    )
    assert number == 28


def test_worker_dies_when_there_are_no_descriptors(host):
    code, out, err = host("no_descriptors_when_a_worker_dies").finish()
    assert (code, out.split()) == (0, ["True", "16"]), err


@pytest.mark.parametrize("how", ["ignored", "reaped"])
def test_host_that_steals_exit_codes(host, how):
    code, out, err = host("children_ignored", how).finish()
    assert (code, out.split()) == (0, ["crashed"] * 5 + ["well"]), err
