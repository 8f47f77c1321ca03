"""``map``: order, laziness, time-outs, errors, closing, chunks, buffers."""

from __future__ import annotations

import gc
import inspect
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest

from tests.contract import workload
from tests.contract.executor_kinds import ExecutorKind
from tests.support.rendezvous import DEADLINE, Rendezvous, elapsed

#: Items that the standard library's pool has handed over already when the first one has run: those
#: cannot be cancelled any more.
AT_THE_HEAD = 3
#: The kinds of executor whose ``map`` has Python 3.14's ``buffersize``.
OURS = ("conda", "in-process")
BUFFERED = ("thread", "process", *OURS) if sys.version_info >= (3, 14) else OURS


def labels_until_the_last(single: Executor, rendezvous: Rendezvous) -> list[str]:
    """Let everything run that still does, one after another; return the labels of what has run."""
    single.submit(workload.arrive, rendezvous.address, "the last")
    labels = []
    while (arrival := rendezvous.next()).label != "the last":
        labels.append(arrival.label)
        arrival.release()
    arrival.release()
    return labels


def test_results_come_in_the_order_of_the_input(executor: Executor) -> None:
    assert list(executor.map(pow, range(20), range(20))) == list(map(pow, range(20), range(20)))


def test_results_come_in_order_although_the_tasks_finish_in_another(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    results = executor.map(workload.arrive, [rendezvous.address] * 2, ["first", "second"])
    arrivals = rendezvous.expect("first", "second")
    arrivals["second"].release()
    threading.Timer(0.05, arrivals["first"].release).start()
    assert list(results) == ["first", "second"]


def test_the_shortest_iterable_ends_it(executor: Executor) -> None:
    assert list(executor.map(workload.multiply, itertools.count(1), [5, 6, 7])) == [5, 12, 21]
    assert list(executor.map(workload.multiply, [], [5, 6, 7])) == []


def test_no_iterables_and_empty_ones_give_nothing(executor: Executor) -> None:
    assert list(executor.map(workload.multiply)) == []
    assert list(executor.map(workload.multiply, [])) == []


def test_tasks_start_before_results_are_asked_for(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    results = executor.map(workload.arrive, [rendezvous.address], ["not asked for"])
    rendezvous.next().release()
    assert list(results) == ["not asked for"]


def test_the_input_is_read_at_once(executor: Executor, rendezvous: Rendezvous) -> None:
    read = []

    def source() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    results = executor.map(workload.arrive, itertools.repeat(rendezvous.address), source())
    assert read == list(range(100))
    rendezvous.open()
    assert list(results) == read


def test_an_error_in_the_input_is_raised_by_map_itself(executor: Executor) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise workload.Plain("input")

    with pytest.raises(workload.Plain, match="input"):
        executor.map(workload.identity, source())
    assert list(executor.map(workload.identity, [1])) == [1]


def test_what_cannot_be_iterated_is_a_type_error(executor: Executor) -> None:
    with pytest.raises(TypeError):
        executor.map(workload.identity, 5)  # type: ignore[arg-type]


def test_an_error_comes_at_its_place(executor: Executor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_the_first_error_cancels_the_rest(single: Executor, rendezvous: Rendezvous) -> None:
    second = itertools.chain([rendezvous.address], itertools.repeat(rendezvous.address, 30))
    results = single.map(workload.arrive_and_raise, second, range(31))
    rendezvous.next().release()
    with pytest.raises(ValueError, match="0"):
        next(results)
    assert len(labels_until_the_last(single, rendezvous)) <= AT_THE_HEAD


def test_closing_the_iterator_cancels_the_rest(single: Executor, rendezvous: Rendezvous) -> None:
    results = single.map(workload.arrive, itertools.repeat(rendezvous.address), range(30))
    rendezvous.next().release()
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(labels_until_the_last(single, rendezvous)) <= AT_THE_HEAD
    with pytest.raises(StopIteration):
        next(results)


def test_dropping_the_iterator_half_way_cancels_the_rest(
    single: Executor, rendezvous: Rendezvous
) -> None:
    results = single.map(workload.arrive, itertools.repeat(rendezvous.address), range(30))
    rendezvous.next().release()
    next(results)
    del results
    gc.collect()
    assert len(labels_until_the_last(single, rendezvous)) <= AT_THE_HEAD


# ---------------------------------------------------------------------------------------- time-outs


def test_the_time_out_is_raised_by_the_iterator(executor: Executor, rendezvous: Rendezvous) -> None:
    # The time runs from the call of map: it must not be the time in which two workers start.
    warm_up = executor.map(workload.arrive, [rendezvous.address] * 2, ["first", "second"])
    for arrival in rendezvous.expect("first", "second").values():
        arrival.release()
    assert list(warm_up) == ["first", "second"]
    results = executor.map(
        workload.arrive, [rendezvous.address] * 2, ["quick", "slow"], timeout=1.5
    )
    rendezvous.expect("quick", "slow")["quick"].release()
    assert next(results) == "quick"
    began = time.monotonic()
    with pytest.raises(futures.TimeoutError):
        next(results)
    assert elapsed(began) < 6


def test_a_time_out_of_nothing(executor: Executor, rendezvous: Rendezvous) -> None:
    results = executor.map(workload.arrive, [rendezvous.address], timeout=0)
    with pytest.raises(futures.TimeoutError):
        next(results)


def test_the_time_runs_from_the_call_of_map(executor: Executor, rendezvous: Rendezvous) -> None:
    results = executor.map(workload.arrive, [rendezvous.address], timeout=0.4)
    # the subject of this test is time: it passes while no result is asked for
    threading.Event().wait(0.5)
    began = time.monotonic()
    with pytest.raises(futures.TimeoutError):
        next(results)
    assert elapsed(began) < 0.3


def test_a_time_out_that_is_not_reached(executor: Executor) -> None:
    assert list(executor.map(workload.identity, range(10), timeout=DEADLINE)) == list(range(10))


def test_results_that_are_there_in_time_are_yielded_after_it(executor: Executor) -> None:
    results = executor.map(workload.identity, range(3), timeout=0.05)
    executor.shutdown(wait=True)
    threading.Event().wait(0.1)  # the subject is time
    assert list(results) == [0, 1, 2]


def test_a_time_out_cancels_the_rest(single: Executor, rendezvous: Rendezvous) -> None:
    results = single.map(
        workload.arrive, itertools.repeat(rendezvous.address, 20), range(20), timeout=0.2
    )
    arrival = rendezvous.next()
    with pytest.raises(futures.TimeoutError):
        next(results)
    arrival.release()
    assert len(labels_until_the_last(single, rendezvous)) <= AT_THE_HEAD


# ------------------------------------------------------------------------------------------- chunks


@pytest.mark.executor_kinds("thread", "in-process", "process", "conda", "conda-other")
@pytest.mark.parametrize("size", [1, 2, 6, 40, 50])
def test_chunks_change_nothing_about_the_results(executor: Executor, size: int) -> None:
    expected = list(map(pow, range(40), range(40)))
    assert list(executor.map(pow, range(40), range(40), chunksize=size)) == expected


@pytest.mark.executor_kinds("process", "conda")
@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_size_below_one_is_refused_by_map_itself(executor: Executor, size: int) -> None:
    with pytest.raises(ValueError, match=r"chunksize must be >= 1\."):
        executor.map(workload.identity, [1], chunksize=size)


@pytest.mark.executor_kinds("process", "conda")
def test_a_chunk_is_one_task(executor: Executor) -> None:
    pids = list(executor.map(workload.pid, range(60), chunksize=20))
    assert all(len(set(pids[start : start + 20])) == 1 for start in (0, 20, 40))


@pytest.mark.executor_kinds("process", "conda")
def test_an_error_costs_its_chunk(executor: Executor) -> None:
    results = executor.map(divmod, [1] * 6, [1, 1, 1, 1, 0, 1], chunksize=2)
    assert [next(results) for _ in range(4)] == [(1, 0)] * 4
    with pytest.raises(ZeroDivisionError):
        next(results)


# --------------------------------------------------------------------------------------- references


def test_the_iterator_keeps_no_result(executor: Executor) -> None:
    for result in executor.map(workload.Thing, range(10)):
        reference = weakref.ref(result)
        del result
        gc.collect()
        assert reference() is None


@pytest.mark.executor_kinds("process", "conda")
def test_the_iterator_keeps_no_result_of_a_chunk(executor: Executor) -> None:
    for result in executor.map(workload.Thing, range(10), chunksize=5):
        reference = weakref.ref(result)
        del result
        gc.collect()
        assert reference() is None


# ------------------------------------------------------------------------- buffersize (Python 3.14)


@pytest.mark.executor_kinds(*BUFFERED)
def test_a_buffer_reads_the_input_as_results_are_taken(executor: Executor) -> None:
    source = iter(range(10))
    results = executor.map(workload.identity, source, buffersize=3)
    assert next(source) == 3, "three items were read"
    assert next(results) == 0
    assert next(source) == 5, "one item was read for the one that was taken"
    assert list(results) == [1, 2, 4, 6, 7, 8, 9]


@pytest.mark.executor_kinds(*BUFFERED)
def test_a_buffer_makes_endless_input_possible(executor: Executor) -> None:
    results = executor.map(workload.multiply, itertools.count(), itertools.repeat(2), buffersize=4)
    assert list(itertools.islice(results, 100)) == list(range(0, 200, 2))
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.executor_kinds(*BUFFERED)
def test_a_buffer_changes_nothing_about_the_results(executor: Executor, size: int) -> None:
    assert list(executor.map(pow, range(20), range(20), buffersize=size)) == list(
        map(pow, range(20), range(20))
    )
    assert list(executor.map(pow, [], [], buffersize=size)) == []


@pytest.mark.executor_kinds(*BUFFERED)
def test_a_buffer_and_chunks_go_together(executor: Executor) -> None:
    assert list(executor.map(workload.identity, range(25), chunksize=4, buffersize=2)) == list(
        range(25)
    )


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)]
)
@pytest.mark.executor_kinds(*BUFFERED)
def test_a_buffer_of_nonsense_is_refused_by_map_itself(
    executor: Executor, size: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match="buffersize must be"):
        executor.map(workload.identity, [1], buffersize=size)  # type: ignore[call-arg]


@pytest.mark.executor_kinds(*BUFFERED)
def test_an_error_comes_at_its_place_behind_a_buffer(executor: Executor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [1, 1, 0, 1], buffersize=2)
    assert [next(results), next(results)] == [(1, 0), (1, 0)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.executor_kinds(*BUFFERED)
def test_a_buffer_keeps_the_order_of_a_slow_head(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    results = executor.map(
        workload.arrive, itertools.repeat(rendezvous.address), range(4), buffersize=2
    )
    arrivals = rendezvous.expect(0, 1)
    arrivals["1"].release()
    arrivals["0"].release()
    assert [next(results), next(results)] == [0, 1]
    rendezvous.open()
    assert list(results) == [2, 3]


# --------------------------------------------------------------------------------------- ours alone


@pytest.mark.executor_kinds("conda")
def test_unordered_results_come_as_they_are_ready(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    results = executor.map(
        workload.arrive, [rendezvous.address] * 2, ["first", "second"], ordered=False
    )  # type: ignore[call-arg]
    arrivals = rendezvous.expect("first", "second")
    arrivals["second"].release()
    assert next(results) == "second"
    arrivals["first"].release()
    assert list(results) == ["first"]


@pytest.mark.executor_kinds("conda")
def test_unordered_results_time_out_too(executor: Executor, rendezvous: Rendezvous) -> None:
    results = executor.map(workload.arrive, [rendezvous.address], timeout=0.05, ordered=False)  # type: ignore[call-arg]
    with pytest.raises(futures.TimeoutError):
        next(results)


@pytest.mark.executor_kinds("conda")
def test_map_has_every_parameter_of_the_process_pool(executor_kind: ExecutorKind) -> None:
    theirs = inspect.signature(ProcessPoolExecutor.map).parameters
    assert set(theirs) <= set(inspect.signature(executor_kind.type.map).parameters)
