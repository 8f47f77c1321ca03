"""What travels of the caller's context: context variables by name, and the trace."""

from __future__ import annotations

import contextvars
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.interpreters import Interpreter
from tests.support.rendezvous import DEADLINE
from tests.tasks import context_variables as ours
from wetlands_executor import CondaEnvExecutor, InProcessExecutor

UNKNOWN: contextvars.ContextVar[int] = contextvars.ContextVar("unknown")


@pytest.fixture(params=[CondaEnvExecutor, InProcessExecutor])
def executor(request: pytest.FixtureRequest) -> Any:
    with request.param(max_workers=1) as made:
        yield made


@pytest.mark.parametrize("by_name", [True, False])
def test_variables_travel(executor: Any, by_name: bool) -> None:
    names = [f"{ours.__name__}:REQUEST", f"{ours.__name__}:USER"]
    view = executor.options(context=names if by_name else [ours.REQUEST, ours.USER])

    def call(request: str, user: str | None) -> Any:
        ours.REQUEST.set(request)
        if user is not None:
            ours.USER.set(user)
        return view.submit(ours.look)

    tasks = [contextvars.copy_context().run(call, str(number), "me") for number in range(3)]
    tasks.append(contextvars.copy_context().run(call, "last", None))
    assert [task.result(DEADLINE) for task in tasks] == [
        ("0", "me"), ("1", "me"), ("2", "me"), ("last", None),
    ]  # fmt: skip
    assert executor.submit(ours.look).result(DEADLINE) == ("none", None), "nothing stays"


def test_of_every_kind_of_call(executor: Any) -> None:
    def calls() -> list[Any]:
        ours.REQUEST.set("here")
        view = executor.options(context=[ours.REQUEST])
        return [
            view.submit(ours.look).result(DEADLINE),
            view.submit(lambda: ours.look()).result(DEADLINE),
            view.submit(ours.look_later).result(DEADLINE),
            view.options(name="named").submit(ours.look_with_handle).result(DEADLINE)[::2],
            view.submit(f"{ours.__name__}:look").result(DEADLINE),
            view.submit(ours.change).result(DEADLINE),
            *view.map(ours.look, [False]),
            view.map_tasks(ours.look, [False])[0].result(DEADLINE),
            view.options(start=False).submit(ours.look).start().result(DEADLINE),
            view.options(context=None).submit(ours.look).result(DEADLINE),
        ]

    expected = [("here", None)] * 10
    expected[3], expected[5], expected[9] = ("here", "named"), ("changed", None), ("none", None)
    assert contextvars.copy_context().run(calls) == expected


def test_a_retry_has_the_context_of_its_submission(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    def calls() -> Any:
        ours.REQUEST.set("first")
        view = make(1).options(context=[ours.REQUEST], retries=2, retry_on=KeyError)
        return view.submit(fail_once).result(DEADLINE)

    def fail_once(task: Any = None, seen: list[int] = []) -> Any:  # noqa: B006 - of the worker
        seen.append(1)
        if len(seen) < 2:
            raise KeyError
        return ours.look()

    assert contextvars.copy_context().run(calls) == ("first", None)


def test_in_every_version(anypython: Interpreter) -> None:
    def calls(executor: CondaEnvExecutor) -> Any:
        ours.USER.set("me")
        return executor.options(context=[ours.USER]).submit(ours.look).result(DEADLINE)

    with CondaEnvExecutor(str(anypython.path), 1) as executor:
        assert contextvars.copy_context().run(calls, executor) == ("none", "me")


@pytest.mark.parametrize(
    ("context", "error", "said"),
    [
        ("mod:var", TypeError, "a list"),
        ([3], TypeError, "neither a context variable nor a name"),
        (["var"], ValueError, "module:variable"),
        ([contextvars.ContextVar("local")], ValueError, "in no module"),
    ],
)
def test_what_cannot_travel_is_refused_at_once(
    context: Any, error: type[Exception], said: str
) -> None:
    with InProcessExecutor(0) as executor, pytest.raises(error, match=said):
        executor.options(context=context)


def test_a_variable_that_is_missing_and_a_value_that_cannot_be_sent(executor: Any) -> None:
    view = executor.options(context=[f"{ours.__name__}:MISSING"])
    with pytest.raises(LookupError, match="MISSING cannot be found here"):
        view.submit(ours.look)

    def call() -> None:
        ours.USER.set(lambda: 1)
        executor.options(context=[ours.USER]).submit(ours.look)

    with pytest.raises(TypeError, match="USER.*cannot be sent"):
        contextvars.copy_context().run(call)


# ------------------------------------------------------------------------------------------- traces


def test_a_span_per_task_is_a_child_of_the_callers() -> None:
    """In a program of its own: a process has one tracer provider."""
    pytest.importorskip("opentelemetry.sdk")
    done = subprocess.run(
        [sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "traced\n")


TRACED = """
from opentelemetry import trace
from wetlands_executor import CondaEnvExecutor, InProcessExecutor
from tests.tasks import context_variables as ours

if __name__ == "__main__":
    ours.keep_spans()
    for make in (CondaEnvExecutor, InProcessExecutor):
        apart = make is CondaEnvExecutor
        with make(max_workers=1, initializer=ours.keep_spans if apart else None) as executor:
            view = executor.options(context=["traceparent"])
            with trace.get_tracer("test").start_as_current_span("request") as span:
                view.options(name="look").submit(ours.look).result()
                view.submit(ours.look, True).exception()
                executor.submit(ours.look).result()
            view.options(name="alone").submit(ours.look).result()
            found = executor.submit(ours.spans).result()
        theirs = [each for each in found if each[0] != "request"]
        assert [each[0] for each in theirs] == ["look", ours.__name__ + ".look", "alone"], found
        context = span.get_span_context()
        for name, trace_id, parent, attributes, status in theirs[:2]:
            assert int(trace_id, 16) == context.trace_id
            assert int(parent, 16) == context.span_id
            assert attributes["wetlands_executor.task.id"].isdecimal()
            assert 0 <= attributes["wetlands_executor.queue_time"] < 60
            assert 0 <= attributes["wetlands_executor.run_time"] < 60
        assert [each[4] for each in theirs] == ["UNSET", "ERROR", "UNSET"]
        assert theirs[2][2] == "", "without a caller's span it is the first of its trace"
    print("traced")
"""


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with InProcessExecutor(0) as executor, pytest.raises(ImportError, match=r"\[otel\]"):
        executor.options(context=["traceparent"])


def test_nothing_is_imported_that_was_not_asked_for() -> None:
    program = (
        "import sys\n"
        "from wetlands_executor import CondaEnvExecutor\n"
        "with CondaEnvExecutor(max_workers=1) as executor:\n"
        "    executor.options(name='x').submit(abs, -1).result()\n"
        "    there = executor.submit(eval, 'list(__import__(\"sys\").modules)').result()\n"
        "print([each for each in (*sys.modules, *there) if each.startswith('opentelemetry')])\n"
        "print([each for each in there if each.endswith('.contexts')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n[]\n"


def test_an_environment_without_it_runs_the_task(anypython: Interpreter) -> None:
    pytest.importorskip("opentelemetry")
    with CondaEnvExecutor(str(anypython.path), 1) as executor:
        view = executor.options(context=["traceparent"])
        assert view.submit(ours.look).result(DEADLINE) == ("none", None)
