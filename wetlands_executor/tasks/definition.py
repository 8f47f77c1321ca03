"""``TaskDefinition`` and ``@task``: a function, or a command, with a name and a place to run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from typing_extensions import ParamSpec

from wetlands_executor import CallOptions, TaskStatus, WorkerDefinition, get_default_executor
from wetlands_executor.tasks.command import CommandRun, fields_of
from wetlands_executor.tasks.executors import executors
from wetlands_executor.tasks.instance import Record, TaskInstance
from wetlands_executor.tasks.registry import registry

if TYPE_CHECKING:
    from wetlands_executor import Task

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class TaskDefinition(Generic[P, R]):
    """A task that can be run any number of times. Calling it submits, and returns at once.

    Attributes:
        id: by which it is found; unique in this process.
        name: of its tasks, for people.
        func: the function; None of a command.
        command: the words of a command, ``{input}`` within them replaced by an input; None of a
            function.
        env: where it runs: what ``CondaEnvExecutor`` takes; None: the executor says it.
        executor: of this library, or a view of one; None: the default executor.
        options: of its calls: ``timeout``, ``retries``, ... as for ``CondaEnvExecutor.options``.
        defaults: of the inputs of a command.
        keep_results: results are kept as long as the history.
    """

    id: str
    name: str
    func: Callable[P, R] | None = None
    command: Sequence[str] | None = None
    env: Any = None
    executor: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keep_results: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        for key in ("id", "name"):
            value = getattr(self, key)
            if not isinstance(value, str) or not value:
                raise TypeError(f"{key} must be a text that is not empty, not {value!r}")
        if (self.func is None) == (self.command is None):
            raise TypeError(f"the task {self.name!r} needs a function, or a command, and not both")
        if self.func is not None and not callable(self.func):
            raise TypeError(f"the function of the task {self.name!r} is {self.func!r}")
        if self.env is not None and self.executor is not None:
            raise TypeError(
                f"the task {self.name!r} has env and executor: the executor has its environment"
            )
        if self.executor is not None and not callable(getattr(self.executor, "options", None)):
            raise TypeError(
                f"the executor of the task {self.name!r} is {self.executor!r}: give one of this "
                f"library, or a view of one"
            )
        if self.command is not None:
            object.__setattr__(self, "command", _words(self.name, self.command))
        elif self.defaults:
            raise TypeError(
                f"defaults are for commands; {self.name!r} is a function, which has its own"
            )
        object.__setattr__(self, "options", dict(self.options))
        CallOptions(**self.options)  # raises what is wrong with them
        if self.func is not None:
            for key in ("__doc__", "__module__", "__qualname__", "__name__"):
                object.__setattr__(self, key, getattr(self.func, key, None))
            object.__setattr__(self, "__wrapped__", self.func)

    @property
    def source(self) -> str:
        """What is run, as text: two definitions of one source may replace each other."""
        if self.command is not None:
            return f"the command {list(self.command)}"
        module = getattr(self.func, "__module__", "?")
        return f"the function {module}.{getattr(self.func, '__qualname__', self.func)}"

    # --- running

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TaskInstance:
        """Submit it with these inputs; return its instance at once.

        An input that is a TaskInstance, or a Task, is replaced by its result when that is there.

        Raises:
            TypeError: an input is missing, or unknown.
            RuntimeError: the executor was shut down, or an input is an instance of the history
                that has not completed.
        """
        inputs = self.bind(args, kwargs)
        record = Record(self.id, inputs, self.keep_results)
        options = {"name": self.name, **self.options}
        made: Task[Any]
        if self.command is not None:
            run = CommandRun(
                self.id,
                tuple(self.command),
                self.env,
                self.executor,
                options.pop("cancel_grace", None),
            )
            given = {key: _task_of(value) for key, value in inputs.items()}
            made = self._submit(options, run, (), given)
        else:
            assert self.func is not None
            given = {key: _task_of(value) for key, value in kwargs.items()}
            made = self._submit(options, self.func, tuple(map(_task_of, args)), given)
        return registry.begin(record, made)

    def _where(self) -> Any:
        """Return the executor that takes the next call."""
        if self.command is not None:
            return executors.commands()
        if self.executor is not None:
            return self.executor
        return get_default_executor() if self.env is None else executors.of(self.env)

    def _submit(
        self, options: dict[str, Any], run: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Task[Any]:
        where = self._where()
        while True:
            try:
                made: Task[Any] = where.options(**options).submit(run, *args, **kwargs)
            except RuntimeError:
                # Race: another thread may have replaced the executor and shut it down meanwhile.
                before, where = where, self._where()
                if where is before:
                    raise
            else:
                return made

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskInstance:
        """Do the same."""
        return self(*args, **kwargs)

    def map(self, *iterables: Iterable[Any]) -> list[TaskInstance]:
        """Submit it for the items of the iterables, zipped; return the instances."""
        names = fields_of(tuple(self.command)) if self.command is not None else ()
        return [
            self(**dict(zip(names, items, strict=False))) if names else self(*items)  # type: ignore[call-arg]
            for items in zip(*iterables, strict=False)
        ]

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here, as if it were no task.

        Raises:
            TypeError: it is a command.
        """
        if self.func is None:
            raise TypeError(f"the task {self.name!r} is a command, which cannot be called")
        return self.func(*args, **kwargs)

    def list_instances(self) -> list[TaskInstance]:
        """Return its instances that run, and those in the history, oldest first."""
        return registry.instances(self.id)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs by name, defaults included.

        Raises:
            TypeError: one is missing, or unknown.
        """
        if self.command is not None:
            names = fields_of(tuple(self.command))
            if len(args) == 1 and inspect.isfunction(args[0]):
                raise TypeError(
                    f"task(command=...) is the definition {self.name!r} itself and decorates no "
                    f"function: write {args[0].__name__} = task(command=[...])"
                )
            if args:
                raise TypeError(f"the inputs of the command {self.name!r} go by name: {names}")
            given = {**self.defaults, **kwargs}
            wrong = [name for name in given if name not in names and name not in self.defaults]
            missing = [name for name in names if name not in given]
            if wrong or missing:
                said = f"missing {missing}" if missing else f"unknown {wrong}"
                raise TypeError(f"inputs of the command {self.name!r}: {said}; it has {names}")
            return given
        assert self.func is not None
        try:
            signature = inspect.signature(self.func)
        except (TypeError, ValueError):  # a C function says nothing of its arguments
            return {**{str(place): value for place, value in enumerate(args)}, **kwargs}
        filled = "task" in signature.parameters and "task" not in kwargs
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            try:
                # The parameter `task` is filled where the function runs.
                if not filled:
                    raise
                bound = signature.bind(*args, **kwargs, task=None)
            except TypeError:
                raise TypeError(f"{self.name}(): {error}") from None
        given_task = "task" in bound.arguments and bound.arguments["task"] is not None
        bound.apply_defaults()
        found: dict[str, Any] = {}
        for parameter in signature.parameters.values():
            value = bound.arguments.get(parameter.name)
            if parameter.kind is parameter.VAR_KEYWORD:
                found.update(value or {})
            else:
                found[parameter.name] = value
        if filled and not given_task:
            found.pop("task", None)
        return found

    def __reduce__(self) -> Any:
        """Be a plain function with a name in another process."""
        command = None if self.command is None else tuple(self.command)
        return WorkerDefinition, (self.id, self.name, self.func, command)

    def __repr__(self) -> str:
        return f"<TaskDefinition {self.id!r}: {self.source}>"


def _words(name: str, command: Sequence[str]) -> tuple[str, ...]:
    if isinstance(command, str):
        raise TypeError(
            f"the command of the task {name!r} is the text {command!r}: no shell takes part, so "
            f"give the words as a list, {command.split()!r}"
        )
    words = tuple(command)
    if not words or not all(isinstance(word, str) for word in words):
        raise TypeError(
            f"the command of the task {name!r} must be a list of texts, not {command!r}"
        )
    return words


def _task_of(value: Any) -> Any:
    """Return what stands for an input: of an instance its Task."""
    if not isinstance(value, TaskInstance):
        return value
    if value.task is not None:
        return value.task
    if value.status is not TaskStatus.COMPLETED:
        raise RuntimeError(
            f"an input is the task instance {value.id}, which has no result: it is "
            f"{value.status.value}"
        )
    return value.result


@overload
def task(function: Callable[P, R], /) -> TaskDefinition[P, R]: ...


@overload
def task(
    *,
    id: str | None = None,
    name: str | None = None,
    command: Sequence[str],
    env: Any = None,
    executor: Any = None,
    defaults: Mapping[str, Any] | None = None,
    keep_results: bool = False,
    **options: Any,
) -> TaskDefinition[..., None]: ...


@overload
def task(
    *,
    id: str | None = None,
    name: str | None = None,
    env: Any = None,
    executor: Any = None,
    keep_results: bool = False,
    **options: Any,
) -> Callable[[Callable[P, R]], TaskDefinition[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    id: str | None = None,  # noqa: A002 - as the attribute
    name: str | None = None,
    command: Sequence[str] | None = None,
    env: Any = None,
    executor: Any = None,
    defaults: Mapping[str, Any] | None = None,
    keep_results: bool = False,
    **options: Any,
) -> Any:
    """Define a task: ``@task``, ``@task(env="cellpose", timeout=60)``, ``task(command=[...])``.

    Args:
        function: what it runs.
        id: by which it is found; None is ``module:qualname`` of the function, or the name.
        name: for people; None is the function's, or the first word of the command.
        command: the words of a command instead of a function; ``{lr}`` is replaced by the input
            ``lr``.
        env: where it runs: what ``CondaEnvExecutor`` takes. Definitions of one environment share
            one executor.
        executor: which one runs it; None is the default executor, looked up at each call.
        defaults: of the inputs of a command.
        keep_results: keep results as long as the history; else as long as the program holds the
            instance.
        **options: ``timeout``, ``retries``, ``retry_on``, ``priority``, ``cancel_grace``, as for
            ``CondaEnvExecutor.options``.

    Raises:
        TypeError, ValueError: an argument that cannot be meant.
    """

    def define(func: Callable[..., Any] | None) -> TaskDefinition[..., Any]:
        found_name, found_id = name, id
        if func is not None:
            qualname = getattr(func, "__qualname__", type(func).__qualname__)
            found_name = found_name or getattr(func, "__name__", qualname)
            found_id = found_id or f"{getattr(func, '__module__', None) or '__main__'}:{qualname}"
        elif command is not None and not isinstance(command, str) and len(command):
            found_name = found_name or str(command[0])
        found_id = found_id or found_name or "command"
        definition: TaskDefinition[..., Any] = TaskDefinition(
            found_id, found_name or "command", func, command, env, executor, options,
            defaults or {}, keep_results,
        )  # fmt: skip
        registry.register(definition)
        return definition

    if function is not None or command is not None:
        return define(function)
    return define


def register_task(definition: TaskDefinition[Any, Any]) -> TaskDefinition[Any, Any]:
    """Make a definition known by its id; return it. ``@task`` does this by itself.

    Raises:
        ValueError: another function or command has that id. (The same one, defined anew, replaces
            it.)
    """
    registry.register(definition)
    return definition


def get_task_definition(task_id: str) -> TaskDefinition[Any, Any]:
    """Return a definition by its id.

    Raises:
        LookupError: there is none; the message lists those that there are.
    """
    found: TaskDefinition[Any, Any] = registry.definition(task_id)
    return found


def list_task_definitions() -> list[TaskDefinition[Any, Any]]:
    """Return all definitions, in the order in which they were registered."""
    return registry.definitions()


def run_task(
    definition: TaskDefinition[Any, Any],
    inputs: Mapping[str, Any] | None = None,
    block: bool = False,
) -> TaskInstance:
    """Run a definition with inputs by name; return the instance.

    Args:
        definition: what to run.
        inputs: by name.
        block: return when it has ended, however.

    Raises:
        TypeError: an input is missing, or unknown.
    """
    instance = definition(**(inputs or {}))
    return instance.wait() if block else instance
