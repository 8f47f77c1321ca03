"""What a running function can say and ask: the handle, ``current_task()``, reports under flood."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.host import ROOT, Host
from tests.support.interpreters import Interpreter
from tests.support.recorder import Latch, Recorder
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import (
    CondaEnvExecutor,
    RemoteTaskHandle,
    TaskEventType,
    TaskStatus,
    WorkerCrashed,
    current_task,
)

UPDATE = TaskEventType.UPDATE

# ------------------------------------------------------------------------------------- current_task


def test_current_task_many_calls_deep(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.deep)
    assert task.result(DEADLINE) == task.id
    assert (task.message, task.progress) == ("deep", 0.5)


def test_current_task_in_a_thread_of_the_function(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.in_thread)
    assert task.result(DEADLINE) == (task.id, False)
    assert task.message == "from a thread"
    assert task.outputs == {"thread": True}


def test_current_task_in_a_pool_of_threads_of_the_function(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.in_pool)
    assert task.result(DEADLINE) == {task.id}
    assert task.outputs == {number: number for number in range(20)}


def test_current_task_by_value(single: CondaEnvExecutor) -> None:
    def closure() -> str:
        current_task().update("by value")
        return current_task().id

    task = single.submit(closure)
    assert task.result(DEADLINE) == task.id
    assert task.message == "by value"


def test_current_task_outside_a_worker_is_inert() -> None:
    handle = current_task()
    assert isinstance(handle, RemoteTaskHandle)
    handle.update("not heard", current=1, maximum=2)
    handle.set_progress(0.5)
    handle.set_output("key", "value")
    handle.set_output({"key": "value"})
    handle.set_output("lock", threading.Lock())
    handle.cancel()
    assert handle.cancel_requested is False
    assert handle.should_stop() is False
    assert handle.inputs == {}
    assert handle.id == ""
    assert handle.name == ""
    assert "inert" in repr(handle)


def test_log_of_an_inert_handle_is_a_log_record(caplog: pytest.LogCaptureFixture) -> None:
    current_task().log("said on the host", 30)
    assert "said on the host" in caplog.text


def test_a_handle_is_inert_after_its_call(single: CondaEnvExecutor) -> None:
    first = single.submit(workload.keep_handle)
    assert first.result(DEADLINE) == first.id
    recorder = Recorder()
    second = single.options(start=False).submit(workload.use_kept_handle).listen(recorder)
    assert second.start().result(DEADLINE) == (False, False, {}, "")
    recorder.wait_for_end()
    assert recorder.of(UPDATE) == []
    assert second.status is TaskStatus.COMPLETED
    assert second.message is second.current is None
    assert second.outputs == {}
    assert first.message is None
    assert first.outputs == {}


def test_a_thread_that_outlives_its_call_reports_into_the_void(single: CondaEnvExecutor) -> None:
    first = single.submit(workload.leave_thread_reporting)
    first.result(DEADLINE)
    before = (first.message, first.current, first.outputs)
    others = [single.submit(workload.nap, 0.002) for _ in range(50)]
    for task in others:
        task.result(DEADLINE)
    for task in others:
        assert (task.message, task.current, task.outputs) == (None, None, {})
    assert (first.message, first.current, first.outputs) == before


def test_an_initializer_has_no_task(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(initializer=workload.deep)
    assert executor.submit(workload.add, 1).result(DEADLINE) == 1


# -------------------------------------------------------------- in environments without the package


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this checkout off ``sys.path``, so that it does not travel to the workers as a project
    folder.
    """
    monkeypatch.setattr(
        sys, "path", [path for path in sys.path if Path(path or ".").resolve() != ROOT]
    )


FOREIGN = """
import threading
# the last two are never used
from wetlands_executor import current_task, RemoteTaskHandle, CondaEnvExecutor, TaskStatus
import wetlands_executor

def deep(task):
    def run():
        current_task().update("from a thread", current=1, maximum=4)
        current_task().set_output("id", current_task().id)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    same, known = current_task().id == task.id, isinstance(task, RemoteTaskHandle)
    return same, known, wetlands_executor.__spec__.origin

def annotated(task: RemoteTaskHandle = 5):
    return isinstance(task, RemoteTaskHandle)

def use():
    CondaEnvExecutor()

def submodule():
    from wetlands_executor.errors import SpecError
    raise SpecError("used")

def failure():
    from wetlands_executor.errors import WorkerCrashed
    raise WorkerCrashed("used", 7)
"""


def test_current_task_where_nothing_is_installed(
    make: Callable[..., CondaEnvExecutor],
    anypython: Interpreter,
    tmp_path: Path,
    nothing_installed: None,
) -> None:
    module = tmp_path / "foreign.py"
    module.write_text(FOREIGN)
    executor = make(env=str(anypython.path))
    task = executor.submit(f"{module}:deep")
    same, is_handle, origin = task.result(DEADLINE)
    assert same
    assert is_handle
    assert "stand-in" in origin
    assert (task.message, task.progress, task.outputs) == ("from a thread", 0.25, {"id": task.id})
    assert executor.submit(f"{module}:annotated").result(DEADLINE) is True
    for name in ("use", "submodule"):
        with pytest.raises(ImportError, match="does not have wetlands_executor"):
            executor.submit(f"{module}:{name}").result(DEADLINE)
    # What tasks inside tasks fail with is there, and is the program's when it arrives.
    error = executor.submit(f"{module}:failure").exception(DEADLINE)
    assert type(error) is WorkerCrashed
    assert (str(error), error.exit_code) == ("used", 7)


def test_current_task_where_the_hosts_package_is_found_but_cannot_be_imported(
    make: Callable[..., CondaEnvExecutor], anypython: Interpreter, tmp_path: Path
) -> None:
    """The host runs from a checkout (or an editable installation).

    The folder travels, its requirements do not.
    """
    module = tmp_path / "foreign.py"
    module.write_text(FOREIGN)
    task = make(env=str(anypython.path)).submit(f"{module}:deep")
    same, is_handle, _origin = task.result(DEADLINE)
    assert same
    assert is_handle
    assert (task.message, task.outputs) == ("from a thread", {"id": task.id})


def test_the_real_package_is_used_where_it_can_be_imported(single: CondaEnvExecutor) -> None:
    origin = single.submit(workload.origin_of_package).result(DEADLINE)
    # This checkout's, or the copy that is installed in the environment (which comes first there);
    # in any case no stand-in.
    assert Path(origin).name == "__init__.py"
    assert Path(origin).parent.name == "wetlands_executor"
    assert Path(origin).is_file()
    assert single.submit(workload.deep).result(DEADLINE)


def test_the_handle_in_every_version_of_python(
    make: Callable[..., CondaEnvExecutor], anypython: Interpreter
) -> None:
    executor = make(env=str(anypython.path))
    task = executor.submit(workload.report, 10)
    assert task.result(DEADLINE) == 10
    assert (task.message, task.current, task.maximum, task.outputs) == (
        "step 10",
        10,
        10,
        {"steps": 10},
    )
    task = executor.submit(workload.describe_handle, 1, 5, 6, more=7)
    identifier, _name, inputs = task.result(DEADLINE)
    assert identifier == task.id
    assert inputs == {"first": 1, "second": 5, "0": 6, "more": 7} or {
        k: inputs[k] for k in ("first", "second", "more")
    } == {
        "first": 1,
        "second": 5,
        "more": 7,
    }
    assert executor.submit(workload.set_unpicklable).result(DEADLINE) == "raised here"
    task = executor.submit(workload.flood, 20000)
    task.result(DEADLINE)
    assert task.current == 20000


# ------------------------------------------------------------------------------------------ members


def test_update_keeps_what_is_not_given(single: CondaEnvExecutor) -> None:
    def steps(task: RemoteTaskHandle) -> None:
        task.update("text", current=1, maximum=10)
        task.update(current=2)
        task.update(maximum=20)
        task.update()

    task = single.submit(steps).wait_for(DEADLINE)
    assert (task.message, task.current, task.maximum) == ("text", 2, 20)


def test_zero_and_the_empty_text_are_values(single: CondaEnvExecutor) -> None:
    def steps(task: RemoteTaskHandle) -> None:
        task.update("text", current=5, maximum=10)
        task.update("", current=0)

    task = single.submit(steps).wait_for(DEADLINE)
    assert (task.message, task.current, task.maximum, task.progress) == ("", 0, 10, 0.0)


def test_set_progress(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.fraction, [0.0, 0.25, 0.75]).wait_for(DEADLINE)
    assert task.progress == 0.75
    assert single.submit(workload.fraction, [1.5]).wait_for(DEADLINE).progress == 1.0
    assert single.submit(workload.fraction, [-1]).wait_for(DEADLINE).progress == 0.0


def test_set_output_in_both_forms_merges(single: CondaEnvExecutor) -> None:
    def steps(task: RemoteTaskHandle) -> None:
        task.set_output("a", 1)
        task.set_output({"b": 2, "c": 3})
        task.set_output("a", 10)
        task.set_output("none")

    task = single.submit(steps).wait_for(DEADLINE)
    assert task.outputs == {"a": 10, "b": 2, "c": 3, "none": None}


def test_outputs_of_any_kind(single: CondaEnvExecutor) -> None:
    np = pytest.importorskip("numpy")

    def steps(task: RemoteTaskHandle) -> None:
        import numpy as np

        task.set_output("array", np.arange(1000))
        task.set_output("object", workload.Holder(5))
        task.set_output("large", b"x" * 3_000_000)
        task.set_output(("any", "key"), {"nested": [1]})

    outputs = single.submit(steps).wait_for(DEADLINE).outputs
    assert np.array_equal(outputs["array"], np.arange(1000))
    assert len(outputs["object"].data) == 5
    assert len(outputs["large"]) == 3_000_000
    assert outputs["any", "key"] == {"nested": [1]}


def test_an_output_is_there_before_the_task_has_ended(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    recorder = Recorder()
    task = single.submit(workload.report_twice, rendezvous.address).listen(recorder)
    arrival = rendezvous.next()
    recorder.wait(lambda event: "a" in event.outputs)
    assert task.outputs == {"a": 1}
    assert task.running()
    arrival.release()
    rendezvous.next().release()


def test_all_outputs_are_there_when_the_result_is(single: CondaEnvExecutor) -> None:
    for count in (1, 10, 500):
        task = single.submit(workload.send_outputs, count)
        task.result(DEADLINE)
        assert len(task.outputs) == count


def test_an_unpicklable_output_raises_in_the_function(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.set_unpicklable)
    assert task.result(DEADLINE) == "raised here"
    assert task.outputs == {"after": "fine"}


def test_an_output_that_cannot_be_unpickled_here_harms_nothing(
    single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.contract.workload import UnpickleRaises

    def steps(task: RemoteTaskHandle) -> str:
        task.set_output("bad", UnpickleRaises())
        task.set_output("good", 1)
        return "result"

    task = single.submit(steps)
    assert task.result(DEADLINE) == "result"
    assert task.outputs == {"good": 1}
    assert "output" in caplog.text


@pytest.mark.parametrize("acknowledge", [True, False])
def test_cancel_requested_and_should_stop(
    single: CondaEnvExecutor, rendezvous: Rendezvous, acknowledge: bool
) -> None:
    task = single.submit(workload.cooperate, rendezvous.address, "in", acknowledge=acknowledge)
    arrival = rendezvous.next()
    assert task.cancel() is False
    arrival.release()
    task.wait_for(DEADLINE)
    assert task.status is (TaskStatus.CANCELED if acknowledge else TaskStatus.COMPLETED)


def test_inputs_id_and_name(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.describe_handle, 1, second=5, more=7)
    identifier, name, inputs = task.result(DEADLINE)
    assert identifier == task.id
    assert name in task.name
    assert {key: inputs[key] for key in ("first", "second", "more")} == {
        "first": 1,
        "second": 5,
        "more": 7,
    }


def test_inputs_do_not_name_the_handle(single: CondaEnvExecutor) -> None:
    _identifier, _name, inputs = single.submit(workload.describe_handle, 1).result(DEADLINE)
    assert "task" not in inputs
    assert inputs["first"] == 1


def test_the_name_in_the_worker_is_the_name_on_the_host(single: CondaEnvExecutor) -> None:
    for view in (single.options(name="given"), single.options()):
        task = view.submit(workload.describe_handle, 1)
        assert task.result(DEADLINE)[1] == task.name


def test_inputs_of_a_method(single: CondaEnvExecutor) -> None:
    class Thing:
        def method(self, value: int, other: int = 3) -> dict[str, object]:
            return dict(current_task().inputs)

    assert single.submit(Thing().method, 5, other=6).result(DEADLINE) == {"value": 5, "other": 6}


def test_log_goes_to_the_host(single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture) -> None:
    task = single.submit(workload.log_by_handle, "said by the task", 30)
    task.result(DEADLINE)
    (record,) = [record for record in caplog.records if record.getMessage() == "said by the task"]
    assert record.levelno == 30
    assert record.task_id == task.id  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------ numbers


def test_numbers_of_other_types_arrive_as_plain_ones(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.report_odd_numbers)
    task.result(DEADLINE)
    assert (task.current, task.maximum, task.progress) == (0.25, 0.5, 0.5)
    assert type(task.current) is type(task.maximum) is float


def test_numbers_of_numpy(single: CondaEnvExecutor) -> None:
    pytest.importorskip("numpy")
    task = single.submit(workload.report_numpy)
    task.result(DEADLINE)
    assert (task.message, task.current, task.maximum, task.progress) == ("numpy", 2, 8, 0.25)
    assert type(task.current) is type(task.maximum) is int


def test_no_numbers_are_refused_where_they_are_reported(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.report_wrongly)
    errors = task.result(DEADLINE)
    assert len(errors) == 4
    assert all("current must be a real number" in error for error in errors)
    assert task.current is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, -(10**30)])
def test_numbers_at_the_edge(
    single: CondaEnvExecutor, rendezvous: Rendezvous, value: float
) -> None:
    rendezvous.open()
    recorder = Recorder()
    task = single.submit(
        workload.report_and_arrive, rendezvous.address, 0, current=value, maximum=10
    ).listen(recorder)
    task.result(DEADLINE)
    assert task.current == value or task.current != task.current
    assert task.progress is None or task.progress != task.progress or 0.0 <= task.progress <= 1.0
    assert single.get_progress()["completed"] == 1


# ----------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("size", [0, 1, 1900, 1980, 2000, 5000, 300_000, 3_000_000])
def test_messages_of_any_size(single: CondaEnvExecutor, size: int) -> None:
    recorder = Recorder()
    task = single.options(start=False).submit(workload.report_message, size).listen(recorder)
    task.start().result(DEADLINE)
    assert task.message == "x" * size
    recorder.wait_for_end()
    assert any(event.message == "x" * size for event in recorder.events)
    assert single.submit(workload.report, 3).wait_for(DEADLINE).message == "step 3"


def test_a_message_in_any_script(single: CondaEnvExecutor) -> None:
    def steps(task: RemoteTaskHandle) -> None:
        task.update("día \U0001f40d \ud800 \x00")

    assert single.submit(steps).wait_for(DEADLINE).message == "día \U0001f40d \ud800 \x00"


def test_a_message_that_is_no_text_becomes_one(single: CondaEnvExecutor) -> None:
    assert single.submit(workload.report_object).wait_for(DEADLINE).message == "12.5"


# ----------------------------------------------------------------------- the last one is never lost


@pytest.mark.parametrize("listening", [False, True])
def test_the_last_report_is_there_when_the_result_is(
    single: CondaEnvExecutor, listening: bool
) -> None:
    for count in (1, 2, 3, 10, 100, 1000):
        task = single.options(start=False).submit(workload.report, count)
        recorder = Recorder()
        if listening:
            task.listen(recorder)
        task.start().result(DEADLINE)
        assert (task.current, task.maximum) == (count, count)
        if listening:
            recorder.wait_for_end()
            assert recorder.of(UPDATE)[-1].current == count


def test_reports_of_consecutive_tasks_are_never_mixed(executor: CondaEnvExecutor) -> None:
    recorder = Recorder()
    executor.listen(recorder)
    tasks = [executor.submit(workload.consecutive, number) for number in range(1500)]
    assert executor.wait_all(DEADLINE)
    for number, task in enumerate(tasks):
        assert (task.message, task.current, task.outputs) == (
            f"of {number}",
            number,
            {"number": number},
        )
    numbers = {task: number for number, task in enumerate(tasks)}
    for event in recorder.of(UPDATE):
        assert event.current == numbers[event.task]


def test_a_task_that_says_nothing_inherits_nothing(single: CondaEnvExecutor) -> None:
    tasks = [single.submit(workload.maybe_report, number) for number in range(600)]
    assert single.wait_all(DEADLINE)
    for number, task in enumerate(tasks):
        assert task.message == (f"of {number}" if number % 2 else None)
        assert task.current == (number if number % 2 else None)


def test_threads_of_one_task_report_at_the_same_time(single: CondaEnvExecutor) -> None:
    def steps() -> None:
        import threading

        def run(base: int) -> None:
            for step in range(300):
                current_task().update("text", current=base + step)
                current_task().set_output(base + step, step)

        threads = [threading.Thread(target=run, args=(base,)) for base in (0, 1000, 2000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        current_task().update("end", current=-1)

    task = single.submit(steps)
    task.result(DEADLINE)
    assert (task.message, task.current) == ("end", -1)
    assert len(task.outputs) == 900


# ---------------------------------------------------------------------------------------- the flood


def test_a_million_updates(single: CondaEnvExecutor) -> None:
    """The last one arrives.

    A report costs the task no more than a small multiple of an ``os.write`` of 64 bytes.
    """
    task = single.submit(workload.flood, 1_000_000)
    per_update, per_write = task.result(DEADLINE)
    assert (task.message, task.current, task.maximum, task.progress) == (
        "step",
        1_000_000,
        1_000_000,
        1.0,
    )
    assert per_update < 25 * per_write, (
        f"{per_update * 1e6:.2f} us per update, {per_write * 1e6:.2f} us per write"
    )


def test_a_flood_with_a_blocked_listener_is_not_slowed_down(single: CondaEnvExecutor) -> None:
    latch, recorder = Latch(), Recorder()
    task = (
        single.options(start=False)
        .submit(workload.flood, 200_000)
        .listen(latch)
        .listen(recorder)
        .start()
    )
    assert latch.entered.wait(DEADLINE)
    task.result(DEADLINE)
    assert task.current == 200_000
    latch.open.set()
    recorder.wait_for_end()
    updates = recorder.of(UPDATE)
    assert updates[-1].current == 200_000
    assert len(updates) < 1000, "what was not seen was merged"


def test_a_flood_with_a_fast_listener_arrives_in_order(single: CondaEnvExecutor) -> None:
    recorder = Recorder()
    single.options(start=False).submit(workload.flood, 100_000).listen(recorder).start().result(
        DEADLINE
    )
    recorder.wait_for_end()
    seen = [event.current for event in recorder.of(UPDATE)]
    assert seen == sorted(seen)
    assert seen[-1] == 100_000


@pytest.mark.parametrize("how", ["silent", "slow"])
def test_the_hosts_memory_stays_flat_under_a_flood(host: Callable[..., Host], how: str) -> None:
    code, out, err = host("flood", 100_000, how).finish()
    assert code == 0, err
    grown, last = map(float, out.split())
    assert last == 100_000
    assert grown < 8e6, f"the host has grown by {grown / 1e6:.1f} MB"


def test_a_flood_of_outputs_does_not_block_the_task_for_ever(single: CondaEnvExecutor) -> None:
    began = time.monotonic()
    task = single.submit(workload.send_outputs, 20_000)
    task.result(DEADLINE)
    assert len(task.outputs) == 20_000
    assert time.monotonic() - began < DEADLINE


def test_a_huge_message_in_a_flood(single: CondaEnvExecutor) -> None:
    def steps(task: RemoteTaskHandle) -> None:
        for step in range(30):
            task.update("x" * 200_000 if step % 3 else "short", current=step)

    task = single.submit(steps)
    task.result(DEADLINE)
    assert task.current == 29
    assert task.message == "x" * 200_000
