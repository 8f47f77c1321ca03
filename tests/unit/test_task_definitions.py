"""Definitions, the registry with its history, and the line protocol; nothing starts a process."""

from __future__ import annotations

import copy
import gc
import json
import uuid
import weakref
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from wetlands_executor import (
    ExecutionException,
    InProcessExecutor,
    Task,
    TaskStatus,
    set_default_executor,
)
from wetlands_executor.tasks import (
    TaskDefinition,
    TaskInstance,
    TaskInstanceNotFoundError,
    definition,
    get_task_controller,
    get_task_definition,
    get_task_inputs,
    get_task_instance,
    list_task_definitions,
    list_task_instances,
    process,
    protocol,
    register_task,
    registry,
    run_task,
    stop_task_instance,
    task,
    wait_for_completion,
)
from wetlands_executor.tasks.command import fields_of, filled
from wetlands_executor.tasks.instance import Record


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> registry.Registry:
    """A registry for each test, with a short history."""
    mine = registry.Registry(history=3)
    for module in (registry, definition):
        monkeypatch.setattr(module, "registry", mine)
    return mine


@pytest.fixture(autouse=True)
def caller() -> Iterator[InProcessExecutor]:
    """The default executor is the calling thread."""
    with InProcessExecutor(0) as executor:
        set_default_executor(executor)
        yield executor
        set_default_executor(None)


def double(value: int, factor: int = 2, *, task: Any = None) -> int:
    """Multiply."""
    return value * factor


# ------------------------------------------------------------------------------------- definitions


def test_the_decorator_in_all_its_forms() -> None:
    plain = task(double)
    named = task(id="other", name="Double", timeout=5.0)(double)
    assert (plain.id, plain.name) == (f"{__name__}:double", "double")
    assert (named.id, named.name, dict(named.options)) == ("other", "Double", {"timeout": 5.0})
    assert plain.func is double
    assert plain.command is plain.env is None
    assert plain.__doc__ == "Multiply."
    assert plain.local(3) == double(3) == 6
    assert list_task_definitions() == [plain, named]
    assert get_task_definition("other") is named
    with pytest.raises(LookupError, match="there are: other, .*double"):
        get_task_definition("missing")
    with pytest.raises(AttributeError):
        plain.name = "changed"  # type: ignore[misc]


def test_the_same_function_defined_anew_replaces_and_another_one_does_not() -> None:
    first, second = task(double), task(double)
    assert list_task_definitions() == [second]
    assert first is not second
    with pytest.raises(ValueError, match=r"'mine' belongs to .*double already"):
        task(id="mine")(double), task(id="mine")(len)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": "python train.py"}, r"no shell.*\['python', 'train.py'\]"),
        ({"command": []}, "list of texts"),
        ({"command": ["a", 1]}, "list of texts"),
        ({"env": "a", "executor": "b"}, "env and executor"),
        ({"executor": 5}, "of this library"),
        ({"tries": 5}, "tries"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"defaults": {"a": 1}}, "defaults are for commands"),
        ({"name": 5}, "name must be"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_defined(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        made = task(**arguments)
        made(double)
    assert list_task_definitions() == []


def test_a_definition_made_by_hand() -> None:
    made: TaskDefinition[..., int] = TaskDefinition("id", "name", double)
    assert list_task_definitions() == []
    assert register_task(made) is made
    assert get_task_definition("id") is made
    for wrong in ({}, {"func": double, "command": ["a"]}, {"func": 5}):
        with pytest.raises(TypeError):
            TaskDefinition("id", "name", **wrong)  # type: ignore[arg-type]


def test_in_another_process_it_is_a_plain_function() -> None:
    there = copy.copy(task(double))
    assert there.name == "double"
    assert there.local(4) == 8
    with pytest.raises(RuntimeError, match=r"double\.local"):
        there(4)


# --------------------------------------------------------------------------------------- instances


def test_an_instance() -> None:
    before = datetime.now(timezone.utc)
    instance = task(double)(4)
    assert isinstance(instance, TaskInstance)
    assert uuid.UUID(instance.id).version == 4
    assert instance.task_id == f"{__name__}:double"
    assert instance.is_done()
    assert (instance.status, instance.result, instance.error) == (TaskStatus.COMPLETED, 8, None)
    assert (instance.progress, instance.message, instance.output) == (0.0, None, {})
    assert instance.inputs == {"value": 4, "factor": 2}
    assert isinstance(instance.task, Task)
    assert instance.task.name == "double"
    assert before <= instance.created_at
    assert instance.started_at is not None
    assert instance.finished_at is not None
    assert instance.created_at - timedelta(seconds=0.1) <= instance.started_at
    assert instance.started_at <= instance.finished_at <= datetime.now(timezone.utc)
    assert instance.stop() is False
    assert wait_for_completion(instance) is instance
    assert run_task(get_task_definition(instance.task_id), {"value": 1}, block=True).result == 2
    assert [each.result for each in task(double).map([1, 2], [3, 4])] == [3, 8]


def test_inputs_are_checked_where_the_task_is_called() -> None:
    made: Any = task(double)
    for wrong in ((), (1, 2, 3)):
        with pytest.raises(TypeError, match=r"double\(\)"):
            made(*wrong)
    with pytest.raises(TypeError, match="unknown"):
        made(1, unknown=1)
    assert list_task_instances() == []


def test_instances_are_inputs_of_others() -> None:
    made: Any = task(double)
    first = made(4)
    assert made(first, factor=first).result == 64


def test_what_a_task_reports_and_asks() -> None:
    @task
    def work(count: int, /, name: str = "n", *rest: int, **more: int) -> Any:
        controller = get_task_controller()
        for step in range(count):
            controller.set_progress((step + 1) / count)
            controller.set_output({"step": step})
        controller.set_status("nearly")
        assert not controller.should_stop
        controller.request_stop()
        assert get_task_controller().should_stop
        with pytest.raises(TypeError, match="dict"):
            controller.set_output([1])  # type: ignore[arg-type]
        return get_task_inputs()

    instance = work(2, "x", 7, key=8)
    expected = {"count": 2, "name": "x", "rest": (7,), "key": 8}
    assert instance.result == instance.inputs == expected
    assert (instance.get_progress(), instance.get_output()) == (1.0, {"step": 1})
    assert (instance.message, instance.get_status()) == ("nearly", TaskStatus.COMPLETED)
    again = work(1)
    assert again.result == {"count": 1, "name": "n", "rest": ()}, "nothing stays of the stop"


def test_the_status_canceled_acknowledges() -> None:
    @task
    def give_up() -> str:
        get_task_controller().set_status(TaskStatus("canceled"))
        return "nothing"

    instance = give_up()
    assert (instance.status, instance.result, instance.message) == (
        TaskStatus.CANCELED,
        None,
        "canceled",
    )


def test_outside_a_task() -> None:
    for ask in (get_task_controller, get_task_inputs):
        with pytest.raises(RuntimeError, match="outside a task"):
            ask()
        with pytest.raises(RuntimeError, match="outside a task"):
            task(id=ask.__name__)(ask).local()


def test_a_failure_is_the_instances() -> None:
    @task
    def fail() -> None:
        raise LookupError("mine")

    instance = fail()
    assert instance.status is TaskStatus.FAILED
    assert isinstance(instance.error, LookupError)
    assert instance.result is None


# ----------------------------------------------------------------------------------------- history


class Large:
    """Can be weakly referenced."""


def test_the_history_is_bounded_and_outlives_tasks(caller: InProcessExecutor) -> None:
    made = task(id="made")(lambda value: Large())
    with InProcessExecutor(0) as other:
        first = task(id="first", executor=other)(double)(1).id
    ids = [made("x" * 1000).id for _ in range(3)]
    caller.shutdown()  # delivers all
    with pytest.raises(TaskInstanceNotFoundError, match=first):
        get_task_instance(first)
    assert [each.id for each in list_task_instances()] == ids
    assert [each.id for each in list_task_instances("made")] == ids
    assert made.list_instances()[0].id == ids[0]
    assert list_task_instances("first") == []
    found = get_task_instance(ids[0])
    assert (found.status, found.task) == (TaskStatus.COMPLETED, None)
    assert len(str(found.inputs["value"])) < 300
    assert stop_task_instance(ids[0]) is False
    with pytest.raises(LookupError, match="keep_results"):
        _ = found.result
    with pytest.raises(TaskInstanceNotFoundError):
        stop_task_instance("missing")


def test_a_run_without_a_result_in_the_history_is_no_input(caller: InProcessExecutor) -> None:
    def refuse() -> None:
        raise ValueError

    name = task(id="refusing")(refuse)().id
    caller.shutdown()
    gc.collect()
    with pytest.raises(RuntimeError, match=f"{name}.* no result: it is failed"):
        task(id="made")(double)(get_task_instance(name))


def test_an_output_of_that_name_that_is_no_dict_is_left_out(caller: InProcessExecutor) -> None:
    def report(task: Any = None) -> None:
        task.set_output("output", 5)

    instance = task(id="reporting")(report)()
    caller.shutdown()
    assert (instance.output, instance.status) == ({}, TaskStatus.COMPLETED)
    assert instance.task is not None
    assert instance.task.outputs == {"output": 5}


def test_an_executor_that_is_replaced_during_the_call(caller: InProcessExecutor) -> None:
    """As if another thread did it between looking it up and submitting to it."""

    class Replaced(InProcessExecutor):
        def options(self, **options: Any) -> Any:
            set_default_executor(caller)
            self.shutdown()
            return super().options(**options)

    set_default_executor(Replaced(0))
    made = task(id="made")(double)
    assert made(2).wait().result == 4
    caller.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        made(2)


@pytest.mark.parametrize("keep", [False, True])
def test_results_live_as_long_as_asked(caller: InProcessExecutor, keep: bool) -> None:
    instance = task(id="made", keep_results=keep)(lambda value: Large())(Large())
    result, value = weakref.ref(instance.result), weakref.ref(instance.inputs["value"])
    caller.shutdown()
    gc.collect()
    assert result() is not None, "the instance keeps it"
    assert get_task_instance(instance.id) is instance
    name = instance.id
    del instance
    gc.collect()
    assert (result() is not None, value() is not None) == (keep, keep)
    found = get_task_instance(name)
    if keep:
        assert found.result is result()
    else:
        assert found.inputs == {"value": "<Large>"}


class Picky(LookupError):
    def __init__(self, place: int, *, note: str = "") -> None:
        super().__init__(f"nothing at {place}")
        self.note = note


class Unlike(Exception):
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


@pytest.mark.parametrize(
    "error",
    [
        Picky(4, note="kept"),
        FileNotFoundError(2, "missing", "scan.tif"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        Unlike("unlike"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failures_in_the_history_keep_no_arguments(
    caller: InProcessExecutor, error: Exception
) -> None:
    def fail(value: Large) -> None:  # noqa: ARG001 - its frame has it
        raise error

    def run() -> tuple[str, weakref.ref[Any]]:
        given = Large()
        instance = task(id="failing")(fail)(given)
        assert instance.error is error, "the instance has the very exception"
        assert error.__traceback__ is not None
        return instance.id, weakref.ref(given)

    name, value = run()
    error.with_traceback(None)
    caller.shutdown()
    gc.collect()
    assert value() is None
    found = get_task_instance(name).error
    assert found is not None
    assert found is not error
    assert found.__traceback__ is None
    assert "raise error" in str(found.__cause__)
    if isinstance(error, Unlike):
        assert type(found) is ExecutionException
        assert (found.exception, found.type_name) == ("unlike", f"{__name__}.Unlike")
    else:
        assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


def test_a_record_of_a_task_that_runs_keeps_it(own_registry: registry.Registry) -> None:
    bare: Task[int] = Task()
    name = own_registry.begin(Record("id", {}, False), bare).id
    assert get_task_instance(name).status is TaskStatus.PENDING
    assert get_task_instance(name).stop() is True
    assert get_task_instance(name).status is TaskStatus.CANCELED


# ---------------------------------------------------------------------------- commands and protocol


def test_only_names_of_inputs_are_replaced_in_a_command() -> None:
    command = ("run", "--lr={lr}", '{"json": {a b}}', "{name}{lr}", "{}", "{0}", "$HOME;{name}")
    assert fields_of(command) == ["lr", "name"]
    inputs = {"lr": 0.1, "name": "a b; {lr}"}
    expected = [
        "run", "--lr=0.1", '{"json": {a b}}', "a b; {lr}0.1", "{}", "{0}", "$HOME;a b; {lr}",
    ]  # fmt: skip
    assert filled(command, inputs) == expected


def test_the_inputs_of_a_command() -> None:
    made: Any = task(command=["train", "{lr}", "{epochs}"], defaults={"lr": 0.1, "note": ""})
    assert (made.id, made.name) == ("train", "train")
    assert made.bind((), {"epochs": 3}) == {"lr": 0.1, "note": "", "epochs": 3}
    with pytest.raises(TypeError, match=r"missing \['epochs'\]"):
        made()
    with pytest.raises(TypeError, match=r"unknown \['rate'\]"):
        made(epochs=1, rate=2)
    with pytest.raises(TypeError, match="go by name"):
        made(1)
    with pytest.raises(TypeError, match=r"no function: write fit = task\(command=\[\.\.\.\]\)"):

        @made
        def fit(lr: float) -> None: ...

    with pytest.raises(TypeError, match="is a command"):
        made.local()


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("an ordinary line", None),
        ("@taskforce", None),
        ('@task {"progress": 0.5}', protocol.Report(0.5)),
        ('@task {"message": 5, "else": 1}', protocol.Report(None, "5")),
        (
            '@task {"output": {"a": [1]}, "status": "canceled"}',
            protocol.Report(None, None, {"a": [1]}, "canceled"),
        ),
    ],
)
def test_lines_of_a_command(line: str, report: protocol.Report | None) -> None:
    assert protocol.parse(line) == report


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("@task {", "JSON"),
        ("@task []", "object"),
        ('@task {"progress": "half"}', "progress"),
        ('@task {"progress": true}', "progress"),
        ('@task {"output": 5}', "output"),
        ('@task {"progress": NaN}', "progress"),
        ('@task {"progress": -Infinity}', "progress"),
        ('@task {"progress": 1' + "0" * 400 + "}", "progress"),
        ("@task " + "[" * 100_000, "JSON"),
    ],
)
def test_wrong_lines_of_a_command(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        protocol.parse(line)


def test_states_are_json_whatever_is_in_them() -> None:
    assert json.loads(protocol.state_line({"result": {1, 2}})) == {"result": "{1, 2}"}


@pytest.mark.parametrize(
    ("text", "stdin", "message"),
    [("{", None, "variable WETLANDS_TASK_INPUTS is no JSON"), ("", "[1]", "stdin must be a JSON")],
)
def test_wrong_inputs_of_a_process(text: str, stdin: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        process.read_inputs({"WETLANDS_TASK_INPUTS": text}, stdin)
    assert process.read_inputs({}, None) == {}
    assert process.read_inputs({"WETLANDS_TASK_INPUTS": "{}"}, '{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("text", ["x", "-1", "987654", "9" * 30])
def test_a_descriptor_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=f"variable WETLANDS_TASK_STATE_FD is '{text}'"):
        process.state_descriptor(None, {"WETLANDS_TASK_STATE_FD": text})
    assert process.state_descriptor(None, {"WETLANDS_TASK_STATE_FD": ""}) is None
    assert process.state_descriptor(2, {"WETLANDS_TASK_STATE_FD": text}) == 2
    with pytest.raises(ValueError, match="--state-fd"):
        process.state_descriptor(987654, {})


@pytest.mark.parametrize("target", ["", "name", ":name", "module:", "json:loads", "missing.py:x"])
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=r"target|no file|no task definition"):
        process.load(target)
