"""Log records of workers are handled on the host as if they had been made here, once.

Printed lines come once and in time.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.interpreters import Interpreter
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, InProcessExecutor, WorkerCrashed

NAME = "tests.tasks.remote"


class Keeper(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """A handler on the logger that the tests' functions use; levels are put back."""
    logger, root = logging.getLogger(NAME), logging.getLogger()
    levels = {one: one.level for one in (logger, root, logging.getLogger("tests.tasks"))}
    handler = Keeper()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    for one, level in levels.items():
        one.setLevel(level)
    logger.filters.clear()
    logger.propagate = True
    logger.disabled = False


def test_a_record_under_its_own_name_once_with_the_extra_fields(
    single: CondaEnvExecutor, keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    task = single.options(name="the task").submit(workload.log)
    task.result(DEADLINE)
    (record,) = keeper.records
    assert (record.name, record.levelno, record.getMessage()) == (
        NAME,
        logging.WARNING,
        "hello you",
    )
    assert record.worker_index == 0  # type: ignore[attr-defined]
    assert record.worker_pid == record.process == task.worker_pid  # type: ignore[attr-defined]
    assert (record.task_id, record.task_name) == (task.id, "the task")  # type: ignore[attr-defined]
    assert sys.prefix in record.environment  # type: ignore[attr-defined]
    assert record.filename == "workload.py"
    assert record.funcName == "log"
    assert record.created == pytest.approx(task.finished_at, abs=5)
    assert [one for one in caplog.records if one.name == NAME] == [record], (
        "handlers of the root get it too, once"
    )


def test_records_come_before_the_tasks_end_and_in_order(
    executor: CondaEnvExecutor, keeper: Keeper
) -> None:
    def several(number: int) -> None:
        for step in range(20):
            logging.getLogger("tests.tasks.remote").warning("%d.%d", number, step)

    for number in range(20):
        executor.submit(several, number).result(DEADLINE)
        assert keeper.texts == [f"{n}.{step}" for n in range(number + 1) for step in range(20)]


def test_each_record_is_attributed_to_its_task(executor: CondaEnvExecutor, keeper: Keeper) -> None:
    tasks = {
        executor.submit(workload.log, logging.WARNING, "task %d", number).id: number
        for number in range(200)
    }
    assert executor.wait_all(DEADLINE)
    assert len(keeper.records) == 200
    for record in keeper.records:
        assert record.getMessage() == f"task {tasks[record.task_id]}"  # type: ignore[attr-defined]


def test_arguments_that_cannot_be_pickled_and_those_that_do_not_fit(
    single: CondaEnvExecutor, keeper: Keeper
) -> None:
    import threading

    def odd() -> None:
        logging.getLogger("tests.tasks.remote").warning("%s", threading.Lock())

    single.submit(odd).result(DEADLINE)
    assert "lock" in keeper.texts[0]
    single.submit(workload.log_badly).result(DEADLINE)
    assert "no number" in keeper.texts[1]


def test_the_text_of_an_exception(single: CondaEnvExecutor, keeper: Keeper) -> None:
    single.submit(workload.log_exception).result(DEADLINE)
    (record,) = keeper.records
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith("it went wrong\nTraceback")
    assert "LookupError: deep inside" in text
    assert "in log_exception" in text


def test_stack_info(single: CondaEnvExecutor, keeper: Keeper) -> None:
    def with_stack() -> None:
        logging.getLogger("tests.tasks.remote").warning("here", stack_info=True)

    single.submit(with_stack).result(DEADLINE)
    assert "with_stack" in (keeper.records[0].stack_info or "")


def test_extra_fields_of_the_function(single: CondaEnvExecutor, keeper: Keeper) -> None:
    single.submit(workload.log_extra).result(DEADLINE)
    assert keeper.records[0].patient == 7  # type: ignore[attr-defined]
    assert "Holder" in str(keeper.records[0].thing)  # type: ignore[attr-defined]


def test_a_record_of_a_thread_of_the_function(single: CondaEnvExecutor, keeper: Keeper) -> None:
    task = single.submit(workload.log_in_thread)
    task.result(DEADLINE)
    assert keeper.texts == ["from a thread you"]
    assert keeper.records[0].task_id == task.id  # type: ignore[attr-defined]


def test_a_large_record(single: CondaEnvExecutor, keeper: Keeper) -> None:
    single.submit(workload.log, logging.WARNING, "x" * 2_000_000 + "%s").result(DEADLINE)
    assert len(keeper.texts[0]) == 2_000_003


def test_logging_in_every_version_of_python(
    make: Callable[..., CondaEnvExecutor], anypython: Interpreter, keeper: Keeper
) -> None:
    executor = make(env=str(anypython.path))
    task = executor.submit(workload.log)
    task.result(DEADLINE)
    executor.submit(workload.log_exception).result(DEADLINE)
    assert keeper.texts == ["hello you", "it went wrong"]
    assert keeper.records[0].task_id == task.id  # type: ignore[attr-defined]
    assert "deep inside" in (keeper.records[1].exc_text or "")


def test_an_initializer_may_log(make: Callable[..., CondaEnvExecutor], keeper: Keeper) -> None:
    executor = make(initializer=workload.log, initargs=(logging.WARNING, "from the initializer %s"))
    executor.submit(workload.add, 1).result(DEADLINE)
    assert keeper.texts == ["from the initializer you"]
    assert keeper.records[0].task_id == ""  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------- levels and filters


def test_levels_of_the_host_are_honoured_in_the_worker(
    single: CondaEnvExecutor, keeper: Keeper
) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    single.submit(workload.log, logging.INFO).result(DEADLINE)
    assert keeper.records == []
    assert single.submit(workload.is_enabled, logging.INFO).result(DEADLINE) is False, (
        "the record is not even made"
    )


def test_levels_changed_later_are_honoured(single: CondaEnvExecutor, keeper: Keeper) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    single.submit(workload.log, logging.DEBUG, "first %s").result(DEADLINE)
    logging.getLogger(NAME).setLevel(logging.DEBUG)
    single.submit(workload.log, logging.DEBUG, "second %s").result(DEADLINE)
    assert single.submit(workload.is_enabled, logging.DEBUG).result(DEADLINE) is True
    logging.getLogger(NAME).setLevel(logging.ERROR)
    single.submit(workload.log, logging.WARNING, "third %s").result(DEADLINE)
    logging.getLogger(NAME).setLevel(logging.NOTSET)
    logging.getLogger("tests.tasks").setLevel(logging.INFO)
    single.submit(workload.log, logging.INFO, "fourth %s").result(DEADLINE)
    single.submit(workload.log, logging.DEBUG, "fifth %s").result(DEADLINE)
    logging.getLogger("tests.tasks").setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.DEBUG)
    single.submit(workload.log, logging.DEBUG, "sixth %s").result(DEADLINE)
    assert keeper.texts == ["second you", "fourth you", "sixth you"]


def test_a_level_changed_while_the_task_waits(
    single: CondaEnvExecutor, keeper: Keeper, rendezvous: Rendezvous
) -> None:
    """At the latest when the record arrives, the host's level of that moment counts."""
    logging.getLogger(NAME).setLevel(logging.WARNING)
    single.submit(workload.arrive, rendezvous.address, "first")
    arrival = rendezvous.next()
    task = single.submit(workload.log)
    logging.getLogger(NAME).setLevel(logging.ERROR)
    arrival.release()
    task.result(DEADLINE)
    assert keeper.records == []


def test_filters_of_the_host_are_honoured(single: CondaEnvExecutor, keeper: Keeper) -> None:
    logging.getLogger(NAME).addFilter(lambda record: "secret" not in record.getMessage())
    single.submit(workload.log, logging.WARNING, "secret %s").result(DEADLINE)
    single.submit(workload.log, logging.WARNING, "public %s").result(DEADLINE)
    assert keeper.texts == ["public you"]


def test_propagation_and_disabling_are_the_hosts(
    single: CondaEnvExecutor, keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger(NAME).propagate = False
    single.submit(workload.log).result(DEADLINE)
    assert keeper.texts == ["hello you"]
    assert caplog.records == []
    logging.getLogger(NAME).disabled = True
    single.submit(workload.log).result(DEADLINE)
    assert keeper.texts == ["hello you"]


def test_a_handler_that_raises_harms_nothing(
    single: CondaEnvExecutor, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def emit(_record: object) -> None:
        raise ZeroDivisionError("a broken handler")

    monkeypatch.setattr(keeper, "emit", emit)
    assert single.submit(workload.log).result(DEADLINE) is None
    monkeypatch.undo()
    assert single.submit(workload.log).result(DEADLINE) is None
    assert keeper.texts == ["hello you"]


def test_a_logger_that_the_host_has_never_heard_of(
    single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    single.submit(lambda: logging.getLogger("no.such.logger").error("new")).result(DEADLINE)
    (record,) = [record for record in caplog.records if record.name == "no.such.logger"]
    assert record.getMessage() == "new"


# ------------------------------------------------------------------------------------------ crashes


def test_nothing_is_lost_when_the_worker_crashes_right_after(
    single: CondaEnvExecutor, keeper: Keeper
) -> None:
    for number in range(20):
        task = single.submit(workload.log_and_die)
        assert isinstance(task.exception(DEADLINE), WorkerCrashed)
        assert keeper.texts == ["last words 0", "last words 1", "last words 2"] * (number + 1), (
            "all there when the task has ended"
        )
        assert keeper.records[-1].task_id == task.id  # type: ignore[attr-defined]


def test_the_last_lines_are_in_the_error_of_a_crash(
    single: CondaEnvExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    def speak_and_die() -> None:
        print("to stdout")
        print("the end is near", file=sys.stderr, flush=True)
        os._exit(4)

    error = single.submit(speak_and_die).exception(DEADLINE)
    assert isinstance(error, WorkerCrashed)
    assert "the end is near" in str(error)
    assert "the end is near" in error.stderr
    captured = capsys.readouterr()
    assert captured.out == "to stdout\n"
    assert captured.err.count("the end is near\n") == 1


# ------------------------------------------------------------------------------------ printed lines


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_printed_lines_come_once_before_the_tasks_end(
    single: CondaEnvExecutor, capsys: pytest.CaptureFixture[str], stream: str
) -> None:
    for number in range(20):
        single.submit(workload.say, f"line {number}", stream).result(DEADLINE)
    captured = capsys.readouterr()
    assert (captured.out if stream == "stdout" else captured.err) == "".join(
        f"line {number}\n" for number in range(20)
    )
    assert (captured.err if stream == "stdout" else captured.out) == ""


def test_half_a_line_is_whole_at_the_tasks_end(
    single: CondaEnvExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    single.submit(workload.say, "half", end="").result(DEADLINE)
    assert capsys.readouterr().out == "half\n"
    single.submit(workload.say, "a bar", end="\r").result(DEADLINE)
    assert capsys.readouterr().out == "a bar\r"


def test_lines_of_several_workers_are_whole(
    executor: CondaEnvExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(executor, InProcessExecutor):
        pytest.skip("print() of two threads of one process writes text and newline apart")
    tasks = [executor.submit(workload.say, f"{number}:" + "x" * 300) for number in range(200)]
    for task in tasks:
        task.result(DEADLINE)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"{number}:" + "x" * 300 for number in range(200))


def test_the_stream_of_the_moment_is_written_to(
    single: CondaEnvExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    single.submit(workload.say, "redirected").result(DEADLINE)
    assert stream.getvalue() == "redirected\n"


def test_a_log_record_is_not_printed_as_well(
    single: CondaEnvExecutor, keeper: Keeper, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger(NAME).propagate = False
    single.submit(workload.log).result(DEADLINE)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert keeper.texts == ["hello you"]


def test_printing_and_logging_keep_the_task_waiting_for_both(
    single: CondaEnvExecutor, keeper: Keeper, capsys: pytest.CaptureFixture[str]
) -> None:
    def both() -> None:
        for step in range(50):
            print("printed", step)
            logging.getLogger("tests.tasks.remote").warning("logged %d", step)

    single.submit(both).result(DEADLINE)
    assert capsys.readouterr().out.splitlines() == [f"printed {step}" for step in range(50)]
    assert keeper.texts == [f"logged {step}" for step in range(50)]
